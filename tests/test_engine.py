"""Engines: the same results in the same order whoever works, failures at once, and work that loads once a process."""

import os
import sys
import time
from collections.abc import Callable

import pytest

from inscl.engine import Local
from inscl.engine.cluster import Ray
from inscl.engine.processes import Processes
from inscl.errors import DataError, InsclError


class Counting:
    """Work with something that it loads: tells how often this process has called it, and who it is."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, item: int) -> tuple[int, int, int]:
        self.calls += 1
        return -item, self.calls, os.getpid()


def last_is_slow(item: int) -> int:
    if item == 0:
        time.sleep(30)
    if item == 1:
        raise DataError("The second piece is bad.")
    return item


def chatty(item: int, tell: Callable[[object], None]) -> int:
    tell(f"at {item}")
    time.sleep(0.2)  # processes send what they say from a thread of their own
    return item


def killed(item: int) -> int:
    os.kill(os.getpid(), 9)
    return item


@pytest.fixture(scope="module")
def two():
    with Processes(2) as engine:
        yield engine


def test_results_come_in_the_order_of_the_items(two):
    assert [*Local().map(abs, range(-40, 0))] == [*two.map(abs, range(-40, 0))] == [*range(40, 0, -1)]


def test_a_process_keeps_the_work_that_it_had_last(two):
    work = Counting()
    done = [*two.map(work, range(10)), *two.map(work, range(10))]
    assert [value for value, _, _ in done] == [-i for i in range(10)] * 2
    calls = {pid: max(n for _, n, p in done if p == pid) for _, _, pid in done}
    assert sum(calls.values()) == 20
    assert os.getpid() not in calls
    assert [n for _, n, _ in two.map(Counting(), [0])] == [1]


def test_items_are_read_as_there_is_room(two):
    read = []
    results = two.map(abs, (read.append(i) or i for i in range(1000)))
    next(results)
    assert len(read) < 20
    results.close()


def test_what_pieces_say_is_heard(two):
    for engine in (Local(), two):
        heard: list[str] = []
        assert [*engine.map(chatty, range(5), heard.append)] == [*range(5)]
        assert sorted(heard) == [f"at {i}" for i in range(5)]


def test_a_failure_is_raised_before_a_slow_piece_ends():
    start = time.monotonic()
    with pytest.raises(DataError, match="second piece"), Processes(2) as engine:
        [*engine.map(last_is_slow, range(4))]
    assert time.monotonic() - start < 25


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InsclError, match=r"pip install 'inscl\[ray\]'"):
        [*Ray().map(abs, [1])]


def test_a_killed_process_is_told_in_a_line():
    with pytest.raises(InsclError, match=r"was killed.*fewer --workers"), Processes(1) as engine:
        [*engine.map(killed, range(3))]
