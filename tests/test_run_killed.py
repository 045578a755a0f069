"""A run of real training, killed ten times wherever it happens to be, ends with the numbers of an undisturbed one."""

import json
import random
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

import tiny
from zygote import Zygote

KILLS = 10
COSTS = {"seconds", "peak_memory"}  # what a run cost is not the same twice


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
    zygote = Zygote("run_zygote.py", errors=tmp_path / "log")
    begun = time.monotonic()
    zygote.run("run", config, str(tmp_path / "whole"))
    length = time.monotonic() - begun
    expected = numbers(tmp_path / "whole")
    killed, tries, rng = 0, 0, random.Random(0)
    while killed < KILLS:
        out = tmp_path / f"killed{tries}"
        tries += 1
        assert tries <= KILLS, "the kills come too late to test anything"
        while killed < KILLS and zygote.kill_after(rng.uniform(0.02, 0.35) * length, "run", config, str(out)):
            killed += 1
        zygote.run("run", config, str(out))
        assert numbers(out) == expected
        assert not list(out.glob("**/checkpoints"))
    zygote.close()
