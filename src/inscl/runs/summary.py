"""A run in one table: a line per strategy and budget, and the paired differences between strategies."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from inscl.runs.results import compare

FINAL = "relative_gain_final"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One strategy with one budget: means over its streams; None where a stream has no such number.

    Attributes
    ----------
    strategy, budget : str
    streams : int
        Orders x seeds.
    gain_final, gain_mean, gain_last_five : float
        Relative Gain, in per cent.
    performance, backward, forgetting, learning : float
        Average performance, backward transfer, forgetting; learning is a share of the experts'.
    tokens, seconds : float
        Of training, summed over the stages of a stream.
    """

    strategy: str
    budget: str
    streams: int
    gain_final: float | None
    gain_mean: float | None
    gain_last_five: float | None
    performance: float | None
    backward: float | None
    forgetting: float | None
    learning: float | None
    tokens: float | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Against:
    """Difference in final Relative Gain between two strategies, paired by order and seed."""

    strategy: str
    baseline: str
    budget: str
    mean: float
    low: float | None  # None: one stream gives no interval
    high: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run says of its strategies."""

    lines: tuple[Line, ...]
    differences: tuple[Against, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON holds."""
        return asdict(self)


def summarise(table: Any) -> Summary:
    """Summarise the table of a run.

    Parameters
    ----------
    table : pyarrow.Table
        With the columns of `inscl.runs.results.SCHEMA`.
    """
    rows = table.to_pylist()
    pairs = list(dict.fromkeys((row["strategy"], row["budget"]) for row in rows))
    lines = tuple(_line(*pair, [r for r in rows if (r["strategy"], r["budget"]) == pair]) for pair in pairs)
    return Summary(lines=lines, differences=tuple(_differences(table, lines)))


def _line(strategy: str, budget: str, rows: list[dict[str, Any]]) -> Line:
    streams = list(dict.fromkeys((row["order"], row["seed"]) for row in rows))

    def mean(metric: str) -> float | None:
        found = [r["value"] for r in rows if r["metric"] == metric and r["stage"] is None and r["task"] is None]
        return _over(found, fmean)

    def total(metric: str) -> float | None:
        found = [r["value"] for r in rows if r["metric"] == metric and r["stage"] is not None and r["task"] is None]
        return _over(found, lambda values: math.fsum(values) / len(streams))

    return Line(
        strategy=strategy,
        budget=budget,
        streams=len(streams),
        gain_final=mean(FINAL),
        gain_mean=mean("relative_gain_mean"),
        gain_last_five=mean("relative_gain_last_five"),
        performance=mean("average_performance"),
        backward=mean("backward_transfer"),
        forgetting=mean("forgetting"),
        learning=mean("learning"),
        tokens=total("tokens"),
        seconds=total("seconds"),
    )


def _over(values: list[float], mean: Callable[[Iterable[float]], float]) -> float | None:
    return mean(values) if values else None


def _differences(table: Any, lines: tuple[Line, ...]) -> Iterable[Against]:
    """Every line against every earlier one with the same budget, or without one."""
    measured = [line for line in lines if line.gain_final is not None]
    for i, line in enumerate(measured):
        for other in measured[:i]:
            if line.strategy == other.strategy or (other.budget and other.budget != line.budget):
                continue
            found = compare(table, line.strategy, other.strategy, metric=FINAL, budget=line.budget)
            known = math.isfinite(found.low)
            yield Against(
                strategy=line.strategy,
                baseline=other.strategy,
                budget=line.budget,
                mean=found.mean,
                low=found.low if known else None,
                high=found.high if known else None,
                n=found.n,
            )
