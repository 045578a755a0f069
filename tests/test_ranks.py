"""A command launched as two processes does what one does, and ends as one when it fails."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from inscl.cli import main
from inscl.errors import ConfigError, InsclError
from inscl.models.loading import RECORD
from inscl.training import ranks
from test_learn import months_of_files

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "inscl")
STAGE = ("--config", "stage.yaml", "--batch-size", "8", "--budget", "5", "--test-rows", "4", "--json")
STREAM = """
tasks: {may: may.jsonl, june: june.jsonl}
model: model
orders: [given]
strategies: [random]
budgets: [{total: 4}]
seeds: [0]
experts: null
keep: none
dtype: float32
batch_size: 8
limits: {train: 24, test: 4}
training: {learning_rate: 1e-3, num_train_epochs: 1}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two months of files, the settings of a stage and of a stream, and a tiny model."""
    months_of_files(tmp_path)
    (tmp_path / "stream.yaml").write_text(STREAM)
    tiny.save_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(command, *words, **environment):
    return subprocess.Popen(
        [*command, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_two(*words):
    process = start(TORCHRUN, *words)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return out


def in_one(capsys, *words):
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def read(path):
    return json.loads(Path(path).read_text())


def close(one, two):
    """The same, but for numbers that may differ in the sixth digit."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            close(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            close(a, b)
    else:
        assert one == (pytest.approx(two, abs=1e-5) if isinstance(one, float) else two)


@pytest.mark.slow
def test_learning_in_two_processes_is_learning_in_one(folder, capsys):
    for name, model in (("may", ("--model", "model")), ("june", ())):
        words = ("learn", name, f"{name}.jsonl", *model, *STAGE)
        one = json.loads(in_one(capsys, *words, "--memory", "memory-1", "--out", f"one/{name}"))
        two = json.loads(in_two(*words, "--memory", "memory-2", "--out", f"two/{name}"))  # one report, not two
        assert read(f"one/{name}/plan.json") == read(f"two/{name}/plan.json")
        close(read(f"one/{name}/{RECORD}")["losses"], read(f"two/{name}/{RECORD}")["losses"])
        close([one["before"], one["after"]], [two["before"], two["after"]])
    assert two["replayed"] == 5


@pytest.mark.slow
def test_a_stream_in_two_processes_is_a_stream_in_one(folder, capsys):
    in_one(capsys, "run", "stream.yaml", "--out", "one")
    in_two("run", "stream.yaml", "--out", "two")
    stages = sorted(path.name for path in Path("one/stages").iterdir())
    assert len(stages) == 3  # untrained, and two after one another
    for stage in stages:
        one, two = (read(f"{run}/stages/{stage}/scores.json") for run in ("one", "two"))
        close(one["test"], two["test"])
        if "trained" in one:
            close(one["trained"]["losses"], two["trained"]["losses"])


def test_an_error_ends_all_processes_with_one_line(folder):
    (folder / "bad.jsonl").write_text('{"instruction": ')
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    here = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    words = ("learn", "bad", "bad.jsonl", "--model", "model", *STAGE)
    both = [start((sys.executable, "-m", "inscl"), *words, **here, RANK=rank, LOCAL_RANK=rank) for rank in "01"]
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [2, 2]
    assert ends[0][0] == ""
    assert ends[1] == ("", "")
    assert len(ends[0][1].splitlines()) == 1
    assert "bad.jsonl" in ends[0][1]


def test_alone_nothing_is_posted():
    ranks.post({"not plain": object()})
    ranks.end(0)


def test_a_process_that_follows_may_not_lead(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InsclError, match="Only the first process"):
        ranks.post({})
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="must be plain data"):
        ranks.post({"loss": object()})
