"""From what was scored to one tidy table: a row per number, with where it comes from.

    row scores -> `cell_of` -> Cell -> `StreamResult` -> `stream_rows` -> `to_table` -> `write_table`

Stages count from 1 as in the formulas (docs/method.md); stage 0 is the untrained model. A number of the whole
stream has no stage, a number over several tasks no task. Scores, experts and the untrained model share one
scale.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from inscl.core import metrics
from inscl.core.stats import Estimate, bootstrap_interval, paired_difference

SCHEMA = pa.schema(
    {
        "run_id": pa.string(),
        "model": pa.string(),
        "strategy": pa.string(),
        "budget": pa.string(),
        "order": pa.string(),
        "seed": pa.int64(),
        "stage": pa.int32(),  # null: the whole stream
        "task": pa.string(),  # null: several tasks
        "metric": pa.string(),
        "value": pa.float64(),  # null: undefined
        "low": pa.float64(),  # null: no interval
        "high": pa.float64(),
        "n": pa.int64(),  # rows of a score; tasks or stages of a metric
    }
)
PARQUET, CSV = "results.parquet", "results.csv"


class Cell(NamedTuple):
    """Score of one model on one task: mean over `n` test rows, with its interval."""

    value: float
    low: float
    high: float
    n: int


class Row(NamedTuple):
    """One number of a stream, without the stream's own columns."""

    stage: int | None
    task: str | None
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


def cell_of(scores: ArrayLike, clusters: Sequence[object] | None = None, level: float = 0.95) -> Cell:
    """Mean of row scores with a bootstrap interval, clustered by instruction where `clusters` are given.

    >>> cell_of([0.0, 0.0, 1.0, 1.0], clusters=["a", "a", "b", "b"])
    Cell(value=0.5, low=0.0, high=1.0, n=4)
    """
    low, high = bootstrap_interval(scores, clusters, level)
    values = np.asarray(scores, dtype=np.float64)
    return Cell(float(values.mean()), low, high, values.size)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The columns that all rows of a stream share."""

    run_id: str
    model: str
    strategy: str
    budget: str
    order: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class StreamResult:
    """All that was measured in one stream, finished or not.

    Attributes
    ----------
    stream : Stream
    tasks : sequence of str
        All tasks in the order they are learnt.
    stages : sequence of mapping from (score name, task) to Cell
        What each finished stage's model scored; of `main`, at least the tasks learnt so far.
    main : str
        The score that the metrics are made from; others ("exact_match", "loss") are listed as they are.
    experts, zero_shot : mapping from task to float, optional
        `main` of the task's expert (mean over its seeds) and of the untrained model.
    costs : sequence of mapping from str to float
        Per stage what it cost: tokens, seconds, ...
    """

    stream: Stream
    tasks: Sequence[str]
    stages: Sequence[Mapping[tuple[str, str], Cell]]
    main: str = "rouge_l"
    experts: Mapping[str, float] | None = None
    zero_shot: Mapping[str, float] | None = None
    costs: Sequence[Mapping[str, float]] = field(default=())


def stream_rows(result: StreamResult) -> list[Row]:
    """Every number of a stream: scores and costs of each stage, and the metrics of method.md.

    Relative Gain is given for every stage there is; the metrics of the whole stream once its last stage is
    there. Metrics that need experts, the untrained model or a second task are left out where these are
    missing.

    Raises
    ------
    ValueError
        If a score that is needed is missing, or an expert does not score above 0; the message names the task.
    """
    rows = [
        Row(stage, task, score, *cell)
        for stage, cells in enumerate(result.stages, start=1)
        for (score, task), cell in cells.items()
    ]
    rows += [
        Row(stage, None, name, value)
        for stage, costs in enumerate(result.costs, start=1)
        for name, value in costs.items()
    ]
    rows += [Row(0, task, result.main, value) for task, value in (result.zero_shot or {}).items()]
    rows += [Row(None, task, "expert", value) for task, value in (result.experts or {}).items()]
    scores = _matrix(result)
    if result.experts is not None and len(scores) > 1:
        rows += _gains(scores, _experts(result)[: len(scores)])
    if len(scores) == len(result.tasks):
        rows += _stream_metrics(result, scores)
    return rows


def to_table(results: Iterable[StreamResult]) -> pa.Table:
    """All numbers of several streams as one table with the columns of `SCHEMA`."""
    records = [{**asdict(result.stream), **row._asdict()} for result in results for row in stream_rows(result)]
    return pa.Table.from_pylist(records, schema=SCHEMA)


def write_table(table: pa.Table, folder: Path) -> None:
    """Write ``results.parquet`` and ``results.csv``; each is the old file or the new one, never half."""
    from pyarrow import csv, parquet

    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, Callable[[pa.Table, Any], None]] = {PARQUET: parquet.write_table, CSV: csv.write_csv}
    partial = {name: folder / f".{name}.{os.getpid()}.partial" for name in writers}
    try:
        for name, write in writers.items():
            with partial[name].open("wb") as file:
                write(table, file)
                file.flush()
                os.fsync(file.fileno())
        for name in writers:
            partial[name].replace(folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def compare(
    table: pa.Table,
    strategy: str,
    baseline: str,
    *,
    metric: str = "relative_gain_final",
    budget: str | None = None,
    level: float = 0.95,
) -> Estimate:
    """Difference of a stream metric between two strategies, paired by order and seed.

    Parameters
    ----------
    table : pyarrow.Table
        With the columns of `SCHEMA`, of one model.
    strategy, baseline : str
        The difference is strategy - baseline.
    metric : str
        A metric of the whole stream.
    budget : str, optional
        Budget of both; a strategy without a budget (the budget column is empty) is paired with any.
    level : float

    Returns
    -------
    Estimate
        Over the streams that both have.

    Raises
    ------
    ValueError
        If no stream has both, or a strategy has several values for one order and seed.
    """
    a, b = (_by_stream(table, name, metric, budget) for name in (strategy, baseline))
    both = sorted(a.keys() & b.keys())
    if not both:
        raise ValueError(
            f"No stream (order and seed) has '{metric}' for both '{strategy}' and '{baseline}'. Run both first."
        )
    return paired_difference([a[key] for key in both], [b[key] for key in both], level)


def _by_stream(table: pa.Table, strategy: str, metric: str, budget: str | None) -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    for row in table.to_pylist():
        if (row["strategy"], row["metric"], row["stage"], row["task"]) != (strategy, metric, None, None):
            continue
        if budget is None or row["budget"] in ("", budget):
            key = row["order"], row["seed"]
            if key in found:
                raise ValueError(
                    f"'{strategy}' has several values of '{metric}' for order '{key[0]}' and seed {key[1]}. "
                    "Give `budget`, and the rows of one run and model."
                )
            found[key] = row["value"]
    return found


def _matrix(result: StreamResult) -> list[list[float]]:
    """Main scores, stage by stage over the tasks in their order; NaN where a task was not scored."""
    nothing = Cell(float("nan"), 0.0, 0.0, 0)
    return [[cells.get((result.main, task), nothing).value for task in result.tasks] for cells in result.stages]


def _experts(result: StreamResult) -> list[float]:
    return [_of_task(result.experts or {}, task, "expert") for task in result.tasks]


def _of_task(values: Mapping[str, float], task: str, what: str) -> float:
    if task not in values:
        raise ValueError(f"Task '{task}' has no score of the {what}; there are scores of {[*values]}.")
    if what == "expert" and not values[task] > 0:
        raise ValueError(
            f"The expert of task '{task}' scores {values[task]}: ratios to it are undefined. Train it longer, or "
            "leave the task out."
        )
    return values[task]


def _gains(scores: list[list[float]], experts: list[float]) -> list[Row]:
    """Relative Gain and the ratio of sums at each stage from the second on."""
    rows = []
    for name, measure in (("relative_gain", metrics.relative_gain), ("ratio_of_sums", metrics.ratio_of_sums)):
        for stage, value in enumerate(measure(scores, experts), start=2):
            rows.append(Row(stage, None, name, value, n=stage - 1))
    return rows


def _stream_metrics(result: StreamResult, scores: list[list[float]]) -> list[Row]:
    """The metrics of a finished stream."""
    n = len(scores)

    def row(metric: str, value: float, count: int) -> Row:
        return Row(None, None, metric, value, n=count)

    rows = [row("average_performance", metrics.average_performance(scores), n)]
    if n > 1:
        rows.append(row("backward_transfer", metrics.backward_transfer(scores), n - 1))
        rows.append(row("forgetting", metrics.forgetting(scores), n - 1))
        rows += [Row(None, task, "forgetting_rate", _rate(scores, j)) for j, task in enumerate(result.tasks)]
    if n > 1 and result.zero_shot is not None:
        zero_shot = [_of_task(result.zero_shot, task, "untrained model") for task in result.tasks]
        rows.append(row("forward_transfer", metrics.forward_transfer(scores, zero_shot), n - 1))
    if result.experts is not None:
        experts = _experts(result)
        rows.append(row("learning", metrics.learning(scores, experts), n))
        if n > 1:
            gain = metrics.summarise_gain(metrics.relative_gain(scores, experts))
            rows += [row(f"relative_gain_{name}", value, n - 1) for name, value in asdict(gain).items()]
    return rows


def _rate(scores: list[list[float]], j: int) -> float | None:
    """Forgetting rate of one task; None where it scored 0 when it was learnt: one such task spoils no other."""
    first, last = scores[j][j], scores[-1][j]
    return None if first == 0 else metrics.forgetting_rate([[first], [last, 1.0]])[0]
