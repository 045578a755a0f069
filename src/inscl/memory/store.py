"""What the parts of a memory work on together: its place, catalogue, versions, log, caches and lock."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from inscl.data.example import key_of
from inscl.errors import DamageError, MemoryStateError
from inscl.memory.catalogue import CATALOGUE, Commit, State, fold
from inscl.memory.embedding_cache import CachedEncoder
from inscl.memory.input_index import InputIndex
from inscl.memory.ledger import Ledger, Page
from inscl.memory.locks import FileLock, LeaseLock, Lock
from inscl.memory.place import Place
from inscl.memory.stage_log import StageLog
from inscl.memory.task import Task, TaskInfo
from inscl.memory.trouble import REPAIR
from inscl.memory.versions import Versions
from inscl.models.loading import cache_folder
from inscl.suggest import suggest

# What a memory's folder holds: with anything else in it, it is not taken for a new one.
_OWN_FILES = re.compile(
    r"asked|cache|tasks|locks|writing|records|aside|lock|lock\.turn|purging"
    r"|(catalogue|stages)\.(lance|head(\..*\.partial)?)"
)
_locks: dict[str, Lock] = {}  # one object per memory and process, so that nested holds of one thread are seen as such


@dataclass
class Store:
    """A memory from within."""

    place: Place
    encode: CachedEncoder
    inputs: InputIndex
    notice: Callable[[str], None]
    versions: Versions = field(init=False)
    catalogue: Ledger = field(init=False)
    stages: StageLog = field(init=False)
    _state: State | None = None
    _tasks: dict[str, Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.versions, self.stages = Versions(self.place), StageLog(self.place)
        self.catalogue = Ledger(self.place, "catalogue", CATALOGUE, _summary)

    def exists(self) -> bool:
        """Whether anything has ever been added."""
        return self._read() is not None

    def state(self) -> State:
        """The memory as of now: the fold of the catalogue.

        Raises
        ------
        DamageError
            If the catalogue is not what was written.
        """
        page = self._read()
        if page is None:
            return State()
        if self._state is None or self._state.version != page.version:
            self._state = fold(page)
        return self._state

    def create(self) -> None:
        """Make the folder, unless something else already lives there."""
        if self.exists():
            return
        strangers = [name for name in self.place.listing() if not _OWN_FILES.fullmatch(name)]
        if strangers:
            raise MemoryStateError(
                f"'{self.place.path}' is not a memory and not empty (it holds '{strangers[0]}'). "
                "Name an empty or new folder with --memory."
            )
        self.place.make_folder("tasks")

    def commit(self, *commits: Commit, since: State) -> None:
        """Make versions part of the memory, in one commit."""
        made = [commit for commit in commits if commit.id]  # a removal makes none
        for commit in made:
            self.versions.record(commit)
        self.catalogue.append([commit.row() for commit in commits], since.version)
        for commit in made:
            self.versions.finish(commit.id)

    def task(self, commit: Commit) -> Task:
        """The version of a task that a commit made."""
        if commit.id not in self._tasks:
            self._tasks[commit.id] = Task(
                TaskInfo.from_json(commit.info),
                self.versions.uri(commit.id),
                self.place.storage,
                partial(self.versions.check, commit),
            )
        return self._tasks[commit.id]

    def forget_tasks(self) -> None:
        """Let go of opened tasks."""
        self._tasks.clear()

    def lock(self) -> Lock:
        if self.place.local:
            return _locks.setdefault(self.place.root, FileLock(Path(self.place.root)))
        folder = f"{self.place.root}/locks"
        return _locks.setdefault(folder, LeaseLock(self.place.fs, folder))

    def unknown(self, name: str, state: State) -> MemoryStateError:
        """That there is no such task; a near miss is named."""
        hint = suggest(name, state.live) or " `inscl tasks` lists them."
        return MemoryStateError(f"The memory at '{self.place.path}' has no task '{name}'.{hint}")

    @property
    def asked(self) -> Path:
        """Local folder for a tagger's replies; for a memory on an object store, in the user's cache."""
        if self.place.local:
            return Path(self.place.root) / "asked"
        return cache_folder() / "asked" / key_of("memory", self.place.uri).hex()

    @property
    def purging(self) -> bool:
        """Whether somebody is deleting bytes, or was killed doing so."""
        return self.place.has("purging")

    def _read(self) -> Page | None:
        page = self.catalogue.read()
        if page is None and self.versions.unknown(State()):
            page = self.catalogue.read()  # written in the meantime?
            if page is None:
                raise DamageError(
                    f"The memory at '{self.place.path}' has tasks but no catalogue: catalogue.lance is gone. {REPAIR}"
                )
        return page


def _summary(page: Page) -> dict[str, list[str]]:
    """Which versions are current, in order, and which are kept beside them."""
    state = fold(page)
    return {"live": [commit.id for commit in state.live.values()], "old": [commit.id for commit in state.old]}
