"""Differences over streams and test rows together: limits that SciPy knows, and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, ttest_1samp

from inscl.core.crossed import crossed_difference
from inscl.core.stats import mean_interval


def against_nothing(streams, **of):
    """The difference to a strategy that scores 0 everywhere."""
    return crossed_difference(streams, [{task: np.zeros(len(rows)) for task, rows in s.items()} for s in streams], **of)


def test_streams_that_agree_row_by_row_leave_all_variance_to_the_rows(rng):
    rows = rng.random(30)
    found = against_nothing([{"x": rows}] * 25)
    assert found.ends == pytest.approx(tuple(ttest_1samp(rows, 0).confidence_interval()))


def test_rows_that_agree_leave_all_variance_to_the_streams():
    levels = [0.0, 0.2, 0.3, 0.9]
    found = against_nothing([{"x": [v] * 5, "y": [v] * 3} for v in levels])
    other = ttest_1samp(levels, 0)
    assert found.ends == pytest.approx(tuple(other.confidence_interval()))
    assert found.p == pytest.approx(other.pvalue)


def test_one_stream_speaks_of_its_rows_only(rng):
    rows, labels = rng.random(30), [i % 10 for i in range(30)]
    found = against_nothing([{"x": rows}], instructions={"x": labels})
    assert found.ends == pytest.approx(mean_interval(rows, labels).ends)
    assert (found.n, found.over) == (30, "test rows")


def test_the_mean_is_that_of_plain_loops(rng):
    tasks = {"x": 12, "y": 20, "z": 7}
    left_out = "xyzxyz"  # each stream leaves one task out, as a Relative Gain does
    a = [{t: rng.random(m) for t, m in tasks.items() if t != out} for out in left_out]
    b = [{t: rng.random(len(rows)) for t, rows in stream.items()} for stream in a]
    scale = {"x": 100 / 0.8, "y": 100 / 0.4, "z": 100 / 0.5}
    pairs = list(zip(a, b, strict=True))
    exact = np.mean([np.mean([scale[t] * (x[t] - y[t]).mean() for t in x]) for x, y in pairs])
    found = crossed_difference(a, b, scale)
    assert found.mean == pytest.approx(exact)
    assert found.low < exact < found.high
    assert found.n == 6


@pytest.mark.parametrize(
    ("of_stream", "of_row", "of_both"),
    [(0.05, 0.1, 0.3), (0.0, 0.3, 0.1), (0.1, 0.1, 0.3), (0.0, 0.0, 0.4)],
)
def test_other_streams_and_other_rows_are_covered_as_often_as_said(of_stream, of_row, of_both, rng):
    """Effects of the stream, of the row and of both; each stream but three leaves a task out. 1 is the truth."""
    hits, trials, orders = 0, 400, 8
    for _ in range(trials):
        rows = {task: 1 + rng.normal(0, of_row, 30) for task in "uvwxy"}
        streams = [
            {task: r + rng.normal(0, of_both, 30) + drift for task, r in rows.items() if task != "uvwxy---"[stream]}
            for stream, drift in enumerate(rng.normal(0, of_stream, orders))
        ]
        low, high = against_nothing(streams).ends
        hits += low <= 1 <= high
    assert 0.925 <= hits / trials <= 0.995


@pytest.mark.parametrize(("of_stream", "of_row", "of_both"), [(0.1, 0.2, 0.4), (0.0, 0.0, 0.4), (0.0, 0.3, 0.1)])
def test_what_stream_and_row_make_together_counts_once(of_stream, of_row, of_both, rng):
    """The squared error averages to the true one of 30 streams and 40 rows, which the components give."""
    errors = []
    for _ in range(150):
        rows, drift = rng.normal(0, of_row, 40), rng.normal(0, of_stream, 30)
        found = against_nothing([{"x": rows + d + rng.normal(0, of_both, 40)} for d in drift], level=0.5)
        errors.append((found.high - found.low) / 2 / norm.ppf(0.75))  # some 30 degrees of freedom
    truth = of_stream**2 / 30 + of_row**2 / 40 + of_both**2 / 1200
    assert np.mean(np.square(errors)) == pytest.approx(truth, rel=0.25)


def test_streams_of_one_order_count_as_one():
    """Two orders with three equal streams each are two streams."""
    pair = [{"x": [0.2] * 4}, {"x": [0.6] * 4}]
    found = against_nothing([pair[i % 2] for i in range(6)], orders=["a", "b"] * 3)
    assert found.ends == pytest.approx(against_nothing(pair).ends)
    assert (found.n, found.clusters) == (6, 2)


@given(st.lists(st.lists(st.integers(0, 1), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(1, 5))
def test_the_two_sides_swap(streams, clusters):
    a, b = [{"x": rows} for rows in streams], [{"x": [0, 1, 0, 1, 1]} for _ in streams]
    labels = {"x": [i % clusters for i in range(5)]}
    there, back = crossed_difference(a, b, instructions=labels), crossed_difference(b, a, instructions=labels)
    assert there.mean == pytest.approx(-back.mean)
    if there.ends is not None:
        assert there.ends == pytest.approx((-back).ends)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crossed_difference([], []), "at least one, got 0 and 0"),
        (lambda: crossed_difference([{"x": [1]}], [{"y": [1]}]), r"got \['x'\] and \['y'\]"),
        (lambda: crossed_difference([{"x": [1]}], [{"x": [1, 2]}]), "same test rows everywhere; stream 0"),
        (lambda: crossed_difference([{"x": [1]}], [{"x": [1]}], {"y": 1}), "`scale` lacks task 'x'"),
    ],
)
def test_errors_say_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()
