"""A stage, or a run, whose process dies at a call that touches a file, again and again, ends as if it had never died.

Most kills come soon after the process began, where it reads what is there and goes on, and some late: the call to die
at is drawn evenly on a logarithmic scale. `make test` kills a few times, `make torture` a hundred times each.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import tiny
from faulty import COUNT, KILL, compiled
from inscl.memory.memory import Memory
from support import WordEncoder, WordTagger
from torture import FULL, Row
from zygote import Zygote

KILLS = 100 if FULL else 3
PLACES = {"model", "fingerprint", "identity"}  # where a stage lies, or what depends on it

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(compiled(tmp_path_factory.mktemp("faults"))))
        one = Zygote("run_zygote.py", errors=tmp_path_factory.mktemp("log") / "log")
    yield one
    one.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model") / "base", layers=1)


class Stand:
    """Lets a verb work on copies of a folder until it is done, however often it dies."""

    def __init__(self, zygote: Zygote, start: Path, verb: str, *arguments: str) -> None:
        self.zygote, self.start, self.verb, self.arguments = zygote, start, verb, arguments

    def live(self, folder: Path, how: int, at: int) -> int:
        """Calls that a life made until the work was done; -1 where it died."""
        answer = folder.with_name(f"answer-{folder.name}")
        arguments = [word.replace("FOLDER", str(folder)) for word in self.arguments]
        self.zygote.start("faulty", how, at, str(answer), f"{folder}/", self.verb, *arguments)
        status = self.zygote.wait()
        if os.WIFSIGNALED(status):
            return -1
        calls, _, said = answer.read_text().partition("\n")
        assert said == ""
        return int(calls)

    def kill(self, folder: Path, what: Callable[[Path], Any], row: Row) -> None:
        """Kill the verb many times; whenever it is done all the same, it has done what it always does."""
        shutil.copytree(self.start, folder / "whole")
        calls = self.live(folder / "whole", COUNT, 0)
        expected, rng, chain = what(folder / "whole"), Random(self.verb), 0
        while row.tried < KILLS:
            path, before, chain = folder / f"chain{chain}", row.tried, chain + 1
            shutil.copytree(self.start, path)
            while row.tried < KILLS and self.live(path, KILL, round(calls ** rng.random())) == -1:
                row.tried += 1
            if row.tried == KILLS:
                self.live(path, COUNT, 0)
            assert what(path) == expected
            assert not list(path.rglob("checkpoints"))
            assert not [left for left in path.rglob("*.partial") if "memory" not in left.relative_to(path).parts]
            row.survived += row.tried - before
            shutil.rmtree(path)
        row.write(f"nothing; the same command went on, and its results are equal ({calls} calls, {chain} folders)")


def test_a_run_killed_at_its_calls_has_the_numbers_of_a_whole_one(zygote, model, tmp_path):
    config = tiny.small_stream(model) | {"strategies": ["inscl"]}
    config |= {"tasks": {**config["tasks"], "train": 8, "dev": 1, "test": 2}, "max_new_tokens": 3}
    (tmp_path / "start").mkdir()
    stand = Stand(zygote, tmp_path / "start", "run", json.dumps(config), "FOLDER/run")
    stand.kill(tmp_path, measured, Row("killed in `run`", "as in the memory's verbs"))


def test_a_stage_killed_at_its_calls_is_the_whole_one(zygote, model, tmp_path):
    (tmp_path / "start").mkdir()
    zygote.run("remember", str(tmp_path / "start"), "earlier")
    stand = Stand(zygote, tmp_path / "start", "learn", "FOLDER", "new", str(model))
    stand.kill(tmp_path, learnt, Row("killed in `learn`", "as in the memory's verbs"))


def measured(folder: Path) -> list[tuple]:
    """All that a run says, from a memory that is whole: what a kill left in it goes with a later purge."""
    for memory in (folder / "run" / "memory").iterdir():
        assert Memory(memory, encoder=WordEncoder(), tagger=WordTagger()).verify().problems == ()
    return tiny.numbers(folder / "run")


def learnt(folder: Path) -> dict[str, Any]:
    """All that a stage leaves but its costs and where it lies."""
    memory = Memory(folder / "memory", encoder=WordEncoder(), tagger=WordTagger())
    assert memory.verify().problems == ()
    scores = json.loads((folder / "model" / "scores.json").read_text())
    return {
        "tasks": [(info.name, info.content) for info in memory.tasks()],
        "stages": [{k: v for k, v in stage.items() if k not in PLACES} for stage in memory.stages()],
        "scores": rounded({side: scores[side] for side in scores if side != "trained"}),
        "losses": rounded(scores["trained"]["losses"]),
        "weights": sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest(),
        "mixture": (folder / "model" / "mixture.jsonl").read_text(),
    }


def rounded(value: Any) -> Any:
    """A value of JSON with six digits: a stage that goes on sums in another order."""
    return json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.6g}"))


FLAT = {
    "seconds": 0.01,
    "MiB of memory": 1.0,
    "KiB on the disk": 40.0,
    "files": 0.5,
    "open files": 0.05,
}  # a cycle more


def test_many_cycles_of_plan_train_and_remember_cost_no_more_at_the_end(zygote, model, tmp_path):
    cycles = 200 if FULL else 5
    row = Row("a long life", f"{cycles} cycles of plan, train and remember with a tiny model in one process", cycles)
    zygote.run("learn_on_and_on", str(tmp_path), str(model), cycles, str(tmp_path / "costs"))
    costs = json.loads((tmp_path / "costs").read_text())
    assert Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger()).verify().problems == ()
    row.survived = len(costs)
    settled = costs[cycles // 4 :]
    slopes = {name: np.polyfit(range(len(settled)), [cost[name] for cost in settled], 1)[0] for name in FLAT}
    row.write("; ".join(f"{name} {settled[0][name]:.4g}, {slope:+.2g} a cycle" for name, slope in slopes.items()))
    assert row.survived == cycles
    assert settled[-1]["open files"] <= settled[0]["open files"] + 3
    if FULL:
        assert {name: slope for name, slope in slopes.items() if slope > FLAT[name]} == {}
