"""Making new versions of tasks: added or replaced rows, appended rows, other tags; each in one commit."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from inscl.data.example import Example, Split
from inscl.data.readers import Block, ReadReport, read_examples
from inscl.memory.catalogue import Commit
from inscl.memory.store import Store
from inscl.memory.task import FEW_TEST_ROWS, OWN_TAGS, TagsBy, Task, TaskInfo
from inscl.memory.task_tables import Recipe, write_tags, write_task
from inscl.tags.clean import clean_tags

_Reading = Callable[[ReadReport], Iterable[Example | Block]]  # reads a task's rows, once more at each call


@dataclass(frozen=True)
class Added:
    """What `Memory.add` did."""

    status: str  # "added", "replaced", "appended" or "unchanged"
    info: TaskInfo
    report: ReadReport
    shared_inputs: int  # inputs that other remembered tasks have too
    shared_across: int  # of these, inputs that stand on another side there
    warnings: tuple[str, ...]


def add(
    store: Store, name: str, read: _Reading, recipe: Recipe, *, append: bool, keep_old: bool, general: bool = False
) -> Added:
    """Give a task other rows, or more; the caller holds the memory with others.

    Parameters
    ----------
    store : Store
    name : str
    read : callable
    recipe : Recipe
    append : bool
        Keep the rows that are there. If another command changes the task at the same time, this starts again.
    keep_old : bool
        Keep the replaced version.
    general : bool
        Mark it general; a task that is general stays so when rows are appended.
    """
    while True:
        state, report = store.state(), ReadReport()
        before = state.live.get(name)
        base = before if append else None
        task, identifier = _write(store, name, read(report), _remembering(store, recipe, before, append), base)
        marked = general or (base is not None and TaskInfo.from_json(base.info).general)
        task = replace(task, info=replace(_told(task.info, report, before, base), general=marked))
        others = {commit.id: store.task(commit) for other, commit in state.live.items() if other != name}
        shared, across = store.inputs.shared(task, others)
        done = partial(Added, info=task.info, report=report, shared_inputs=shared, shared_across=across,
                       warnings=_warnings(task.info, shared, across))  # fmt: skip
        if before and _same(task.info, TaskInfo.from_json(before.info)):
            store.versions.discard(identifier)
            return done("unchanged")
        _encode_tags(store, task)
        store.commit(_commit(store, task, identifier, base, keep_old), since=state)
        if base is None or identifier in store.state().named:
            store.inputs.add(identifier, task)
            return done("appended" if base else "replaced" if before else "added")
        store.notice(f"task '{name}' was changed by another command at the same time; appending again")


def retag(store: Store, tagged: Mapping[bytes, TagsBy], tagger: str, names: Sequence[str]) -> list[TaskInfo]:
    """Give tasks' instructions other tags (see `Memory.retag`); the caller holds the memory with others."""
    state = store.state()
    versions = [_retagged(store, state.live[name], tagged, tagger) for name in names if name in state.live]
    commits = [commit for commit in versions if commit is not None]
    if not commits:
        return []
    store.commit(*commits, since=state)
    named = store.state().named
    late = [commit.name for commit in commits if commit.id not in named]  # changed by another command: once more
    infos = [TaskInfo.from_json(commit.info) for commit in commits if commit.id in named]
    return infos + (retag(store, tagged, tagger, late) if late else [])


def read_sides(
    data: Any, dev: Any, test: Any, report: ReadReport, options: Mapping[str, Any]
) -> Iterable[Example | Block]:
    """Rows of the data and of the held-out sets that the user supplied beside them."""

    def part(source: Any, side: Split | None) -> Iterator[Example | Block]:
        return read_examples(source, report=report, split=side, **options).in_blocks()

    sides: list[tuple[Any, Split | None]] = [(data, None), (dev, "dev"), (test, "test")]
    return chain.from_iterable(part(source, side) for source, side in sides if source is not None)


def _write(
    store: Store, name: str, examples: Iterable[Example | Block], recipe: Recipe, base: Commit | None
) -> tuple[Task, str]:
    extended = store.task(base) if base else None
    identifier = store.versions.begin()
    try:
        return write_task(name, examples, store.versions.uri(identifier), recipe, extended), identifier
    except Exception:
        store.versions.discard(identifier)
        raise


def _told(info: TaskInfo, report: ReadReport, before: Commit | None, base: Commit | None) -> TaskInfo:
    """What is known of a task, with what reading its rows left out and who retagged the version before."""
    return replace(
        info,
        dropped={why: dropped.count for why, dropped in report.dropped.items()},
        ignored=dict(Counter(TaskInfo.from_json(base.info).ignored if base else {}) + Counter(report.ignored)),
        retagged=TaskInfo.from_json(before.info).retagged if before else "",
    )


def _commit(store: Store, task: Task, identifier: str, base: Commit | None, keep_old: bool) -> Commit:
    return Commit(
        op="append" if base else "add",
        name=task.info.name,
        id=identifier,
        base=base.id if base else "",
        keep_old=keep_old,
        info=task.info.to_json(),
        files=store.versions.checksums(identifier),
    )


def _encode_tags(store: Store, task: Task) -> None:
    """Encode instructions' tags: every plan needs their embeddings, and encoded here, it needs no model."""
    store.encode.prepare(clean_tags(task.distinct_tags()))


def _retagged(store: Store, before: Commit, tagged: Mapping[bytes, TagsBy], tagger: str) -> Commit | None:
    """The version of a task with other tags; None if they are the same."""
    identifier = store.versions.begin()
    task = write_tags(store.task(before), tagged, tagger, store.versions.uri(identifier))
    if task is None:
        store.versions.discard(identifier)
        return None
    _encode_tags(store, task)
    store.versions.copy_examples(before.id, identifier)
    files = store.versions.checksums(identifier)
    return Commit("retag", before.name, identifier, before.id, info=task.info.to_json(), files=files)


def _remembering(store: Store, recipe: Recipe, before: Commit | None, append: bool) -> Recipe:
    """A recipe that keeps an instruction's tags when a task gets other rows: what `retag` made is not lost."""
    if before is None or not (append or TaskInfo.from_json(before.info).retagged):
        return recipe
    task = store.task(before)
    known = dict(zip(task.instructions.keys, task.tagged(), strict=True))
    kept = known if append else {key: tags for key, tags in known.items() if tags[1] != OWN_TAGS}
    return replace(recipe, known_tags=kept)


def _same(new: TaskInfo, before: TaskInfo) -> bool:
    """Whether a task has the same content; how many duplicates or dropped records there were does not count."""
    parts = ("content", "tags", "embeddings", "encoder", "general")
    return all(getattr(new, part) == getattr(before, part) for part in parts)


def _warnings(info: TaskInfo, shared: int, across: int) -> tuple[str, ...]:
    said = []
    if info.rows["test"] == 0:
        said.append("no test rows: this task cannot be scored (fewer than three distinct inputs, or none asked for)")
    elif info.rows["test"] < FEW_TEST_ROWS:
        said.append(f"only {info.rows['test']} test rows: a score from fewer than {FEW_TEST_ROWS} says little")
    if info.rows["train"] == 0:
        said.append("no training rows: nothing of this task can be replayed")
    if info.moved:
        said.append(f"{len(info.moved)} input(s) moved to a side of the split that was empty")
    if info.both_sides:
        said.append(f"{info.both_sides} input(s) stand on two sides of the split that the data asked for")
    if shared:
        other = f", {across} of them on another side there" if across else ""
        said.append(f"{shared} input(s) also stand in remembered tasks{other}")
    if info.cut:
        said.append(f"{info.cut} of {info.instructions} instructions are longer than the encoder reads")
    return tuple(said)
