"""Pushes and pulls that die, or run out of disk, at some call that touches a file: the old or the new, never half."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from faulty import COUNT, FULL, KILL, compiled
from inscl.sharing.share import pull, push
from support import rows_of
from test_learn import memory_at
from torture import FULL as ALL_OF_IT
from zygote import Zygote

FEW = 5  # calls that `make test` takes


@pytest.fixture(scope="module")
def zygote(tmp_path_factory) -> Iterator[Zygote]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(compiled(tmp_path_factory.mktemp("faults"))))
        one = Zygote("memory_zygote.py")
    yield one
    one.close()


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A memory of two tasks, and a folder to which it was pushed when it had one."""
    folder = tmp_path_factory.mktemp("start") / "whole"
    memory = memory_at(folder / "memory")
    memory.add("first", rows_of("first", 30))
    push(memory.path, folder / "shared")
    memory.add("second", rows_of("second", 30))
    return folder


def tried(zygote: Zygote, start: Path, folder: Path, verb: str, how: int, at: int) -> tuple[int, str]:
    """Calls made and what was said, of a copy; (-1, "") of a process that died."""
    shutil.copytree(start, folder)
    answer = folder.with_suffix(".txt")
    zygote.start("faulty", how, at, str(answer), verb, str(folder))
    if os.WIFSIGNALED(zygote.wait()):
        return -1, ""
    calls, _, said = answer.read_text().partition("\n")
    return int(calls), said


def tasks_in(shared: Path, work: Path) -> list[str]:
    pull(shared, work)
    return [info.name for info in memory_at(work).tasks()]


@pytest.mark.slow
@pytest.mark.parametrize("how", [KILL, FULL], ids=["killed", "disk-full"])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_what_ends_at_some_call_leaves_the_old_or_the_new(zygote, start, tmp_path, verb, how):
    calls, said = tried(zygote, start, tmp_path / "counted", verb, COUNT, 0)
    assert said == ""
    points = (
        range(1, calls + 1) if ALL_OF_IT else [*range(1, calls - 3, max(1, calls // FEW)), *range(calls - 3, calls + 1)]
    )
    for at in points:
        folder = tmp_path / f"at{at}"
        made, said = tried(zygote, start, folder, verb, how, at)
        assert made == -1 or how == FULL
        assert said == "" or said.startswith(("inscl.errors.", "builtins.OSError: [Errno 28]")), said
        if verb == "push":
            aside = next(folder.glob(".shared.*.partial/old"), None)
            there = folder / "shared"
            assert tasks_in(there if there.exists() else aside, folder / "looked") in (["first"], ["first", "second"])
        elif (folder / "there").exists():
            assert memory_at(folder / "there").verify().problems == ()
            assert [info.name for info in memory_at(folder / "there").tasks()] == ["first"]
        else:
            assert tasks_in(folder / "shared", folder / "there") == ["first"]  # the same command again
