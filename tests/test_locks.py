"""Locks under real contention: threads, processes, and holders that die."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.fs
import pytest

from inscl.errors import MemoryStateError
from inscl.memory.locks import FileLock, LeaseLock, Lock, alone, is_free

BEAT, STALE = 0.05, 0.5
Make = Callable[[], Lock]


def file_lock(folder: Path) -> Lock:
    return FileLock(folder)


def lease_lock(folder: Path) -> Lock:
    return LeaseLock(pyarrow.fs.LocalFileSystem(), f"{folder}/locks", beat=BEAT, stale=STALE)


KINDS = {"file": file_lock, "lease": lease_lock}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lock(kind: str, tmp_path: Path) -> Lock:
    return KINDS[kind](tmp_path)


def soon(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def in_threads(*work: Callable[[], None]) -> None:
    """Run all at once; an error in any of them, or one that never ends, fails the test."""
    errors: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads), "a deadlock"


class Holders:
    """Counts who holds a lock now, and how often the rules were broken."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.shared = self.exclusive = self.violations = self.most_shared = self.turns = 0

    def enter(self, kind: str) -> None:
        with self._guard:
            self.shared += kind == "shared"
            self.exclusive += kind == "exclusive"
            self.most_shared = max(self.most_shared, self.shared)
            self.turns += kind == "exclusive"
            self.violations += self.exclusive > 1 or (self.exclusive == 1 and self.shared > 0)

    def leave(self, kind: str) -> None:
        with self._guard:
            self.shared -= kind == "shared"
            self.exclusive -= kind == "exclusive"


def test_threads_never_break_the_rules_and_shared_holds_overlap(lock):
    holders = Holders()

    def read() -> None:
        for _ in range(10):
            with lock.shared():
                holders.enter("shared")
                time.sleep(0.005)
                holders.leave("shared")

    def maintain() -> None:
        for _ in range(4):
            with lock.exclusive(wait=True) as alone:
                assert alone
                holders.enter("exclusive")
                time.sleep(0.005)
                holders.leave("exclusive")

    in_threads(read, read, read, maintain, maintain)
    assert holders.violations == 0
    assert holders.turns == 8
    assert holders.most_shared > 1


class MadeWhileListed:
    """A file system on which the first listing meets a folder that comes into being meanwhile, as Arrow reports it."""

    def __init__(self, folder: Path) -> None:
        self._fs, self._folder, self._first = pyarrow.fs.LocalFileSystem(), folder, True

    def __getattr__(self, name: str) -> object:
        return getattr(self._fs, name)

    def get_file_info(self, what: object) -> object:
        if self._first:
            self._first = False
            self._folder.mkdir()
            raise FileNotFoundError(2, "Cannot list directory")
        return self._fs.get_file_info(what)


def test_a_folder_of_leases_made_while_it_is_listed_is_no_error(tmp_path):
    lock = LeaseLock(MadeWhileListed(tmp_path / "locks"), f"{tmp_path}/locks", beat=BEAT, stale=STALE)
    with lock.shared():
        assert len(list((tmp_path / "locks").iterdir())) == 1


PROCESS = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_locks import KINDS

kind, folder, role = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
lock = KINDS[kind](folder)
marks = folder / "marks"
mine = marks / f"{role}-{os.getpid()}"
for _ in range(12):
    hold = lock.shared() if role == "shared" else lock.exclusive(wait=True)
    with hold:
        mine.touch()
        there = [name for name in os.listdir(marks) if name != mine.name]
        time.sleep(0.004)
        there += [name for name in os.listdir(marks) if name != mine.name]
        mine.unlink()
    wrong = there if role == "exclusive" else [name for name in there if name.startswith("exclusive")]
    if wrong:
        sys.exit(f"{role} together with {wrong}")
"""


def test_processes_never_break_the_rules(kind, tmp_path):
    (tmp_path / "marks").mkdir()
    here = str(Path(__file__).parent)
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, kind, str(tmp_path), role, here], stderr=subprocess.PIPE)
        for role in ("shared", "exclusive", "shared", "exclusive")
    ]
    said = [process.communicate(timeout=60)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0] * 4, said


def test_shared_holds_overlap(lock):
    inside = threading.Barrier(3, timeout=10)

    def read() -> None:
        with lock.shared():
            inside.wait()  # passes only when all three hold at once

    in_threads(read, read, read)


def test_wait_false_yields_false_and_leaves_no_trace(lock):
    with lock.shared(), lock.exclusive(wait=False) as alone:
        assert alone is False
        with lock.shared():  # of the same thread
            pass
        in_threads(lambda: enter_and_leave(lock))  # newcomers do not queue behind who has given up
    with lock.exclusive(wait=False) as alone:
        assert alone is True
        with lock.exclusive(wait=False) as second:
            assert second is False
    with lock.shared():
        pass


def enter_and_leave(lock: Lock) -> None:
    with lock.shared():
        pass


def test_waiting_is_announced_once(lock):
    said: list[str] = []

    def maintain() -> None:
        with lock.exclusive(wait=True, notice=said.append):
            pass

    with ExitStack() as stack:
        stack.enter_context(lock.shared())
        maintainer = threading.Thread(target=maintain)
        maintainer.start()
        assert soon(lambda: len(said) > 0)
        time.sleep(3 * BEAT)
    maintainer.join(10)
    assert not maintainer.is_alive()
    assert said == ["waiting until running commands have let go of the memory"]


def test_nested_holds_of_one_thread_do_not_deadlock_while_a_maintainer_waits(lock):
    reading, waiting, done = threading.Event(), threading.Event(), threading.Event()

    def maintain() -> None:
        assert reading.wait(10)
        with lock.exclusive(wait=True, notice=lambda _: waiting.set()):
            done.set()

    def read() -> None:
        with lock.shared():
            reading.set()
            assert waiting.wait(10)
            time.sleep(2 * BEAT)
            with lock.shared(), lock.shared():
                assert not done.is_set()
            time.sleep(2 * BEAT)
            assert not done.is_set()  # leaving the inner holds does not let go of the outer one

    in_threads(read, maintain)
    assert done.is_set()


def test_a_maintainer_gets_its_turn_although_new_readers_keep_coming(lock):
    """Three readers relay without a gap: at every moment one of them holds the lock."""
    stop, holding = threading.Event(), threading.Semaphore(0)
    took: list[float] = []

    def read() -> None:
        while not stop.is_set():
            with lock.shared():
                holding.release()
                time.sleep(0.02)

    def maintain() -> None:
        assert holding.acquire(timeout=10)
        try:
            for _ in range(3):
                began = time.monotonic()
                with lock.exclusive(wait=True):
                    took.append(time.monotonic() - began)
        finally:
            stop.set()

    in_threads(read, read, read, read, maintain)
    assert len(took) == 3
    assert max(took) < 5


def test_a_thread_that_would_wait_for_itself_is_told(lock):
    with (
        lock.shared(),
        pytest.raises(MemoryStateError, match=r"Leave `with memory.reading\(\):` first"),
        lock.exclusive(wait=True),
    ):
        pass
    with lock.exclusive(wait=True) as alone:
        assert alone


@pytest.mark.parametrize("held", ["shared", "exclusive"])
def test_an_error_inside_lets_go(lock, held):
    with pytest.raises(ZeroDivisionError), lock.shared() if held == "shared" else lock.exclusive(wait=True):
        raise ZeroDivisionError
    with lock.exclusive(wait=False) as alone:
        assert alone


HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_locks import KINDS

lock = KINDS[sys.argv[1]](Path(sys.argv[2]))
with lock.shared() if sys.argv[3] == "shared" else lock.exclusive(wait=True):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(kind: str, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that holds the lock until it is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(held: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, kind, str(tmp_path), held, str(Path(__file__).parent)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("held", ["shared", "exclusive"])
def test_a_killed_holder_blocks_nobody_for_long(lock, kind, holder, held):
    process = holder(held)
    with lock.exclusive(wait=False) as alone:
        assert alone is False
    time.sleep(2 * STALE)  # as long as it lives it holds, stale or not
    with lock.exclusive(wait=False) as alone:
        assert alone is False
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with lock.exclusive(wait=True) as alone:
        took = time.monotonic() - began
        assert alone
    assert took < (0.2 if kind == "file" else STALE + 10 * BEAT)


def test_a_killed_maintainer_blocks_no_reader_for_long(lock, kind, holder):
    process = holder("exclusive")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with lock.shared():
        took = time.monotonic() - began
    assert took < (0.2 if kind == "file" else STALE + 10 * BEAT)


def test_a_child_forked_during_a_hold_does_not_prolong_it(tmp_path):
    """Run in a process of its own, because a fork of this one would copy other tests' threads."""
    code = """
        import os, sys, time
        from pathlib import Path
        from inscl.memory.locks import FileLock

        lock = FileLock(Path(sys.argv[1]))
        for hold in (lock.shared, lambda: lock.exclusive(wait=True)):
            with hold():
                child = os.fork()
                if child == 0:
                    time.sleep(600)
            with lock.exclusive(wait=False) as alone:
                print(alone)
            os.kill(child, 9)
            os.waitpid(child, 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["True", "True"]


# ---------------------------------------------------------------- leases alone


class Flaky(pyarrow.fs.FileSystemHandler):
    """A local file system that can be told to fail."""

    def __init__(self) -> None:
        self.inner = pyarrow.fs.LocalFileSystem()
        self.writing = self.reading = True

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def get_type_name(self) -> str:
        return "flaky"

    def get_file_info(self, paths: list[str]) -> object:
        return self.inner.get_file_info(paths)

    def get_file_info_selector(self, selector: object) -> object:
        return self.inner.get_file_info(selector)

    def open_input_file(self, path: str) -> object:
        if not self.reading:
            raise OSError("the network is away")
        return self.inner.open_input_file(path)

    def open_output_stream(self, path: str, metadata: object) -> object:
        if not self.writing:
            raise OSError("the network is away")
        return self.inner.open_output_stream(path)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.inner.create_dir(path, recursive=recursive)

    def delete_file(self, path: str) -> None:
        self.inner.delete_file(path)

    def _missing(self, *_arguments: object) -> None:
        raise NotImplementedError

    copy_file = delete_dir = delete_dir_contents = delete_root_dir_contents = _missing
    move = normalize_path = open_append_stream = open_input_stream = _missing


Flaky.__abstractmethods__ = frozenset()


def flaky_pair(folder: Path) -> tuple[Flaky, LeaseLock, LeaseLock]:
    """A handler, a lock that uses it, and another process's lock on the same folder."""
    handler = Flaky()
    fs = pyarrow.fs.PyFileSystem(handler)
    here = LeaseLock(fs, f"{folder}/locks", beat=BEAT, stale=STALE)
    there = LeaseLock(pyarrow.fs.LocalFileSystem(), f"{folder}/locks", beat=BEAT, stale=STALE)
    return handler, here, there


def test_a_store_out_of_reach_for_a_moment_costs_no_lease(tmp_path):
    handler, here, there = flaky_pair(tmp_path)
    with here.shared():
        handler.writing = False
        time.sleep(4 * BEAT)
        handler.writing = True
        time.sleep(2 * STALE)  # one missed beat must not have ended the heart
        with there.exclusive(wait=False) as alone:
            assert alone is False
        time.sleep(2 * STALE)
        with there.exclusive(wait=False) as alone:
            assert alone is False


def test_a_lease_that_cannot_be_read_is_not_taken_for_gone(tmp_path):
    handler, here, there = flaky_pair(tmp_path)
    with there.exclusive(wait=True):
        handler.reading = False
        with pytest.raises(OSError, match="the network is away"), here.shared():
            pass


def test_a_lease_caught_between_opening_and_writing_is_alive(tmp_path):
    """On a file system, a rewritten file is empty for an instant; that is no reason to delete it."""
    lock = lease_lock(tmp_path)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "exclusive-0").touch()
    with lock.exclusive(wait=False) as alone:
        assert alone is False
    assert (tmp_path / "locks" / "exclusive-0").exists()


def test_leases_of_the_dead_are_swept(tmp_path):
    lock = lease_lock(tmp_path)
    (tmp_path / "locks").mkdir()
    for kind in ("shared", "exclusive"):
        (tmp_path / "locks" / f"{kind}-dead").write_text("7")
    with lock.exclusive(wait=True) as alone:
        assert alone
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_folder_is_free_until_a_first_file_stands_in_it(tmp_path):
    folder = tmp_path / "stage"
    assert is_free(folder, "learn.json")
    with alone(folder):
        (folder / "learn.json.partial").write_text("{")  # killed here, it would have had its name a moment later
    assert is_free(folder, "learn.json")
    assert not is_free(folder, "run.json")
    (folder / "learn.json").write_text("{}")
    assert not is_free(folder, "learn.json")
