"""Allocation against exact fractions: another algorithm, written from the definition."""

import time
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inscl.core.budget import allocate, allocate_carried, apportion


def exact_shares(weights, budget, lower, upper):
    """Solve sum of clip(x * w, lower, upper) = budget for x by walking its break points, in fractions."""
    w = [Fraction(weight) for weight in weights]
    positive = [i for i in range(len(w)) if w[i] > 0]
    rest = [i for i in range(len(w)) if w[i] == 0]

    def at(x):
        return {i: min(max(x * w[i], lower[i]), upper[i]) for i in positive}

    goal = budget - sum(lower[i] for i in rest)
    if sum(upper[i] for i in positive) <= goal:
        shares = {i: Fraction(upper[i]) for i in positive}
        if rest:
            inner = exact_shares(
                [1] * len(rest),
                budget - sum(shares.values()),
                [lower[i] for i in rest],
                [upper[i] for i in rest],
            )
            shares |= dict(zip(rest, inner, strict=True))
        return [shares[i] for i in range(len(w))]

    points = sorted({Fraction(0)} | {bound[i] / w[i] for i in positive for bound in (lower, upper)})
    sums = [sum(at(x).values()) for x in points]
    k = max(k for k, total in enumerate(sums) if total <= goal)
    x = points[k]
    if sums[k] < goal:
        x += (points[k + 1] - x) * (goal - sums[k]) / (sums[k + 1] - sums[k])
    shares = at(x) | {i: Fraction(lower[i]) for i in rest}
    return [shares[i] for i in range(len(w))]


def largest_remainder(shares):
    rounded = [int(share // 1) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (rounded[i] - shares[i], i))
    for i in order[: int(sum(shares)) - sum(rounded)]:
        rounded[i] += 1
    return rounded


def oracle(weights, budget, capacities=None, minimum=0):
    upper = [budget] * len(weights) if capacities is None else list(capacities)
    lower = [min(minimum, most) for most in upper]
    return largest_remainder(exact_shares(weights, min(budget, sum(upper)), lower, upper))


def repeated_capping(distances, budget, capacities):
    """The words of the definition: share, fill the tasks that are over, share the rest again."""
    d = [Fraction(x) for x in distances]
    shares, active = [Fraction(0)] * len(d), list(range(len(d)))
    left = Fraction(min(budget, sum(capacities)))
    while active and left:
        weights = {i: d[i] for i in active}
        if not any(weights.values()):
            weights = dict.fromkeys(active, Fraction(1))
        total = sum(weights.values())
        over = [i for i in active if left * weights[i] / total >= capacities[i] and weights[i]]
        if not over:
            for i in active:
                shares[i] = left * weights[i] / total
            break
        for i in over:
            shares[i] = Fraction(capacities[i])
        left -= sum(capacities[i] for i in over)
        active = [i for i in active if i not in over]
    return largest_remainder(shares)


def random_weights(rng, n):
    kind = rng.integers(5)
    if kind == 0:
        return rng.integers(0, 4, n).astype(float).tolist()  # ties and zeros
    if kind == 1:
        return (rng.integers(0, 4, n) / 10).tolist()  # ties that are no short binary fractions
    if kind == 2:
        return rng.random(n).tolist()
    if kind == 3:
        return (10.0 ** rng.integers(-300, 300, n)).tolist()
    return [0.0] * n


def test_thousands_of_random_cases_agree_with_exact_fractions(rng):
    for _ in range(4000):
        n = int(rng.integers(1, 9))
        weights, budget = random_weights(rng, n), int(rng.integers(0, 60))
        capacities = None if rng.random() < 0.3 else rng.integers(0, 15, n).tolist()
        minimum = int(rng.integers(0, 4))
        least = sum(min(minimum, c) for c in (capacities or [budget] * n))
        if budget < least:
            with pytest.raises(ValueError, match="less than"):
                apportion(weights, budget, capacities=capacities, minimum=minimum)
        else:
            result = apportion(weights, budget, capacities=capacities, minimum=minimum)
            assert result == oracle(weights, budget, capacities, minimum), (
                weights,
                budget,
                capacities,
                minimum,
            )
        if capacities is not None:
            assert allocate(weights, budget, capacities) == repeated_capping(weights, budget, capacities)


weights_and_capacities = st.lists(
    st.tuples(st.floats(0, allow_nan=False, allow_infinity=False), st.integers(0, 10**6)), max_size=30
)


@settings(max_examples=300)
@given(weights_and_capacities, st.integers(0, 10**7), st.integers(0, 5))
def test_properties(pairs, budget, minimum):
    weights, capacities = [w for w, _ in pairs], [c for _, c in pairs]
    budget += sum(min(minimum, c) for c in capacities)
    result = apportion(weights, budget, capacities=capacities, minimum=minimum)
    assert sum(result) == min(budget, sum(capacities))
    for share, capacity in zip(result, capacities, strict=True):
        assert min(minimum, capacity) <= share <= capacity
    for i, j in product(range(len(weights)), repeat=2):
        if weights[i] > weights[j] and capacities[i] >= capacities[j]:
            assert result[i] >= result[j]  # more weight never means less
        if weights[i] == weights[j] and capacities[i] == capacities[j]:
            assert abs(result[i] - result[j]) <= 1
    assert result == oracle(weights, budget, capacities, minimum)


def test_rounding_is_the_closest_there_is(rng):
    """Largest remainder has the least sum of squared errors of all whole shares: tried by brute force."""
    for _ in range(300):
        n, budget = int(rng.integers(2, 5)), int(rng.integers(0, 9))
        weights = [float(w) for w in rng.integers(1, 6, n)]
        shares = [Fraction(w) * budget / Fraction(sum(weights)) for w in weights]

        def error(whole, shares=shares):
            return sum((a - b) ** 2 for a, b in zip(whole, shares, strict=True))

        best = min(error(whole) for whole in product(range(budget + 1), repeat=n) if sum(whole) == budget)
        assert error(allocate(weights, budget)) == best


@pytest.mark.parametrize(
    ("distances", "budget", "capacities", "expected"),
    [
        ([], 5, None, []),
        ([], 0, [], []),
        ([0.7], 5, None, [5]),
        ([0.7], 5, [3], [3]),  # over-ask
        ([1, 1, 1], 4, None, [2, 1, 1]),  # a tie goes to the earlier task
        ([1, 1, 1], 2, None, [1, 1, 0]),
        (
            [0.3, 0.1, 0.1, 0.1],
            8,
            None,
            [4, 2, 1, 1],
        ),  # only one of the equal three can have the one left over
        ([1, 1, 2, 2], 7, None, [1, 1, 3, 2]),  # `list.index` would correct an equal entry that comes first
        ([0, 0, 0], 4, None, [2, 1, 1]),  # all zero: equal shares
        ([0, 0, 0], 7, [1, 9, 9], [1, 3, 3]),
        ([0, 1, 0], 9, [5, 3, 5], [3, 3, 3]),  # all that have a distance are full
        ([0, 1, 0], 2, [5, 3, 5], [0, 2, 0]),
        ([1, 1, 1], 10, [2, 9, 9], [2, 4, 4]),
        ([8, 4, 2, 1], 100, [10, 10, 90, 90], [10, 10, 53, 27]),  # filling the first fills the second
        ([1, 1], 3, [0, 1], [0, 1]),
        # Exact shares are 2.5 and 2.5, one of at most 2: rounding first and then cutting would lose one.
        ([1, 1], 5, [2, 9], [2, 3]),
        ([5e-324, 1.7e308], 3, None, [0, 3]),  # a quotient would underflow, a sum would not overflow
        ([1.7e308, 1.7e308], 3, None, [2, 1]),  # the sum of these overflows
    ],
)
def test_cases(distances, budget, capacities, expected):
    assert allocate(distances, budget, capacities) == expected


def test_who_is_full_is_decided_without_rounding():
    """0.1 + 0.2 is not 0.3 in floats; the exact share of the last task lies just below or above one half."""
    weights = [0.1, 0.2, 0.3]
    assert allocate(weights, 6) == oracle(weights, 6)
    assert allocate(weights, 6, [1, 2, 3]) == [1, 2, 3]
    huge = 10**15
    assert allocate([1 / 3, 1 / 3, 1 / 3 + 2**-54], 3 * huge) == oracle([1 / 3, 1 / 3, 1 / 3 + 2**-54], 3 * huge)


def test_minimum_is_raised_on_exact_shares_before_rounding():
    assert apportion([1, 1, 98], 10, minimum=1) == [1, 1, 8]
    assert apportion([0, 0, 5], 6, minimum=1) == [1, 1, 4]
    assert apportion([0, 0, 5], 6, minimum=1, capacities=[0, 9, 3]) == [0, 3, 3]
    assert apportion([3, 3, 3], 3, minimum=1) == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, -0.5], 3), r"`distances` must be finite and non-negative, got -0.5 at position 1"),
        (([float("nan")], 3), r"`distances` must be finite.*nan at position 0"),
        (([float("inf")], 3), r"`distances` must be finite"),
        (([[1.0]], 3), r"flat sequence"),
        (([1.0], -1), r"`budget` must be an integer of at least 0, got -1"),
        (([1.0], 2.0), r"`budget` must be an integer of at least 0, got 2.0"),
        (([1.0], True), r"`budget` must be an integer"),
        (([], -1), r"`budget`"),
        (([1.0], 3, [1, 2]), r"`capacities` must have one entry for each weight: 1, got 2"),
        (([1.0], 3, [-1]), r"`capacities\[0\]` must be an integer of at least 0, got -1"),
        (([1.0], 3, [1.5]), r"`capacities\[0\]` must be an integer"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        allocate(*arguments)


def test_numpy_arguments_give_plain_integers():
    result = allocate(np.array([1.0, 2.0], dtype=np.float32), np.int64(3), np.array([5, 5]))
    assert result == [1, 2]
    assert {type(n) for n in result} == {int}


def test_a_hundred_thousand_entries_take_seconds_at_most(rng):
    weights, capacities = rng.random(100_000), rng.integers(0, 20, 100_000)
    start = time.perf_counter()
    result = apportion(weights, 700_000, capacities=capacities, minimum=1)
    assert time.perf_counter() - start < 10
    assert sum(result) == 700_000


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 4), st.floats(-1, 1)), min_size=1, max_size=4),
    st.integers(0, 8),
)
def test_carried_counts_lie_nearest_to_what_is_owed(tasks, budget):
    """Brute force over all whole counts within the capacities."""
    distances, capacities, carried = (list(part) for part in zip(*tasks, strict=True))
    counts, after = allocate_carried(distances, budget, carried, capacities)
    total = min(budget, sum(capacities))
    owed = [
        share + Fraction(more)
        for share, more in zip(exact_shares(distances, total, [0] * len(tasks), capacities), carried, strict=True)
    ]
    every = [c for c in product(*(range(most + 1) for most in capacities)) if sum(c) == total]
    missed = {c: sum((due - n) ** 2 for due, n in zip(owed, c, strict=True)) for c in every}
    assert missed[tuple(counts)] == min(missed.values())
    assert after == pytest.approx([float(due - n) for due, n in zip(owed, counts, strict=True)], abs=1e-9)


def test_carried_remainders_keep_small_budgets_in_proportion():
    """Rounded by itself, every stage gives one each; carried, 60 stages come within an example of exact shares."""
    distances = [0.55, 0.6, 0.72]
    assert allocate(distances, 3) == [1, 1, 1]
    got, carried = np.zeros(3), [0.0, 0.0, 0.0]
    for _ in range(60):
        counts, carried = allocate_carried(distances, 3, carried)
        got += counts
    exact = 180 * np.array(distances) / sum(distances)
    assert np.abs(got - exact).max() < 1
    assert np.abs(got - 60).max() > 5


def test_nothing_carried_is_the_plain_allocation(rng):
    for _ in range(500):
        n = int(rng.integers(1, 7))
        weights, budget, capacities = random_weights(rng, n), int(rng.integers(0, 30)), rng.integers(0, 9, n).tolist()
        assert allocate_carried(weights, budget, [0.0] * n, capacities)[0] == allocate(weights, budget, capacities)


@pytest.mark.parametrize("carried", [[0.0], [0.0, float("nan")]])
def test_carried_must_be_one_number_a_task(carried):
    with pytest.raises(ValueError, match="a finite number for each of 2 tasks"):
        allocate_carried([0.1, 0.2], 3, carried)
