"""The 1-Wasserstein distance between two tasks, each a distribution over embedded instructions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from inscl.core.simplex import Floats, Places, cheapest_coupling, least_cost
from inscl.core.transport import bounded_cost
from inscl.errors import DataError

_EXACT_SIZE = 4_000_000  # entries of the cost matrix, 2,000 x 2,000: about 1 to 1.5 s and 0.4 GB on one core
_LARGEST = 4_000_000_000  # pairs, 63,000 x 63,000: more would take hours
METHOD = 2  # raised when the same arguments give another value: what was kept is then computed again
PAIRS = 1 << 14  # single pairs whose costs are computed at a time
_TOLERANCE = 0.01  # certified relative error beyond that


def wasserstein(
    a: ArrayLike, b: ArrayLike, weights_a: ArrayLike | None = None, weights_b: ArrayLike | None = None
) -> float:
    """Least cost of turning one weighted set of embeddings into the other, moving mass at cost 1 - cos.

    ``min over couplings G of sum_xy G[x, y] * (1 - cos(a_x, b_y))``, the cost itself and not a root of it.
    The cost is half the squared chord between the normalised rows: symmetric and 0 on itself, but without a
    triangle inequality.

    Up to ``n * m = 4,000,000`` (`_EXACT_SIZE`, rows of weight 0 not counted) the transport problem is solved
    exactly, in 60 to 100 bytes an entry. Beyond that the result is the cost of a coupling, so never below the exact
    value, and at most 1 % above it, proved by a feasible dual solution (see `inscl.core.transport`). Memory then grows
    with n + m, and time with n * m. Beyond 4,000,000,000 (`_LARGEST`) it is refused.

    float16 embeddings of about unit norm have products and sums that are exact in float64, so their costs are
    the same bits on every machine.

    Parameters
    ----------
    a, b : array_like, shapes (n, d) and (m, d)
        Embeddings in any floating type; they need not be normalised. Computed in float64.
    weights_a, weights_b : array_like, shapes (n,) and (m,), optional
        Non-negative masses, normalised to sum to 1. None: equal weights.

    Returns
    -------
    float
        Between 0 and 2.

    Raises
    ------
    ValueError
        If a set is empty or not a matrix, the dimensions differ, a row holds NaN or infinity or is all zero,
        or weights have the wrong length, are negative, not finite or all zero.
    DataError
        If n * m is beyond `_LARGEST`.

    References
    ----------
    Wang et al. (2024), "InsCL", arXiv:2403.11435.

    Examples
    --------
    >>> wasserstein([[1.0, 0.0]], [[0.0, 2.0]])
    1.0
    >>> wasserstein([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0]], weights_a=[3, 1])
    0.25
    """
    x, y, p, q = _with_mass(*_checked(a, b, weights_a, weights_b))
    if len(x) * len(y) > _LARGEST:
        raise DataError(
            f"The tasks have {len(x):,} and {len(y):,} distinct instructions; a Wasserstein distance takes at most "
            f"{_LARGEST:,} pairs. Use a strategy that needs no distances, or another --instruction-field."
        )
    costs = _CosineCosts(x, y)
    if len(x) * len(y) > _EXACT_SIZE:
        value = bounded_cost(costs, p, q, _TOLERANCE)
    elif 1 in costs.shape:
        value = float(p @ costs.block() @ q)  # there is only one coupling
    else:
        value = least_cost(p, q, costs.block())
    return min(max(value, 0.0), 2.0)


def coupling(
    a: ArrayLike, b: ArrayLike, weights_a: ArrayLike | None = None, weights_b: ArrayLike | None = None
) -> Floats:
    """What mass `wasserstein` moves from where to where; one optimum where there are several.

    Parameters
    ----------
    a, b, weights_a, weights_b
        As in `wasserstein`.

    Returns
    -------
    array of float, shape (n, m)
        Its rows sum to the masses of `a`, its columns to those of `b`.

    Raises
    ------
    ValueError
        As `wasserstein`.
    DataError
        If n * m is beyond 4,000,000 (`_EXACT_SIZE`).

    Examples
    --------
    >>> coupling([[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [3.0, 0.0]]).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    given = _checked(a, b, weights_a, weights_b)
    x, y, p, q = _with_mass(*given)
    if len(x) * len(y) > _EXACT_SIZE:
        raise DataError(f"A coupling takes at most {_EXACT_SIZE:,} pairs, got {len(x):,} and {len(y):,} rows.")
    moved = np.outer(p, q) if 1 in (len(x), len(y)) else cheapest_coupling(p, q, _CosineCosts(x, y).block())
    whole = np.zeros((len(given[2]), len(given[3])))
    whole[np.ix_(given[2] > 0, given[3] > 0)] = moved
    return whole


class _Debiased(NamedTuple):
    """An estimate, which may be negative, and its standard error."""

    value: float
    standard_error: float


def debiased(
    a: ArrayLike, b: ArrayLike, weights_a: ArrayLike | None = None, weights_b: ArrayLike | None = None
) -> _Debiased:
    """How far two tasks lie apart, without the floor from the spread within them.

    Each set is taken for a sample of its task's instructions. `wasserstein` is then well above 0 even between halves of
    one task. This is the U-statistic of the mean cost between the tasks less the mean costs within them,

        E c(X, Y) - E c(X, X') / 2 - E c(Y, Y') / 2 = |E X - E Y|^2 / 2     (X, Y scaled to length 1)

    without bias: 0 in the mean where both sets come from one task. It sees that the tasks' mean directions differ,
    and nothing else: it is half the squared maximum mean discrepancy of the linear kernel, and a lower bound of the
    Wasserstein distance between the tasks. The standard error is the jackknife's, which is on the safe side where the
    difference is about 0.

    Parameters
    ----------
    a, b, weights_a, weights_b
        As in `wasserstein`.

    Returns
    -------
    _Debiased
        Computed in time and memory that grow with n + m.

    Raises
    ------
    ValueError
        As in `wasserstein`, and where a side has fewer than three rows of positive weight.

    References
    ----------
    Gretton et al. (2012), "A kernel two-sample test"; Busing et al. (1999), "Delete-m jackknife for unequal m".

    Examples
    --------
    >>> debiased([[1.0, 0.0]] * 3, [[0.0, 2.0]] * 3).value
    1.0
    """
    x, y, p, q = _with_mass(*_checked(a, b, weights_a, weights_b))
    for name, rows in (("a", x), ("b", y)):
        if len(rows) < 3:
            raise ValueError(f"`{name}` must have at least three rows of positive weight, got {len(rows)}.")
    x, y = x / _norms(x)[:, None], y / _norms(y)[:, None]
    mean_x, mean_y = p @ x, q @ y
    across = float(mean_x @ mean_y)
    (of_x, x_left), (of_y, y_left) = _mean_within(x, p), _mean_within(y, q)
    value = (of_x + of_y) / 2 - across
    without_x = (x_left + of_y) / 2 - (across - p * (x @ mean_y)) / (1 - p)
    without_y = (of_x + y_left) / 2 - (across - q * (y @ mean_x)) / (1 - q)
    return _Debiased(value, float(np.sqrt(_jackknife(value, without_x, p) + _jackknife(value, without_y, q))))


def _mean_within(x: Floats, p: Floats) -> tuple[float, Floats]:
    """The mean cosine of two different rows of unit length; and without each row in turn, (n,)."""
    mean = p @ x
    square, masses = mean @ mean, p @ p
    whole = (square - masses) / (1 - masses)
    squares = square - 2 * p * (x @ mean) + p**2  # |mean - p_i x_i|^2
    return float(whole), (squares - (masses - p**2)) / ((1 - p) ** 2 - (masses - p**2))


def _jackknife(value: float, without: Floats, p: Floats) -> float:
    """Variance of an estimate, from its values without each row of mass `p` in turn."""
    estimate = len(p) * value - (1 - p) @ without
    pseudo = (value - (1 - p) * without) / p
    return float(((pseudo - estimate) ** 2 * p / (1 - p)).mean())


def _checked(
    a: ArrayLike, b: ArrayLike, weights_a: ArrayLike | None, weights_b: ArrayLike | None
) -> tuple[Floats, Floats, Floats, Floats]:
    """The rows of both sides, and their masses."""
    x, y = _rows("a", a), _rows("b", b)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"`a` and `b` must have the same dimension, got {x.shape[1]} and {y.shape[1]}. "
            "Encode both with the same encoder."
        )
    p, q = _masses("weights_a", weights_a, len(x)), _masses("weights_b", weights_b, len(y))
    return x, y, p, q


def _with_mass(x: Floats, y: Floats, p: Floats, q: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The rows of positive mass, and their masses."""
    return x[p > 0], y[q > 0], p[p > 0], q[q > 0]


class _CosineCosts:
    """1 - cos for all pairs, shape (n, m). Norms divide last: products of float16 rows are then exact."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self.shape = len(x), len(y)
        self._x, self._y = x, y
        self._norms_x, self._norms_y = _norms(x), _norms(y)

    def block(self, rows: slice | Places = slice(None), columns: slice | Places = slice(None)) -> Floats:
        """Costs from some rows to others, a matrix."""
        cost = self._x[rows] @ self._y[columns].T
        cost /= self._norms_x[rows, None]
        cost /= self._norms_y[columns]
        return _as_cost(cost)

    def at(self, rows: Places, columns: Places) -> Floats:
        """Costs of single pairs."""
        parts = [slice(start, start + PAIRS) for start in range(0, len(rows), PAIRS)]
        cosine = [np.einsum("ij,ij->i", self._x[rows[part]], self._y[columns[part]]) for part in parts]
        return _as_cost(np.concatenate(cosine) / self._norms_x[rows] / self._norms_y[columns])


def _as_cost(cosine: Floats) -> Floats:
    np.subtract(1.0, cosine, out=cosine)
    clipped: Floats = np.clip(cosine, 0.0, 2.0, out=cosine)
    return clipped


def _norms(rows: Floats) -> Floats:
    norms: Floats = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return norms


def _rows(name: str, embeddings: ArrayLike) -> Floats:
    """The embeddings in float64, each row scaled by a power of two so that no square over- or underflows."""
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"`{name}` must be a matrix with one embedding per row, got shape {rows.shape}.")
    if rows.size == 0:
        raise ValueError(f"`{name}` must have at least one row and one column, got shape {rows.shape}.")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"`{name}` must be finite, got NaN or infinity in {(~finite).sum()} of {len(rows)} rows, "
            f"first in row {finite.argmin()}. Check the encoder."
        )
    largest = np.abs(rows).max(axis=1, keepdims=True)
    if not largest.all():
        raise ValueError(
            f"`{name}` must not have zero-norm rows, got {(largest == 0).sum()} of {len(rows)}, "
            f"first row {largest.argmin()}: a zero vector has no direction. Check the encoder."
        )
    scaled: Floats = np.ldexp(rows, -np.frexp(largest)[1])
    return scaled


def _masses(name: str, weights: ArrayLike | None, wanted: int) -> Floats:
    """Weights that sum to 1."""
    if weights is None:
        return np.full(wanted, 1 / wanted)
    masses = np.asarray(weights, dtype=np.float64)
    if masses.shape != (wanted,):
        raise ValueError(f"`{name}` must have one weight per row, shape ({wanted},), got {masses.shape}.")
    if not np.isfinite(masses).all() or (masses < 0).any():
        raise ValueError(f"`{name}` must be finite and non-negative.")
    if not masses.any():
        raise ValueError(f"`{name}` must not be all zero.")
    masses = masses / masses.max()
    normalised: Floats = masses / masses.sum()
    return normalised
