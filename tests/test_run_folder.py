"""A run's folder: one that version 0.1 wrote says the same today, and both sides of a ratio are over the same rows.

Intervals are taken in another way since, and their tests are elsewhere; means and counts are what they were.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.errors import InsclError
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.scores import RowScores
from inscl.experiments.results import Stream, StreamResult
from inscl.experiments.run_folder import RunFolder
from inscl.experiments.summary import Summary
from inscl.forgetting import analyse
from inscl.report import summarize
from support import WordEncoder

INTERVAL = {"low", "high", "over"}
OLD = Path(__file__).parent / "fixtures" / "run-0.1"  # three tasks, three strategies, two seeds, a tiny model


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A run as commit bcf9307 left it."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(OLD / "run.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "run-0.1"


@pytest.fixture(scope="module")
def expected():
    """What the same commit said of it."""
    return json.loads((OLD / "expected.json").read_text())


def plain(value):
    return json.loads(json.dumps(value.to_dict()))


def same(new, old):
    """Whether all that was said then is said now, number by number; more may be said, and intervals are others."""
    if isinstance(old, dict):
        return all(same(new[key], value) for key, value in old.items() if key not in INTERVAL)
    if isinstance(old, list):
        return len(new) == len(old) and all(map(same, new, old))
    return new == (pytest.approx(old) if isinstance(old, float) else old)


def test_an_old_run_has_the_same_summary(old, expected):
    run = RunFolder.read(old)
    assert run.finished
    found = plain(Summary.of(run.table, run.final_rows()))
    assert same(found["lines"], expected["summary"]["lines"])
    for new, was in zip(found["differences"], expected["summary"]["differences"], strict=True):
        assert (new["line"], new["baseline"]) == (was["strategy"], was["baseline"])
        assert same(new["paired"], {key: was[key] for key in ("mean", "n")})
        assert same(new["crossed"], {key: was[key] for key in ("mean", "n")})


def test_an_old_run_has_the_same_report(old, expected):
    found, was = plain(summarize(old)), expected["report"]
    assert same(found["lines"], was["lines"])
    assert same(found["joint"], was["joint"])
    assert same([{k: v for k, v in s.items() if k != "scores"} for s in found["streams"]],
                [{k: v for k, v in s.items() if k != "scores"} for s in was["streams"]])  # fmt: skip
    for name in ("budgets", "distances", "insinfo"):
        assert same(found["replay"][name], was[name])


def test_an_old_run_has_forgotten_the_same(old, expected):
    found = analyse(old, encoder=WordEncoder()).to_dict()["lines"]
    for new, was in zip(found, expected["forgetting"]["lines"], strict=True):
        assert (new["task"], new["strategy"], new["reasons"]) == (was["task"], was["strategy"], was["reasons"])
        assert (new["forgotten"]["mean"], new["forgotten"]["n"]) == (was["forgotten"]["value"], was["forgotten"]["of"])


def numbers(run):
    """The table without intervals."""
    columns = [name for name in run.table.column_names if name not in {*INTERVAL, "clusters"}]
    return {tuple(f"{row[c]:.9g}" if isinstance(row[c], float) else row[c] for c in columns) for row in run.rows}


def test_an_old_run_without_its_table_has_the_same_numbers(old):
    written = numbers(RunFolder.read(old))
    (old / "results.parquet").rename(old / "away.parquet")
    try:
        again = numbers(RunFolder.read(old))
    finally:
        (old / "away.parquet").rename(old / "results.parquet")
    assert written <= again  # joint training has metrics of its own now


def _damaged(name, change):
    """Changes the JSON of a file of the run."""

    def damage(run):
        content = json.loads((run / name).read_text())
        change(content)
        (run / name).write_text(json.dumps(content))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        _damaged("run.json", lambda record: record["tasks"].pop("side")),
        _damaged("streams.json", lambda streams: streams[0]["stages"].__setitem__(0, "../" + "a" * 300)),
        _damaged("streams.json", lambda streams: streams[0].__setitem__("seed", 2**70)),
    ],
)
def test_a_damaged_list_of_a_run_is_named(old, damage, tmp_path):
    run = shutil.copytree(old, tmp_path / "run")
    damage(run)
    with pytest.raises(InsclError, match=r"(run|streams)\.json is damaged"):
        summarize(run)


def test_a_table_that_is_not_what_was_written_is_made_again(old, tmp_path):
    run = shutil.copytree(old, tmp_path / "run")
    table = pq.read_table(run / "results.parquet")
    no_text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    changed = table.set_column(2, "strategy", pa.chunked_array([pa.concat_arrays([no_text] * table.num_rows)]))
    for other in (changed, table.drop_columns("low"), table.set_column(5, "seed", table["seed"].cast("string"))):
        pq.write_table(other, run / "results.parquet")
        assert {row["strategy"] for row in RunFolder.read(run).rows} == {"none", "random", "inscl", "joint"}


def test_a_table_that_lacks_a_score_is_made_again(old, tmp_path):
    run = shutil.copytree(old, tmp_path / old.name)
    table, scorer = pq.read_table(run / "results.parquet"), RunFolder.read(old).config.scorer
    task = table["task"].to_pylist()
    given = [
        i for i, row in enumerate(table.to_pylist()) if row["metric"] == scorer and row["stage"] == 2 and row["task"]
    ]
    named = [f"{name}x" if i == given[0] else name for i, name in enumerate(task)]
    pq.write_table(table.set_column(table.schema.names.index("task"), "task", pa.array(named)), run / "results.parquet")
    assert f"{task[given[0]]}x" not in {row["task"] for row in RunFolder.read(run).rows}
    assert numbers(RunFolder.read(run)) >= numbers(RunFolder.read(old))


def test_answers_nested_without_end_are_damage(tmp_path):
    (tmp_path / "a.jsonl").write_text("[" * 100_000)
    with pytest.raises(InsclError, match="is damaged"):
        Prediction.read(tmp_path / "a.jsonl")


def test_page_and_command_agree_on_what_is_forgotten(old):
    page, command = summarize(old).forgotten, analyse(old, encoder=WordEncoder())
    lost = [row for row in command.forgotten.to_pylist() if row["seed"] == 0]  # the page reads each line's first stream
    assert page.judges == ()
    assert page.found == len(lost) > 0
    told = {(row["strategy"], row["task"], row["input"], row["once"], row["now"]) for row in lost}
    for example in page.examples:
        assert (example.line, example.task, example.input, example.once, example.now) in told
    command.write()
    try:
        judged = summarize(old).forgotten
    finally:
        for name in ("forgetting.parquet", "forgetting.csv", "forgotten.parquet"):
            (old / name).unlink()
    assert judged.judges == ("offline",)
    assert judged.found == command.forgotten.num_rows


# ---------------------------------------------------------------- rows that count


scores = st.lists(st.integers(0, 4), min_size=12, max_size=12).map(lambda rows: [1, *rows])  # no expert scores 0
limits = st.lists(st.integers(1, 13) | st.none(), min_size=4, max_size=4)


def rows_of(values):
    return RowScores({"exact_match": values}, [str(i % 5) for i in range(len(values))])


@given(st.lists(scores, min_size=4, max_size=4), limits)
def test_an_expert_against_itself_keeps_exactly_100_per_cent(drawn, limits):
    """Whatever number of rows each stage counts: the expert's score is over the same ones."""
    tasks = ["a", "b", "c", "d"]
    known = {task: rows_of(rows) for task, rows in zip(tasks, drawn, strict=True)}
    stream = StreamResult(
        stream=Stream(run_id="r", model="m", strategy="expert", budget="", order="given", seed=0),
        tasks=tasks,
        stages=[{task: known[task] for task in tasks[: i + 2]} for i in range(4)],
        limits=limits,
        main="exact_match",
        experts={task: [rows] for task, rows in known.items()},
        zero_shot=known,
        joint={task: [rows] for task, rows in known.items()},
    )
    found = {(row.stage, row.task, row.metric): row.value for row in stream.numbers()}
    ratios = ("relative_gain", "ratio_of_sums", "relative_gain_mean", "relative_gain_final", "share_of_joint")
    assert {value for (_, _, metric), value in found.items() if metric in ratios} == {100.0}
    assert found[None, None, "learning"] == 1.0
    assert found[None, None, "relative_gain_std"] == 0.0
    for metric in ("backward_transfer", "forgetting", "forward_transfer"):
        assert found[None, None, metric] == 0.0
