"""The distance without its floor, against double sums and simulation."""

import numpy as np
import pytest

from inscl.core.distance import debiased, wasserstein


def by_hand(x, y, p, q):
    """The definition, pair by pair."""

    def mean(a, b, v, w, itself):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if itself or i != j]
        costs = [1 - a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j]) for i, j in pairs]
        return np.average(costs, weights=[v[i] * w[j] for i, j in pairs])

    return mean(x, y, p, q, True) - mean(x, x, p, p, False) / 2 - mean(y, y, q, q, False) / 2


def jackknife_by_hand(x, y, p, q):
    """Each row left out in turn, with the formula of Busing et al. as they print it."""
    whole, variance = by_hand(x, y, p, q), 0.0
    for side, w in ((0, p), (1, q)):
        h = w.sum() / w
        without = []
        for i in range(len(w)):
            keep = np.arange(len(w)) != i
            left = (x[keep], y, p[keep], q) if side == 0 else (x, y[keep], p, q[keep])
            without.append(by_hand(*left))
        without = np.array(without)
        centre = len(w) * whole - ((1 - 1 / h) * without).sum()
        pseudo = h * whole - (h - 1) * without
        variance += ((pseudo - centre) ** 2 / (h - 1)).mean()
    return np.sqrt(variance)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 7), (9, 5)])
def test_value_and_error_are_those_of_the_definition(rng, n, m):
    x, y = rng.normal(size=(n, 4)), rng.normal(size=(m, 4)) + 0.5
    p, q = rng.integers(1, 6, n), rng.random(m) + 0.1
    for weights in ((np.ones(n), np.ones(m)), (p, q)):
        value, error = debiased(x, y, *weights)
        assert value == pytest.approx(by_hand(x, y, *weights), abs=1e-12)
        assert error == pytest.approx(jackknife_by_hand(x, y, *weights), abs=1e-12)
    assert debiased(x, y) == pytest.approx(debiased(y, x), abs=1e-12)
    assert debiased(np.vstack([x, x[:1]]), y, [1] * n + [0], None) == pytest.approx(debiased(x, y), abs=1e-12)


def task(rng, centres=10, d=24):
    """A task: clusters of unequal size."""
    where, share = rng.normal(size=(centres, d)), rng.dirichlet(np.ones(centres))

    def draw(n):
        return where[rng.choice(centres, n, p=share)] + 0.7 * rng.normal(size=(n, d))

    return draw


def test_halves_of_one_task_are_at_zero_within_the_error(rng):
    draw = task(rng)
    found = []
    for _ in range(400):
        rows = rng.permutation(draw(60))
        found.append((*debiased(rows[:30], rows[30:]), wasserstein(rows[:30], rows[30:])))
    value, error, floor = np.array(found).T
    assert abs(value.mean()) < 3 * value.std() / np.sqrt(len(value))
    assert (np.abs(value) < 2 * error).mean() > 0.95
    assert floor.mean() > 10 * np.abs(value).mean()  # what a plan's distance says of one and the same task


def test_different_tasks_have_the_true_difference_within_the_error(rng):
    a, b = task(rng), task(rng)
    means = [(x / np.linalg.norm(x, axis=1, keepdims=True)).mean(axis=0) for x in (a(200_000), b(200_000))]
    truth = ((means[0] - means[1]) ** 2).sum() / 2
    found = np.array([debiased(a(30), b(50)) for _ in range(400)])
    value, error = found.T
    assert abs(value.mean() - truth) < 3 * value.std() / 20 + 1e-4
    assert 0.9 < (np.abs(value - truth) < 2 * error).mean() <= 1
    assert error.mean() == pytest.approx(value.std(), rel=0.15)


@pytest.mark.parametrize("side", ["a", "b"])
def test_too_few_rows_are_named(side):
    rows = {"a": np.eye(4), "b": np.eye(4)} | {side: np.eye(4)[:2]}
    with pytest.raises(ValueError, match=f"`{side}` must have at least three rows of positive weight, got 2"):
        debiased(**rows)
