"""Shared and exclusive locks on a memory: many readers and writers, or one maintainer that deletes.

A local folder uses `flock`, which the system drops when a process dies. An object store has no such thing, so
holders there leave a *lease*: a small object that they rewrite as long as they live. A lease that has not changed
for a while, by the watcher's own clock, is stale and is removed.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol
from uuid import uuid4

import pyarrow.fs

from inscl.errors import ConfigError, MemoryStateError
from inscl.files import PARTIAL
from inscl.memory.place import found_in
from inscl.memory.trouble import explained

_Notice = Callable[[str], None]


class Lock(Protocol):
    """What a memory asks of its lock."""

    def shared(self) -> AbstractContextManager[None]:
        """Hold with other readers and writers; waits while a maintainer works or is waiting."""

    def exclusive(self, *, wait: bool, notice: _Notice = ...) -> AbstractContextManager[bool]:
        """Hold alone; yields False at once when `wait` is off and somebody else holds the lock."""


def _silent(_message: str) -> None: ...


def _refuse_to_wait_for_oneself(held: threading.local, wait: bool) -> None:
    if wait and getattr(held, "depth", None):
        raise MemoryStateError(
            "The memory cannot be changed in this way while the same thread reads from it. "
            "Leave `with memory.reading():` first."
        )


@contextmanager
def _deeper(held: threading.local) -> Iterator[None]:
    """A hold inside a hold of the same thread: a waiting maintainer must not come between."""
    held.depth += 1
    try:
        yield
    finally:
        held.depth -= 1


def _hold(held: threading.local, begin: Callable[[], AbstractContextManager[None]]) -> AbstractContextManager[None]:
    """The first hold of a thread, or one inside it."""
    return _deeper(held) if getattr(held, "depth", 0) else begin()


class FileLock:
    """Lock of a memory in a local folder; reentrant for shared holds of one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = threading.local()

    def shared(self) -> AbstractContextManager[None]:
        return _hold(self._held, self._begin)

    @contextmanager
    def _begin(self) -> Iterator[None]:
        import fcntl

        with self._open("lock", to_read=True) as lock, self._open("lock.turn", to_read=True) as turn:
            fcntl.flock(turn, fcntl.LOCK_SH)  # a waiting maintainer holds the turn: newcomers queue behind it
            fcntl.flock(lock, fcntl.LOCK_SH)
            fcntl.flock(turn, fcntl.LOCK_UN)
            self._held.depth = 1
            try:
                yield
            finally:
                self._held.depth = 0
                fcntl.flock(lock, fcntl.LOCK_UN)  # closing alone would leave it to a child forked in the meantime

    @contextmanager
    def _open(self, name: str, *, to_read: bool = False) -> Iterator[int]:
        with explained(f"The memory at '{self._folder}'"):
            descriptor = self._descriptor(self._folder / name, to_read)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _descriptor(self, path: Path, to_read: bool) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:  # a memory that may be read only; a lock needs no right to write
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        # Without the file, whoever reads locks the folder itself: nobody can come by this way to delete.
        return os.open(path if path.exists() or not to_read else self._folder, os.O_RDONLY)

    @contextmanager
    def exclusive(self, *, wait: bool, notice: _Notice = _silent) -> Iterator[bool]:
        import fcntl

        _refuse_to_wait_for_oneself(self._held, wait)
        with self._open("lock") as lock, self._open("lock.turn") as turn:
            alone = True
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if wait:
                    notice("waiting until running commands have let go of the memory")
                    fcntl.flock(turn, fcntl.LOCK_EX)
                    fcntl.flock(lock, fcntl.LOCK_EX)
                else:
                    fcntl.flock(turn, fcntl.LOCK_UN)  # nobody shall queue behind who has given up
                    alone = False
            try:
                yield alone
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)
                fcntl.flock(turn, fcntl.LOCK_UN)


class LeaseLock:
    """Lock of a memory on an object store (or any file system without `flock`).

    Every holder writes its lease first and looks at the others' afterwards, so of two that come at once at least
    one sees the other. This needs a store whose listings are consistent, as those of S3 are.

    Parameters
    ----------
    fs : pyarrow.fs.FileSystem
    folder : str
        Where the leases lie, as a path of `fs`.
    beat, stale : float
        Seconds between two signs of life, and without one until a lease counts as abandoned.
    """

    def __init__(self, fs: pyarrow.fs.FileSystem, folder: str, *, beat: float = 3.0, stale: float = 30.0) -> None:
        self._fs, self._folder, self._beat, self._stale = fs, folder, beat, stale
        self._held = threading.local()
        self._seen: dict[str, tuple[bytes, float]] = {}

    def shared(self) -> AbstractContextManager[None]:
        return _hold(self._held, self._begin)

    @contextmanager
    def _begin(self) -> Iterator[None]:
        while True:
            while self._others("exclusive"):  # without a lease of ours, so that a waiting maintainer gets its turn
                time.sleep(self._beat / 4)
            with self._lease("shared"):
                if not self._others("exclusive"):
                    self._held.depth = 1
                    try:
                        yield
                    finally:
                        self._held.depth = 0
                    return

    @contextmanager
    def exclusive(self, *, wait: bool, notice: _Notice = _silent) -> Iterator[bool]:
        _refuse_to_wait_for_oneself(self._held, wait)
        told = False
        while True:
            with self._lease("exclusive") as mine:
                # The smallest name goes first, the others back off.
                while min(rivals := self._others("exclusive", mine), default=mine) >= mine:
                    if not rivals and not self._others("shared"):
                        yield True
                        return
                    if not wait:
                        break
                    if not told:
                        notice("waiting until running commands have let go of the memory")
                        told = True
                    time.sleep(self._beat / 4)
            if not wait:
                yield False
                return
            time.sleep(self._beat / 4)

    @contextmanager
    def _lease(self, kind: str) -> Iterator[str]:
        name = f"{kind}-{uuid4().hex}"
        path, stop = f"{self._folder}/{name}", threading.Event()

        def live() -> None:
            count = 1
            while not stop.wait(self._beat):
                with suppress(OSError):  # a store out of reach for a moment; the next beat tries again
                    self._write(path, count)
                count += 1

        self._fs.create_dir(self._folder, recursive=True)
        self._write(path, 0)
        heart = threading.Thread(target=live, daemon=True)
        heart.start()
        try:
            yield name
        finally:
            stop.set()
            heart.join()
            self._delete(path)

    def _others(self, kind: str, mine: str = "") -> list[str]:
        """Live leases of a kind; stale ones are removed on the way."""
        live = []
        for info in found_in(self._fs, self._folder):
            name = info.base_name
            if name == mine or not name.startswith(f"{kind}-"):
                continue
            try:
                beat = bytes(self._fs.open_input_file(info.path).read())
            except OSError:
                if self._fs.get_file_info(info.path).type == pyarrow.fs.FileType.NotFound:
                    continue  # let go of in the meantime
                raise
            before, since = self._seen.get(name, (None, 0.0))
            if beat != before:
                self._seen[name] = (beat, time.monotonic())
            elif time.monotonic() - since > self._stale:
                self._delete(info.path)
                continue
            live.append(name)
        return live

    def _write(self, path: str, count: int) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(str(count).encode())

    def _delete(self, path: str) -> None:
        try:
            self._fs.delete_file(path)
        except OSError:  # another watcher was faster
            return


_ALONE = ".lock"  # in a folder that one command at a time works in


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only command that works in a folder.

    Raises
    ------
    ConfigError
        If another one does.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _ALONE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"Another command is at work in '{folder}'. Wait until it has ended, or name another folder with --out."
            ) from error
        fcntl.flock(lock, fcntl.LOCK_SH)  # held by those who help, too, until the last of them has ended
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [_ALONE]:  # it stopped before it wrote anything
                (folder / _ALONE).unlink()
                folder.rmdir()


def is_free(folder: Path, first: str) -> bool:
    """Whether a folder holds nothing, or only what a command leaves that dies while it writes its first file."""
    return not folder.exists() or {path.name for path in folder.iterdir()} <= {_ALONE, f"{first}{PARTIAL}"}


def hold_with(folder: Path) -> IO[str]:
    """Keep a folder for the command that is `alone` in it, from a process that helps; as long as the result lives."""
    import fcntl

    lock = (folder / _ALONE).open("a")
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock
