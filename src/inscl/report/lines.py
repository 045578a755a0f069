"""The numbers of one experiment: its streams, a line for each strategy and budget, and what sets the lines apart."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np

from inscl.core.stats import Estimate, mean_interval, paired_difference
from inscl.experiments.comparison import Contender, FinalRows, line_label
from inscl.experiments.equal_tokens import gains_at_equal_tokens
from inscl.experiments.results import FINAL, StreamKey, StreamResult, TableRow
from inscl.experiments.run_folder import RunFolder, StreamFolder
from inscl.report.facts import JointFacts, LineFacts, StreamFacts, TaskFacts

_METRICS = {  # of the table -> of a line, and the factor to what is shown
    FINAL: ("gain_final", 1),
    "relative_gain_mean": ("gain_mean", 1),
    "relative_gain_last_five": ("gain_last_five", 1),
    "average_performance": ("performance", 100),
    "backward_transfer": ("change", 100),
    "forgetting": ("forgetting", 100),
    "forward_transfer": ("forward", 100),
    "learning": ("learning", 100),
    "share_of_joint": ("of_joint", 1),
    "gain_equal_tokens": ("gain_equal_tokens", 1),
}
_Rows = Sequence[TableRow]


@dataclass(frozen=True)
class MeasuredStream:
    """A stream's numbers, its folder, and the run it lies in."""

    facts: StreamFacts
    run: RunFolder
    folder: StreamFolder

    @property
    def result(self) -> StreamResult | None:
        """Its row scores; None where it is not finished, or they are gone."""
        return self.run.result(self.folder) if self.folder.finished else None


class Experiment:
    """Runs that measured the same thing.

    Parameters
    ----------
    runs : sequence of RunFolder
    name : str
        Ends the labels of its lines; empty where the report shows no other experiment.
    """

    def __init__(self, runs: Sequence[RunFolder], name: str) -> None:
        self.runs, self.name = runs, name
        self._budgets = {stream.key.budget for run in runs for stream in run.streams}
        self._equal = gains_at_equal_tokens(row for run in runs for row in run.rows)
        self.streams = [stream for run in runs for stream in self._measured(run)]

    def _measured(self, run: RunFolder) -> Iterable[MeasuredStream]:
        """Its streams of which something is measured."""
        numbers: dict[StreamKey, list[TableRow]] = {}
        for row in run.rows:
            numbers.setdefault(StreamKey.of(row), []).append(row)
        for folder in run.streams:
            if folder.key in numbers:
                facts = _stream_facts(self._label(folder.key), run, folder, numbers[folder.key])
                if folder.key in self._equal and facts.finished:
                    equal = {"gain_equal_tokens": self._equal[folder.key]}
                    facts = replace(facts, metrics={**facts.metrics, **equal})
                yield MeasuredStream(facts, run, folder)

    def _label(self, key: StreamKey) -> str:
        label = line_label(key.strategy, key.budget, self._budgets)
        return f"{label} · {self.name}" if self.name else label

    @cached_property
    def lines(self) -> list[LineFacts]:
        """A line for each strategy and budget, in the order in which the streams name them."""
        labels = dict.fromkeys(stream.facts.line for stream in self.streams)
        return [self._line([stream for stream in self.streams if stream.facts.line == label]) for label in labels]

    def _line(self, streams: Sequence[MeasuredStream]) -> LineFacts:
        key, all_facts = streams[0].folder.key, [stream.facts for stream in streams]
        done = [stream for stream in streams if stream.facts.finished]
        facts = [stream.facts for stream in done]
        return LineFacts(
            label=all_facts[0].line,
            strategy=key.strategy,
            budget=key.budget,
            pool=self.name,
            streams=len(done),
            unfinished=len(streams) - len(done),
            tokens=_mean(stream.tokens for stream in facts),
            seconds=_mean(stream.seconds for stream in facts),
            replayed=_mean(stream.replayed for stream in facts),
            gains=_gains(all_facts),
            tasks=tuple(_task_facts(done)),
            **{name: _metric(name, done) for name, _ in _METRICS.values()},
        )

    def contenders(self) -> list[Contender]:
        """The lines as they are compared."""
        rows = {key: kept for run in self.runs for key, kept in run.final_rows().items()}
        return [self._contender(line, rows) for line in self.lines]

    def _contender(self, line: LineFacts, rows: Mapping[StreamKey, FinalRows]) -> Contender:
        mine = [stream.facts for stream in self.streams if stream.facts.line == line.label]
        return Contender(
            label=line.label,
            strategy=line.strategy,
            budget=line.budget,
            finals={(s.order, s.seed): s.metrics["gain_final"] for s in mine if "gain_final" in s.metrics},
            rows={(key.order, key.seed): kept for key, kept in rows.items() if self._label(key) == line.label},
        )

    def joint(self) -> JointFacts | None:
        """Joint training over its seeds, against the experts of the same run; None where there was none."""
        found = [scores for run in self.runs for scores in _joint_scores(run)]
        gains = [100 * fmean(score / expert for score, expert in scores.values()) for scores in found]
        gain = _estimate(gains)
        performance = _estimate([100 * fmean(score for score, _ in scores.values()) for scores in found])
        if gain is None or performance is None:
            return None
        return JointFacts(gain=gain, performance=performance, scores=_task_means(found))


def _joint_scores(run: RunFolder) -> Iterable[dict[str, tuple[float, float]]]:
    """Per seed each task's score of joint training and of its expert."""
    experts = {row["task"]: row["value"] for row in run.rows if row["metric"] == "expert"}
    scores: dict[int, dict[str, float]] = {}
    for row in run.rows:
        if row["strategy"] == "joint" and row["metric"] == run.config.scorer:
            scores.setdefault(row["seed"], {})[row["task"]] = row["value"]
    for found in scores.values():
        if found.keys() <= experts.keys():
            yield {task: (value, experts[task]) for task, value in found.items()}


def _task_means(found: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """Each task's score of joint training in points, over the seeds that have it."""
    tasks = dict.fromkeys(task for scores in found for task in scores)
    return {task: 100 * fmean(scores[task][0] for scores in found if task in scores) for task in tasks}


# ---------------------------------------------------------------- one stream


def _stream_facts(label: str, run: RunFolder, folder: StreamFolder, rows: _Rows) -> StreamFacts:
    scores = _scores(rows, run.config.scorer)
    untrained = scores.pop(0, {})
    whole = {row["metric"]: row["value"] for row in rows if row["stage"] is None and row["task"] is None}
    replayed = _costs(rows, "replayed_share")[1:]
    return StreamFacts(
        line=label,
        run=run.name,
        order=folder.key.order,
        seed=folder.key.seed,
        tasks=folder.tasks,
        scores=tuple(scores[stage] for stage in sorted(scores)),
        untrained={task: score.mean for task, score in untrained.items()},
        experts={task: 100 * score for task, score in _values(rows, "expert", "task").items()},
        gains=_values(rows, "relative_gain", "stage"),
        metrics={name: factor * whole[metric] for metric, (name, factor) in _METRICS.items() if metric in whole},
        tokens=_total(_costs(rows, "tokens")),
        seconds=_total(_costs(rows, "seconds")),
        replayed=100 * fmean(replayed) if replayed else None,
    )


def _scores(rows: _Rows, scorer: str) -> dict[int, dict[str, Estimate]]:
    """Per stage the score of each task in points."""
    found: dict[int, dict[str, Estimate]] = {}
    for row in rows:
        if row["metric"] == scorer and row["value"] is not None:
            score = Estimate(
                mean=row["value"],
                low=row["low"],
                high=row["high"],
                n=row["n"] or 0,
                clusters=row.get("clusters"),
                over="test rows" if row["n"] else "",
            )
            found.setdefault(row["stage"], {})[row["task"]] = score.in_points
    return found


def _values(rows: _Rows, metric: str, per: str) -> dict[Any, float]:
    """A metric per task or stage."""
    return {row[per]: row["value"] for row in rows if row["metric"] == metric}


def _costs(rows: _Rows, name: str) -> list[float]:
    """One number per stage."""
    return [row["value"] for row in rows if row["metric"] == name and row["stage"] and row["task"] is None]


def _total(values: Sequence[float]) -> float | None:
    return sum(values) if values else None


# ---------------------------------------------------------------- over the streams of a line


def _metric(name: str, done: Sequence[MeasuredStream]) -> Estimate | None:
    known = [stream for stream in done if name in stream.facts.metrics]
    of_rows = {"gain_final": _of_gain, "performance": _of_performance, "change": _of_change}.get(name)
    return _over([(stream, stream.facts.metrics[name]) for stream in known], of_rows)


def _over(
    values: Sequence[tuple[MeasuredStream, float]], of_rows: Callable[[MeasuredStream], Estimate | None] | None
) -> Estimate | None:
    """The mean over streams, of one stream with the interval over its test rows."""
    orders = [stream.facts.order for stream, _ in values]
    return _estimate(
        [value for _, value in values],
        orders,
        of_rows=lambda: None if of_rows is None else of_rows(values[0][0]),
    )


def _gains(streams: Sequence[StreamFacts]) -> dict[int, Estimate]:
    """Relative Gain after each stage, over all streams that have reached it."""
    found = {}
    for stage in sorted({stage for stream in streams for stage in stream.gains}):
        there = [stream for stream in streams if stage in stream.gains]
        gain = _estimate([stream.gains[stage] for stream in there], [stream.order for stream in there])
        if gain:
            found[stage] = gain
    return found


def _task_facts(done: Sequence[MeasuredStream]) -> Iterable[TaskFacts]:
    """Each task's change since it was learnt, over the streams that learnt another one after it."""
    for task in dict.fromkeys(task for stream in done for task in stream.facts.tasks):
        seen = [stream for stream in done if task in stream.facts.tasks[:-1]]
        learnt = [stream.facts.scores[stream.facts.tasks.index(task)][task].mean for stream in seen]
        now = [stream.facts.scores[-1][task].mean for stream in seen]
        changes = [(stream, b - a) for stream, a, b in zip(seen, learnt, now, strict=True)]
        if change := _over(changes, lambda stream, task=task: _of_task(stream, task)):  # type: ignore[misc]
            yield TaskFacts(task=task, learnt=fmean(learnt), now=fmean(now), change=change)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _estimate(
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
    >>> found = _estimate([4.0, 6.0])
    >>> round(found.low, 2), found.mean, found.n, found.over
    (-7.71, 5.0, 2, 'streams')
    >>> _estimate([4.0], of_rows=lambda: Estimate(mean=4.0, low=3.0, high=5.0, over="test rows")).ends
    (3.0, 5.0)
    """
    if not values:
        return None
    if len(values) > 1:
        return replace(paired_difference(values, np.zeros(len(values)), orders), p=None)
    found = of_rows()
    return Estimate(mean=float(values[0])) if found is None else replace(found, mean=float(values[0]), p=None)


# ---------------------------------------------------------------- over the test rows of one stream


def _of_gain(stream: MeasuredStream) -> Estimate | None:
    kept = stream.run.final_rows().get(stream.folder.key)
    return kept and kept.estimate()


def _of_performance(stream: MeasuredStream) -> Estimate | None:
    found = stream.result
    if found is None:
        return None
    last = len(found.stages) - 1
    scores = {task: [100 * score for score in found.row_scores(last, task)] for task in found.tasks}
    asked = {task: found.stages[last][task].instructions[: len(rows)] for task, rows in scores.items()}
    return FinalRows(scores, asked).estimate()


def _of_change(stream: MeasuredStream) -> Estimate | None:
    found = stream.result
    if found is None:
        return None
    changes = {task: _changes(found, task) for task in found.tasks[:-1]}
    rows, asked = ({task: both[i] for task, both in changes.items()} for i in (0, 1))
    return FinalRows(rows, asked).estimate()  # type: ignore[arg-type]


def _of_task(stream: MeasuredStream, task: str) -> Estimate | None:
    found = stream.result
    return None if found is None else mean_interval(*_changes(found, task))


def _changes(found: StreamResult, task: str) -> tuple[list[float], Sequence[str]]:
    """Row by row the change of a task's score since it was learnt, in points, and the rows' instructions.

    Where the last stages score more rows than the earlier ones, the rows that both have.
    """
    learnt, last = found.tasks.index(task), len(found.tasks) - 1
    pairs = zip(found.row_scores(learnt, task), found.row_scores(last, task), strict=False)
    changes = [100 * (now - before) for before, now in pairs]
    return changes, found.stages[last][task].instructions[: len(changes)]
