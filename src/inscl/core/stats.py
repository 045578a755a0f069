"""How sure a number is: intervals for one model's score, for two models and for the difference of two strategies.

One model's score varies with the test rows, which come in groups that share an instruction. The difference
between two strategies varies with the streams (order x seed) first: many rows of one stream do not make up
for few streams.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
ENOUGH_STREAMS = 3  # from which on an interval over them is shown in words and figures; tables have it from two on
RowScores = Mapping[str, ArrayLike]  # of one stream: task -> (n_rows,)


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
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    clusters: int | None = None
    over: str = ""

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
        """The ends as words and figures show them: an interval over two streams says only that there are two."""
        return None if self.over == "streams" and self.n < ENOUGH_STREAMS else self.ends

    def __neg__(self) -> "Estimate":
        """The estimate of the opposite."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, mean=-self.mean, low=low, high=high)


def bootstrap_interval(
    values: ArrayLike,
    clusters: Sequence[object] | None = None,
    level: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`.

    With `clusters`, whole clusters are drawn with replacement, as many as there are, and each draw's mean is
    taken over all its rows. Rows of a single cluster are drawn one by one: the interval then speaks of that
    cluster only. With few clusters (under ten, say) such an interval is too narrow; show the number beside
    it.

    Parameters
    ----------
    values : array-like, shape (n_rows,)
        Scores of single rows; at least one, all finite.
    clusters : sequence, shape (n_rows,), optional
        What the rows have in common, such as the key of their instruction.
    level : float
        Between 0 and 1.
    n : int
        Number of draws.
    seed : int
        Equal arguments give equal intervals.

    Returns
    -------
    (float, float)
        Lower and upper end. One row: both are its value.

    Raises
    ------
    ValueError
        If there is no row, a value is not finite, the lengths differ, or `level` or `n` is out of range.

    References
    ----------
    Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13; Davison and Hinkley (1997),
    "Bootstrap Methods and their Application", section 3.8 (clusters).

    Examples
    --------
    >>> bootstrap_interval([0, 0, 1, 1], clusters=["a", "a", "b", "b"])
    (0.0, 1.0)
    """
    v = _finite("values", values)
    _check(level, n)
    groups = np.arange(v.size)
    if clusters is not None:
        if len(clusters) != v.size:
            raise ValueError(f"`clusters` must name a cluster per row: {len(clusters)} for {v.size} values.")
        numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
        if len(numbers) > 1:
            groups = np.array([numbers[cluster] for cluster in clusters])
    sums, sizes = np.bincount(groups, weights=v), np.bincount(groups)  # (n_clusters,)
    times = _draws(sizes.size, n, np.random.default_rng(seed))
    return _percentiles(times @ sums / (times @ sizes), level)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of a - b over streams, with its t-interval.

    Parameters
    ----------
    a, b : array-like, shape (n_streams,)
        One number per stream for two strategies, in the same order of streams: the same order of tasks, seed,
        test rows and expert scores on both sides.
    level : float
        Between 0 and 1.

    Returns
    -------
    Estimate
        The interval is mean ± t(level, n - 1) × s / sqrt(n). One stream gives no interval.

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
    x, y = _finite("a", a), _finite("b", b)
    _check(level)
    if x.size != y.size:
        raise ValueError(f"`a` and `b` must hold the same streams, got {x.size} and {y.size} values.")
    d = x - y
    mean = float(d.mean())
    if d.size == 1:
        return Estimate(mean=mean)
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, d.size - 1) * d.std(ddof=1) / np.sqrt(d.size))
    return Estimate(mean=mean, low=mean - half, high=mean + half, n=int(d.size), over="streams")


def resampled_difference(
    a: Sequence[RowScores],
    b: Sequence[RowScores],
    scale: Mapping[str, float] | None = None,
    level: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Difference between two strategies, with streams and test rows drawn again together.

    A stream's value is the mean over its tasks of ``scale[task] × mean row score``; with ``scale[task] = 100
    / E`` and the last task left out, that is its final Relative Gain. Each draw takes streams with
    replacement, and for every task one sample of its test rows, which serves all streams and both strategies:
    they were scored on the same rows. So the interval covers other orders and seeds and other test rows. It
    errs on the wide side (Owen 2007).

    Parameters
    ----------
    a, b : sequence of mapping from task to array-like of shape (n_rows of that task,)
        Per stream, in the same order on both sides, the row scores of each task. Streams may leave tasks out,
        but a pair of streams has the same tasks, and a task has the same rows everywhere.
    scale : mapping from task to float, optional
        Fixed multiplier of each task's score; 1 by default.
    level, n, seed
        As in `bootstrap_interval`.

    Returns
    -------
    Estimate
        Mean of a - b, percentile interval, number of streams. One stream: the interval covers test rows only.

    Raises
    ------
    ValueError
        If streams, tasks or rows do not match, `scale` lacks a task, or a score is not finite.

    References
    ----------
    Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1(2).

    Examples
    --------
    >>> resampled_difference([{"x": [1, 1]}, {"x": [1, 1]}], [{"x": [0, 0]}, {"x": [0, 0]}])
    Estimate(mean=1.0, low=1.0, high=1.0, n=2, clusters=None, over='streams')
    """
    _check(level, n)
    differences = _row_differences(a, b, scale)
    rng = np.random.default_rng(seed)
    streams = _draws(len(a), n, rng) / len(a)  # (n, n_streams): weight of each stream in each draw
    drawn = np.zeros(n)
    for d in differences.values():
        rows = _draws(d.shape[1], n, rng) / d.shape[1]  # (n, n_rows)
        drawn += ((streams @ d) * rows).sum(axis=1)
    mean = sum(float(d.mean(axis=1).mean()) for d in differences.values())
    low, high = _percentiles(drawn, level)
    return Estimate(mean=mean, low=low, high=high, n=len(a), over="streams" if len(a) > 1 else "test rows")


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
    s = _finite("sums", sums)
    n = np.ones(s.size) if sizes is None else _finite("sizes", sizes)
    if s.size < 2 or n.size != s.size or (n <= 0).any():
        raise ValueError(f"At least two units with positive sizes are wanted, got {s.size} and {n.size}: {n.tolist()}.")
    total = n.sum()
    mean = s.sum() / total
    residual = s - mean * n
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
    raw = _finite("p", p)
    if (raw < 0).any() or (raw > 1).any():
        raise ValueError(f"`p` must lie between 0 and 1, got {raw.tolist()}.")
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * (raw.size - np.arange(raw.size)))
    adjusted = np.empty(raw.size)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _row_differences(
    a: Sequence[RowScores],
    b: Sequence[RowScores],
    scale: Mapping[str, float] | None,
) -> dict[str, Floats]:
    """Per task the scaled row differences (n_streams, n_rows), each divided by its stream's tasks."""
    if not a or len(a) != len(b):
        raise ValueError(f"`a` and `b` must hold the same streams, at least one, got {len(a)} and {len(b)}.")
    found: dict[str, Floats] = {}
    for stream, (x, y) in enumerate(zip(a, b, strict=True)):
        if not x or x.keys() != y.keys():
            raise ValueError(f"Stream {stream} must have equal tasks on both sides, got {[*x]} and {[*y]}.")
        for task in x:
            if scale is not None and task not in scale:
                raise ValueError(f"`scale` lacks task '{task}'; it has {[*scale]}.")
            p, q = _finite(f"a[{stream}]['{task}']", x[task]), _finite(f"b[{stream}]['{task}']", y[task])
            rows = found.setdefault(task, np.zeros((len(a), p.size)))
            if not p.size == q.size == rows.shape[1]:
                raise ValueError(
                    f"Task '{task}' must have the same test rows everywhere; stream {stream} has {p.size} "
                    f"and {q.size}, an earlier one {rows.shape[1]}."
                )
            rows[stream] = (p - q) * (1 if scale is None else scale[task]) / len(x)
    return found


def _special() -> Any:
    import scipy.special

    return scipy.special


def _draws(size: int, n: int, rng: np.random.Generator) -> Floats:
    """How often each of `size` things is taken when `size` are drawn with replacement, (n, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), size=n).astype(np.float64)


def _percentiles(drawn: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _finite(name: str, values: ArrayLike) -> Floats:
    """Values as a vector, or an error that names them."""
    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 1 or v.size == 0 or not np.isfinite(v).all():
        raise ValueError(f"`{name}` must be a list of finite numbers, at least one, got {values!r}.")
    return v


def _check(level: float, n: int = 1) -> None:
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, such as 0.95, got {level}.")
    if n < 1:
        raise ValueError(f"`n` must be at least 1 draw, got {n}.")
