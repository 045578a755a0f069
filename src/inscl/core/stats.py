"""How sure a number is: intervals for a model's score, for the difference of two strategies, and for many at once.

A score varies with the test rows, which come in groups that share an instruction: rows of one instruction stand or
fall together. A difference between strategies varies with the streams, and streams of one order are no more
independent than rows of one instruction. So every interval counts clusters, not members. How often each covers the
truth is simulated in ``benchmarks/coverage.py``.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Floats = NDArray[np.float64]
ENOUGH_STREAMS = 3  # from which on an interval over them is shown in words and figures; tables have it from two on
ENOUGH_ROWS, ENOUGH_CLUSTERS = 30, 8  # from which on an interval over test rows covers as often as it says


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and how sure it is.

    Attributes
    ----------
    mean : float
    low, high : float, optional
        Its 95 % interval, unless another level was asked for; None where none is possible.
    n : int
        What the mean is over: streams, or rows.
    clusters : int, optional
        Independent groups among them (orders, instructions); None: each stands for itself.
    over : str
        What the interval varies: "streams", "test rows", or "" for nothing.
    p : float, optional
        Two-sided p-value of "the true mean is 0"; None where that is no question, or nothing varies.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    clusters: int | None = None
    over: str = ""
    p: float | None = None

    @property
    def units(self) -> int:
        """How many independent things it is over: the members of a single cluster count one by one."""
        return self.n if self.clusters in (None, 1) else self.clusters

    @property
    def enough(self) -> bool:
        """Whether it rests on so much that the interval holds what it says; below that there is too little to tell."""
        if self.over == "streams":
            return self.units >= ENOUGH_STREAMS
        return self.n >= ENOUGH_ROWS and (self.clusters is None or self.clusters >= ENOUGH_CLUSTERS)

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval, where there is one."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def count(self) -> int:
        """How many of the `n` are true, where the mean is a share."""
        return round(self.mean * self.n)

    @property
    def shown(self) -> tuple[float, float] | None:
        """The ends as words and figures show them: none where there is too little to tell."""
        return self.ends if self.enough else None

    @property
    def in_points(self) -> "Estimate":
        """The estimate of a score or share, times 100.

        >>> found = Estimate(mean=0.5, low=0.25, high=0.75).in_points
        >>> found.mean, found.ends
        (50.0, (25.0, 75.0))
        """
        low, high = (None if end is None else 100 * end for end in (self.low, self.high))
        return replace(self, mean=100 * self.mean, low=low, high=high)

    def __neg__(self) -> "Estimate":
        """The estimate of the opposite."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, mean=-self.mean, low=low, high=high)


def score_interval(scores: ArrayLike, clusters: Sequence[Hashable] | None = None, level: float = 0.95) -> Estimate:
    """Mean of scores between 0 and 1, with an interval that stays between 0 and 1.

    Student's t around the logit of the mean, with the error and the degrees of freedom of `ratio_estimate`: near 0 and
    1 a plain t-interval covers far too seldom (simulated: 8 instructions of 4 rows at 0.97 in half of all samples,
    this one in 98 %). Where no cluster differs from another, such as 12 of 12 right, it is Wilson's interval with one
    observation per cluster.

    Parameters
    ----------
    scores : array-like, shape (n_rows,)
        Of single rows; right or wrong as 1 and 0, or shares such as ROUGE-L.
    clusters : sequence, shape (n_rows,), optional
        What the rows have in common, such as the key of their instruction. Rows of a single cluster count one by one:
        the interval then speaks of that cluster only.
    level : float
        Between 0 and 1.

    Returns
    -------
    Estimate
        Over test rows; without ends where there is one row.

    Raises
    ------
    ValueError
        If there is no row, a score is not between 0 and 1, or the lengths differ.

    References
    ----------
    Korn and Graubard (1999), "Analysis of Health Surveys", section 3.2; Wilson (1927), JASA 22.

    Examples
    --------
    >>> found = score_interval([1, 1, 0, 1, 1, 1], clusters=["a", "a", "b", "b", "c", "d"])
    >>> round(found.low, 2), round(found.mean, 2), round(found.high, 2), found.clusters
    (0.1, 0.83, 1.0, 4)
    """
    v = finite("scores", scores)
    if v.min() < 0 or v.max() > 1:
        raise ValueError(f"`scores` must lie between 0 and 1, got {v.min()} to {v.max()}.")
    _check(level)
    sums, sizes = clustered(v, clusters)
    found = Estimate(mean=float(v.mean()), n=v.size, clusters=_count(clusters), over="test rows")
    if sums.size < 2:
        return found
    low, high = _within_unit(ratio_estimate(sums, sizes), level)
    return replace(found, low=low, high=high)


def mean_interval(values: ArrayLike, clusters: Sequence[Hashable] | None = None, level: float = 0.95) -> Estimate:
    """Mean of any numbers over test rows, such as changes of scores, with Student's t and one error for each cluster.

    Parameters
    ----------
    values : array-like, shape (n_rows,)
    clusters, level
        As for `score_interval`.

    Returns
    -------
    Estimate
        Over test rows. Without ends where there is one row or nothing varies: that tells nothing of other rows.

    Raises
    ------
    ValueError
        If there is no row, a value is not finite, or the lengths differ.

    Examples
    --------
    >>> found = mean_interval([0.5, 0.25, -0.25, 0.5], clusters=["a", "b", "c", "d"])
    >>> round(found.low, 2), found.mean, round(found.high, 2)
    (-0.31, 0.25, 0.81)
    """
    v = finite("values", values)
    _check(level)
    sums, sizes = clustered(v, clusters)
    if sums.size < 2:
        return Estimate(mean=float(v.mean()), clusters=_count(clusters), over="test rows")
    return ratio_estimate(sums, sizes).estimate(level, n=v.size, clusters=_count(clusters), over="test rows")


def paired_difference(
    a: ArrayLike, b: ArrayLike, orders: Sequence[Hashable] | None = None, level: float = 0.95
) -> Estimate:
    """Mean of a - b over streams, with its t-interval and p-value, clustered by the order of tasks.

    Seeds of one order share what the order does: 3 orders with 5 seeds each are nearer to 3 streams than to 15. The
    units are therefore the orders. With a fresh order for every stream, as `orders` None says, it is the usual paired
    t-test.

    Parameters
    ----------
    a, b : array-like, shape (n_streams,)
        One number per stream for two strategies, in the same order of streams: the same order of tasks, seed,
        test rows and expert scores on both sides.
    orders : sequence, shape (n_streams,), optional
        Name of each stream's order. Streams of a single order count one by one, and speak of that order only.
    level : float
        Between 0 and 1.

    Returns
    -------
    Estimate
        Without ends where there is one stream, or no stream differs from another.

    Raises
    ------
    ValueError
        If a value is not finite, the lengths differ, there is no stream, or `level` is out of range.

    Examples
    --------
    >>> difference = paired_difference([3, 5, 4], [1, 2, 3])
    >>> round(difference.low, 3), difference.mean, round(difference.high, 3)
    (-0.484, 2.0, 4.484)
    """
    x, y = finite("a", a), finite("b", b)
    if x.size != y.size:
        raise ValueError(f"`a` and `b` must hold the same streams, got {x.size} and {y.size} values.")
    found = mean_interval(x - y, orders, level)
    return replace(found, over="streams")


@dataclass(frozen=True)
class SampleMean:
    """A mean with its standard error and degrees of freedom, and what Student's t says about the true one.

    Attributes
    ----------
    mean, error : float
    df : float
        Degrees of freedom of `error`.
    """

    mean: float
    error: float
    df: float

    def p_above(self, limit: float) -> float:
        """One-sided p-value of "the true mean is at most `limit`": small where it is larger."""
        if self.error == 0:
            return float(self.mean <= limit)
        return float(_special().stdtr(self.df, (limit - self.mean) / self.error))

    def estimate(self, level: float, **of: Any) -> Estimate:
        """With both ends and the p-value of "the true mean is 0"; without them where nothing varies."""
        if self.error == 0:
            return Estimate(mean=self.mean, **of)
        alpha, p = (1 - level) / 2, 2 * float(_special().stdtr(self.df, -abs(self.mean) / self.error))
        return Estimate(mean=self.mean, low=self.low(alpha), high=self.high(alpha), p=p, **of)

    def low(self, alpha: float) -> float:
        """The true mean lies above this, in all but a share `alpha` of samples."""
        return self.mean + self._t(alpha) * self.error

    def high(self, alpha: float) -> float:
        """The true mean lies below this, in all but a share `alpha` of samples."""
        return self.mean - self._t(alpha) * self.error

    def detectable(self, limit: float, alpha: float, power: float = 0.8) -> float:
        """The smallest true mean that a sample like this shows to be above `limit`, in a share `power` of samples.

        ``limit + (t(1 - alpha) + t(power)) × error``: where the lower bound of level `alpha` lies above `limit`.
        """
        return limit + (self._t(power) - self._t(alpha)) * self.error

    def _t(self, p: float) -> float:
        """The quantile of Student's t."""
        return float(_special().stdtrit(self.df, p))


def ratio_estimate(sums: ArrayLike, sizes: ArrayLike | None = None) -> SampleMean:
    """Mean over all members of independent units, with an error that counts units, not members.

    With ``m = Σ sums / Σ sizes`` and ``r = sums - m × sizes`` the squared error is ``G / (G - 1) × Σ r² / (Σ sizes)²``
    over the G units: for units of size 1 the usual ``s / sqrt(n)``. The degrees of freedom are ``K - 1`` with Kish's
    effective number of units ``K = (Σ sizes)² / Σ sizes²``, so that one large unit among small ones counts as one.

    Parameters
    ----------
    sums : array-like, shape (n_units,)
        Sum over the members of each unit; at least two units.
    sizes : array-like, shape (n_units,), optional
        Positive; None: one member each.

    Raises
    ------
    ValueError
        If there are fewer than two units, the lengths differ, or a number is not finite or a size not positive.

    References
    ----------
    Cochran (1977), "Sampling Techniques", section 6.3 (ratio estimates); Kish (1965), "Survey Sampling".

    Examples
    --------
    >>> ratio_estimate([1, 2, 3])
    SampleMean(mean=2.0, error=0.5773502691896257, df=2.0)
    """
    s = finite("sums", sums)
    n = np.ones(s.size) if sizes is None else finite("sizes", sizes)
    if s.size < 2 or n.size != s.size or (n <= 0).any():
        raise ValueError(f"At least two units with positive sizes are wanted, got {s.size} and {n.size}: {n.tolist()}.")
    total = n.sum()
    mean = s.sum() / total
    residual = s - mean * n
    residual[np.abs(residual) <= 1e-12 * np.abs(s).max()] = 0  # rounding is no variance
    error = np.sqrt(s.size / (s.size - 1) * (residual @ residual)) / total
    return SampleMean(float(mean), float(error), effective_units(n) - 1)


def effective_units(sizes: ArrayLike) -> float:
    """Kish's number of equal units that units of these sizes are worth, ``(Σ n)² / Σ n²``.

    >>> effective_units([5, 5, 5]), round(effective_units([100, 1, 1]), 2)
    (3.0, 1.04)
    """
    n = np.asarray(sizes, dtype=np.float64)
    return float(n.sum() ** 2 / (n @ n))


def holm(p: ArrayLike) -> list[float]:
    """p-values adjusted for how many there are, after Holm: reject those at most alpha, and no more than a share
    alpha of whole families ever holds a false one, whatever the dependence.

    Parameters
    ----------
    p : array-like, shape (n,)
        Between 0 and 1.

    Returns
    -------
    list of float, shape (n,)
        In the same order.

    References
    ----------
    Holm (1979), "A simple sequentially rejective multiple test procedure".

    Examples
    --------
    >>> holm([0.01, 0.04, 0.02])
    [0.03, 0.04, 0.04]
    """
    raw = finite("p", p)
    if (raw < 0).any() or (raw > 1).any():
        raise ValueError(f"`p` must lie between 0 and 1, got {raw.tolist()}.")
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * (raw.size - np.arange(raw.size)))
    adjusted = np.empty(raw.size)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _special() -> Any:
    import scipy.special

    return scipy.special


def _within_unit(mean: SampleMean, level: float) -> tuple[float, float]:
    """Ends of a mean of numbers from 0 to 1."""
    m, alpha = mean.mean, (1 - level) / 2
    if mean.error == 0 or not 0 < m < 1:
        k = replace(mean, mean=0.0, error=1.0).high(alpha) ** 2 / (mean.df + 1)  # t² over the number of clusters
        centre, half = m + k / 2, np.sqrt(k * m * (1 - m) + k * k / 4)
        return max(0.0, float((centre - half) / (1 + k))), min(1.0, float((centre + half) / (1 + k)))
    logit = SampleMean(float(np.log(m / (1 - m))), mean.error / (m * (1 - m)), mean.df)
    return float(_special().expit(logit.low(alpha))), float(_special().expit(logit.high(alpha)))


def clustered(values: _Floats, clusters: Sequence[Hashable] | None) -> tuple[_Floats, _Floats]:
    """Sum and size of each cluster, (n_clusters,) each; of each value where there are no clusters, or only one."""
    if clusters is not None:
        if len(clusters) != values.size:
            raise ValueError(f"`clusters` must name a cluster per value: {len(clusters)} for {values.size} values.")
        numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
        if len(numbers) > 1:
            groups = np.array([numbers[cluster] for cluster in clusters])
            return np.bincount(groups, weights=values).astype(np.float64), np.bincount(groups).astype(np.float64)
    return values, np.ones(values.size)


def _count(clusters: Sequence[Hashable] | None) -> int | None:
    return None if clusters is None else len(set(clusters))


def finite(name: str, values: ArrayLike) -> _Floats:
    """Values as a vector, or an error that names them."""
    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 1 or v.size == 0 or not np.isfinite(v).all():
        raise ValueError(f"`{name}` must be a list of finite numbers, at least one, got {values!r}.")
    return v


def _check(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, such as 0.95, got {level}.")
