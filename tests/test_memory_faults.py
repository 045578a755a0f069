"""What a memory promises when processes die or meet: nothing committed is lost, nothing removed is left."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inscl.memory.memory import Memory
from inscl.memory.task import Task
from support import WordEncoder, WordTagger, rows_of
from test_memory import every_byte
from zygote import HERE, Zygote

KILLS, MOST = 50, 200  # processes that must have been killed, and tries at the most
ROWS = 100


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    one = Zygote("memory_zygote.py")
    yield one
    one.close()


def opened(path: Path) -> Memory:
    return Memory(path, encoder=WordEncoder(), tagger=WordTagger(), compression="none")


def inputs(task: Task) -> set[str]:
    return {example.input for example in task.examples(range(sum(task.info.rows.values())))}


def whole(name: str, rows: int) -> set[str]:
    return {f"{name} input {i}" for i in range(rows)}


def duration(zygote: Zygote, *call: object) -> float:
    began = time.monotonic()
    zygote.run(*call)
    return time.monotonic() - began


def test_add_killed_at_any_moment(zygote, tmp_path):
    path, dice = tmp_path / "m", random.Random(1)
    took = min(duration(zygote, "add", str(path), f"first{i}", ROWS) for i in range(3))
    committed = [f"first{i}" for i in range(3)]
    killed = 0
    for i in range(MOST):
        name = f"task{i}"
        killed += zygote.kill_after(dice.uniform(0, 1.1 * took), "add", str(path), name, ROWS)
        memory = opened(path)
        committed += [name] if name in memory else []  # committed before it died
        assert memory.verify().problems == ()
        assert [info.name for info in memory.tasks()] == committed
        if killed == KILLS:
            break
    assert killed == KILLS, "the kills came too late to test anything"
    memory = opened(path)
    for name in committed:
        assert inputs(memory.task(name)) == whole(name, ROWS)
    zygote.run("add", str(path), "last", ROWS)
    assert len(list((path / "tasks").iterdir())) == len(committed) + 1  # what the dead left behind is gone


def test_remove_killed_at_any_moment(zygote, tmp_path):
    path, dice = tmp_path / "m", random.Random(2)
    zygote.run("add", str(path), "kept", 60)
    zygote.run("add", str(path), "xsample", 60)
    took = duration(zygote, "remove", str(path), "xsample")
    killed = 0
    for i in range(MOST):
        name = f"zebra{i}x"
        zygote.run("add", str(path), name, 60)
        killed += zygote.kill_after(dice.uniform(0, 1.1 * took), "remove", str(path), name)
        memory = opened(path)
        assert memory.verify().problems == ()
        assert inputs(memory.task("kept")) == whole("kept", 60)
        if name in memory:
            assert inputs(memory.task(name)) == whole(name, 60)
            zygote.run("remove", str(path), name)
        elif memory.verify().notes:
            zygote.run("remove", str(path), name)  # finishes what was begun
        assert name.encode() not in every_byte(path)
        if killed == KILLS:
            break
    assert killed == KILLS, "the kills came too late to test anything"


def test_append_and_replace_killed_at_any_moment(zygote, tmp_path):
    path, dice = tmp_path / "m", random.Random(3)
    zygote.run("add", str(path), "a", 100)
    took = duration(zygote, "add", str(path), "b", 100)
    rows = 100
    for i in range(20):
        more = rows + 10
        zygote.kill_after(dice.uniform(0, 1.2 * took), "add", str(path), "a", more, append=bool(i % 2))
        found = inputs(opened(path).task("a"))
        assert found in (whole("a", rows), whole("a", more))
        rows = len(found)
        assert opened(path).verify().problems == ()


def in_parallel(calls: list[tuple[object, ...]]) -> None:
    zygotes = [Zygote("memory_zygote.py") for _ in calls]
    try:
        for one, call in zip(zygotes, calls, strict=True):
            one.start(*call)
        assert [one.wait() for one in zygotes] == [0] * len(calls)
    finally:
        for one in zygotes:
            one.close()


def test_eight_processes_add_different_tasks_at_once(tmp_path):
    path = tmp_path / "m"
    in_parallel([("add_many", str(path), f"p{p}-", 3) for p in range(8)])
    memory = opened(path)
    names = [f"p{p}-{i}" for p in range(8) for i in range(3)]
    assert sorted(info.name for info in memory.tasks()) == sorted(names)
    assert all(inputs(memory.task(name)) == whole(name, 40) for name in names)
    assert memory.verify().problems == ()


def test_eight_processes_add_one_task_at_once(zygote, tmp_path):
    path = tmp_path / "m"
    in_parallel([("add", str(path), "same", 40 + p) for p in range(8)])
    memory = opened(path)
    assert [info.name for info in memory.tasks()] == ["same"]
    assert inputs(memory.task("same")) in [whole("same", 40 + p) for p in range(8)]
    zygote.run("add", str(path), "other", 40)
    assert len(list((path / "tasks").iterdir())) == 2


def test_appends_at_once_are_all_kept(tmp_path):
    path = tmp_path / "m"
    opened(path).add("same", rows_of("start", 30))
    zygotes = [Zygote("memory_zygote.py") for _ in range(4)]
    for p, one in enumerate(zygotes):
        one.start("add", str(path), "same", 30, append=True, about=f"p{p}")
    assert [one.wait() for one in zygotes] == [0] * 4
    for one in zygotes:
        one.close()
    found = inputs(opened(path).task("same"))
    assert found == whole("start", 30).union(*(whole(f"p{p}", 30) for p in range(4)))


def test_a_reader_during_adds_and_removes_sees_a_whole_memory(zygote, tmp_path):
    path = tmp_path / "m"
    opened(path).add("a", rows_of("a", 50))
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            memory = opened(path)
            with memory.reading():
                seen.extend(inputs(task) == whole(task.info.name, 50) for task in memory.open())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for i in range(5):
            zygote.run("add", str(path), f"t{i}", 50)
            zygote.run("remove", str(path), f"t{i}")
    finally:
        stop.set()
        reader.join()
    assert len(seen) > 5
    assert all(seen)


def test_remove_waits_for_an_open_reader(zygote, tmp_path):
    path = tmp_path / "m"
    memory = opened(path)
    memory.add("a", rows_of("a", 50))
    with memory.reading():
        task = memory.task("a")
        zygote.start("remove", str(path), "a")
        deadline = time.monotonic() + 20
        while "a" in memory and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "a" not in memory  # hidden at once …
        assert inputs(task) == whole("a", 50)  # … and still whole for who was reading
    assert zygote.wait() == 0
    assert list((path / "tasks").iterdir()) == []


READ_ONLY = """
set -e
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
! touch "$1/x" 2> /dev/null
shift
exec "$@"
"""
LOOK = """
import sys
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, rows_of
memory = Memory(sys.argv[1], encoder=WordEncoder(), tagger=WordTagger())
assert memory.verify().problems == ()
assert plan(memory, "new", list(rows_of("new")), budget=5).plan.count == 5
try:
    memory.add("b", rows_of("b"))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("locks", [True, False])
def test_a_read_only_mount_can_be_verified_and_planned_from(tmp_path, locks):
    path = tmp_path / "m"
    opened(path).add("a", rows_of("a", 60))
    if not locks:  # a copy that nobody has worked on yet
        (path / "lock").unlink()
        (path / "lock.turn").unlink()
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a mount of their own")
    python = [sys.executable, "-c", LOOK, str(path)]
    looked = subprocess.run(
        ["unshare", "-rm", "sh", "-c", READ_ONLY, "sh", str(path), *python],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )
    assert looked.returncode == 0, looked.stderr
    assert "Read-only file system" in looked.stdout
    assert looked.stdout.count("\n") == 1
