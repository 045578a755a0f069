"""The metrics by hand and against exact fractions written from the formulas, counted from 1 as there."""

import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.core import metrics
from inscl.core.metrics import (
    average_performance,
    backward_transfer,
    forgetting,
    forgetting_rate,
    forward_transfer,
    learning,
    ratio_of_sums,
    relative_gain,
    summarize_gain,
)

SCORES = [[50.0, 10.0], [40.0, 80.0, 6.0], [45.0, 20.0, 30.0]]
EXPERTS = [50.0, 40.0, 60.0]


def test_by_hand():
    assert relative_gain(SCORES, EXPERTS) == pytest.approx([80, (90 + 50) / 2])
    assert ratio_of_sums(SCORES, EXPERTS) == pytest.approx([80, 100 * 65 / 90])
    assert average_performance(SCORES) == pytest.approx(95 / 3)
    assert backward_transfer(SCORES) == pytest.approx((-5 - 60) / 2)
    assert forgetting(SCORES) == pytest.approx((5 + 60) / 2)
    assert forward_transfer(SCORES, [3.0, 4.0, 5.0]) == pytest.approx((6 + 1) / 2)
    assert learning(SCORES, EXPERTS) == pytest.approx((1 + 2 + 0.5) / 3)
    assert forgetting_rate(SCORES) == pytest.approx([10, 75, 0])


@st.composite
def streams(draw):
    n = draw(st.integers(2, 7))
    score = st.integers(1, 1000)
    rows = [draw(st.lists(score, min_size=min(i + 2, n), max_size=n)) for i in range(n)]
    return rows, draw(st.lists(score, min_size=n, max_size=n)), draw(st.lists(score, min_size=n, max_size=n))


@given(streams())
def test_agrees_with_exact_fractions(stream):
    rows, experts, zero_shot = stream
    n = len(rows)

    def s(i, j):
        return Fraction(rows[i - 1][j - 1])

    def e(j):
        return Fraction(experts[j - 1])

    def mean(values):
        values = list(values)
        return float(sum(values) / len(values))

    stages, earlier, tasks = range(2, n + 1), range(1, n), range(1, n + 1)
    assert relative_gain(rows, experts) == pytest.approx(
        [float(Fraction(100, i - 1) * sum(s(i, j) / e(j) for j in range(1, i))) for i in stages]
    )
    assert ratio_of_sums(rows, experts) == pytest.approx(
        [float(100 * sum(s(i, j) for j in range(1, i)) / sum(e(j) for j in range(1, i))) for i in stages]
    )
    assert average_performance(rows) == pytest.approx(mean(s(n, j) for j in tasks))
    assert backward_transfer(rows) == pytest.approx(mean(s(n, j) - s(j, j) for j in earlier), abs=1e-9)
    assert forgetting(rows) == pytest.approx(
        mean(max(s(i, j) for i in range(j, n)) - s(n, j) for j in earlier), abs=1e-9
    )
    assert forward_transfer(rows, zero_shot) == pytest.approx(
        mean(s(j - 1, j) - zero_shot[j - 1] for j in range(2, n + 1)), abs=1e-9
    )
    assert learning(rows, experts) == pytest.approx(mean(s(j, j) / e(j) for j in tasks))
    assert forgetting_rate(rows) == pytest.approx([float(100 * (1 - s(n, j) / s(j, j))) for j in tasks], abs=1e-9)


def test_only_the_cells_of_the_formulas_are_read():
    """A square array may hold NaN where nothing was measured."""
    square = np.array([[50.0, 10.0, np.nan], [40.0, 80.0, 6.0], [45.0, 20.0, 30.0]])
    assert relative_gain(square, EXPERTS) == relative_gain(SCORES, EXPERTS)
    assert forward_transfer(square, [np.nan, 4.0, 5.0]) == forward_transfer(SCORES, [0.0, 4.0, 5.0])
    assert forgetting(square) == forgetting(SCORES)


def test_summary_of_relative_gain():
    gains = [10.0, 90.0, 80.0, 70.0, 60.0, 50.0, 100.0]
    summary = summarize_gain(gains)
    assert summary.mean == pytest.approx(sum(gains) / 7)
    assert summary.std == pytest.approx(np.std(gains))
    assert summary.last_five == pytest.approx(statistics.mean(gains[2:]))
    assert summary.final == 100.0
    assert summarize_gain([3.0]) == metrics.GainSummary(mean=3.0, std=0.0, last_five=3.0, final=3.0)
    with pytest.raises(ValueError, match="at least one stage"):
        summarize_gain([])


@pytest.mark.parametrize(
    "call",
    [
        lambda one: relative_gain(one, [1.0]),
        lambda one: ratio_of_sums(one, [1.0]),
        backward_transfer,
        forgetting,
        lambda one: forward_transfer(one, [0.0]),
    ],
)
def test_one_task_only_is_an_error_that_names_it(call):
    with pytest.raises(ValueError, match="got task 0 only"):
        call([[50.0]])
    with pytest.raises(ValueError, match="`scores` must have one row per stage, got none"):
        call([])


def test_metrics_that_one_task_has():
    assert average_performance([[50.0]]) == 50.0
    assert learning([[50.0]], [100.0]) == 0.5
    assert forgetting_rate([[50.0]]) == [0.0]


@pytest.mark.parametrize("metric", [relative_gain, ratio_of_sums, learning])
@pytest.mark.parametrize("task", [0, 1, 2])
def test_a_zero_expert_is_an_error_that_names_the_task(metric, task):
    experts = [*EXPERTS[:task], 0.0, *EXPERTS[task + 1 :]]
    with pytest.raises(ValueError, match=f"expert of task {task} must score above 0, got 0.0"):
        metric(SCORES, experts)


def test_a_task_that_scored_zero_has_no_forgetting_rate():
    with pytest.raises(ValueError, match="Task 1 scored 0 when it was learnt"):
        forgetting_rate([[50.0], [40.0, 0.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_performance([[1.0], [2.0]]), "score of stage 1 on task 1 is missing"),
        (
            lambda: backward_transfer([[1.0], [np.nan, 1.0]]),
            "score of stage 1 on task 0 must be finite, got nan",
        ),
        (lambda: forward_transfer([[1.0], [2.0, 3.0]], [0.0, 0.0]), "score of stage 0 on task 1 is missing"),
        (lambda: forward_transfer(SCORES, [0.0]), "`zero_shot` must have one entry per task: 3, got 1"),
        (lambda: forward_transfer(SCORES, [0.0, np.inf, 0.0]), r"zero_shot\[1\] must be finite"),
        (lambda: relative_gain(SCORES, [1.0, 1.0]), "`experts` must have one entry per task: 3, got 2"),
        (lambda: relative_gain(SCORES, [1.0, 1.0, np.nan]), r"experts\[2\] must be finite"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
