"""A memory written by release 0.1 (commit bcf9307) opens as it was left, and lives on."""

import json
import tarfile
from pathlib import Path

import pytest

from inscl.memory.memory import Memory
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, rows_of

OLD = Path(__file__).parent / "fixtures" / "memory-0.1"  # four tasks: kept version, chat, append, removed


@pytest.fixture
def old(tmp_path) -> Memory:
    with tarfile.open(OLD / "memory.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())


def expected() -> dict[str, object]:
    return json.loads((OLD / "expected.json").read_text())


def told(memory: Memory) -> dict[str, object]:
    """All that the memory holds, as the old release told it."""
    made = plan(memory, "new", list(rows_of("new", 40)), budget=20).plan
    whole = {
        "tasks": [info.name for info in memory.tasks()],
        "content": {info.name: [info.content, info.tags, info.embeddings, info.rows] for info in memory.tasks()},
        "versions": [info.instructions for info in memory.versions("letters")],
        "stages": memory.stages(),
        "examples": {
            task.info.name: sorted(e.outputs[0] for e in task.examples(range(sum(task.info.rows.values()))))
            for task in memory.open()
        },
        "plan": [[t.name, t.distance, t.share, t.count, [[i.key, i.rows] for i in t.instructions]] for t in made.tasks],
    }
    return json.loads(json.dumps(whole))


def test_an_old_memory_opens_and_gives_the_same_plan(old):
    assert told(old) == expected()
    assert old.encode._encoder.seen == ["describe"]  # a word of the removed task's; all else was there
    assert old.verify().problems == ()


def test_an_old_memory_lives_on(old):
    old.add("later", rows_of("later"))
    old.log_stage({"name": "later", "tasks": []})
    old.remove("later")
    again = Memory(old.path, encoder=WordEncoder(), tagger=WordTagger())
    now, before = told(again), expected()
    assert now.pop("stages")[:2] == before.pop("stages")
    assert now == before
    assert again.verify().problems == ()
    assert len(list((Path(old.path) / "records").iterdir())) == 4  # now a lost catalogue could be made again


def test_repair_keeps_an_old_memory(old):
    assert old.verify(repair=True).repaired == ()
    assert told(old) == expected()
