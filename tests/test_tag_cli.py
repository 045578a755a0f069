"""`inscl tag` as a user types it: what it prints, what stands in the memory afterwards, and that no key is anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inscl.cli import main
from inscl.data.example import instruction_key
from inscl.llm import client as asking
from inscl.memory.memory import Memory
from rough_server import USUAL, Answer, completion, rough_server
from support import WordEncoder, rows_of

KEY = "sk-known-key-0123456789"


@pytest.fixture
def memory(tmp_path, monkeypatch) -> Memory:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("INSCL_MEMORY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("inscl.memory.memory.SentenceEncoder", WordEncoder)
    made = Memory("memory")
    made.add("support", rows_of("support", 40, instructions=4))
    made.add("billing", rows_of("billing", 40, instructions=4))
    own = {instruction_key("Mine."): ["my tag"]}
    made.add("mine", [{"instruction": "Mine.", "input": str(i), "output": "x"} for i in range(20)], tags=own)
    return made


def ask(server, *more: str) -> list[str]:
    return ["tag", *more, "--tagger", "server", "--server", server.url, "--model", "big"]


def summary(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def everything_written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_tagging_by_a_server_and_back(memory, capsys):
    offline = {name: memory.task(name).tagged() for name in ("support", "billing", "mine")}
    with rough_server() as server:
        assert main([*ask(server, "support"), "--json"]) == 0
        found = summary(capsys)
        assert (found["tagged"], found["repaired"], found["fell_back"], found["own"]) == (4, 0, 0, 0)
        assert (found["questions"], found["tokens_in"], found["tokens_out"]) == (4, 400, 40)
        assert found["tasks"] == ["support"]
        assert memory.task("support").tagged() == [(("plain answer", "text rewriting"), "model big prompt 1")] * 4
        assert memory.task("billing").tagged() == offline["billing"]
        assert main(ask(server)) == 0
        out = capsys.readouterr().out
        assert "tagged: 4 instructions\n" in out
        assert "changed: billing\n" in out
        assert "left alone: 1 with your own tags, 4 already tagged by it" in out
        assert server.asked.total() == 8
        assert memory.task("mine").tagged() == offline["mine"]
        assert main(ask(server)) == 0
        assert "changed: no task" in capsys.readouterr().out
        assert server.asked.total() == 8
    assert main(["tag", "--quiet"]) == 0
    assert {name: memory.task(name).tagged() for name in offline} == offline
    assert memory.verify().problems == ()
    assert len(list(Path("memory/tasks").iterdir())) == 3, "replaced versions are deleted"


def test_a_fallback_is_marked_told_and_asked_again_later(memory, capsys):
    bad = lambda q, n: Answer(text="no idea") if "number1" in q else None  # noqa: E731
    with rough_server(bad) as server:
        assert main(ask(server, "support")) == 0
        out = capsys.readouterr().out
        assert "tagged: 3 instructions, 1 by the offline tagger instead" in out
        assert "instead 1: no tags in the answer" in out
        assert sum("(fallback for model big" in by for _, by in memory.task("support").tagged()) == 1
        assert main(["show", "support", "--json"]) == 0
        taggers = summary(capsys)["taggers"]
        assert sorted(taggers.values()) == [1, 3]
        server.rule = lambda q, n: None
        assert main([*ask(server, "support"), "--json"]) == 0
        assert summary(capsys)["tagged"] == 1
        assert {by for _, by in memory.task("support").tagged()} == {"model big prompt 1"}


def test_tags_that_were_paid_for_outlive_other_rows(memory):
    with rough_server() as server:
        assert main(ask(server, "support")) == 0
    tagged = memory.task("support").tagged()
    assert memory.add("support", rows_of("support", 40, instructions=4)).status == "unchanged"
    assert memory.add("support", rows_of("support", 30, instructions=4)).status == "replaced"
    assert memory.task("support").tagged() == tagged
    memory.add("support", [{"instruction": "Name the colours.", "input": "x", "output": "y"}], append=True)
    assert sorted(by.split()[0] for _, by in memory.task("support").tagged()) == ["model"] * 4 + ["yake"]
    with rough_server() as server:
        assert main(ask(server)) == 0
        assert server.asked.total() == 5, "the new instruction, and the other task's four"


def test_a_dry_run_asks_nothing_and_says_the_cost(memory, capsys):
    prices = ["--price-in", "2", "--price-out", "8"]
    assert main(["tag", "--tagger", "server", "--model", "big", "--dry-run", "--json", *prices]) == 0
    found = summary(capsys)
    assert found["questions"] == 8
    assert found["tokens_out"] == 480
    assert 8 * 90 < found["tokens_in"] < 8 * 180
    assert found["cost"] == pytest.approx((2 * found["tokens_in"] + 8 * 480) / 1e6)
    with rough_server() as server:
        assert main([*ask(server), "--dry-run"]) == 0
        assert "to ask: 8 questions, about " in capsys.readouterr().out
        assert server.asked.total() == 0


def test_a_batch_goes_out_and_comes_back(memory, capsys):
    batch = ["--tagger", "server", "--model", "big"]
    assert main(["tag", *batch, "--batch-out", "ask.jsonl"]) == 0
    assert "to ask: 8 questions" in capsys.readouterr().out
    requests = [json.loads(line) for line in Path("ask.jsonl").read_text().splitlines()]
    assert len(requests) == 8
    assert {(r["method"], r["url"], r["body"]["model"]) for r in requests} == {("POST", "/v1/chat/completions", "big")}
    assert all(r["body"]["response_format"]["type"] == "json_schema" for r in requests)
    ids = [request["custom_id"] for request in requests]
    good = {"status_code": 200, "body": json.loads(completion(USUAL))}
    lines = [
        *[{"custom_id": i, "response": good, "error": None} for i in ids[:4]],
        {"custom_id": ids[4], "response": {"status_code": 429, "body": {"error": {"code": "rate_limit"}}}},
        {"custom_id": ids[5], "response": None, "error": {"code": "batch_expired", "message": "late"}},
        {"custom_id": ids[6], "response": {"status_code": 200, "body": json.loads(completion("no"))}},
        {"custom_id": "ff" * 16, "response": good},
    ]
    Path("answers.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n[5]\nnot json\n")
    assert main(["tag", *batch, "--batch-in", "answers.jsonl", "--json"]) == 0
    found = summary(capsys)
    assert (found["tagged"], found["fell_back"], found["left"]) == (4, 3, 1)
    assert found["reasons"] == {
        "the batch failed with rate_limit": 1,
        "the batch failed with batch_expired": 1,
        "no tags in the answer": 1,
    }
    assert sorted(found["skipped_lines"].values()) == [1, 2]
    assert main(["tag", *batch, "--batch-out", "again.jsonl"]) == 0
    assert {json.loads(line)["custom_id"] for line in Path("again.jsonl").read_text().splitlines()} == set(ids[4:])
    assert main(["tag", *batch, "--batch-in", "memory/catalogue.lance"]) == 2
    assert "Cannot read the answers" in capsys.readouterr().err
    Path("empty.jsonl").write_text("")
    assert main(["tag", *batch, "--batch-in", "empty.jsonl"]) == 2
    assert "answers none of the 4 instructions to be tagged (it is empty)" in capsys.readouterr().err


def test_a_known_key_is_nowhere(memory, capsys, tmp_path):
    echo = lambda q, n: Answer(text=f'{{"tags": ["key {KEY}", "plain answer"]}} {KEY}')  # noqa: E731
    with rough_server(echo) as server:
        assert main(ask(server, "support")) == 0
        server.rule = lambda q, n: Answer(500, raw=f'{{"error": "{KEY}"}}'.encode()) if "number1" in q else None
        assert main([*ask(server, "billing"), "--timeout", "2"]) == 0
        memory.add("more", rows_of("more", 20))
        server.rule = lambda q, n: Answer(401, raw=f'{{"error": {{"message": "wrong key {KEY}"}}}}'.encode())
        assert main(ask(server)) == 2
        assert server.keys == {f"Bearer {KEY}"}
    assert main(["plan", "next", "memory/none", "--budget", "5"]) == 2
    Path("next.jsonl").write_text("\n".join(json.dumps(row) for row in rows_of("next", 20)))
    assert main(["plan", "next", "next.jsonl", "--budget", "5", "--out", "plan.json"]) == 0
    assert main(["show", "support", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "refused, 401: wrong key [key]" in err
    assert KEY not in out + err
    assert KEY.encode() not in everything_written(tmp_path)
    assert KEY not in str([task.tagged() for task in memory.open()])  # Lance may compress texts


def test_removing_a_task_removes_what_was_asked_about_it(memory, monkeypatch, tmp_path):
    def rule(question, before):
        return Answer(401, raw=b"{}") if "billing number3" in question else Answer(text=f"zebra {question[-60:]}")

    with rough_server(rule) as server:
        assert main([*ask(server), "--workers", "1"]) == 2
    (store,) = memory.asked.glob("*.jsonl")
    assert "support" in store.read_text()
    memory.remove("support")
    assert "support" not in store.read_text()
    memory.remove("billing")
    assert not store.exists()


def test_mistakes_are_named(memory, capsys):
    for arguments, said in [
        (["--tagger", "server", "--model", "m"], "--tagger server needs --server"),
        (["--tagger", "server"], "--tagger server needs --model"),
        (["--tagger", "local"], "--tagger local needs --model"),
        (["--batch-out", "x"], "need --tagger server and --model"),
        (["--tagger", "gpt"], "'gpt' is not one of"),
        (["nobody"], "has no task 'nobody'"),
        (["--memory", "elsewhere"], "There is no memory at 'elsewhere'"),
        (["--tagger", "local", "--model", "no such/folder/x"], "neither a folder nor a Hub id"),
        (["--tagger", "server", "--model", "m", "--server", "here"], "address 'here' is none"),
        (["--tagger", "server", "--model", "m", "--server", "http://127.0.0.1:9"], "Nothing answers at"),
        (["--tagger", "server", "--model", "m", "--server", "http://a", "--without", "x"], "`without` may name"),
    ]:
        assert main(["tag", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        assert said in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""


def test_help_ends_with_an_example():
    command = [sys.executable, "-m", "inscl", "tag", "--help"]
    shown = subprocess.run(command, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=True)
    assert "Example: inscl tag --tagger server" in shown.stdout
