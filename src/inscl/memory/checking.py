"""Checking a memory byte by byte, and repairing it: keep what is whole, put the rest aside."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from inscl.errors import DamageError
from inscl.memory.cache_table import CacheTable
from inscl.memory.catalogue import Commit, State, fold
from inscl.memory.ledger import Page
from inscl.memory.purging import purge_alone, trim_cache
from inscl.memory.store import Store
from inscl.memory.versions import Versions


@dataclass(frozen=True)
class Verification:
    """What `Memory.verify` found, and what it did about it."""

    tasks: int
    files: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    repaired: tuple[str, ...] = ()


def verify(store: Store) -> Verification:
    """Check catalogue, tasks, caches, log and leftovers; the caller holds the memory with others."""
    problems = []
    try:
        state = store.state()
        versions = [*state.live.values(), *state.old]
    except DamageError as error:
        problems.append(str(error))
        state, versions = None, store.versions.records()
    for commit in versions:
        problems += [f"task '{commit.name}': {name} {how}" for name, how in store.versions.changes(commit).items()]
        problems += _record_damage(store, commit)
    problems += [*_cache_damage(store), *_log_damage(store)]
    if state is not None:
        problems += _unknown(store, state)
    files = sum(len(json.loads(commit.files)) for commit in versions)
    return Verification(len(state.live) if state else 0, files, tuple(problems), tuple(_notes(store, state)))


def repair(store: Store) -> Verification:
    """Keep what is whole, put the rest aside, and leave a memory that works; the caller holds the memory alone."""
    done = []
    try:
        store.state()
    except DamageError:
        done.append(_catalogue_again(store))
    if not store.place.local:
        store.catalogue.fence()
    state = store.state()
    kept = State(version=state.version, dead=state.dead)
    for commit in (*state.old, *state.live.values()):
        whole, what = _mended(store, commit)
        done += what
        if whole is not None:
            kept = _with(kept, whole, current=commit.name in state.live and state.live[commit.name] == commit)
    done += _mend_caches(store)
    done += _mend_log(store)
    purge_alone(store, kept)
    return replace(verify(store), repaired=tuple(done))


# ---------------------------------------------------------------- what is wrong


def _record_damage(store: Store, commit: Commit) -> list[str]:
    name = f"records/{commit.id}.json"
    there = store.place.has(name)
    return [f"task '{commit.name}': {name} changed"] if there and store.versions.recorded(name) is None else []


def _cache_damage(store: Store) -> list[str]:
    caches = [f"cache/{name}" for name in store.place.listing("cache")]
    found = {cache: CacheTable(cache, f"{store.place.uri}/{cache}", store.place.storage).damage() for cache in caches}
    return [f"{cache} {what}" for cache, what in found.items() if what]


def _log_damage(store: Store) -> list[str]:
    try:
        store.stages.read()
    except DamageError as error:
        return [str(error)]
    return []


def _unknown(store: Store, state: State) -> Iterator[str]:
    unknown = store.versions.unknown(state)
    if unknown:
        unknown -= store.state().named  # committed in the meantime
    for identifier in sorted(unknown):
        yield f"tasks/{identifier} is named by no row of the catalogue"


def _notes(store: Store, state: State | None) -> Iterator[str]:
    if state is not None:
        left = len(store.versions.all() - state.named - store.versions.unknown(state))
        if left or state.dead or store.purging:
            yield f"{left} folder(s) of unfinished or removed tasks wait to be deleted"
    for name, task in store.versions.aside().items():
        what = f" (task '{task}')" if task else ""
        yield f"aside/{name}{what} is read by nobody; delete it when you miss nothing"


# ---------------------------------------------------------------- mending it


def _catalogue_again(store: Store) -> str:
    """Make a damaged catalogue again: from its rows that are whole, its head, and the versions' own records."""
    rows = [row for row in store.catalogue.rest()[0] if Commit.of(row).row() == row]
    state = fold(Page(rows, 1, 0))
    recorded = {commit.id: commit for commit in store.versions.records()}
    known = recorded | {commit.id: commit for commit in (*state.live.values(), *state.old, *state.dead) if commit.id}
    with suppress(DamageError):
        if (head := store.catalogue.head()) is not None:
            summary = head["summary"]
            live = {known[identifier].name: known[identifier] for identifier in summary["live"] if identifier in known}
            old = tuple(known[identifier] for identifier in summary["old"] if identifier in known)
            state = replace(state, live=live, old=old)
    dead = {commit.id for commit in state.dead}
    for identifier in sorted(recorded.keys() - state.named - dead, key=lambda i: recorded[i].name):
        commit = recorded[identifier]
        if commit.name in state.live:
            store.versions.put_aside(identifier)
        else:
            state = _with(state, commit, current=True)
    store.catalogue.restart([commit.row() for commit in state.condensed()], f"aside/catalogue-{uuid4().hex}.lance")
    return f"the catalogue was made again from what is whole: {len(state.live)} task(s)"


def _with(state: State, commit: Commit, *, current: bool) -> State:
    if current:
        return replace(state, live={**state.live, commit.name: commit})
    return replace(state, old=(*state.old, commit))


def _mended(store: Store, commit: Commit) -> tuple[Commit | None, list[str]]:
    """A version without what is damaged in it, or None if its rows are; and what was done."""
    changes = store.versions.changes(commit)
    lost = [name for name, how in changes.items() if Versions.is_read(name) and how != "is not its own"]
    if lost:
        store.versions.put_aside(commit.id)
        return None, [f"task '{commit.name}' was put aside as aside/{commit.id}: {lost[0]} {changes[lost[0]]}"]
    for name in changes:
        store.place.move(f"tasks/{commit.id}/{name}", f"aside/{commit.id}-files/{name}")
    files = {name: digest for name, digest in json.loads(commit.files).items() if name not in changes}
    return replace(commit, files=json.dumps(files, sort_keys=True)), [
        f"task '{commit.name}' does without {name}, which {how}" for name, how in changes.items()
    ]


def _mend_caches(store: Store) -> list[str]:
    damaged = [what.split(" ")[0] for what in _cache_damage(store)]
    for cache in damaged:
        trim_cache(store, cache, None)
    return [f"{cache}: damaged rows were dropped, and are computed again when needed" for cache in damaged]


def _mend_log(store: Store) -> list[str]:
    if not _log_damage(store):
        return []
    kept, there = store.stages.salvage(f"aside/stages-{uuid4().hex}.lance")
    return [f"the log of stages was made again from what is whole: {kept} of {there} stage(s)"]
