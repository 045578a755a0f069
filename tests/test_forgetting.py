"""The forgetting analysis on whole runs of a made-up trainer whose answers are forgotten by rule."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet
from scipy.special import expit
from scipy.stats import t

from inscl.cli import main
from inscl.core.scoring import rouge_l
from inscl.data.mixture import read_mixture
from inscl.errors import ConfigError, InsclError
from inscl.evaluation.scores import RowScores, instructions_of
from inscl.experiments.config import parse_config
from inscl.experiments.run import run
from inscl.experiments.run_folder import RunFolder
from inscl.forgetting import ForgettingRule, Verdict, analyse
from inscl.forgetting.fates import PastTask, Tally
from inscl.forgetting.rates import RowHistory
from inscl.models.loading import RECORD
from support import WordEncoder, WordTagger

TASKS = ("review_opinion", "record_field", "price_list")


class Forgetter:
    """A model is the tasks it was trained on; without replay it answers earlier rows in the newest task's way."""

    def train(self, mixture, start, out, *, seed, progress):
        rows = read_mixture(mixture)
        newest = next(row.task for row in rows if not row.replayed)
        out.mkdir(parents=True, exist_ok=True)
        (out / "known.json").write_text(json.dumps([newest, sorted({row.task for row in rows})]))
        (out / RECORD).write_text(json.dumps({"tokens": len(rows), "seconds": 1.0}))
        return {"tokens": len(rows), "seconds": 1.0}

    def score(self, model, tasks, out, *, progress):
        known = Path(model) / "known.json"
        newest, trained = json.loads(known.read_text()) if known.exists() else ("", [])
        found = {}
        for task, rows in tasks.items():
            answers = [self.answer(i, task, row, newest, trained) for i, row in enumerate(rows)]
            write_answers(out / f"{task}.jsonl", task, rows, answers)
            scores = [rouge_l(answer, row.outputs) for answer, row in zip(answers, rows, strict=True)]
            found[task] = RowScores({"rouge_l": scores, "exact_match": scores}, instructions_of(rows))
        return found

    def answer(self, i, task, row, newest, trained):
        if task == newest:
            return row.outputs[0] if i != 1 else ""  # the second row of every task is never right
        if task not in trained:
            return ["pay 3 coins", row.input, "", row.outputs[0]][i % 4]
        return "[nothing]" if i == 0 and task == "record_field" else row.outputs[0]


def write_answers(path, task, rows, answers):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for row, answer in zip(rows, answers, strict=True):
            asked = {"task": task, "instruction": row.instruction, "input": row.input, "references": list(row.outputs)}
            print(json.dumps({**asked, "prediction": answer, "capped": False, "loss": None}), file=file)


def config_of(**changes):
    text = {
        "tasks": {"demo": True, "only": list(TASKS), "train": 30, "dev": 5, "test": 12},
        "model": "no-model",
        "strategies": ["none", "random"],
        "budgets": [{"per_task": 4}],
        **changes,
    }
    return parse_config(json.dumps(text))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    run(config_of(), out, trainer=Forgetter(), encoder=WordEncoder(), tagger=WordTagger())
    return out


@pytest.fixture
def folder(finished, tmp_path):
    """A copy that a test may spoil."""
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def words(monkeypatch):
    """The command line's encoder, without a model."""
    monkeypatch.setattr("inscl.memory.memory.SentenceEncoder", lambda *_: WordEncoder())


def recount(folder: Path, ever_right: float, drop: float) -> dict:
    """(strategy, stage, task) -> (rows, ever right, forgotten), from the files alone, row by row over all stages."""
    found = {}
    for stream in json.loads((folder / "streams.json").read_text()):
        files = [folder / "stages" / name / "scores.json" for name in stream["stages"]]
        scores = [
            {task: scored["rows"]["rouge_l"] for task, scored in json.loads(file.read_text())["test"].items()}
            for file in files
        ]
        for place, task in enumerate(stream["tasks"]):
            for now in range(place + 1, len(files)):
                columns = list(zip(*(stage[task] for stage in scores[: now + 1] if task in stage), strict=True))
                right = [column for column in columns if any(score >= ever_right for score in column[:-1])]
                lost = [column for column in right if any(score - column[-1] >= drop for score in column[:-1])]
                found[stream["strategy"], now + 1, task] = (len(columns), len(right), len(lost))
    return found


@pytest.mark.parametrize(("ever_right", "drop"), [(0.5, 0.3), (1.0, 1.0), (0.1, 0.05)])
def test_rates_are_those_of_a_plain_recount(finished, ever_right, drop):
    found = analyse(finished, rule=ForgettingRule(ever_right=ever_right, drop=drop), encoder=WordEncoder())
    counts = {
        (row["strategy"], row["stage"], row["task"]): (row["rows"], row["ever_right"], row["forgotten"])
        for row in found.rates.to_pylist()
    }
    assert counts == recount(finished, ever_right, drop)
    for row in found.rates.to_pylist():
        if row["ever_right"]:
            assert row["rate_forgotten"] == row["forgotten"] / row["ever_right"]
            assert row["rate_forgotten_low"] <= row["rate_forgotten"] <= row["rate_forgotten_high"]


def test_a_rows_answers_over_the_stages_are_those_in_the_files(finished):
    """Every stage's answer and score, from the files alone; stages that did not score the row have none."""
    listed = json.loads((finished / "streams.json").read_text())
    for entry, stream in zip(listed, RunFolder(finished).streams, strict=True):
        for past in PastTask.at_the_end(stream):
            kept: dict[int, dict[int, tuple[str, float]]] = {}
            for number, name in enumerate(entry["stages"], start=1):
                stage = finished / "stages" / name
                scored = json.loads((stage / "scores.json").read_text())["test"].get(past.task)
                answers = (stage / "predictions" / "test" / f"{past.task}.jsonl").read_text() if scored else ""
                for row, line in enumerate(answers.splitlines()):
                    answer = json.loads(line)["prediction"]
                    kept.setdefault(row, {})[number] = (answer, scored["rows"]["rouge_l"][row])
            for fate in past.answered():
                told = {n: (span.answer, span.score) for span in fate.spans for n in range(span.first, span.last + 1)}
                assert told == kept[fate.history.row]
                assert all(a[2:] != b[2:] or a.last + 1 < b.first for a, b in pairwise(fate.spans))


tenths = st.integers(0, 10)
stage_scores = st.lists(st.one_of(st.none(), st.lists(tenths, min_size=1, max_size=4)), min_size=2, max_size=5)


@example([[7], [4]], 5, 3)  # 0.7 - 0.4 < 0.3 in floating point
@given(stage_scores, st.integers(1, 10), st.integers(1, 10))
def test_histories_are_exact_in_tenths(stages, ever_right, drop):
    """Integers are the oracle."""
    stages = [*stages[:-1], stages[-1] or [0]]
    scored = [None if rows is None else [n / 10 for n in rows] for rows in stages]
    rule = ForgettingRule(ever_right=ever_right / 10, drop=drop / 10)
    found = [row for row in rule.histories(scored, ["i"] * len(stages[-1])) if row.right]
    expected = {}
    for row, score in enumerate(stages[-1]):
        before = [rows[row] for rows in stages[:-1] if rows is not None and row < len(rows)]
        if before and max(before) >= ever_right:
            expected[row] = max(before) - score >= drop
    assert {history.row: history.forgotten for history in found} == expected
    for history in found:
        assert stages[history.best_stage - 1][history.row] == round(10 * history.best)


def test_a_rate_counts_instructions_and_not_rows():
    """Two instructions, one lost whole, say nothing of others; a hundred are a t-interval around the logit."""

    def rate(flags, names):
        rows = [
            RowHistory(i, name, 1.0, 1, 0.0, True, flag)
            for i, (flag, name) in enumerate(zip(flags, names, strict=True))
        ]
        return Tally(rows).forgotten

    flags = [True] * 10 + [False] * 10
    pooled = rate(flags, ["a"] * 10 + ["b"] * 10)
    assert (pooled.low, pooled.high) == pytest.approx((0, 1), abs=1e-3)
    assert (pooled.mean, pooled.n, pooled.clusters) == (0.5, 20, 2)
    each = rate(flags * 5, [str(i) for i in range(100)])
    half = t.ppf(0.975, 99) * np.std([1, 0], ddof=0) / np.sqrt(99) / 0.25
    assert (each.low, each.high) == pytest.approx((expit(-half), expit(half)), abs=1e-9)
    assert rate([], []) is None


def test_each_forgotten_row_says_what_it_was_and_is(finished):
    found = analyse(finished, stage="all", encoder=WordEncoder())
    rows = found.forgotten.to_pylist()
    assert len(rows) == sum(n for _, _, n in recount(finished, 0.5, 0.3).values())
    reasons = {"pay 3 coins": "other task", "": "empty", "[nothing]": "wrong"}
    for row in rows:
        assert row["once"] == row["reference"]
        if row["strategy"] == "none":
            assert row["reason"] == reasons.get(row["now"], "echo"), row
            assert row["kind"] == "unrelated"
    assert {row["reason"] for row in rows if row["strategy"] == "random"} == {"wrong"}
    assert all(row["row"] != 1 for row in rows if row["strategy"] == "none" and row["now"] == "")


def test_the_tables_count_what_the_rows_say(finished):
    found = analyse(finished, encoder=WordEncoder())
    rows = found.forgotten.to_pylist()
    assert {row["stage"] for row in rows} == {3}
    for rate in found.rates.to_pylist():
        if rate["stage"] < 3:
            assert rate["judge"] is rate["unrelated"] is rate["rate_unrelated"] is None
            continue
        here = [row for row in rows if all(row[name] == rate[name] for name in ("strategy", "seed", "task"))]
        assert rate["forgotten"] == len(here)
        assert rate["unrelated"] == sum(row["kind"] == "unrelated" for row in here)
        assert rate["related"] + rate["unrelated"] + rate["not_judged"] == rate["forgotten"]
    all_tasks = {line.strategy: line for line in found.lines if line.task is None}
    assert all_tasks["none"].forgotten.count == sum(row["strategy"] == "none" for row in rows)
    assert all_tasks["random"].reasons == {"wrong": 1}


def test_the_last_lines_pool_orders_and_seeds(tmp_path):
    config = config_of(seeds=[0, 1], orders=["given", "reverse"], strategies=["none"])
    run(config, tmp_path / "run", trainer=Forgetter(), encoder=WordEncoder(), tagger=WordTagger())
    found = analyse(tmp_path / "run", encoder=WordEncoder())
    line = next(line for line in found.lines if line.task == "record_field")  # never the last task
    rates = [row for row in found.rates.to_pylist() if row["task"] == "record_field" and row["stage"] == 3]
    assert (line.streams, len(rates)) == (4, 4)
    assert line.forgotten.count == sum(row["forgotten"] for row in rates)
    assert line.forgotten.n == sum(row["ever_right"] for row in rates)


def test_examples_differ_where_they_can(finished):
    found = analyse(finished, encoder=WordEncoder())
    shown = found.examples(3)
    assert list(shown) == ["review_opinion", "record_field"]
    for rows in shown.values():
        assert len({row["reason"] for row in rows}) == 3
    assert found.examples(0) == {}


def test_an_unfinished_run_is_analysed_and_says_so(folder, words, capsys):
    (last,) = folder.glob("stages/random-*-03-*")
    (last / "scores.json").unlink()
    assert main(["forgetting", str(folder)]) == 0
    told = capsys.readouterr()
    assert "The run is not finished: 1 of 2 streams lack stages (the first: random with 4 per task, order" in told.err
    assert "2 of 3 stages" in told.err
    rows = parquet.read_table(folder / "forgetting.parquet").to_pylist()
    assert max(row["stage"] for row in rows if row["strategy"] == "random") == 2
    assert max(row["stage"] for row in rows if row["strategy"] == "none") == 3


def test_answers_that_are_gone_are_counted_as_not_judged(folder):
    (last,) = folder.glob("stages/none-*-03-*")
    (last / "predictions" / "test" / "record_field.jsonl").unlink()
    found = analyse(folder, encoder=WordEncoder())
    gone = [row for row in found.forgotten.to_pylist() if row["kind"] is None]
    assert gone
    assert {(row["task"], row["strategy"], row["now"]) for row in gone} == {("record_field", "none", None)}
    assert found.notes == (
        f"{len(gone)} of {found.forgotten.num_rows} forgotten examples are not judged: its answer was not kept.",
    )
    line = next(line for line in found.lines if (line.task, line.strategy) == ("record_field", "none"))
    assert (line.not_judged, line.unrelated) == (len(gone), None)


def test_answers_of_other_rows_are_not_taken_for_these(folder):
    (path,) = folder.glob("stages/none-*-03-*/predictions/test/record_field.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")
    stream = next(stream for stream in RunFolder.read(folder).streams if stream.key.strategy == "none")
    assert "record_field" not in stream.stages[2].answers
    assert "price_list" in stream.stages[2].answers


def test_the_command_writes_tidy_files_and_prints_a_table(folder, words, capsys):
    assert main(["forgetting", str(folder), "--examples", "1"]) == 0
    printed = capsys.readouterr()
    assert "review_opinion" in printed.out
    assert "unrelated" in printed.out
    assert "pay 3 coins" in printed.out
    rates, lost = (parquet.read_table(folder / f"{name}.parquet") for name in ("forgetting", "forgotten"))
    assert pyarrow.csv.read_csv(folder / "forgetting.csv").num_rows == rates.num_rows == 6
    assert {"run_id", "strategy", "budget", "order", "seed", "stage", "task", "rate_forgotten"} <= {*rates.column_names}
    assert {
        "row",
        "best",
        "best_stage",
        "score",
        "kind",
        "reason",
        "nearest_task",
        "instruction",
        "input",
        "reference",
        "once",
        "now",
    } <= {*lost.column_names}
    assert not list(folder.glob("*.partial"))
    assert main(["forgetting", str(folder), "--json", "--quiet", "--stage", "all"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    plain = json.loads(printed.out)
    assert plain["judge"] == "offline"
    assert len(plain["rates"]) == 6
    assert all(row["judge"] == "offline" for row in plain["rates"])


def test_hostile_texts_are_printed_as_text(folder, words, capsys):
    for path in folder.glob("stages/none-*-03-*/predictions/test/review_opinion.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["prediction"] = "[red]\x1b[31m {0} %s <script>"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["forgetting", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out
    assert "[red]\ufffd[31m {0} %s <script>" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "'nowhere' holds no run"),
        (["RUN", "--judge", "magic"], "`--judge` must be offline or server, got 'magic'"),
        (["RUN", "--judge", "server"], "needs `--server` and `--model`"),
        (["RUN", "--model", "x"], "belong to `--judge server`"),
        (["RUN", "--drop", "1.5"], "`drop` must lie above 0 and be at most 1"),
        (["RUN", "--ever-right", "nan"], "`ever_right` must lie above 0"),
        (["RUN", "--stage", "first"], "`stage` must be last or all, got 'first'"),
        (["RUN", "--judge", "server", "--server", "nonsense", "--model", "x"], "server address 'nonsense' is none"),
    ],
)
def test_mistakes_are_told_in_one_line(finished, words, capsys, arguments, message):
    assert main(["forgetting", *[str(finished) if word == "RUN" else word for word in arguments]]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_damage_is_named(folder):
    (path,) = folder.glob("stages/none-*-03-*/predictions/test/review_opinion.jsonl")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InsclError, match=r"review_opinion.jsonl is damaged"):
        analyse(folder, encoder=WordEncoder())
    (folder / "streams.json").write_text("[")
    with pytest.raises(InsclError, match=r"streams.json is damaged"):
        analyse(folder)
    (folder / "streams.json").unlink()
    with pytest.raises(InsclError, match="has not finished a stage of any stream yet"):
        analyse(folder)


def test_a_run_without_its_memory_says_what_is_missing(folder):
    import shutil

    shutil.rmtree(folder / "memory")
    with pytest.raises(InsclError, match="no training rows of task 'review_opinion', which a judge compares"):
        analyse(folder, encoder=WordEncoder())


def test_any_judge_may_be_given(finished):
    class Lenient:
        name = "lenient"

        def __call__(self, cases):
            assert len(cases) == len(set(cases))
            return [Verdict(kind="related", reason="wrong") for _ in cases]

    found = analyse(finished, judge=Lenient())
    assert {row["judge"] for row in found.forgotten.to_pylist()} == {"lenient"}
    assert all(line.unrelated.count == 0 for line in found.lines if line.unrelated)
    with pytest.raises(ConfigError, match="`stage` must be"):
        analyse(finished, judge=Lenient(), stage="some")


# ---------------------------------------------------------------- the judge on a server


@contextmanager
def stub(answer):
    """A chat server on loopback that answers by rule; yields its address and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            case = json.loads(body["messages"][-1]["content"])
            asked.append((body, case))
            text = answer(case)
            code, plain = (
                (500, {"error": "no"}) if text is None else (200, {"choices": [{"message": {"content": text}}]})
            )
            content = json.dumps(plain).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()


def by_rule(case):
    kind, reason = ("unrelated", "empty") if not case["answer"] else ("related", "wrong")
    return json.dumps({"kind": kind, "reason": reason, "nearest_task": "price_list"})


def test_a_server_judges_by_the_rubric_and_is_asked_once(folder, capsys):
    with stub(by_rule) as (url, asked):
        command = ["forgetting", str(folder), "--judge", "server", "--server", url, "--model", "judge-1", "--quiet"]
        assert main(command) == 0
        rows = parquet.read_table(folder / "forgotten.parquet").to_pylist()
        assert {row["judge"] for row in rows} == {"server: judge-1"}
        assert all((row["kind"] == "unrelated") == (row["now"] == "") for row in rows)
        assert {row["nearest_task"] for row in rows} == {"price_list"}
        first = len(asked)
        assert first == len({json.dumps(case) for _, case in asked}) > 5
        assert main([*command, "--json"]) == 0
        assert len(asked) == first
    capsys.readouterr()
    body, case = asked[0]
    system = body["messages"][0]["content"]
    assert "instruction-related" not in system
    assert "An answer that fits both is related." in system
    assert all(task in system for task in TASKS)
    assert set(case) == {"task", "instruction", "input", "expected", "answer"}
    assert body["response_format"]["json_schema"]["schema"]["properties"]["kind"]["enum"] == ["related", "unrelated"]


def test_what_no_rubric_knows_is_not_judged_and_never_guessed(folder, capsys):
    odd = [
        "",
        "I think it is related.",
        '{"kind": "related", "reason": "wr',
        '{"kind": "related", "reason": "echo", "nearest_task": null}',  # a reason of the other kind
        '{"kind": "maybe", "reason": "wrong", "nearest_task": null}',
        '{"kind": ["related"], "reason": {}, "nearest_task": null}',
        '{"kind": "related", "reason": "wrong"} or {"kind": "unrelated", "reason": "echo"}',
        "[" * 3000 + "{",
    ]
    fine = [
        'Sure! ```json\n{"kind": "unrelated", "reason": "other task", "nearest_task": "no such task"}\n```',
        '<think>{"kind": "related", "reason": "wrong"}?</think> {"kind": "unrelated", "reason": "other task"}',
    ]
    seen = {}

    def answer(case):
        return seen.setdefault(json.dumps(case), (odd + fine)[len(seen) % (len(odd) + len(fine))])

    with stub(answer) as (url, asked):
        command = ["forgetting", str(folder), "--judge", "server", "--server", url, "--model", "judge-1"]
        assert main([*command, "--workers", "1"]) == 0
    rows = {
        (row["task"], row["instruction"], row["input"], row["now"]): row
        for row in parquet.read_table(folder / "forgotten.parquet").to_pylist()
    }
    assert len(rows) == len(asked) >= len(odd + fine)
    for text, said in seen.items():
        case = json.loads(text)
        row = rows[case["task"], case["instruction"], case["input"], case["answer"]]
        expected = ("unrelated", "other task") if said in fine else (None, "the judge's reply is none of the rubric's")
        assert (row["kind"], row["reason"], row["nearest_task"]) == (*expected, None), said
    told = capsys.readouterr()
    assert "forgotten examples are not judged: the judge's reply is none of the rubric's" in told.err
    assert "not judged" in told.out
