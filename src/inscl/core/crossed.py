"""The difference of two strategies over streams that were scored on the same test rows: both vary at once."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inscl.core.stats import Estimate, SampleMean, clustered, finite, ratio_estimate

_Floats = NDArray[np.float64]
_RowScores = Mapping[str, ArrayLike]  # of one stream: task -> (n_rows,)


class _Variance(NamedTuple):
    """Squared error of a mean, and the degrees of freedom behind it."""

    value: float
    df: float


def crossed_difference(
    a: Sequence[_RowScores],
    b: Sequence[_RowScores],
    scale: Mapping[str, float] | None = None,
    *,
    orders: Sequence[Hashable] | None = None,
    instructions: Mapping[str, Sequence[Hashable]] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Difference between two strategies, for other streams and other test rows than these.

    A stream's value is the mean over its tasks of ``scale[task] × mean row score``; with ``scale[task] = 100
    / E`` and the last task left out, that is its final Relative Gain. Streams are crossed with test rows: all
    streams and both strategies were scored on the same ones. So the squared error is that of the streams plus that of
    the rows, less their interaction, which both contain (Cameron, Gelbach and Miller 2011); it is never less than the
    larger of the two. Degrees of freedom after Satterthwaite.

    Parameters
    ----------
    a, b : sequence of mapping from task to array-like of shape (n_rows of that task,)
        Per stream, in the same order on both sides, the row scores of each task. Streams may leave tasks out,
        but a pair of streams has the same tasks, and a task has the same rows everywhere.
    scale : mapping from task to float, optional
        Fixed multiplier of each task's score; 1 by default.
    orders : sequence, shape (n_streams,), optional
        Name of each stream's order: streams of one order count as one (see `inscl.core.stats.paired_difference`).
    instructions : mapping from task to sequence of shape (n_rows of that task,), optional
        What rows have in common: rows of one instruction count as one.
    level : float
        Between 0 and 1.

    Returns
    -------
    Estimate
        Over streams; one stream: over test rows only.

    Raises
    ------
    ValueError
        If streams, tasks or rows do not match, `scale` lacks a task, or a score is not finite.

    References
    ----------
    Cameron, Gelbach and Miller (2011), "Robust inference with multiway clustering", Journal of Business & Economic
    Statistics 29; Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1(2).

    Examples
    --------
    >>> found = crossed_difference([{"x": [1, 1, 0]}, {"x": [1, 0, 1]}], [{"x": [0, 0, 0]}, {"x": [0, 0, 1]}])
    >>> round(found.mean, 3), found.n, found.over
    (0.5, 2, 'streams')
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, such as 0.95, got {level}.")
    tasks = list(_tasks(a, b, scale, instructions or {}))
    values = np.sum([task.of_streams for task in tasks], axis=0)
    rows = _sum([task.row_variance() for task in tasks if task.sizes.size > 1])
    if values.size == 1:
        n = int(sum(task.sizes.sum() for task in tasks))
        return _mean(values, rows).estimate(level, n=n, over="test rows")
    streams = _of_streams(values, orders)
    shared = sum(task.interaction() for task in tasks)
    total = _sum([streams, rows], less=shared)
    clusters = None if orders is None else len(set(orders))
    return _mean(values, total).estimate(level, n=values.size, clusters=clusters, over="streams")


@dataclass(frozen=True)
class _Task:
    """What one task adds to the difference.

    Attributes
    ----------
    sums : (n_present, n_clusters)
        Scaled row differences of the streams that have the task, summed over each cluster of rows.
    sizes : (n_clusters,)
    present : (n_streams,) of bool
    """

    sums: _Floats
    sizes: _Floats
    present: NDArray[np.bool_]

    @property
    def of_streams(self) -> _Floats:
        """The task's part of each stream's value, (n_streams,); 0 where it is left out."""
        values = np.zeros(self.present.size)
        values[self.present] = self.sums.sum(axis=1) / self.sizes.sum()
        return values

    def row_variance(self) -> _Variance:
        """Squared error from its rows, of the mean over all streams."""
        found = ratio_estimate(self.sums.sum(axis=0) / self.present.size, self.sizes)
        return _Variance(found.error**2, found.df)

    def interaction(self) -> float:
        """The part of the squared error that stream and row make together, of the mean over all streams."""
        streams, clusters = self.sums.shape
        if streams < 2 or clusters < 2:
            return 0.0
        share = self.sizes / self.sizes.sum()
        apart = self.sums - self.sums.sum(axis=1, keepdims=True) * share
        apart = (apart - apart.mean(axis=0)) / self.sizes.sum()
        unbiased = streams / (streams - 1) * clusters / (clusters - 1)
        return float(unbiased * (apart**2).sum() / self.present.size**2)


def _tasks(
    a: Sequence[_RowScores],
    b: Sequence[_RowScores],
    scale: Mapping[str, float] | None,
    instructions: Mapping[str, Sequence[Hashable]],
) -> Iterator[_Task]:
    for task, d in _row_differences(a, b, scale).items():
        present = ~np.isnan(d[:, 0])
        summed = [clustered(row, instructions.get(task)) for row in d[present]]
        yield _Task(np.array([sums for sums, _ in summed]), summed[0][1], present)


def _of_streams(values: _Floats, orders: Sequence[Hashable] | None) -> _Variance:
    found = ratio_estimate(*clustered(values, orders))
    return _Variance(found.error**2, found.df)


def _sum(parts: Sequence[_Variance], less: float = 0.0) -> _Variance:
    """Sum of squared errors less what they share, with Satterthwaite's degrees of freedom."""
    value = max(sum(part.value for part in parts) - less, *(part.value for part in parts), 0.0)
    doubt = sum(part.value**2 / part.df for part in parts if part.value)
    return _Variance(value, value**2 / doubt if doubt else 1.0)


def _mean(values: _Floats, variance: _Variance) -> SampleMean:
    return SampleMean(float(values.mean()), float(np.sqrt(variance.value)), variance.df)


def _row_differences(
    a: Sequence[_RowScores], b: Sequence[_RowScores], scale: Mapping[str, float] | None
) -> dict[str, _Floats]:
    """Per task the scaled row differences (n_streams, n_rows), each divided by its tasks; NaN where left out."""
    if not a or len(a) != len(b):
        raise ValueError(f"`a` and `b` must hold the same streams, at least one, got {len(a)} and {len(b)}.")
    found: dict[str, _Floats] = {}
    for stream, (x, y) in enumerate(zip(a, b, strict=True)):
        if not x or x.keys() != y.keys():
            raise ValueError(f"Stream {stream} must have equal tasks on both sides, got {[*x]} and {[*y]}.")
        for task in x:
            if scale is not None and task not in scale:
                raise ValueError(f"`scale` lacks task '{task}'; it has {[*scale]}.")
            p, q = finite(f"a[{stream}]['{task}']", x[task]), finite(f"b[{stream}]['{task}']", y[task])
            rows = found.setdefault(task, np.full((len(a), p.size), np.nan))
            if not p.size == q.size == rows.shape[1]:
                raise ValueError(
                    f"Task '{task}' must have the same test rows everywhere; stream {stream} has {p.size} "
                    f"and {q.size}, an earlier one {rows.shape[1]}."
                )
            rows[stream] = (p - q) * (1 if scale is None else scale[task]) / len(x)
    return found
