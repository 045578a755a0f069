"""The memory: tasks that persist, as Lance tables in one folder or under an object-store prefix.

Every version of a task lies in a folder of its own that is never changed once written. One row appended to the
catalogue makes it part of the memory; nothing that the catalogue does not name is visible. A crash therefore leaves
the old memory or the new one. What no row names any more is deleted by whoever next holds the memory alone.

    catalogue.lance          one row per commit, in order; the fold of its rows is the memory
    tasks/<random id>/       instructions.lance and examples.lance of one version of one task
    cache/                   embeddings by text hash (see `inscl.memory.embedding_cache`); can be rebuilt
    asked/                   a tagger's replies until its tags are committed (see `inscl.llm.client`)
    stages.lance             what was replayed at each finished stage
    catalogue.head           how far the catalogue has come, as stages.head for the log (see `inscl.memory.ledger`)
    writing/<id>             stands here while a version is being written: what no row names may be deleted
    aside/<id>               versions that no row names and nobody was writing: kept, since it is unknown why
    purging                  stands here while bytes are being deleted; left behind, the next writer finishes it
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from inscl.data.example import Example, Split, key_of
from inscl.data.readers import ReadReport, read_examples
from inscl.data.split import Shares
from inscl.errors import MemoryStateError
from inscl.llm.replies import forget_replies
from inscl.memory.catalogue import CATALOGUE, Commit, State, fold
from inscl.memory.embedding_cache import CachedEncoder, damage_of, keep_only, text_key
from inscl.memory.encoder import Encoder, SentenceEncoder
from inscl.memory.ledger import Ledger, Page
from inscl.memory.locks import FileLock, LeaseLock, Lock
from inscl.memory.place import Place
from inscl.memory.task import FEW_TEST_ROWS, OWN_TAGS, TagsBy, Task, TaskInfo, check_name
from inscl.memory.task_tables import Recipe, write_tags, write_task
from inscl.memory.trouble import REPAIR, first_line
from inscl.models.loading import cache_folder
from inscl.suggest import suggest
from inscl.tags.clean import clean_tags

if TYPE_CHECKING:
    from inscl.tags import Tagger

# What a memory's folder holds: with anything else in it, it is not taken for a new one.
OWN_FILES = re.compile(
    r"asked|cache|tasks|locks|writing|aside|lock|lock\.turn|purging|(catalogue|stages)\.(lance|head(\..*\.partial)?)"
)
STAGES = pa.schema([("record", pa.string())])  # a finished stage as JSON
LONG_LOG = 64  # commits after which the catalogue is rewritten in one piece


@dataclass(frozen=True)
class Added:
    """What `Memory.add` did."""

    status: str  # "added", "replaced", "appended" or "unchanged"
    info: TaskInfo
    report: ReadReport
    shared_inputs: int  # inputs that other remembered tasks have too
    shared_across: int  # of these, inputs that stand on another side there
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What `Memory.verify` found."""

    tasks: int
    files: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


class Memory:
    """The tasks a model has been trained on.

    Parameters
    ----------
    path : str or Path
        Local folder or object-store URI (``s3://bucket/prefix``; credentials come from the environment). It is
        created by the first `add`.
    encoder : Encoder, optional
        Default: all-MiniLM-L6-v2 through sentence-transformers.
    tagger : Tagger, optional
        Default: the offline keyphrase tagger.
    storage_options : dict, optional
        Lance's options for an object store.
    compression : str, optional
        Lance's compression for texts; "none" keeps them readable in the files' bytes.
    notice : callable, optional
        Told in a sentence when something takes long for a reason (waiting for a lock).
    track : callable, optional
        Wraps the steps of a long encoding to show progress.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> def letters(texts):  # any callable from n texts to (n, d) numbers is an encoder
    ...     return np.array([[1 + text.count(c) for c in "aeiou"] for text in texts])
    >>> folder = tempfile.TemporaryDirectory()
    >>> memory = Memory(folder.name, encoder=letters)
    >>> rows = [{"instruction": "Add.", "input": f"{i} + 1", "output": str(i + 1)} for i in range(100)]
    >>> memory.add("sums", rows).info.rows["train"] > 50
    True
    >>> [task.name for task in memory.tasks()]
    ['sums']
    """

    def __init__(
        self,
        path: str | Path = "memory",
        *,
        encoder: Encoder | None = None,
        tagger: "Tagger | None" = None,
        storage_options: dict[str, str] | None = None,
        compression: str | None = None,
        notice: Callable[[str], None] = lambda message: None,
        track: Callable[[Sequence[int]], Any] = lambda steps: steps,
    ) -> None:
        self.path = str(path)
        self.tagger = tagger or _default_tagger()
        self._storage, self._compression, self._notice = storage_options, compression, notice
        self._place = Place.of(self.path, storage_options)
        self._uri = self._place.uri
        self._catalogue = Ledger(self._place, "catalogue", CATALOGUE)
        self._log = Ledger(self._place, "stages", STAGES)
        encoder = encoder or SentenceEncoder()
        # Two functions may have one name: what has no identity of its own is remembered in this process alone.
        cache = f"{self._uri}/cache" if hasattr(encoder, "identity") else None
        self.encode = CachedEncoder(encoder, cache, storage=storage_options, track=track)
        self._open_tasks: dict[str, Task] = {}
        self._state: State | None = None

    # ---------------------------------------------------------------- reading

    def __contains__(self, name: str) -> bool:
        return name in self.state().live

    def tasks(self) -> list[TaskInfo]:
        """Remembered tasks, in the order in which they were first added."""
        return [TaskInfo.from_json(commit.info) for commit in self.state().live.values()]

    def existing(self) -> "Memory":
        """This memory, if there is one.

        Raises
        ------
        MemoryStateError
            If nothing has ever been added at its path.
        """
        if self._read() is None:
            raise MemoryStateError(
                f"There is no memory at '{self.path}'. Add a task with `inscl add NAME DATA`, or name another place "
                "with --memory."
            )
        return self

    def task(self, name: str, version: str | None = None) -> Task:
        """A remembered task.

        Parameters
        ----------
        name : str
        version : str, optional
            Beginning of the content hash of a version kept with ``keep_old``; None is the current one.

        Raises
        ------
        MemoryStateError
            If there is no such task or version; a near miss is named.
        """
        state = self.state()
        if name not in state.live:
            raise MemoryStateError(self._unknown(name, state))
        if version is None:
            return self._task(state.live[name])
        for commit in (state.live[name], *(old for old in state.old if old.name == name)):
            if TaskInfo.from_json(commit.info).content.startswith(version):
                return self._task(commit)
        raise MemoryStateError(f"Task '{name}' has no version '{version}'. `inscl show NAME --versions` lists them.")

    def open(self, names: Sequence[str] | None = None) -> list[Task]:
        """Several remembered tasks as of one moment; None opens all, in the order of the memory."""
        state = self.state()
        for name in names or ():
            if name not in state.live:
                raise MemoryStateError(self._unknown(name, state))
        return [self._task(state.live[name]) for name in (state.live if names is None else names)]

    def versions(self, name: str) -> list[TaskInfo]:
        """Kept versions of a task, the oldest first; the last one is current."""
        self.task(name)
        state = self.state()
        kept = [commit for commit in (*state.old, state.live[name]) if commit.name == name]
        return [TaskInfo.from_json(commit.info) for commit in kept]

    def state(self) -> State:
        """The memory as of now: the fold of the catalogue."""
        page = self._read()
        if page is None:
            return State()
        if self._state is None or self._state.version != page.version:
            self._state = fold(page)
        return self._state

    def reading(self) -> Any:
        """Context in which nothing is deleted under the reader's feet."""
        return nullcontext() if self._read() is None else self._lock().shared()

    def stages(self) -> list[dict[str, Any]]:
        """What was replayed at each finished stage, oldest first."""
        page = self._log.read()
        return [] if page is None else [json.loads(row["record"]) for row in page.rows]

    # ---------------------------------------------------------------- writing

    def add(
        self,
        name: str,
        data: Any,
        *,
        append: bool = False,
        keep_old: bool = False,
        format: str | None = None,
        instruction_field: str | None = None,
        skip_bad: bool = False,
        tags: Mapping[bytes, Sequence[str]] | None = None,
        dev: Any = None,
        test: Any = None,
        shares: Shares = Shares(),
    ) -> Added:
        """Remember a task, in one commit.

        Parameters
        ----------
        name : str
            1-200 printable characters; never used as a path.
        data : path, list of paths, `datasets.Dataset`, Hub id, or iterable of mappings or `Example`
        append : bool
            Add rows to the task; without it, other content under the same name replaces the task.
        keep_old : bool
            Keep the replaced version (see `versions`) instead of deleting it.
        format, instruction_field, skip_bad
            See `inscl.data.readers.read_examples`.
        tags : mapping, optional
            Tags by instruction key (see `inscl.tags.read_tags`).
        dev, test : like `data`, optional
            Held-out rows that replace the hashed side.
        shares : Shares
            Shares of the hashed held-out sides.

        Raises
        ------
        DataError
            If the data cannot be used; the memory is then unchanged.
        """
        check_name(name)
        self._create()
        if append and isinstance(data, Iterator):
            data = list(data)  # read again if another command extends the task at the same time
        recipe = Recipe(
            encode=self.encode,
            encoder=self.encode.identity,
            tagger=self.tagger,
            own_tags=tags or {},
            shares=shares,
            storage=self._storage,
            compression=self._compression,
        )

        def read(report: ReadReport) -> Iterable[Any]:
            options = {"format": format, "instruction_field": instruction_field, "skip_bad": skip_bad}
            return read_sides(data, dev, test, report, options)

        with self._lock().shared():
            done = self._add(name, read, recipe, append=append, keep_old=keep_old)
        self._purge(wait=False)
        return done

    def remove(self, name: str) -> None:
        """Forget a task: hide it in one commit, then delete every byte that only it needed.

        Deleting waits until running commands have let go of the memory. A removal that was killed is finished by
        calling it again, or by the next command that writes.
        """
        self.existing()
        with self._lock().shared():
            state = self.state()
            if name in state.live:
                self._commit(Commit("remove", name), since=state)
            elif not self._purging() and all(commit.name != name for commit in state.dead):
                raise MemoryStateError(self._unknown(name, state))
        self._open_tasks.clear()
        self._purge(wait=True)

    def retag(self, tagged: Mapping[bytes, TagsBy], tagger: str, names: Sequence[str] | None = None) -> list[TaskInfo]:
        """Give instructions other tags: in one commit, until which the old ones stand.

        Parameters
        ----------
        tagged : mapping
            Tags and who made them, by instruction key; other instructions keep theirs, and so do those whose tags the
            user brought.
        tagger : str
            Identity of the tagger that was asked; its tags outlive a replacement of the task's rows.
        names : sequence of str, optional
            Tasks to change; None changes all.

        Returns
        -------
        list of TaskInfo
            The tasks that changed.
        """
        self.existing()
        with self._lock().shared():
            changed = self._retag(tagged, tagger, [task.info.name for task in self.open(names)])
        self._purge(wait=False)
        return changed

    def _retag(self, tagged: Mapping[bytes, TagsBy], tagger: str, names: Sequence[str]) -> list[TaskInfo]:
        state = self.state()
        commits: list[Commit] = []
        for name in names:
            if name not in state.live:
                continue  # removed by another command in the meantime
            before, identifier = state.live[name], uuid4().hex
            self._place.write(f"writing/{identifier}")
            task = write_tags(self._task(before), tagged, tagger, f"{self._uri}/tasks/{identifier}")
            if task is None:
                self._place.delete(f"writing/{identifier}")
                continue
            self.encode(sorted({tag for tags, _ in task.tagged() for tag in clean_tags(tags)}))
            self._place.copy_folder(f"tasks/{before.id}/examples.lance", f"tasks/{identifier}/examples.lance")
            files = json.dumps(self._place.checksums(f"tasks/{identifier}"), sort_keys=True)
            commits.append(Commit("retag", name, identifier, before.id, info=task.info.to_json(), files=files))
        if not commits:
            return []
        self._commit(*commits, since=state)
        named = self.state().named
        late = [commit.name for commit in commits if commit.id not in named]  # changed by another command: once more
        infos = [TaskInfo.from_json(commit.info) for commit in commits if commit.id in named]
        return infos + (self._retag(tagged, tagger, late) if late else [])

    def log_stage(self, record: Mapping[str, Any]) -> None:
        """Log a finished stage: a JSON object with the `name` of its task and `tasks`, what was replayed."""
        with self._lock().shared():
            page = self._log.read()
            self._log.append([_logged(record)], page.version if page else 0)

    # ---------------------------------------------------------------- checking

    def verify(self) -> Verification:
        """Recompute every checksum and look for what should not be there; nothing is changed."""
        self.existing()
        problems: list[str] = []
        files = 0
        with self._lock().shared():
            state = self.state()
            for commit in (*state.live.values(), *state.old):
                expected = json.loads(commit.files)
                found = self._place.checksums(f"tasks/{commit.id}")
                files += len(expected)
                for path in sorted(expected.keys() | found.keys()):
                    if expected.get(path) != found.get(path):
                        what = (
                            "is missing"
                            if path not in found
                            else "is not its own"
                            if path not in expected
                            else "changed"
                        )
                        problems.append(f"task '{commit.name}': {path} {what}")
            try:
                self._log.read()
            except MemoryStateError as error:
                problems.append(str(error))
            caches = [f"cache/{info.base_name}" for info in self._place.listing("cache")]
            damage = {cache: damage_of(f"{self._uri}/{cache}", self._storage) for cache in caches}
            problems += [f"{cache} {what}" for cache, what in damage.items() if what]
            if unknown := self._unknown_folders(state) - self.state().named:
                problems += [
                    f"tasks/{identifier} is named by no row of the catalogue" for identifier in sorted(unknown)
                ]
            notes = self._leftovers(state)
        return Verification(len(state.live), files, tuple(problems), tuple(notes))

    def _leftovers(self, state: State) -> list[str]:
        notes = []
        left = len(self._folders() - state.named - self._unknown_folders(state))
        if left or state.dead or self._purging():
            notes.append(f"{left} folder(s) of unfinished or removed tasks wait to be deleted")
        if aside := sorted(info.base_name for info in self._place.listing("aside")):
            notes.append(
                f"{len(aside)} folder(s) that no row of the catalogue named lie under aside/ ({', '.join(aside[:3])}); "
                "nothing reads them. Delete them when you miss nothing."
            )
        return notes

    # ---------------------------------------------------------------- inside

    def _add(
        self, name: str, read: Callable[[ReadReport], Iterable[Any]], recipe: Recipe, *, append: bool, keep_old: bool
    ) -> Added:
        while True:
            state, report, identifier = self.state(), ReadReport(), uuid4().hex
            before = state.live.get(name)
            base = self._task(before) if append and before else None
            recipe = replace(recipe, known_tags=self._known_tags(before, append=append))
            self._place.write(f"writing/{identifier}")
            try:
                task = write_task(name, read(report), f"{self._uri}/tasks/{identifier}", recipe, base)
            except Exception:
                self._discard(identifier)
                raise
            dropped = {why: d.count for why, d in report.dropped.items()}
            retagged = TaskInfo.from_json(before.info).retagged if before else ""
            task = replace(task, info=replace(task.info, dropped=dropped, retagged=retagged))
            shared, across = self._shared_inputs(task, state)
            warnings = _warnings(task, shared, across)
            if before and _same(task.info, TaskInfo.from_json(before.info)):
                self._discard(identifier)
                return Added("unchanged", task.info, report, shared, across, warnings)
            # The tags' embeddings are needed by every plan; encoded here, a plan needs no model.
            self.encode(sorted({tag for tags in task.instructions.tags for tag in clean_tags(tags)}))
            self._commit(
                Commit(
                    op="append" if base else "add",
                    name=name,
                    id=identifier,
                    base=before.id if base and before else "",
                    keep_old=keep_old,
                    info=task.info.to_json(),
                    files=json.dumps(self._place.checksums(f"tasks/{identifier}"), sort_keys=True),
                ),
                since=state,
            )
            if base is None or identifier in self.state().named:
                status = "appended" if base else "replaced" if before else "added"
                return Added(status, task.info, report, shared, across, warnings)
            self._notice(f"task '{name}' was changed by another command at the same time; appending again")

    def _known_tags(self, before: Commit | None, *, append: bool) -> dict[bytes, TagsBy]:
        """Tags that instructions keep when a task gets other rows: what `retag` made is not lost by adding again."""
        if before is None or not (append or TaskInfo.from_json(before.info).retagged):
            return {}
        task = self._task(before)
        known = dict(zip(task.instructions.keys, task.tagged(), strict=True))
        return known if append else {key: tags for key, tags in known.items() if tags[1] != OWN_TAGS}

    def _shared_inputs(self, task: Task, state: State) -> tuple[int, int]:
        """Distinct inputs that other tasks have too, and those of them that stand on another side there."""
        mine = task.inputs
        shared: set[int] = set()
        across: set[int] = set()
        for name, commit in state.live.items():
            if name == task.info.name:
                continue
            other = self._task(commit).inputs
            place = pc.index_in(other["input_key"], mine["input_key"].combine_chunks())
            here = place.is_valid()
            if not pc.any(here).as_py():
                continue
            places = place.filter(here)
            differs = pc.not_equal(other["split"].filter(here), mine["split"].take(places))
            shared.update(places.to_pylist())
            across.update(places.filter(differs).to_pylist())
        return len(shared), len(across)

    def _purge(self, *, wait: bool) -> None:
        """Delete what the catalogue says is dead, if nobody else works on the memory."""
        state = self.state()
        untidy = state.dead or state.commits >= LONG_LOG or self._folders() != state.named or self._purging()
        if not untidy:
            return
        with self._lock().exclusive(wait=wait, notice=self._notice) as alone:
            if not alone:
                return
            self._place.write("purging")
            if not self._place.local:  # a lease can go stale while its holder sleeps; `flock` cannot
                self._catalogue.fence()
            state = self.state()
            self._clear_tasks(state)
            if state.dead:
                self._forget(state)
            # Last: until here the dead rows say that there is something to delete.
            self._catalogue.rewrite([commit.row() for commit in state.condensed()], state.version)
            self._place.delete("purging")

    def _clear_tasks(self, state: State) -> None:
        """Delete versions that are known to be dead or unfinished; put aside what is there for an unknown reason."""
        unknown = self._unknown_folders(state)
        for identifier in self._folders() - state.named - unknown:
            self._place.delete_folder(f"tasks/{identifier}")
        for identifier in unknown:
            self._notice(
                f"tasks/{identifier} is named by no row of the catalogue; it was put aside, see `inscl verify`"
            )
            self._place.move_folder(f"tasks/{identifier}", f"aside/{identifier}")
        for info in self._place.listing("writing"):
            self._place.delete(f"writing/{info.base_name}")

    def _unknown_folders(self, state: State) -> set[str]:
        """Versions that are neither part of the memory, nor known to be dead or unfinished."""
        folders = self._folders()  # before the marks: a version is marked from before it is there until it is committed
        unfinished = {info.base_name for info in self._place.listing("writing")}
        return folders - unfinished - state.named - {commit.id for commit in state.dead}

    @property
    def asked(self) -> Path:
        """Local folder for a tagger's replies; for a memory on an object store, in the user's cache."""
        if self._place.local:
            return Path(self._place.root) / "asked"
        return cache_folder() / "asked" / key_of("memory", self._uri).hex()

    def _purging(self) -> bool:
        """Whether somebody is deleting bytes, or was killed doing so."""
        return self._place.has_file("purging")

    def _forget(self, state: State) -> None:
        """Take what only removed tasks used out of the cache and the log of stages."""
        used: set[bytes] = set()
        for commit in (*state.live.values(), *state.old):
            instructions = self._task(commit).instructions
            used.update(text_key(text) for text in instructions.texts)
            used.update(text_key(tag) for tags in instructions.tags for tag in clean_tags(tags))
        for info in self._place.listing("cache"):
            keep_only(used, f"{self._uri}/cache/{info.base_name}", self._storage)
        live = {key.hex() for commit in state.live.values() for key in self._task(commit).instructions.keys}
        for path in sorted(self.asked.glob("*.jsonl")):
            forget_replies(path, live)
        page = self._log.read()
        if page is not None:
            cleaned = [_without_removed(json.loads(row["record"]), set(state.live)) for row in page.rows]
            self._log.rewrite([_logged(stage) for stage in cleaned], page.version)

    def _task(self, commit: Commit) -> Task:
        if commit.id not in self._open_tasks:
            folder = f"{self._uri}/tasks/{commit.id}"
            self._open_tasks[commit.id] = Task(TaskInfo.from_json(commit.info), folder, self._storage)
        return self._open_tasks[commit.id]

    def _read(self) -> Page | None:
        """The catalogue's rows; None where there is no memory yet."""
        page = self._catalogue.read()
        if page is None and self._unknown_folders(State()):
            page = self._catalogue.read()  # written in the meantime?
            if page is None:
                raise MemoryStateError(
                    f"The memory at '{self.path}' has tasks but no catalogue: catalogue.lance is gone. {REPAIR}"
                )
        return page

    def _commit(self, *commits: Commit, since: State) -> None:
        """Make versions part of the memory, in one commit."""
        self._catalogue.append([commit.row() for commit in commits], since.version)
        for commit in commits:
            self._place.delete(f"writing/{commit.id}")

    def _discard(self, identifier: str) -> None:
        self._place.delete_folder(f"tasks/{identifier}")
        self._place.delete(f"writing/{identifier}")

    def _create(self) -> None:
        """Make the folder, unless something else already lives there."""
        if self._read() is not None:
            return
        strangers = sorted(i.base_name for i in self._place.listing() if not OWN_FILES.fullmatch(i.base_name))
        if strangers:
            raise MemoryStateError(
                f"'{self.path}' is not a memory and not empty (it holds '{strangers[0]}'). "
                "Name an empty or new folder with --memory."
            )
        try:
            self._place.fs.create_dir(f"{self._place.root}/tasks", recursive=True)
        except OSError as error:
            raise MemoryStateError(
                f"The memory '{self.path}' cannot be created ({first_line(error)}). Name another place."
            ) from error

    def _lock(self) -> Lock:
        if self._place.local:
            return _file_lock(self._place.root)
        return _lease_lock(self._place.fs, f"{self._place.root}/locks")

    def _unknown(self, name: str, state: State) -> str:
        hint = suggest(name, state.live) or " `inscl tasks` lists them."
        return f"The memory at '{self.path}' has no task '{name}'.{hint}"

    def _folders(self) -> set[str]:
        """Task folders there are; names that are not ours are left alone."""
        return {
            info.base_name for info in self._place.listing("tasks") if re.fullmatch(r"[0-9a-f]{32}", info.base_name)
        }


def _same(new: TaskInfo, before: TaskInfo) -> bool:
    """Whether a task has the same content; how many duplicates or dropped records there were does not count."""
    return all(getattr(new, part) == getattr(before, part) for part in ("content", "tags", "embeddings", "encoder"))


def _warnings(task: Task, shared: int, across: int) -> tuple[str, ...]:
    info = task.info
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


def read_sides(data: Any, dev: Any, test: Any, report: ReadReport, options: Mapping[str, Any]) -> Iterable[Example]:
    """Rows of the data and of the held-out sets that the user supplied beside them."""

    def part(source: Any, side: Split | None) -> Iterator[Example]:
        return read_examples(source, report=report, split=side, **options)

    sides: list[tuple[Any, Split | None]] = [(data, None), (dev, "dev"), (test, "test")]
    return chain.from_iterable(part(source, side) for source, side in sides if source is not None)


def _logged(stage: Mapping[str, Any]) -> dict[str, str]:
    return {"record": json.dumps(dict(stage), ensure_ascii=False, sort_keys=True)}


def _without_removed(stage: dict[str, Any], live: set[str]) -> dict[str, Any]:
    """A logged stage in which removed tasks have no name and no rows any more."""
    replayed = [
        task if task["name"] in live else {"name": "(removed)", "count": task.get("count", 0)}
        for task in stage.get("tasks", [])
    ]
    name = stage["name"] if stage["name"] in live else "(removed)"
    return {**stage, "name": name, "tasks": replayed}


def _default_tagger() -> "Tagger":
    from inscl.tags.keyphrase import KeyphraseTagger

    return KeyphraseTagger()


_locks: dict[str, Lock] = {}


def _file_lock(root: str) -> Lock:
    """One lock object per folder and process, so that nested holds of one thread are seen as such."""
    return _locks.setdefault(root, FileLock(Path(root)))


def _lease_lock(fs: pyarrow.fs.FileSystem, folder: str) -> Lock:
    return _locks.setdefault(folder, LeaseLock(fs, folder))
