"""A number with how sure it is: over streams where there are several, else over the test rows of the one."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np

from inscl.core.stats import Estimate, paired_difference


def estimate(
    values: Sequence[float],
    orders: Sequence[Hashable] | None = None,
    *,
    of_rows: Callable[[], Estimate | None] = lambda: None,
) -> Estimate | None:
    """The mean over streams; None where there is no stream.

    Parameters
    ----------
    values : sequence of float, shape (n_streams,)
    orders : sequence, shape (n_streams,), optional
        Name of each stream's order: streams of one order count as one (see `inscl.core.stats.paired_difference`).
    of_rows : callable
        Gives the estimate over test rows; asked only where there is one stream.

    Examples
    --------
    >>> found = estimate([4.0, 6.0])
    >>> round(found.low, 2), found.mean, found.n, found.over
    (-7.71, 5.0, 2, 'streams')
    >>> estimate([4.0], of_rows=lambda: Estimate(mean=4.0, low=3.0, high=5.0, over="test rows")).ends
    (3.0, 5.0)
    """
    if not values:
        return None
    if len(values) > 1:
        return replace(paired_difference(values, np.zeros(len(values)), orders), p=None)
    found = of_rows()
    return Estimate(mean=float(values[0])) if found is None else replace(found, mean=float(values[0]), p=None)
