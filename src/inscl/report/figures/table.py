"""The table of numbers beside a figure, and estimates as its cells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inscl.core.stats import Estimate
from inscl.report.words import minus, spread


@dataclass(frozen=True, kw_only=True)
class Table:
    """The numbers of a figure."""

    head: Sequence[str]
    rows: Iterable[Sequence[str]]


def estimate_text(found: Estimate) -> str:
    """A mean, with its interval where there is enough for one."""
    ends = found.shown
    return minus(found.mean) + (f" ({minus(ends[0])} to {minus(ends[1])})" if ends else "")


def estimate_cells(found: Estimate, *, sign: bool = False) -> tuple[str, str, str]:
    """Mean, interval and streams, as cells of a table."""
    return minus(found.mean, sign=sign), spread(found), str(found.n if found.over == "streams" else 1)
