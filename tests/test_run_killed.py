"""A run of real training, killed ten times wherever it happens to be, ends with the numbers of an undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

import tiny

KILLS = 10
COSTS = {"seconds", "peak_memory"}  # what a run cost is not the same twice


class Zygote:
    """The process that forks runs."""

    def __init__(self, log: Path) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("run_zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=env,
        )
        assert self.process.stdout
        self.process.stdout.readline()  # everything is imported

    def run(self, config: str, out: Path, kill_after: float | None = None) -> int:
        """Run once; the exit status, which is the signal's number for a killed run."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([config, str(out)]), file=self.process.stdin, flush=True)
        child = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it was done before
                os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def numbers(out: Path) -> list[tuple]:
    rows = parquet.read_table(out / "results.parquet").to_pylist()
    return sorted(
        tuple(str(value) for key, value in row.items() if key != "run_id") for row in rows if row["metric"] not in COSTS
    )


@pytest.mark.slow
def test_ten_kills_change_no_number(tmp_path):
    config = json.dumps(
        {
            "tasks": {"demo": True, "only": ["review_opinion", "record_field"], "train": 16, "dev": 2, "test": 4},
            "model": str(tiny.save_model(tmp_path / "model")),
            "strategies": ["none", "random", "inscl"],
            "budgets": [{"per_task": 4}],
            "experts": None,  # of a model this small they score 0
            "test_rows": "all",
            "batch_size": 4,
            "max_new_tokens": 6,
            "dtype": "float32",
            "training": {"learning_rate": 1e-2, "num_train_epochs": 2},
        }
    )
    zygote = Zygote(tmp_path / "log")
    begun = time.monotonic()
    assert zygote.run(config, tmp_path / "whole") == 0, (tmp_path / "log").read_text()
    length = time.monotonic() - begun
    expected = numbers(tmp_path / "whole")
    killed, tries, rng = 0, 0, random.Random(0)
    while killed < KILLS:
        out, status = tmp_path / f"killed{tries}", signal.SIGKILL
        tries += 1
        assert tries <= KILLS, "the kills come too late to test anything"
        while status == signal.SIGKILL:
            enough = killed == KILLS
            status = zygote.run(config, out, None if enough else rng.uniform(0.02, 0.35) * length)
            killed += status == signal.SIGKILL
        assert status == 0, (tmp_path / "log").read_text()
        assert numbers(out) == expected
        assert not list(out.glob("**/checkpoints"))
    zygote.close()
