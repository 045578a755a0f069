"""Whatever a file, a plan, a configuration or a server says, it is used, or refused by an error of ours.

`make test` tries 2,000 mutations, `make torture` a million; INSCL_MUTATIONS is another number.
"""

import gzip
import json
import os
import resource
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from traceback import extract_tb
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from inscl.data.mixture import read_mixture, write_mixture
from inscl.data.readers import ReadReport, read_examples
from inscl.errors import ConfigError, InsclError
from inscl.experiments.config import parse_config
from inscl.forgetting.server import _only_object
from inscl.llm.client import reply_in
from inscl.llm.replies import Replies, Reply
from inscl.memory.memory import Memory
from inscl.replay.plan import Plan, compare
from inscl.replay.planner import plan, resume
from inscl.report import summarize
from inscl.report.page import write_plan_report
from inscl.report.plan import PlanFacts
from inscl.tags import read_tags
from inscl.tags.batch import read_batch
from inscl.tags.prompt import tags_in
from inscl.training.config import StageConfig, stage_config
from mutation import mutated, mutated_bytes
from support import WordEncoder, WordTagger, rows_of
from torture import FULL, Row

ROOT = Path(__file__).parents[1]
COUNT = int(os.environ.get("INSCL_MUTATIONS", 1_000_000 if FULL else 2_000))
SLOWEST, LARGEST = 5.0, 2**20  # seconds of the processor, and KiB
Try = Callable[[Random], None]

ROW = {"instruction": "Add.", "input": "2 + 2", "output": "4"}
CHAT = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Rain?"}, {"role": "assistant",
    "content": "", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool",
    "content": "no", "tool_call_id": "1"}, {"role": "assistant", "content": "No.", "train": False}],
    "tools": [{"type": "function", "function": {"name": "f"}}]}  # fmt: skip
RECORDS = [
    ROW,
    CHAT,
    {"prompt": "a", "completion": "b"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"prompt": "a", "chosen": "b", "rejected": "c"},
    {"instruction": "Add.", "outputs": ["4", "four"], "tags": ["sum"], "split": "test"},
    {"Definition": ["Add."], "Instances": [{"input": "1", "output": ["1"]}]},
]
ANSWERS = [
    '{"tags": ["sum", "news article"]}',
    'Sure!\n```json\n{"tags": [{"tag": "sum", "explanation": "x"}]}\n```',
    '<think>maybe {"tags": ["no"]}</think>["sum", "news"',
    '{"kind": "unrelated", "reason": "other_task", "nearest_task": "a"}',
]
COMPLETION = {"id": "1", "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWERS[0]},
    "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}  # fmt: skip


def readers(folder: Path) -> Try:
    """Data files of every kind, and mixtures."""
    table = folder / "a.parquet"
    pq.write_table(pa.Table.from_pylist([ROW, ROW]), table)
    write_mixture(folder / "m.jsonl", resume_rows(folder))
    lines = "\n".join(json.dumps(row) for row in RECORDS).encode()
    seeds = {
        "a.jsonl": lines,
        "a.json": json.dumps(RECORDS, indent=1).encode(),
        "b.json": json.dumps({"data": [ROW, ROW]}).encode(),
        "c.json": json.dumps(RECORDS[-1]).encode(),
        "a.csv": b'instruction;input;output\nAdd.;"1 + ""3""";4\n"a\n;b";;3\n',
        "b.csv": "instruction\toutput\nAdd.\t4\n".encode("utf-16"),
        "a.jsonl.gz": gzip.compress(lines),
        "a.jsonl.zst": zstandard.compress(lines),
        "a.parquet": table.read_bytes(),
        "m.jsonl": (folder / "m.jsonl").read_bytes(),
    }

    def attempt(rng: Random) -> None:
        name = rng.choice([*seeds, "records"])
        path = folder / name
        options: dict[str, Any] = {
            "skip_bad": rng.random() < 0.3,
            "preferred": rng.random() < 0.3,
            "format": rng.choice((None, None, None, "messages", "alpaca", "superni")),
        }
        if name == "records":
            data: Any = [mutated(rng, rng.choice(RECORDS)) for _ in range(3)]
        else:
            path.write_bytes(mutated_bytes(rng, seeds[name]))
            data = path
        if name == "m.jsonl":
            read_mixture(path)
        for example in read_examples(data, report=ReadReport(), **options):
            assert example.instruction.strip()
            assert example.outputs

    return attempt


def resume_rows(folder: Path) -> list[Any]:
    """The mixture of a real plan, whose file lies beside it."""
    memory = Memory(folder / "memory", encoder=WordEncoder(), tagger=WordTagger())
    for name in ("a", "b"):
        memory.add(name, rows_of(name, 12))
    data = folder / "new.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of("new", 12)), "utf-8")
    replay = plan(memory, "new", str(data), budget=6)
    replay.plan.write(folder / "plan.json")
    return replay.rows()


def plans(folder: Path) -> Try:
    """A plan's file, as it is read, compared, shown, mixed and reported."""
    resume_rows(folder)
    memory = Memory(folder / "memory", encoder=WordEncoder(), tagger=WordTagger())
    path = folder / "plan.json"
    whole, first = path.read_bytes(), Plan.read(path)
    document = json.loads(whole)

    def attempt(rng: Random) -> None:
        if rng.random() < 0.2:
            path.write_bytes(mutated_bytes(rng, whole))
        else:
            path.write_text(json.dumps(mutated(rng, document)), "ascii")
        made = Plan.read(path)
        compare(first, made)
        PlanFacts.of(made).verdict()
        if rng.random() < 0.1:
            assert len(resume(made, memory).rows()) < 10_000
        if rng.random() < 0.01:
            write_plan_report(path, folder / "report", figures=())

    return attempt


def configurations(folder: Path) -> Try:
    """The YAML of a run and of a stage, and files of tags."""
    texts = [path.read_bytes() for path in (ROOT / "examples").glob("*.yaml")]
    texts = [b"\n".join(line for line in text.split(b"\n") if not line.startswith(b"#")) for text in texts]
    texts.append(b"model: &m smollm2-135m\ntasks: {a: a.jsonl, b: {data: b.jsonl}}\ntraining: {<<: {seed: 1}}\nx: *m\n")
    stage = b"training: {learning_rate: 1e-4}\npeft: {type: LoraConfig, r: 8}\nbatch_size: 8\nscorer: exact_match\n"
    # TRL and PEFT take seconds to load, once: where fields are compared with theirs.
    StageConfig.deeper_problems({"training": {"seed": 1}, "peft": {"type": "LoraConfig"}})
    tags = b'{"instruction": "Add.", "tags": ["sum", "number"]}\n{"instruction": "Sort.", "tags": []}\n'

    def attempt(rng: Random) -> None:
        what = rng.random()
        if what < 0.5:
            parse_config(mutated_bytes(rng, rng.choice(texts)).decode("utf-8", "surrogateescape"))
        elif what < 0.8:
            stage_config(mutated_bytes(rng, stage).decode("utf-8", "replace"), name="stage.yaml")
        else:
            (folder / "tags.jsonl").write_bytes(mutated_bytes(rng, tags))
            read_tags(folder / "tags.jsonl")

    return attempt


def answers(folder: Path) -> Try:
    """What a server sends, as it comes, in a batch's file and from the store of replies."""
    store = folder / "replies.jsonl"
    with Replies(store) as kept:
        for i, text in enumerate(ANSWERS):
            kept.keep(f"{i}", Reply(text), "about")
    stored = store.read_bytes()
    key = b"k" * 16
    line = {"custom_id": key.hex(), "response": {"status_code": 200, "body": COMPLETION}, "error": None}

    def attempt(rng: Random) -> None:
        what = rng.random()
        if what < 0.5:
            text = mutated_bytes(rng, rng.choice(ANSWERS).encode()).decode("utf-8", "replace")
            assert all(tag.isprintable() for tag in tags_in(text) or ())
            _only_object(text)
        elif what < 0.8:
            answer = mutated(rng, COMPLETION)
            if isinstance(answer, dict):
                tags_in(reply_in(answer).text)
        elif what < 0.9:
            store.write_bytes(mutated_bytes(rng, stored))
            with Replies(store):
                pass
        else:
            (folder / "batch.jsonl").write_text(json.dumps(mutated(rng, line)), "ascii")
            read_batch(folder / "batch.jsonl", {key: "Add."}, "model", WordTagger())

    return attempt


def runs(folder: Path) -> Try:
    """The files of a run's folder, as they are read for its report."""
    with tarfile.open(ROOT / "tests" / "fixtures" / "run-0.1" / "run.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    run = folder / "run-0.1"
    files: dict[str, list[Path]] = {}
    for file in sorted(run.rglob("*")):
        if file.suffix in (".json", ".jsonl", ".parquet") and "memory" not in file.parts:
            files.setdefault("answers" if "predictions" in file.parts else file.name, []).append(file)

    def attempt(rng: Random) -> None:
        file = rng.choice(files[rng.choice([*files])])
        whole = file.read_bytes()
        if file.suffix == ".json" and rng.random() < 0.7:
            file.write_text(json.dumps(mutated(rng, json.loads(whole))), "ascii")
        else:
            file.write_bytes(mutated_bytes(rng, whole))
        try:
            summarize([run])
        finally:
            file.write_bytes(whole)

    return attempt


# Of all mutations; those of YAML and of runs take longest.
SHARES = {readers: 0.4, plans: 0.25, answers: 0.28, configurations: 0.05, runs: 0.02}


@pytest.mark.parametrize("target", SHARES, ids=lambda target: target.__name__)
def test_a_mutated_input_is_used_or_refused_by_our_own_errors(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a path that became empty leads
    attempt, rng = target(tmp_path), Random(f"{target.__name__} {os.environ.get('INSCL_MUTATION_SEED', 0)}")
    row = Row(f"mutated {target.__name__}", (target.__doc__ or "").rstrip("."))
    faults: dict[str, str] = {}
    before, slowest, seen = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0, Counter()
    for _ in range(round(COUNT * SHARES[target])):
        began, row.tried = time.process_time(), row.tried + 1
        try:
            attempt(rng)
            seen["used"] += 1
        except InsclError as error:
            seen["refused"] += 1
            if "\n" in str(error) and not isinstance(error, ConfigError):  # which has a line for each problem
                faults[_place(error)] = f"mutation {row.tried}: more than a line"
        except Exception as error:
            faults.setdefault(_place(error), f"mutation {row.tried}: {error!r:.200}")
        slowest = max(slowest, time.process_time() - began)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert not faults
    row.survived = seen.total()
    assert seen["refused"] > 0
    assert seen["used"] > 0
    assert not FULL or slowest < SLOWEST
    assert grown < LARGEST
    row.write(f"{seen['refused']:,} refused in one line; slowest {slowest:.2f} s, {grown >> 10} MiB more")


def _place(error: Exception) -> str:
    """Where an error that is not ours came from: the last line of ours."""
    ours = [frame for frame in extract_tb(error.__traceback__) if "inscl" in frame.filename]
    return f"{type(error).__name__} at {ours[-1].filename}:{ours[-1].lineno}" if ours else repr(error)
