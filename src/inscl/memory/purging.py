"""Deleting what the catalogue says is dead, by whoever next holds the memory alone."""

from contextlib import suppress

from inscl.errors import DamageError, MemoryStateError
from inscl.files import PARTIAL
from inscl.llm.replies import forget_replies
from inscl.memory.cache_table import CacheTable
from inscl.memory.catalogue import State
from inscl.memory.embedding_cache import CachedEncoder
from inscl.memory.input_index import InputIndex
from inscl.memory.kept_distances import KeptDistances
from inscl.memory.store import Store
from inscl.memory.task import TaskInfo
from inscl.tags.clean import clean_tags

_LONG_LOG = 32  # commits after which the catalogue is rewritten in one piece


def purge(store: Store, *, wait: bool) -> None:
    """Delete dead and unfinished versions and what only they needed, if nobody else works on the memory."""
    state = store.state()
    if not state.dead and state.commits < _LONG_LOG and store.versions.tidy(state) and not store.purging:
        return
    with store.lock().exclusive(wait=wait, notice=store.notice) as alone:
        if alone:
            if not store.place.local:  # a lease can go stale while its holder sleeps; `flock` cannot
                store.catalogue.fence()
            purge_alone(store, store.state())


def purge_alone(store: Store, state: State) -> None:
    """Make a memory what `state` says; the caller holds it alone."""
    store.place.write("purging")
    store.versions.clear(state, store.notice)
    for commit in (*state.live.values(), *state.old):
        if store.versions.recorded(f"records/{commit.id}.json") is None:  # from an earlier release, or damaged
            store.versions.record(commit)
    if state.dead:
        _forget(store, state)
    for name in store.place.listing("cache"):
        with suppress(MemoryStateError):  # a full disk or damage costs speed; `verify` tells
            CacheTable("the cache", f"{store.place.uri}/cache/{name}", store.place.storage).tidy()
    store.stages.tidy()
    # Last: until here the dead rows say that there is something to delete.
    store.catalogue.rewrite([commit.row() for commit in state.condensed()], state.version)
    for name in store.place.listing():
        if name.endswith(PARTIAL):
            store.place.delete(name)
    store.place.delete("purging")


def trim_cache(store: Store, name: str, used: set[bytes] | None) -> None:
    """Keep a cache's rows of some texts and tasks (None: all) that are whole; if it cannot be read, none."""
    try:
        CacheTable("the cache", f"{store.place.uri}/{name}", store.place.storage).keep_only(used)
    except DamageError:
        store.place.delete(name)


def _forget(store: Store, state: State) -> None:
    """Take what only removed tasks used out of the caches, the replies, the log of stages and what was put aside."""
    used: set[bytes] = set()
    for commit in (*state.live.values(), *state.old):
        instructions = store.task(commit).instructions
        used.update(CachedEncoder.key(text) for text in instructions.texts)
        used.update(CachedEncoder.key(tag) for tags in instructions.tags for tag in clean_tags(tags))
        used.update((KeptDistances.key(TaskInfo.from_json(commit.info)), InputIndex.key(commit.id)))
    for name in store.place.listing("cache"):
        trim_cache(store, f"cache/{name}", used)
    live = {key.hex() for commit in state.live.values() for key in store.task(commit).instructions.keys}
    for path in sorted(store.asked.glob("*.jsonl")):
        forget_replies(path, live)
    removed = {commit.name for commit in state.dead if commit.op == "remove"} - state.live.keys()
    store.stages.forget(removed)
    if left := store.versions.forget_aside(removed):
        store.notice(f"aside/ holds {left} thing(s) of unknown tasks, maybe of a removed one; delete them yourself")
