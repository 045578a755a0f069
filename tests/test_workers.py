"""Runs whose models are trained side by side: the same numbers, one command at a time in a folder, and no orphans."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import tiny
from inscl.errors import ConfigError, InsclError
from inscl.experiments.config import load_config
from inscl.experiments.jobs import StreamPlan
from inscl.experiments.run import RunResult, run
from inscl.experiments.workers import chains_of
from inscl.memory.locks import alone
from inscl.replay.budget import Budget


def stream(tasks: str, strategy: str, seed: int = 0) -> StreamPlan:
    budget = None if strategy == "none" else Budget(4)
    return StreamPlan(order="given", tasks=tuple(tasks), strategy=strategy, budget=budget, seed=seed)


def test_every_job_stands_in_one_lane_after_the_one_it_starts_from():
    streams = [stream(t, s, seed) for t in ("abc", "acb", "abd") for s in ("none", "inscl") for seed in (0, 1)]
    firsts, rest = chains_of(streams, side_by_side=True)
    jobs = [step.job for chain in (*firsts, *rest) for step in chain]
    assert set(jobs) == {job for one in streams for job in one.jobs()}
    assert len(firsts) == 2  # task a, for each seed
    places = {job: {i for i, chain in enumerate(rest) if job in {step.job for step in chain}} for job in jobs}
    assert all(len(where) == 1 for job, where in places.items() if len(job.learnt) > 1)
    for chain in rest:
        seen = {job for one in firsts for job in (step.job for step in one)}
        for step in chain:
            assert step.job.start in seen
            seen.add(step.job)


def test_streams_that_part_late_share_a_lane():
    streams = [stream("abc", "inscl"), stream("abd", "inscl"), stream("acb", "inscl")]
    assert len(chains_of(streams, side_by_side=True)[1]) == 2


def test_one_process_walks_stream_by_stream():
    (chains,) = chains_of([stream("ab", "none"), stream("ab", "inscl")], side_by_side=False)
    assert [[step.job.learnt for step in chain] for chain in chains] == [[("a",), ("a", "b")]] * 2


def test_a_folder_has_one_command_at_a_time(tmp_path):
    with alone(tmp_path / "run"):
        code = "import sys, pathlib, inscl.memory.locks as locks; locks.alone(pathlib.Path(sys.argv[1])).__enter__()"
        command = [sys.executable, "-c", code, str(tmp_path / "run")]
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Another command is at work in" in second.stderr
    assert not (tmp_path / "run").exists()  # nothing was written
    with alone(tmp_path / "run"):
        pass


@pytest.fixture(scope="module")
def stream_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    path = folder / "stream.yaml"
    path.write_text(yaml.safe_dump(tiny.small_stream(tiny.save_model(folder / "model"))))
    return path


@pytest.fixture(scope="module")
def undisturbed(stream_file, tmp_path_factory) -> list[tuple]:
    return tiny.numbers(run(load_config(stream_file), tmp_path_factory.mktemp("runs") / "one").folder)


def in_two(stream_file: Path, out: Path, **more: object) -> RunResult:
    return run(load_config(stream_file), out, workers=2, **more)


@pytest.mark.slow
def test_side_by_side_gives_the_same_numbers_and_the_same_disk(stream_file, undisturbed, tmp_path):
    events = []
    result = in_two(stream_file, tmp_path / "two", progress=events.append)
    assert tiny.numbers(result.folder) == undisturbed
    assert (result.trained, result.scored) == (4, 5)
    assert len(list(result.folder.glob("stages/*/model"))) == 3  # the last of each stream
    assert {event.jobs for event in events} == {5}
    assert {event.job for event in events} <= set(range(5))
    assert len({event.what for event in events}) == 5
    assert in_two(stream_file, tmp_path / "two").trained == 0
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_killed_with_all_its_processes_it_goes_on(stream_file, undisturbed, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "inscl", "run", str(stream_file), "--out", str(out), "--workers", "2"]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("stages/*-02-*/plan.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert list(out.glob("stages/*-02-*/plan.json")), "it was killed before the second stages began"
    assert not (out / "results.parquet").exists()
    for _ in range(200):  # orphans hold the folder until they have seen that their parent is gone
        try:
            result = in_two(stream_file, out)
            break
        except ConfigError:
            time.sleep(0.05)
    assert tiny.numbers(result.folder) == undisturbed


def test_what_stops_a_lane_is_said_and_ends_the_others(stream_file, tmp_path):
    text = stream_file.read_text().replace("learning_rate: 0.01", "learning_rate: 1.0e+30")
    (broken := tmp_path / "stream.yaml").write_text(text)
    with pytest.raises(InsclError, match=r"stage 1: .*the loss is nan"):
        in_two(broken, tmp_path / "out")
    assert multiprocessing.active_children() == []


def test_stand_ins_work_alone(stream_file, tmp_path):
    with pytest.raises(ConfigError, match="default trainer"):
        in_two(stream_file, tmp_path / "out", tagger=object())
    assert not (tmp_path / "out").exists()
