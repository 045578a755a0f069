"""The memory: tasks that persist, as Lance tables in one folder or under an object-store prefix.

Every version of a task lies in a folder of its own that is never changed once written. One row appended to the
catalogue makes it part of the memory; nothing that the catalogue does not name is visible. A crash therefore leaves
the old memory or the new one. What no row names any more is deleted by whoever next holds the memory alone.

    catalogue.lance          one row per commit, in order; the fold of its rows is the memory
    catalogue.head           how far the catalogue has come, as stages.head for the log (see `inscl.memory.ledger`)
    tasks/, writing/, …      the versions of tasks (see `inscl.memory.versions`)
    cache/                   embeddings by text hash, distances between tasks, inputs by version (see
                             `inscl.memory.cache_table`); can be rebuilt
    asked/                   a tagger's replies until its tags are committed (see `inscl.llm.client`)
    stages.lance             what was replayed at each finished stage
    purging                  stands here while bytes are being deleted; left behind, the next writer finishes it
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inscl.data.example import Example
from inscl.data.readers import Block, ReadReport
from inscl.data.split import Shares
from inscl.engine import Engine, Local
from inscl.errors import ConfigError, DamageError, MemoryStateError
from inscl.memory import checking, exchange, writing
from inscl.memory.catalogue import Commit, State
from inscl.memory.embedding_cache import CachedEncoder
from inscl.memory.encoder import Encoder, SentenceEncoder
from inscl.memory.input_index import InputIndex
from inscl.memory.kept_distances import KeptDistances
from inscl.memory.place import Place
from inscl.memory.purging import purge
from inscl.memory.store import Store
from inscl.memory.task import TagsBy, Task, TaskInfo, check_name
from inscl.memory.task_tables import Recipe
from inscl.memory.writing import Added

if TYPE_CHECKING:
    from inscl.tags import Tagger


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
    engine : Engine, optional
        Who encodes, tags and measures distances: `inscl.engine.cluster.Ray`, say. Default: this process.

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
        track: Callable[[Sequence[int]], Iterable[int]] = lambda steps: steps,
        engine: Engine | None = None,
    ) -> None:
        self.path = str(path)
        self.tagger, self.engine = tagger or _default_tagger(), engine or Local()
        self._compression = compression
        place = Place.of(self.path, storage_options)
        encoder = encoder or SentenceEncoder()
        # Two functions may have one name: what has no identity of its own is remembered in this process alone.
        cache = f"{place.uri}/cache" if hasattr(encoder, "identity") else None
        self.encode = CachedEncoder(encoder, cache, storage=storage_options, track=track, engine=engine)
        self.distances = KeptDistances(cache, self.encode.identity, storage=storage_options)
        self._store = Store(place, self.encode, InputIndex(cache, storage_options), notice)

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
        if not self._store.exists():
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
            raise self._store.unknown(name, state)
        if version is None:
            return self._store.task(state.live[name])
        for commit in (state.live[name], *(old for old in state.old if old.name == name)):
            if TaskInfo.from_json(commit.info).content.startswith(version):
                return self._store.task(commit)
        raise MemoryStateError(f"Task '{name}' has no version '{version}'. `inscl show NAME --versions` lists them.")

    def open(self, names: Sequence[str] | None = None) -> list[Task]:
        """Several remembered tasks as of one moment; None opens all, in the order of the memory."""
        state = self.state()
        for name in names or ():
            if name not in state.live:
                raise self._store.unknown(name, state)
        return [self._store.task(state.live[name]) for name in (state.live if names is None else names)]

    def versions(self, name: str) -> list[TaskInfo]:
        """Kept versions of a task, the oldest first; the last one is current."""
        self.task(name)
        state = self.state()
        kept = [commit for commit in (*state.old, state.live[name]) if commit.name == name]
        return [TaskInfo.from_json(commit.info) for commit in kept]

    def state(self) -> State:
        """The memory as of now: the fold of the catalogue."""
        return self._store.state()

    def reading(self) -> AbstractContextManager[None]:
        """Context in which nothing is deleted under the reader's feet."""
        return self._store.lock().shared() if self._store.exists() else nullcontext()

    def stages(self) -> list[dict[str, Any]]:
        """What was replayed at each finished stage, oldest first."""
        return self._store.stages.read()

    def last_model(self) -> str:
        """The model of the last finished stage.

        Raises
        ------
        ConfigError
            If there was none.
        """
        models = [stage["model"] for stage in self.stages() if stage.get("model")]
        if not models:
            raise ConfigError(
                "No stage was finished with this memory, so there is no model to start from. Name one with --model: a "
                "Hub id, a folder, or smollm2-135m."
            )
        return str(models[-1])

    # ---------------------------------------------------------------- writing

    def add(
        self,
        name: str,
        data: object,
        *,
        append: bool = False,
        general: bool = False,
        keep_old: bool = False,
        format: str | None = None,
        instruction_field: str | None = None,
        skip_bad: bool = False,
        preferred: bool = False,
        max_mib: int | None = None,
        tags: Mapping[bytes, Sequence[str]] | None = None,
        dev: object = None,
        test: object = None,
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
        general : bool
            Mark the task general: it is replayed where a plan asks for general tasks, for what the model could do
            before, and is neither an earlier task of a plan nor scored.
        keep_old : bool
            Keep the replaced version (see `versions`) instead of deleting it.
        format, instruction_field, skip_bad, preferred, max_mib
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
        self._store.create()
        if append and isinstance(data, Iterator):
            data = list(data)  # read again if another command extends the task at the same time
        recipe = Recipe(
            encode=self.encode,
            encoder=self.encode.identity,
            tagger=self.tagger,
            engine=self.engine,
            own_tags=tags or {},
            shares=shares,
            storage=self._store.place.storage,
            compression=self._compression,
        )

        def read(report: ReadReport) -> Iterable[Example | Block]:
            options: dict[str, object] = {
                "format": format,
                "instruction_field": instruction_field,
                "skip_bad": skip_bad,
            }
            options |= {"preferred": preferred, "max_mib": max_mib}
            return writing.read_sides(data, dev, test, report, options)

        with self._store.lock().shared():
            done = writing.add(self._store, name, read, recipe, append=append, keep_old=keep_old, general=general)
        purge(self._store, wait=False)
        return done

    def remove(self, name: str) -> None:
        """Forget a task: hide it in one commit, then delete every byte that only it needed.

        Deleting waits until running commands have let go of the memory. A removal that was killed is finished by
        calling it again, or by the next command that writes.
        """
        self.existing()
        with self._store.lock().shared():
            state = self.state()
            if name in state.live or name in self._store.versions.aside().values():
                self._store.commit(Commit("remove", name), since=state)
            elif not self._store.purging and all(commit.name != name for commit in state.dead):
                raise self._store.unknown(name, state)
        self._store.forget_tasks()
        purge(self._store, wait=True)

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
        with self._store.lock().shared():
            changed = writing.retag(self._store, tagged, tagger, [task.info.name for task in self.open(names)])
        purge(self._store, wait=False)
        return changed

    @property
    def asked(self) -> Path:
        """Local folder for a tagger's replies."""
        return self._store.asked

    def log_stage(self, record: Mapping[str, object]) -> None:
        """Log a finished stage: a JSON object with the `name` of its task and `tasks`, what was replayed."""
        with self._store.lock().shared():
            self._store.stages.append(record)

    # ---------------------------------------------------------------- sharing

    def write_plain(self, folder: Path) -> list[TaskInfo]:
        """Write the tasks as they are now, and the log of stages, into an empty folder as Parquet and JSON.

        Nothing else goes with them: no earlier versions, no caches, nothing of a removed task.
        """
        with self.existing().reading():
            return exchange.write_plain(self._store, folder)

    def read_plain(self, folder: Path) -> list[TaskInfo]:
        """Fill this memory, in which there must be nothing yet, with what `write_plain` wrote.

        Raises
        ------
        DataError
            If the files are not what is said of them. The memory is then to be deleted.
        """
        return exchange.read_plain(self._store, folder)

    # ---------------------------------------------------------------- checking

    def verify(self, *, repair: bool = False) -> checking.Verification:
        """Recompute every checksum and look for what should not be there.

        Parameters
        ----------
        repair : bool
            Keep what is whole, put the rest under ``aside/``, and leave a memory that works. Without it nothing is
            changed.
        """
        with suppress(DamageError):
            self.existing()
        if repair:
            with self._store.lock().exclusive(wait=True, notice=self._store.notice):
                self._store.forget_tasks()
                return checking.repair(self._store)
        with self._store.lock().shared():
            return checking.verify(self._store)


def _default_tagger() -> "Tagger":
    from inscl.tags.keyphrase import KeyphraseTagger

    return KeyphraseTagger()
