"""A memory written by release 0.1 (commit bcf9307) opens as it was left, and lives on."""

import json
import tarfile
from pathlib import Path

import pytest

import tiny
from inscl.data.mixture import read_mixture, write_mixture
from inscl.export import write_file
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
from inscl.training.batches import tokenise_mixture
from support import WordEncoder, WordTagger, rows_of

OLD = Path(__file__).parent / "fixtures" / "memory-0.1"  # four tasks: kept version, chat, append, removed


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def old(tmp_path, encoder) -> Memory:
    with tarfile.open(OLD / "memory.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return Memory(tmp_path / "memory", encoder=encoder, tagger=WordTagger())


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


def test_an_old_memory_opens_and_gives_the_same_plan(old, encoder):
    assert told(old) == expected()
    assert encoder.seen == ["describe"]  # a word of the removed task's; all else was there
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


TOOL = {"type": "function", "function": {"name": "count", "parameters": {"type": "object"}}}


def tool_chat(i: int) -> dict[str, object]:
    call = {"type": "function", "function": {"name": "count", "arguments": {"upto": i}}}
    turns = [("user", f"Count to {i}."), ("assistant", ""), ("tool", str(i)), ("assistant", f"Done with {i}.")]
    messages = [{"role": role, "content": text} for role, text in turns]
    return {"messages": [messages[0], {**messages[1], "tool_calls": [call]}, *messages[2:]], "tools": [TOOL]}


def test_old_chats_are_replayed_and_exported_beside_new_ones_with_tools(old, tmp_path):
    """Chats of release 0.1 are lists of turns; those with tools are objects."""
    old.add("calls", [tool_chat(i) for i in range(20)])
    again = Memory(old.path, encoder=WordEncoder(), tagger=WordTagger())
    rows = plan(again, "new", list(rows_of("new", 40)), budget=30, strategy="random").rows()
    told = {row.task: row.example for row in rows if row.example.messages}
    assert set(told) == {"chat", "calls"}
    assert told["chat"].tools is None
    assert [turn["role"] for turn in told["chat"].messages][-1] == "assistant"
    assert told["calls"].tools == (TOOL,)
    tokens = tokenise_mixture(rows, tiny.template_tokenizer("tools"), 2000)
    assert len(tokens.rows) == len(rows) == 30 + sum(not row.replayed for row in rows)
    for trainer in ("trl", "axolotl", "inscl"):
        write_file(rows, tmp_path / f"{trainer}.jsonl", trainer)
        text = (tmp_path / f"{trainer}.jsonl").read_text()
        assert told["chat"].outputs[0] in text
        assert told["calls"].outputs[0] in text
    write_mixture(tmp_path / "mixture.jsonl", rows)
    assert read_mixture(tmp_path / "mixture.jsonl") == rows


def test_repair_keeps_an_old_memory(old):
    assert old.verify(repair=True).repaired == ()
    assert told(old) == expected()
