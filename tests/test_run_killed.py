"""A run of real training, killed ten times wherever it happens to be, ends with the numbers of an undisturbed one."""

import json
import random
import time

import pytest

import tiny
from zygote import Zygote

KILLS = 10


@pytest.mark.slow
def test_ten_kills_change_no_number(tmp_path):
    config = json.dumps(tiny.small_stream(tiny.save_model(tmp_path / "model")))
    zygote = Zygote("run_zygote.py", errors=tmp_path / "log")
    begun = time.monotonic()
    zygote.run("run", config, str(tmp_path / "whole"))
    length = time.monotonic() - begun
    expected = tiny.numbers(tmp_path / "whole")
    killed, tries, rng = 0, 0, random.Random(0)
    while killed < KILLS:
        out = tmp_path / f"killed{tries}"
        tries += 1
        assert tries <= KILLS, "the kills come too late to test anything"
        while killed < KILLS and zygote.kill_after(rng.uniform(0.02, 0.35) * length, "run", config, str(out)):
            killed += 1
        zygote.run("run", config, str(out))
        assert tiny.numbers(out) == expected
        assert not list(out.glob("**/checkpoints"))
    zygote.close()
