"""The tidy table: every number against one worked out by hand, and files that are whole or not there."""

import csv
import math
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.core.stats import score_interval
from inscl.evaluation.scores import RowScores
from inscl.experiments.comparison import strategy_difference
from inscl.experiments.results import SCHEMA, Stream, StreamResult, to_table
from inscl.experiments.run_folder import CSV, PARQUET, RunFolder

TASKS = ["a", "b", "c"]
EXPERTS = {"a": 50.0, "b": 80.0, "c": 10.0}
MATRIX = [[50, 20], [40, 60, 5], [25, 60, 8]]  # every stage also scores the next task


def stream(strategy="inscl", seed=0, budget="24 per task", order="given"):
    return Stream(run_id="r", model="m", strategy=strategy, budget=budget, order=order, seed=seed)


def rows_of(value, n=30):
    """`n` rows that all score `value`."""
    return RowScores({"rouge_l": [value] * n}, [str(i) for i in range(n)])


def seeds_of(scores):
    return None if scores is None else {task: [rows_of(value)] for task, value in scores.items()}


def result(matrix=MATRIX, experts=EXPERTS, zero_shot=None, untrained=True, **changes):
    stages = [{task: rows_of(value) for task, value in zip(TASKS, row, strict=False)} for row in matrix]
    known = {"a": 5.0, "b": 8.0, "c": 1.0} if zero_shot is None else zero_shot
    given = {"stream": stream(), "tasks": TASKS, "stages": stages, "experts": seeds_of(experts),
             "zero_shot": {task: rows_of(value) for task, value in known.items()} if untrained else None}  # fmt: skip
    return StreamResult(**given | changes)


def values(result, metric):
    """Value by (stage, task)."""
    return {(row.stage, row.task): row.value for row in result.numbers() if row.metric == metric}


def test_metrics_equal_the_formulas_worked_by_hand():
    found = result()
    assert values(found, "relative_gain") == {(2, None): 80.0, (3, None): pytest.approx(100 * (0.5 + 0.75) / 2)}
    assert values(found, "ratio_of_sums")[3, None] == pytest.approx(100 * (25 + 60) / (50 + 80))
    whole = {
        "average_performance": (25 + 60 + 8) / 3,
        "backward_transfer": ((25 - 50) + (60 - 60)) / 2,
        "forgetting": ((50 - 25) + (60 - 60)) / 2,
        "forward_transfer": ((20 - 8) + (5 - 1)) / 2,
        "learning": (50 / 50 + 60 / 80 + 8 / 10) / 3,
        "relative_gain_mean": (80 + 62.5) / 2,
        "relative_gain_std": (80 - 62.5) / 2,
        "relative_gain_last_five": (80 + 62.5) / 2,
        "relative_gain_final": 62.5,
    }
    for metric, value in whole.items():
        assert values(found, metric) == {(None, None): pytest.approx(value)}, metric
    assert values(found, "forgetting_rate") == {(None, "a"): 50.0, (None, "b"): 0.0, (None, "c"): 0.0}
    assert values(found, "expert") == {(None, task): score for task, score in EXPERTS.items()}
    assert values(found, "rouge_l")[0, "b"] == 8.0  # the untrained model is stage 0


scores = st.integers(1, 100)


@given(st.integers(2, 6).flatmap(lambda n: st.tuples(
    st.lists(st.lists(scores, min_size=n, max_size=n), min_size=n, max_size=n),
    st.lists(scores, min_size=n, max_size=n))))  # fmt: skip
def test_relative_gain_in_exact_fractions(drawn):
    matrix, experts = drawn
    tasks = [f"t{j}" for j in range(len(experts))]
    stages = [{t: rows_of(v, 1) for t, v in zip(tasks, row, strict=True)} for row in matrix]
    scores = seeds_of(dict(zip(tasks, experts, strict=True)))
    found = StreamResult(stream=stream(), tasks=tasks, stages=stages, experts=scores)
    gains = values(found, "relative_gain")
    for i in range(1, len(tasks)):
        exact = 100 * sum(Fraction(matrix[i][j], experts[j]) for j in range(i)) / i
        assert gains[i + 1, None] == pytest.approx(float(exact))


def test_an_unfinished_stream_has_its_stages_and_no_whole():
    rows = result(MATRIX[:2]).numbers()
    assert {row.stage for row in rows if row.metric == "relative_gain"} == {2}
    assert not {"average_performance", "learning", "relative_gain_final"} & {row.metric for row in rows}


def test_what_is_not_measured_is_left_out():
    metrics = {row.metric for row in result(experts=None, untrained=False).numbers()}
    assert metrics == {"rouge_l", "average_performance", "backward_transfer", "forgetting", "forgetting_rate"}
    one = result([[50]], tasks=["a"], experts={"a": 50.0}, zero_shot={"a": 1.0})
    assert {r.metric for r in one.numbers()} == {"rouge_l", "expert", "average_performance", "learning"}


def test_a_rate_without_a_start_is_undefined_and_spoils_no_other():
    rates = values(result([[0, 20], [40, 60, 5], [25, 30, 8]]), "forgetting_rate")
    assert rates == {(None, "a"): None, (None, "b"): 50.0, (None, "c"): 0.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": EXPERTS | {"b": 0.0}}, "expert of task 'b' scores 0.0: ratios to it are undefined"),
        ({"experts": {"a": 1.0, "b": 2.0}}, "Task 'c' has no score of the expert"),
        ({"zero_shot": {"a": 1.0}}, "Task 'b' has no score of the untrained model"),
        ({"matrix": [[50], [40], [25, 60, 8]]}, "stage 1 on task 1 must be finite"),
    ],
)
def test_missing_scores_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        result(**changes).numbers()


def test_cells_carry_mean_interval_and_rows(rng):
    rows = rng.random(40)
    cell = score_interval(rows, clusters=[i % 8 for i in range(40)])
    assert cell.mean == pytest.approx(math.fsum(rows) / 40)
    assert cell.low < cell.mean < cell.high
    assert cell.n == 40
    with pytest.raises(ValueError, match="at least one"):
        score_interval([])


def test_table_has_the_columns_and_costs():
    table = to_table([result(costs=[{"tokens": 5.0}, {"tokens": 7.0}, {"tokens": 9.0}])])
    assert table.schema == SCHEMA
    rows = [row for row in table.to_pylist() if row["metric"] == "tokens"]
    assert [(row["stage"], row["value"], row["strategy"]) for row in rows] == [
        (1, 5.0, "inscl"), (2, 7.0, "inscl"), (3, 9.0, "inscl")
    ]  # fmt: skip
    assert to_table([]).schema == SCHEMA


def test_both_files_hold_the_table_exactly(tmp_path):
    table = to_table([result([[50 / 3, 20], [40, 0.1, 5], [25, 60, 8]]), result(stream=stream('a "b",\nc', 1))])
    RunFolder(tmp_path / "deep" / "run").write_table(table)
    folder = tmp_path / "deep" / "run"
    assert pq.read_table(folder / PARQUET).equals(table)
    with (folder / CSV).open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == SCHEMA.names
    for ours, theirs in zip(table.to_pylist(), read, strict=True):
        assert theirs["strategy"] == ours["strategy"]
        assert (float(theirs["value"]) if theirs["value"] else None) == ours["value"]
        assert theirs["stage"] == ("" if ours["stage"] is None else str(ours["stage"]))
    assert sorted(path.name for path in folder.iterdir()) == sorted([PARQUET, CSV])


def test_no_spreadsheet_takes_a_cell_for_a_formula(tmp_path):
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1", "\r", "\n-", "'", "'=1", "", "plain", "a=b", "1-2"]
    RunFolder(tmp_path).write_table(to_table([result(stream=stream(text)) for text in texts]))
    with (tmp_path / CSV).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cells = [row["strategy"] for row in rows]
    assert {text[:1] for text in cells} <= {"'", "p", "a", "1", ""}
    assert list(dict.fromkeys(cell.removeprefix("'") for cell in cells)) == texts
    assert {row["value"] for row in rows} >= {"20", "40"}  # numbers are left as they are


def test_a_failing_write_leaves_the_old_files(tmp_path, monkeypatch):
    old, new = to_table([result()]), to_table([result(), result(stream=stream(seed=1))])
    RunFolder(tmp_path).write_table(old)

    def full(table, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.csv.write_csv", full)
    with pytest.raises(OSError, match="No space"):
        RunFolder(tmp_path).write_table(new)
    assert pq.read_table(tmp_path / PARQUET).equals(old)
    assert (tmp_path / CSV).read_text().startswith('"run_id"')
    assert len(list(tmp_path.iterdir())) == 2


def test_strategies_are_compared_on_the_streams_both_have():
    def with_final(value, **where):  # the score on task a alone moves the final gain
        return result([[50, 20], [40, 60, 5], [value, 60, 8]], stream=stream(**where))

    table = to_table(
        [with_final(30, seed=0), with_final(40, seed=1), with_final(45, seed=2)]
        + [with_final(20, strategy="none", budget="", seed=seed) for seed in (0, 1)]
        + [with_final(99, seed=0, budget="5%")]
    )
    found = strategy_difference(table, "inscl", "none", budget="24 per task")
    gains = np.array([(30 - 20), (40 - 20)]) / 50 * 100 / 2
    assert (found.mean, found.n) == (pytest.approx(gains.mean()), 2)
    half = 12.706 * gains.std(ddof=1) / 2**0.5  # t(0.975, 1) of the printed tables
    assert (found.low, found.high) == pytest.approx((gains.mean() - half, gains.mean() + half), abs=0.01)
    with pytest.raises(ValueError, match="several values of 'relative_gain_final' for order 'given' and seed 0"):
        strategy_difference(table, "inscl", "none")
    with pytest.raises(ValueError, match="for both 'inscl' and 'random'"):
        strategy_difference(table, "inscl", "random", budget="24 per task")


def test_every_row_is_one_number_of_one_place():
    rows = [(row["stage"], row["task"], row["metric"]) for row in to_table([result()]).to_pylist()]
    assert len(rows) == len(set(rows))
    assert SCHEMA.names[:6] == ["run_id", "model", "strategy", "budget", "order", "seed"]
