"""A run in one table: a line per strategy and budget, and the paired differences between strategies."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from inscl.core.stats import Estimate, resampled_difference
from inscl.experiments.results import compare
from inscl.stages.folder import StageFolder, read_json

if TYPE_CHECKING:
    from inscl.experiments.config import StreamConfig

FINAL = "relative_gain_final"


class StreamKey(NamedTuple):
    """What tells a stream of a run from the others."""

    strategy: str
    budget: str
    order: str
    seed: int


FinalRows = Mapping[StreamKey, Mapping[str, list[float]]]  # per stream: task -> (n_rows,), per cent of the expert


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
    """Difference in final Relative Gain between two strategies, paired by order and seed.

    Attributes
    ----------
    low, high : float, optional
        t-interval over the streams; one stream gives none.
    n : int
        Streams.
    resampled_low, resampled_high : float, optional
        Interval with streams and test rows drawn again together (`inscl.core.stats.resampled_difference`), of test rows
        alone where there is one stream; None without row scores.
    """

    strategy: str
    baseline: str
    budget: str
    mean: float
    low: float | None
    high: float | None
    n: int
    resampled_low: float | None = None
    resampled_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run says of its strategies."""

    lines: tuple[Line, ...]
    differences: tuple[Against, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON holds."""
        return asdict(self)


def summarise(table: Any, final: FinalRows | None = None) -> Summary:
    """Summarise the table of a run.

    Parameters
    ----------
    table : pyarrow.Table
        With the columns of `inscl.experiments.results.SCHEMA`.
    final : mapping, optional
        Row scores from `final_rows`: differences then have the resampled interval too.
    """
    rows = table.to_pylist()
    pairs = list(dict.fromkeys((row["strategy"], row["budget"]) for row in rows))
    lines = tuple(_line(*pair, [r for r in rows if (r["strategy"], r["budget"]) == pair]) for pair in pairs)
    return Summary(lines=lines, differences=tuple(_differences(table, lines, final or {})))


def final_rows(folder: Path, table: Any) -> dict[StreamKey, dict[str, list[float]]]:
    """What makes up the final Relative Gain of each finished stream of a run, row by row.

    Parameters
    ----------
    folder : Path
        Of the run.
    table : pyarrow.Table
        Of the run.

    Returns
    -------
    dict from stream to dict from task to list of float, shape (n_rows,)
        Scores of the last model in per cent of the task's expert, for every task but the newest: their mean over
        the rows and then over the tasks is the final Relative Gain. Streams without one are left out, and those whose
        row scores are gone.
    """
    from inscl.experiments.run import RUN, STREAMS

    config = recorded_config(read_json(folder / RUN))
    rows = table.to_pylist()
    finished = {_key(row) for row in rows if row["metric"] == FINAL}
    experts = {row["task"]: row["value"] for row in rows if row["metric"] == "expert"}
    found = {}
    for stream in json.loads((folder / STREAMS).read_text(encoding="utf-8")):
        if _key(stream) in finished:
            tasks, limit = stream["tasks"], config.test_rows.at(len(stream["tasks"]) - 1, len(stream["tasks"]))
            scores = StageFolder(folder / "stages" / stream["stages"][-1]).scores()
            if scores.keys() >= set(tasks):
                found[_key(stream)] = {
                    task: [100 * score / experts[task] for score in scores[task].rows[config.scorer][:limit]]
                    for task in tasks[:-1]
                }
    return found


def recorded_config(record: Mapping[str, Any]) -> "StreamConfig":
    """The configuration in a run's record; settings that this version does not know are left out."""
    from inscl.experiments.config import StreamConfig

    known = {key: value for key, value in record["config"].items() if key in StreamConfig.model_fields}
    return StreamConfig.model_validate(known)


def _key(row: Mapping[str, Any]) -> StreamKey:
    return StreamKey(row["strategy"], row["budget"], row["order"], row["seed"])


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


def _differences(table: Any, lines: tuple[Line, ...], final: FinalRows) -> Iterable[Against]:
    """Every line against every earlier one with the same budget, or without one."""
    measured = [line for line in lines if line.gain_final is not None]
    for i, line in enumerate(measured):
        for other in measured[:i]:
            if line.strategy == other.strategy or (other.budget and other.budget != line.budget):
                continue
            found = compare(table, line.strategy, other.strategy, metric=FINAL, budget=line.budget)
            resampled = _resampled(line, other, final)
            yield Against(
                strategy=line.strategy,
                baseline=other.strategy,
                budget=line.budget,
                mean=found.mean,
                low=found.low,
                high=found.high,
                n=found.n,
                resampled_low=resampled.low if resampled else None,
                resampled_high=resampled.high if resampled else None,
            )


def _resampled(line: Line, other: Line, final: FinalRows) -> Estimate | None:
    """Difference in final Relative Gain over the streams that both have, streams and test rows drawn again."""
    a, b = (
        {(key.order, key.seed): rows for key, rows in final.items() if key[:2] == (of.strategy, of.budget)}
        for of in (line, other)
    )
    both = sorted(a.keys() & b.keys())
    return resampled_difference([a[key] for key in both], [b[key] for key in both]) if both else None
