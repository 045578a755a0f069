"""A run in one table: a line per strategy and budget, and the paired differences between strategies."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Self

import pyarrow as pa

from inscl.experiments.comparison import Comparison, Contender, FinalRows, OrderSeed, comparisons, line_label
from inscl.experiments.equal_tokens import gains_at_equal_tokens
from inscl.experiments.results import FINAL, StreamKey, TableRow


@dataclass(frozen=True, kw_only=True)
class _Line:
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
    share_of_joint : float
        What is kept of joint training's scores on the earlier tasks, in per cent.
    gain_equal_tokens : float
        Relative Gain at as many tokens as the cheapest strategy took (`inscl.experiments.equal_tokens`).
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
    share_of_joint: float | None
    gain_equal_tokens: float | None
    tokens: float | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run says of its strategies."""

    lines: tuple[_Line, ...]
    differences: tuple[Comparison, ...]

    @classmethod
    def of(cls, table: pa.Table, final: Mapping[StreamKey, FinalRows] | None = None) -> Self:
        """Sum up the table of a run.

        Parameters
        ----------
        table : pyarrow.Table
            With the columns of `inscl.experiments.results.SCHEMA`.
        final : mapping, optional
            From `inscl.experiments.run_folder.RunFolder.final_rows`: differences then have the resampled interval too.
        """
        by_line: dict[tuple[str, str], list[TableRow]] = {}
        rows = table.to_pylist()
        for row in rows:
            by_line.setdefault((row["strategy"], row["budget"]), []).append(row)
        equal = gains_at_equal_tokens(rows)
        lines = [_line(*pair, mine, equal) for pair, mine in by_line.items()]
        budgets = {budget for _, budget in by_line}
        contenders = [_contender(line_label(*pair, budgets), pair, mine, final or {}) for pair, mine in by_line.items()]
        return cls(lines=tuple(lines), differences=tuple(comparisons(contenders)))

    def to_dict(self) -> dict[str, object]:
        """As plain data that JSON holds."""
        return asdict(self)


def _line(strategy: str, budget: str, rows: Sequence[TableRow], equal: Mapping[StreamKey, float]) -> _Line:
    streams = list(dict.fromkeys((row["order"], row["seed"]) for row in rows))

    def mean(metric: str) -> float | None:
        found = [r["value"] for r in rows if r["metric"] == metric and r["stage"] is None and r["task"] is None]
        return _over(found, fmean)

    def total(metric: str) -> float | None:
        found = [r["value"] for r in rows if r["metric"] == metric and r["stage"] is not None and r["task"] is None]
        return _over(found, lambda values: math.fsum(values) / len(streams))

    return _Line(
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
        share_of_joint=mean("share_of_joint"),
        gain_equal_tokens=_over([gain for key, gain in equal.items() if key[:2] == (strategy, budget)], fmean),
        tokens=total("tokens"),
        seconds=total("seconds"),
    )


def _over(values: list[float], mean: Callable[[Iterable[float]], float]) -> float | None:
    return mean(values) if values else None


def _contender(
    label: str, pair: tuple[str, str], rows: Iterable[TableRow], final: Mapping[StreamKey, FinalRows]
) -> Contender:
    finals: dict[OrderSeed, float] = {
        (row["order"], row["seed"]): row["value"] for row in rows if row["metric"] == FINAL
    }
    mine = {(key.order, key.seed): kept for key, kept in final.items() if key[:2] == pair}
    return Contender(label=label, strategy=pair[0], budget=pair[1], finals=finals, rows=mine)
