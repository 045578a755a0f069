"""From what was scored to one tidy table: a row per number, with where it comes from.

    row scores -> `StreamResult` -> its `numbers` -> `to_table`

Stages count from 1 as in the formulas (docs/method.md); stage 0 is the untrained model. A number of the whole
stream has no stage, a number over several tasks no task. Scores, experts and the untrained model share one
scale.

Test rows stand in a fixed order, and a stage may score only the first of them. A ratio or a difference of two models'
scores is always taken over the rows that count on both sides: an expert against itself keeps exactly 100 per cent.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any, NamedTuple, Self, TypeVar

import pyarrow as pa

from inscl.core import metrics
from inscl.evaluation.scores import RowScores
from inscl.stages.metrics import metric_name

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
        "clusters": pa.int64(),  # instructions among the rows of a score
    }
)
FINAL = "relative_gain_final"
Reference = Mapping[str, Sequence[RowScores]]  # task -> row scores of a model per seed


_T = TypeVar("_T")


TableRow = Mapping[str, Any]  # a row of the table, or of one like it


class StreamKey(NamedTuple):
    """What tells a stream of a run from the others."""

    strategy: str
    budget: str
    order: str
    seed: int

    @classmethod
    def of(cls, row: TableRow) -> Self:
        """Which stream a row of a table is about."""
        return cls(row["strategy"], row["budget"], row["order"], row["seed"])


class Row(NamedTuple):
    """One number of a stream, without the stream's own columns."""

    stage: int | None
    task: str | None
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    clusters: int | None = None


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
    stages : sequence of mapping from task to RowScores
        What each finished stage's model scored: at least the tasks learnt so far.
    limits : sequence of int or None
        How many of a task's first rows count at each stage; None or nothing: all.
    main : str
        The score that the metrics are made from; others ("exact_match", "loss") are listed as they are.
    experts : mapping from task to sequence of RowScores, optional
        Of each task's expert, per seed.
    zero_shot : mapping from task to RowScores, optional
        Of the untrained model.
    joint : mapping from task to sequence of RowScores, optional
        Of joint training, per seed.
    costs : sequence of mapping from str to float
        Per stage what it cost: tokens, seconds, ...
    at_once : bool
        Whether the one stage learnt all tasks: joint training.
    """

    stream: Stream
    tasks: Sequence[str]
    stages: Sequence[Mapping[str, RowScores]]
    limits: Sequence[int | None] = ()
    main: str = "rouge_l"
    experts: Reference | None = None
    zero_shot: Mapping[str, RowScores] | None = None
    joint: Reference | None = None
    costs: Sequence[Mapping[str, float]] = field(default=())
    at_once: bool = False

    @property
    def finished(self) -> bool:
        """Whether the last stage is there."""
        return self.at_once or len(self.stages) == len(self.tasks)

    def rows(self, stage: int, task: str) -> int:
        """How many rows of a task count at a stage (counted from 0); 0 where it was not scored."""
        scored = self.stages[stage].get(task)
        limit = self.limits[stage] if self.limits else None
        return 0 if scored is None else scored.n if limit is None else min(scored.n, limit)

    def row_scores(self, stage: int, task: str) -> Sequence[float]:
        """Main scores of the rows that count at a stage (counted from 0)."""
        return self.stages[stage][task].rows[self.main][: self.rows(stage, task)]

    def score(self, stage: int, task: str, rows: int | None = None) -> float:
        """Main score of a stage (counted from 0) on the first `rows` rows; NaN where it was not scored."""
        n = self.rows(stage, task)
        return self.stages[stage][task].mean(self.main, n if rows is None else rows) if n else math.nan

    def pairs(self, stage: int, reference: Reference, what: str = "expert") -> list[tuple[float, float]]:
        """Main score and the reference's mean over its seeds, on the same rows, for every task learnt at a stage.

        Raises
        ------
        ValueError
            If a task's reference is missing or does not score above 0.
        """
        learnt = self.tasks if self.at_once else self.tasks[: stage + 1]
        return [self._pair(stage, task, reference, what) for task in learnt]

    def numbers(self) -> list[Row]:
        """Every number of the stream: scores and costs of each stage, and the metrics of method.md.

        Relative Gain is given for every stage there is; the metrics of the whole stream once its last stage is
        there. Metrics that need experts, the untrained model or a second task are left out where these are
        missing.

        Raises
        ------
        ValueError
            If a score that is needed is missing, or an expert does not score above 0; the message names the task.
        """
        rows = [*_scores(self), *_costs(self), *_references(self)]
        if self.experts is not None and not self.at_once:
            rows += _gains(self, self.experts)
        if self.finished:
            rows += _at_once(self) if self.at_once else _stream_metrics(self)
        return rows

    def tracked(self) -> dict[str, float]:
        """What a tracker shows of the stream: the numbers of its newest stage, and of the stream so far.

        They are called ``task/NAME/SCORE`` for every task that was scored, and as in docs/method.md. Where an expert
        scores 0 there is no Relative Gain.
        """
        try:
            rows = self.numbers()
        except ValueError:
            rows = replace(self, experts=None).numbers()
        newest, found = len(self.stages), {}
        for row in rows:
            if row.value is not None and row.task is None and row.stage in (None, newest):
                found[row.metric] = row.value
            elif row.value is not None and row.task is not None and row.stage == newest:
                found[f"task/{metric_name(row.task)}/{row.metric}"] = row.value
        return found

    def _pair(self, stage: int, task: str, reference: Reference, what: str) -> tuple[float, float]:
        models = _of_task(reference, task, what)
        rows = min([self.rows(stage, task), *(scores.n for scores in models)])
        base = fmean(scores.mean(self.main, rows or None) for scores in models)
        if not base > 0:
            raise ValueError(
                f"The {what} of task '{task}' scores {base}: ratios to it are undefined. Train it longer, or "
                "leave the task out."
            )
        return self.score(stage, task, rows), base


def to_table(results: Iterable[StreamResult]) -> pa.Table:
    """All numbers of several streams as one table with the columns of `SCHEMA`."""
    records = [{**asdict(result.stream), **row._asdict()} for result in results for row in result.numbers()]
    return pa.Table.from_pylist(records, schema=SCHEMA)


def _scores(result: StreamResult) -> Iterator[Row]:
    for stage, scored in enumerate(result.stages):
        for task, scores in scored.items():
            n = result.rows(stage, task)
            for name in scores.rows:
                found = scores.estimate(name, n)
                yield Row(stage + 1, task, name, found.mean, found.low, found.high, found.n, found.clusters)


def _costs(result: StreamResult) -> Iterator[Row]:
    for stage, costs in enumerate(result.costs, start=1):
        yield from (Row(stage, None, name, value) for name, value in costs.items())


def _references(result: StreamResult) -> Iterator[Row]:
    """The untrained model and the experts, over all their rows."""
    for task, scores in (result.zero_shot or {}).items():
        yield Row(0, task, result.main, scores.mean(result.main))
    for task, models in (result.experts or {}).items():
        yield Row(None, task, "expert", fmean(scores.mean(result.main) for scores in models))


def _of_task(values: Mapping[str, _T], task: str, what: str) -> _T:
    if task not in values:
        raise ValueError(f"Task '{task}' has no score of the {what}; there are scores of {[*values]}.")
    return values[task]


def _gains(result: StreamResult, experts: Reference) -> Iterator[Row]:
    """Relative Gain and the ratio of sums at each stage from the second on."""
    pairs = [result.pairs(stage, experts) for stage in range(len(result.stages))]
    for stage, value in enumerate(_relative_gain(pairs), start=2):
        yield Row(stage, None, "relative_gain", value, n=stage - 1)
    for stage, (*earlier, _) in enumerate(pairs[1:], start=2):
        sums = math.fsum(score for score, _ in earlier) / math.fsum(base for _, base in earlier)
        yield Row(stage, None, "ratio_of_sums", 100 * sums, n=stage - 1)


def _relative_gain(pairs: Sequence[Sequence[tuple[float, float]]]) -> list[float]:
    """Where each stage has experts' scores of its own: with ratios for scores, experts are 1."""
    return metrics.relative_gain(_ratios(pairs), [1.0] * len(pairs)) if len(pairs) > 1 else []


def _ratios(pairs: Sequence[Sequence[tuple[float, float]]]) -> list[list[float]]:
    return [[score / base for score, base in of_stage] for of_stage in pairs]


def _at_once(result: StreamResult) -> Iterator[Row]:
    """Joint training has no earlier tasks: its metrics are over all of them."""
    n = len(result.tasks)
    yield Row(None, None, "average_performance", fmean(result.score(0, task) for task in result.tasks), n=n)
    if result.experts is not None:
        yield Row(None, None, FINAL, 100 * fmean(*_ratios([result.pairs(0, result.experts)])), n=n)


def _stream_metrics(result: StreamResult) -> Iterator[Row]:
    """The metrics of a finished stream."""
    n = len(result.stages)
    last = [[result.score(i, task) for task in result.tasks] for i in range(n)]
    yield _whole("average_performance", metrics.average_performance(last), n)
    if n > 1:
        yield from _kept(result, _comparable(result))
    if n > 1 and result.zero_shot is not None:
        yield _whole("forward_transfer", _forward_transfer(result, last, result.zero_shot), n - 1)
    if result.experts is not None:
        yield from _against_experts(result, result.experts)
    if n > 1 and result.joint:
        yield from _against_joint(result, result.joint)


def _whole(metric: str, value: float, n: int) -> Row:
    return Row(None, None, metric, value, n=n)


def _comparable(result: StreamResult) -> list[list[float]]:
    """Scores of which a column is over the rows that count at every stage since its task was learnt, (n, n)."""
    n = len(result.tasks)
    counted = [[result.rows(i, task) for i in range(j, n)] for j, task in enumerate(result.tasks)]
    rows = [min(filter(None, counts), default=None) for counts in counted]
    return [
        [result.score(i, task, rows[j]) if j <= i else math.nan for j, task in enumerate(result.tasks)]
        for i in range(n)
    ]


def _kept(result: StreamResult, scores: list[list[float]]) -> Iterator[Row]:
    """What compares a task's last score with its earlier ones."""
    n = len(scores)
    yield _whole("backward_transfer", metrics.backward_transfer(scores), n - 1)
    yield _whole("forgetting", metrics.forgetting(scores), n - 1)
    for j, task in enumerate(result.tasks):
        yield Row(None, task, "forgetting_rate", _rate(scores, j))


def _forward_transfer(result: StreamResult, scores: list[list[float]], zero_shot: Mapping[str, RowScores]) -> float:
    before = [0, *range(len(result.tasks) - 1)]  # the stage just before each task
    untrained = [
        _of_task(zero_shot, task, "untrained model").mean(result.main, result.rows(i, task) or None)
        for i, task in zip(before, result.tasks, strict=True)
    ]
    return metrics.forward_transfer(scores, untrained)


def _against_experts(result: StreamResult, experts: Reference) -> Iterator[Row]:
    """Learning, and the Relative Gain of the whole stream."""
    n = len(result.stages)
    pairs = [result.pairs(stage, experts) for stage in range(n)]
    yield _whole("learning", metrics.learning(_ratios(pairs), [1.0] * n), n)
    if gains := _relative_gain(pairs):
        for name, value in asdict(metrics.summarize_gain(gains)).items():
            yield _whole(f"relative_gain_{name}", value, n - 1)


def _against_joint(result: StreamResult, joint: Reference) -> Iterator[Row]:
    """The last model's earlier tasks in per cent of joint training's; nothing where that scores 0 on one."""
    try:
        (ratios,) = _ratios([result.pairs(len(result.stages) - 1, joint, "joint model")])
    except ValueError:
        return
    yield _whole("share_of_joint", 100 * fmean(ratios[:-1]), len(ratios) - 1)


def _rate(scores: list[list[float]], j: int) -> float | None:
    """Forgetting rate of one task; None where it scored 0 when it was learnt: one such task spoils no other."""
    first, last = scores[j][j], scores[-1][j]
    return None if first == 0 else metrics.forgetting_rate([[first], [last, 1.0]])[0]
