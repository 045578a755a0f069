"""Intervals against SciPy, sums by hand, published tables and simulated coverage."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, sem, t, ttest_1samp, ttest_rel

from inscl.core.stats import (
    SampleMean,
    effective_units,
    holm,
    mean_interval,
    paired_difference,
    ratio_estimate,
    score_interval,
)


def test_a_plain_score_is_students_t_around_the_logit(rng):
    """The delta method by hand, with SciPy's t: 60 rows, each its own cluster."""
    v = rng.beta(2, 1, size=60)
    m, half = v.mean(), t.ppf(0.95, 59) * sem(v) / (v.mean() * (1 - v.mean()))
    found = score_interval(v, level=0.9)
    assert (found.low, found.high) == pytest.approx(expit(logit(m) + np.array([-half, half])))
    assert (found.mean, found.n, found.clusters, found.over) == (pytest.approx(m), 60, None, "test rows")


@pytest.mark.parametrize("right", [0, 12])
def test_equal_rows_have_wilsons_interval(right):
    """12 of 12 do not prove 100 %. SciPy's Wilson has the normal quantile, ours Student's: 11 degrees of freedom."""
    level_of_t = 2 * norm.cdf(t.ppf(0.975, 11)) - 1
    other = binomtest(right, 12).proportion_ci(level_of_t, "wilson")
    found = score_interval([right / 12] * 12)
    assert (found.low, found.high) == pytest.approx((other.low, other.high))


def test_clusters_that_all_agree_count_once_each():
    rows = score_interval([1.0] * 8)
    assert score_interval([1.0] * 80, np.repeat(np.arange(8), 10).tolist()).ends == rows.ends


def test_rows_of_one_instruction_are_worth_less_than_independent_ones(rng):
    """20 clusters of 10 equal rows carry 20 observations: the interval is the one of 20 rows."""
    values = rng.normal(size=20)
    found = mean_interval(np.repeat(values, 10), np.repeat(np.arange(20), 10).tolist())
    assert found.ends == pytest.approx(mean_interval(values).ends)
    assert (found.n, found.clusters) == (200, 20)


@given(st.lists(st.integers(0, 100).map(lambda n: n / 100), min_size=2, max_size=20), st.integers(1, 6))
def test_a_score_stays_within_its_range_and_its_interval(values, clusters):
    found = score_interval(values, [i % clusters for i in range(len(values))])
    assert 0 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= 1
    mirrored = score_interval([1 - v for v in values], [i % clusters for i in range(len(values))])
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high), abs=1e-6)


def test_changes_have_the_interval_of_a_t_test(rng):
    values = rng.normal(0.3, 1, 25)
    other = ttest_1samp(values, 0)
    found = mean_interval(values)
    assert found.ends == pytest.approx(tuple(other.confidence_interval(0.95)))
    assert found.p == pytest.approx(other.pvalue)


def test_labels_of_a_single_cluster_change_nothing_but_are_told():
    found = score_interval([0, 1, 1], ["i"] * 3)
    assert found.ends == score_interval([0, 1, 1]).ends
    assert found.clusters == 1


def test_what_does_not_vary_gives_no_interval():
    for found in (mean_interval([0.5] * 30), paired_difference([3, 3], [1, 1]), mean_interval([0.2])):
        assert (found.ends, found.p) == (None, None)


@pytest.mark.parametrize(
    ("rows", "clusters", "enough"),
    [(29, None, False), (30, None, True), (30, 7, False), (30, 8, True), (1000, 1, False)],
)
def test_thirty_rows_and_eight_instructions_are_enough(rows, clusters, enough):
    labels = None if clusters is None else [i % clusters for i in range(rows)]
    assert score_interval([0.5] * rows, labels).enough is enough


def covered(interval, draw, truth, rng, trials=600):
    """How often an interval holds the truth."""
    hits = 0
    for _ in range(trials):
        ends = interval(*draw(rng)).ends
        hits += ends is not None and ends[0] <= truth <= ends[1]
    return hits / trials


def right_or_wrong(n_clusters, rows, p, alike):
    """0/1 rows of instructions that differ in difficulty, beta-binomial: `alike` is the correlation within one."""
    labels = np.repeat(np.arange(n_clusters), rows).tolist()

    def draw(rng):
        spread = (1 - alike) / alike
        chance = rng.beta(p * spread, (1 - p) * spread, n_clusters)
        return (rng.random(len(labels)) < np.repeat(chance, rows)).astype(float), labels

    return draw


@pytest.mark.parametrize(
    ("n_clusters", "rows", "p", "alike"),
    [(8, 4, 0.9, 0.2), (8, 10, 0.5, 0.2), (20, 6, 0.9, 0.2), (20, 6, 0.8, 0.5), (60, 1, 0.9, 0.1)],
)
def test_scores_are_covered_as_often_as_said(n_clusters, rows, p, alike, rng):
    """95 % within the error of 600 trials (0.9 points); discrete scores cover more rather than less."""
    assert 0.925 <= covered(score_interval, right_or_wrong(n_clusters, rows, p, alike), p, rng) <= 0.995


def test_changes_are_covered_as_often_as_said(rng):
    labels = np.repeat(np.arange(8), 5).tolist()

    def draw(rng):
        chance = np.repeat(rng.beta(1, 2, 8), 5)
        return (rng.random(40) < chance).astype(float) - (rng.random(40) < 0.1), labels

    assert covered(mean_interval, draw, 1 / 3 - 0.1, rng) == pytest.approx(0.95, abs=0.03)


def test_seeds_of_one_order_do_not_make_up_for_orders(rng):
    """3 orders x 5 seeds with an order effect: clustered intervals cover, others do not."""
    orders = np.repeat(np.arange(3), 5).tolist()

    def draw(rng):
        return np.repeat(rng.normal(0, 2, 3), 5) + rng.normal(0, 3, 15), np.zeros(15)

    assert covered(lambda a, b: paired_difference(a, b, orders), draw, 0.0, rng) == pytest.approx(0.95, abs=0.03)
    assert covered(paired_difference, draw, 0.0, rng) < 0.9


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score_interval([]), "`scores` must be a list of finite numbers, at least one"),
        (lambda: score_interval([0.5, 1.5]), "between 0 and 1, got 0.5 to 1.5"),
        (lambda: mean_interval([1, np.nan]), "finite"),
        (lambda: mean_interval([1, 2], ["a"]), "1 for 2 values"),
        (lambda: mean_interval([1], level=95), "between 0 and 1, such as 0.95, got 95"),
        (lambda: paired_difference([1, 2], [1]), "same streams, got 2 and 1 values"),
        (lambda: paired_difference([1, np.inf], [1, 2]), "`a` must be a list of finite"),
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
    estimate = ratio_estimate([r.sum() for r in rows], sizes)
    drawn = [np.concatenate([rows[i] for i in rng.integers(80, size=80)]).mean() for _ in range(4000)]
    assert estimate.mean == pytest.approx(np.concatenate(rows).mean())
    assert estimate.error == pytest.approx(np.std(drawn), rel=0.05)


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
