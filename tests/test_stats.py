"""Intervals against complete enumeration, SciPy, published tables and simulated coverage."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, t, ttest_1samp, ttest_rel

from inscl.core.stats import (
    SampleMean,
    bootstrap_interval,
    effective_units,
    holm,
    paired_difference,
    ratio_estimate,
    resampled_difference,
)


def all_resampled_means(clusters):
    """Every equally likely draw of clusters with replacement, and the mean of the rows it holds."""
    return [np.mean(np.concatenate(draw)) for draw in product(clusters, repeat=len(clusters))]


def test_bootstrap_agrees_with_complete_enumeration():
    values = [0.0, 0.1, 0.35, 0.6, 1.0]  # 5**5 equally likely draws
    expected = np.quantile(all_resampled_means([[v] for v in values]), [0.05, 0.95])
    assert bootstrap_interval(values, level=0.9, n=100_000) == pytest.approx(expected, abs=0.011)


def test_clustered_bootstrap_agrees_with_complete_enumeration():
    clusters = [[0.0, 0.2, 0.1], [0.9], [0.5, 0.7], [0.3, 0.4, 0.2, 0.1]]  # 4**4 draws of unequal sizes
    expected = np.quantile(all_resampled_means(clusters), [0.1, 0.9])
    labels = [f"instruction {i}" for i, rows in enumerate(clusters) for _ in rows]
    assert bootstrap_interval(np.concatenate(clusters), labels, level=0.8, n=100_000) == pytest.approx(
        expected, abs=0.011
    )


def test_bootstrap_agrees_with_scipy(rng):
    values = rng.beta(2, 1, size=60)
    other = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=rng)
    expected = (other.confidence_interval.low, other.confidence_interval.high)
    assert bootstrap_interval(values, n=20_000) == pytest.approx(expected, abs=0.003)


def test_rows_of_one_instruction_are_worth_less_than_independent_ones(rng):
    """20 clusters of 10 equal rows carry 20 observations: the interval is sqrt(10) times wider."""
    values = np.repeat(rng.normal(size=20), 10)
    low, high = bootstrap_interval(values)
    wide_low, wide_high = bootstrap_interval(values, clusters=np.repeat(np.arange(20), 10).tolist())
    assert (wide_high - wide_low) / (high - low) == pytest.approx(10**0.5, rel=0.1)


def test_clustered_interval_covers_the_truth_as_often_as_it_says(rng):
    labels, hits = np.repeat(np.arange(40), 5).tolist(), 0
    for trial in range(300):
        values = np.repeat(rng.normal(size=40), 5) + rng.normal(size=200)
        low, high = bootstrap_interval(values, labels, level=0.9, n=400, seed=trial)
        hits += low <= 0 <= high
    assert 0.84 <= hits / 300 <= 0.95  # 0.9 within three standard errors; percentiles are a little narrow


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.integers(0, 2**32))
def test_bootstrap_stays_within_the_values_and_repeats(values, seed):
    low, high = bootstrap_interval(values, n=50, seed=seed)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert bootstrap_interval(values, n=50, seed=seed) == (low, high)


def test_labels_of_a_single_cluster_change_nothing():
    assert bootstrap_interval([0, 1, 1], ["i"] * 3) == bootstrap_interval([0, 1, 1])


def test_paired_difference_equals_a_sum_by_hand():
    """Differences 2, 3, 1: mean 2, s 1, n 3; t(0.975, 2) = 4.303 in every printed table."""
    found = paired_difference([3, 5, 4], [1, 2, 3])
    assert (found.mean, found.n) == (2, 3)
    assert (found.low, found.high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=20))
def test_paired_difference_agrees_with_scipy(pairs):
    a, b = np.array(pairs, dtype=float).T
    if np.ptp(a - b) == 0:
        return  # SciPy gives NaN here
    other = ttest_rel(a, b).confidence_interval(0.9)
    found = paired_difference(a, b, level=0.9)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-9)


def test_one_stream_gives_a_mean_and_no_interval():
    found = paired_difference([3.0], [1.0])
    assert (found.mean, found.n) == (2, 1)
    assert found.ends is None


def plain_resampling(a, b, scale, n, rng):
    """The same idea by loops over drawn indices."""
    means = []
    tasks = sorted({task for stream in a for task in stream})
    sizes = {task: next(len(stream[task]) for stream in a if task in stream) for task in tasks}
    for _ in range(n):
        rows = {task: rng.integers(sizes[task], size=sizes[task]) for task in tasks}
        drawn = rng.integers(len(a), size=len(a))
        values = [[scale[t] * np.mean((a[s][t] - b[s][t])[rows[t]]) for t in a[s]] for s in drawn]
        means.append(np.mean([np.mean(v) for v in values]))
    return means


def test_resampled_difference_agrees_with_plain_loops(rng):
    tasks = {"x": 12, "y": 20, "z": 7}
    left_out = "xyzxyz"  # each stream leaves one task out, as a Relative Gain does
    a = [{t: rng.random(m) for t, m in tasks.items() if t != out} for out in left_out]
    b = [{t: rng.random(len(rows)) for t, rows in stream.items()} for stream in a]
    scale = {"x": 100 / 0.8, "y": 100 / 0.4, "z": 100 / 0.5}
    expected = plain_resampling(a, b, scale, 8000, rng)
    found = resampled_difference(a, b, scale, n=20_000)
    spread = np.std(expected)
    pairs = list(zip(a, b, strict=True))
    exact = np.mean([np.mean([scale[t] * (x[t] - y[t]).mean() for t in x]) for x, y in pairs])
    assert found.mean == pytest.approx(exact)
    assert (found.low, found.high) == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=0.08 * spread)
    assert found.n == 6


def test_test_rows_are_shared_by_the_streams():
    """Streams that agree row by row leave all variance to the rows: it is the interval of the rows alone."""
    rows = np.linspace(0, 1, 30) ** 2
    many = resampled_difference([{"x": rows}] * 25, [{"x": np.zeros(30)}] * 25, n=20_000)
    assert (many.low, many.high) == pytest.approx(bootstrap_interval(rows, n=20_000), abs=0.005)


def test_streams_vary_even_where_rows_do_not():
    """Constant rows leave all variance to the streams: complete enumeration over them is the oracle."""
    levels = [0.0, 0.2, 0.3, 0.9]
    found = resampled_difference([{"x": [v] * 5} for v in levels], [{"x": [0] * 5}] * 4, level=0.8, n=100_000)
    expected = np.quantile(all_resampled_means([[v] for v in levels]), [0.1, 0.9])
    assert (found.low, found.high) == pytest.approx(expected, abs=0.011)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "`values` must be a list of finite numbers, at least one"),
        (lambda: bootstrap_interval([1, np.nan]), "finite"),
        (lambda: bootstrap_interval([1, 2], ["a"]), "1 for 2 values"),
        (lambda: bootstrap_interval([1], level=95), "between 0 and 1, such as 0.95, got 95"),
        (lambda: bootstrap_interval([1], n=0), "at least 1 draw"),
        (lambda: paired_difference([1, 2], [1]), "same streams, got 2 and 1 values"),
        (lambda: paired_difference([1, np.inf], [1, 2]), "`a` must be a list of finite"),
        (lambda: resampled_difference([], []), "at least one, got 0 and 0"),
        (lambda: resampled_difference([{"x": [1]}], [{"y": [1]}]), r"got \['x'\] and \['y'\]"),
        (lambda: resampled_difference([{"x": [1]}], [{"x": [1, 2]}]), "same test rows everywhere; stream 0"),
        (lambda: resampled_difference([{"x": [1]}], [{"x": [1]}], {"y": 1}), "`scale` lacks task 'x'"),
    ],
)
def test_errors_say_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_holm_agrees_with_the_paper_and_with_every_subset():
    """Holm's procedure is the closure of Bonferroni's: reject what every subset with it rejects."""
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    p = [0.001, 0.3, 0.012, 0.04, 0.012]
    subsets = [subset for size in range(1, 6) for subset in combinations(range(5), size)]
    closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(5)]
    assert holm(p) == pytest.approx(closed)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closure_of_bonferroni(p):
    subsets = [subset for size in range(1, len(p) + 1) for subset in combinations(range(len(p)), size)]
    closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(len(p))]
    assert holm(p) == pytest.approx(closed)


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, 1.2])


def test_units_of_one_are_a_t_test(rng):
    values = rng.normal(0.3, 1, 25)
    estimate, other = ratio_estimate(values), ttest_1samp(values, 0.1, alternative="greater")
    assert estimate.p_above(0.1) == pytest.approx(other.pvalue)
    assert estimate.low(0.05) == pytest.approx(other.confidence_interval(0.95).low)
    assert estimate.high(0.05) == pytest.approx(2 * estimate.mean - estimate.low(0.05))


def test_the_error_of_unequal_units_is_that_of_the_bootstrap(rng):
    sizes = rng.integers(1, 9, 80)
    rows = [rng.normal(rng.normal(), 0.5, n) for n in sizes]
    labels = np.repeat(np.arange(80), sizes).tolist()
    estimate = ratio_estimate([r.sum() for r in rows], sizes)
    low, high = bootstrap_interval(np.concatenate(rows), labels, level=0.6827, n=20_000)
    assert estimate.mean == pytest.approx(np.concatenate(rows).mean())
    assert estimate.error == pytest.approx((high - low) / 2, rel=0.05)


def test_what_is_detectable_is_detected_so_often(rng):
    """Samples whose true mean is the smallest detectable one: 80 in 100 show it."""
    truth = SampleMean(0.0, 0.1, 29.0).detectable(0.05, 0.01)
    shown = [ratio_estimate(rng.normal(truth, 0.1 * 30**0.5, 30)).low(0.01) > 0.05 for _ in range(2000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)  # t stands for the noncentral t
    assert truth == pytest.approx(0.05 + 0.1 * (t.ppf(0.99, 29) + t.ppf(0.8, 29)))


def test_one_large_unit_among_small_ones_is_about_one():
    assert effective_units([1000, 1, 1, 1]) == pytest.approx(1, abs=0.01)
    assert ratio_estimate([500.0, 1, 0, 1], [1000, 1, 1, 1]).df < 0.01


def test_units_that_cannot_be():
    for sums, sizes in (([1.0], None), ([1.0, 2.0], [1, 0]), ([1.0, 2.0], [1, 2, 3])):
        with pytest.raises(ValueError, match="At least two units with positive sizes"):
            ratio_estimate(sums, sizes)
