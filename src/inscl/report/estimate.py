"""A number with how sure it is: over streams where there are several, else over the test rows of the one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from inscl.core.stats import paired_difference

ENOUGH = 3  # streams from which on an interval over them is shown in words and figures; tables have it from two on
Interval = Callable[[], tuple[float, float] | None]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and its 95 % interval.

    Attributes
    ----------
    mean : float
    low, high : float, optional
        None where no interval is possible.
    n : int
        Streams.
    over : str
        What the interval varies: "streams" (Student's t), "test rows" (bootstrap; one stream), or "" for none.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    over: str = ""

    @property
    def shown(self) -> tuple[float, float] | None:
        """The interval as words and figures show it: of two streams it would cover the figure, and say only that."""
        if self.low is None or self.high is None or (self.over == "streams" and self.n < ENOUGH):
            return None
        return self.low, self.high


def estimate(values: Sequence[float], of_rows: Interval = lambda: None) -> Estimate | None:
    """The mean over streams; None where there is no stream.

    Parameters
    ----------
    values : sequence of float, shape (n_streams,)
    of_rows : callable
        Gives the interval over test rows; asked only where there is one stream.

    Examples
    --------
    >>> found = estimate([4.0, 6.0])
    >>> round(found.low, 2), found.mean, found.n, found.over
    (-7.71, 5.0, 2, 'streams')
    >>> estimate([4.0], of_rows=lambda: (3.0, 5.0))
    Estimate(mean=4.0, low=3.0, high=5.0, n=1, over='test rows')
    """
    if not values:
        return None
    if len(values) > 1:
        found = paired_difference(values, np.zeros(len(values)))
        return Estimate(mean=found.mean, low=found.low, high=found.high, n=found.n, over="streams")
    interval = of_rows()
    if interval is None:
        return Estimate(mean=float(values[0]))
    return Estimate(mean=float(values[0]), low=interval[0], high=interval[1], over="test rows")
