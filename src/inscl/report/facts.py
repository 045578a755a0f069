"""What a report says, as plain data: `summarize` reads runs, and all that is shown comes from what it gives.

Scores and their changes are in points (score x 100), Relative Gain and shares in per cent; stages count from 1. Runs
that measured the same thing (the same model, data and settings; other seeds, orders, strategies or budgets) are pooled:
their streams are streams of one experiment. Others stand side by side, and a note says what sets them apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from inscl.core.crossed import crossed_difference
from inscl.core.stats import Estimate, mean_interval
from inscl.errors import InsclError
from inscl.experiments.comparison import Comparison, Contender, comparisons, line_label
from inscl.experiments.results import FINAL, StreamKey
from inscl.experiments.run import MAY_CHANGE
from inscl.experiments.run_folder import RunFolder, StreamFolder, stream_key
from inscl.report.estimate import estimate
from inscl.report.forgotten import ForgottenFacts, forgotten_facts
from inscl.report.replayed import ReplayFacts, replay_facts

NOT_THE_EXPERIMENT = MAY_CHANGE | {"tagger"}
_STREAM_METRICS = {  # of the table -> of a line, and the factor to what is shown
    FINAL: ("gain_final", 1),
    "relative_gain_mean": ("gain_mean", 1),
    "relative_gain_last_five": ("gain_last_five", 1),
    "average_performance": ("performance", 100),
    "backward_transfer": ("change", 100),
    "forgetting": ("forgetting", 100),
    "forward_transfer": ("forward", 100),
    "learning": ("learning", 100),
}


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Where the numbers of a run come from."""

    name: str
    model: str
    scorer: str
    finished: bool
    stages_done: int
    stages: int
    dtype: str | None
    orders: tuple[str, ...]
    seeds: tuple[int, ...]
    expert_seeds: tuple[int, ...]
    test_rows: tuple[int, int]  # fewest and most rows behind a score
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]  # content hash, rows per side, instructions
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean score of one model on one task, in points, with its interval over `n` test rows."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """All numbers of one stream.

    Attributes
    ----------
    line : str
        Label of the line it belongs to.
    run, order, seed
    tasks : tuple of str
        In the order they are learnt.
    scores : tuple of mapping from task to Score
        A mapping per finished stage.
    untrained, experts : mapping from task to float
        Scores of the untrained model and of each task's expert; empty where they were not measured.
    gains : mapping from stage to float
    metrics : mapping from name to float
        Of the whole stream, as in a line; empty until its last stage is done.
    tokens, seconds : float, optional
        Of training, over the finished stages.
    replayed : float, optional
        Share of the rows trained on that were replayed, in per cent: mean over the stages from the second on.
    """

    line: str
    run: str
    order: str
    seed: int
    tasks: tuple[str, ...]
    scores: tuple[Mapping[str, Score], ...]
    untrained: Mapping[str, float]
    experts: Mapping[str, float]
    gains: Mapping[int, float]
    metrics: Mapping[str, float]
    tokens: float | None
    seconds: float | None
    replayed: float | None

    @property
    def finished(self) -> bool:
        """Whether the last stage is scored."""
        return len(self.scores) == len(self.tasks)


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What became of one task under one strategy, over the finished streams in which it is not the newest."""

    task: str
    learnt: float  # score right after it was learnt
    now: float  # score after the last stage
    change: Estimate  # now - learnt


@dataclass(frozen=True, kw_only=True)
class LineFacts:
    """One strategy with one budget: estimates over its finished streams, None where nothing is known.

    Attributes
    ----------
    label, strategy, budget : str
        The label is the strategy, with the budget where there are several, and with the pool.
    pool : str
        Names of the runs of its experiment, where the report shows several experiments; else "".
    streams, unfinished : int
    gain_final, gain_mean, gain_last_five : Estimate, optional
        Relative Gain.
    performance, change, forgetting, forward, learning : Estimate, optional
        Average performance, backward transfer (the change since a task was learnt), forgetting and forward transfer
        in points; learning in per cent of the experts.
    tokens, seconds, replayed : float, optional
        Means over the finished streams.
    gains : mapping from stage to Estimate
        Relative Gain after each stage, over all streams that have reached it.
    tasks : tuple of TaskFacts
    """

    label: str
    strategy: str
    budget: str
    pool: str
    streams: int
    unfinished: int
    gain_final: Estimate | None
    gain_mean: Estimate | None
    gain_last_five: Estimate | None
    performance: Estimate | None
    change: Estimate | None
    forgetting: Estimate | None
    forward: Estimate | None
    learning: Estimate | None
    tokens: float | None
    seconds: float | None
    replayed: float | None
    gains: Mapping[int, Estimate]
    tasks: tuple[TaskFacts, ...]


@dataclass(frozen=True, kw_only=True)
class JointFacts:
    """Joint training: all tasks at once, the ceiling."""

    gain: Estimate  # per cent of the experts, over all tasks
    performance: Estimate
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A report's content."""

    runs: tuple[RunFacts, ...]
    scorer: str
    tasks: tuple[str, ...]
    lines: tuple[LineFacts, ...]
    differences: tuple[Comparison, ...]
    joint: tuple[JointFacts, ...]
    streams: tuple[StreamFacts, ...]
    replay: ReplayFacts
    forgotten: ForgottenFacts
    notes: tuple[str, ...] = field(default=())

    @property
    def finished(self) -> bool:
        """Whether all runs are finished."""
        return all(run.finished for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON holds."""
        return asdict(self)


@dataclass(frozen=True)
class Named:
    """A stream's folder, the run it lies in, and the label of its line."""

    label: str
    run: RunFolder
    stream: StreamFolder


def summarize(runs: str | Path | Sequence[str | Path | RunFolder]) -> Facts:
    """Read what one run or several have measured, finished or not.

    Parameters
    ----------
    runs : path or sequence of paths
        Folders of `inscl run` or `inscl demo`; or as `open_runs` gives them.

    Returns
    -------
    Facts

    Raises
    ------
    InsclError
        If a folder holds no run, or a run that has finished no stage.

    Examples
    --------
    ::

        facts = summarize("runs/first")
        facts.lines[0].gain_final.mean
    """
    folders = open_runs([runs] if isinstance(runs, str | Path) else runs)
    pools, notes = _pools(folders)
    tasks = tuple(dict.fromkeys(task for run in folders for task in run.tasks))
    named: list[Named] = []
    lines: list[LineFacts] = []
    differences: list[Comparison] = []
    joint: list[JointFacts] = []
    streams: list[StreamFacts] = []
    for pool in pools:
        part = _Pool(pool, "" if len(pools) == 1 else " + ".join(run.name for run in pool))
        named += part.named
        streams += part.facts
        found = part.lines()
        lines += found
        differences += part.differences(found)
        joint += part.joint()
    if not streams:
        raise InsclError(
            f"'{folders[0].name}' has not finished a stage of any stream yet: there is nothing to report. Run the same "
            "`inscl run` command again to go on."
        )
    done = [item for item in named if any((s.run, s.line) == (item.run.name, item.label) for s in streams)]
    return Facts(
        runs=tuple(_run_facts(run) for run in folders),
        scorer=folders[0].config.scorer,
        tasks=tasks,
        lines=tuple(lines),
        differences=tuple(differences),
        joint=tuple(joint),
        streams=tuple(streams),
        replay=replay_facts(_firsts(done)),
        forgotten=forgotten_facts(folders, _firsts(done)),
        notes=(*notes, *_unfinished(folders)),
    )


def open_runs(runs: Iterable[str | Path | RunFolder]) -> list[RunFolder]:
    """The folders of runs, each under a name of its own."""
    folders = [run if isinstance(run, RunFolder) else RunFolder.read(run) for run in runs]
    for run in folders:
        if not run.streams:
            raise InsclError(
                f"The run '{run.path}' has not begun its streams yet: there is nothing to report. "
                "Run the same `inscl run` command again to go on."
            )
        if sum(other.name == run.name for other in folders) > 1:
            run.name = str(run.path)
    return folders


def _firsts(named: Iterable[Named]) -> list[tuple[str, RunFolder, StreamFolder]]:
    """The first stream of each line and order."""
    found: dict[tuple[str, str], tuple[str, RunFolder, StreamFolder]] = {}
    for item in named:
        found.setdefault((item.label, item.stream.key.order), (item.label, item.run, item.stream))
    return list(found.values())


def _unfinished(runs: Iterable[RunFolder]) -> Iterable[str]:
    for run in runs:
        if not run.finished:
            done, wanted = run.stages_done()
            yield (
                f"The run '{run.name}' is not finished: {done} of {wanted} stages are scored. What is there is shown; "
                "the same `inscl run` command goes on with it."
            )


def _run_facts(run: RunFolder) -> RunFacts:
    rows = [row["n"] for row in run.rows if row["metric"] == run.config.scorer and row["n"]]
    done, wanted = run.stages_done()
    return RunFacts(
        name=run.name,
        model=run.config.model,
        scorer=run.config.scorer,
        finished=run.finished,
        stages_done=done,
        stages=wanted,
        dtype=run.record.get("dtype"),
        orders=tuple(dict.fromkeys(stream.key.order for stream in run.streams)),
        seeds=tuple(dict.fromkeys(stream.key.seed for stream in run.streams)),
        expert_seeds=tuple(run.config.experts.seeds) if run.config.experts else (),
        test_rows=(min(rows, default=0), max(rows, default=0)),
        versions=run.record.get("versions", {}),
        hardware=run.record.get("hardware", {}),
        tasks=run.record.get("tasks", {}),
        config=run.record["config"],
    )


# ---------------------------------------------------------------- which runs belong together


def _pools(runs: Sequence[RunFolder]) -> tuple[list[list[RunFolder]], list[str]]:
    """Runs that are one experiment, and what sets the others apart."""
    pools: list[list[RunFolder]] = []
    notes = []
    for run in runs:
        reasons = [_apart(pool, run) for pool in pools]
        home = next((pool for pool, reason in zip(pools, reasons, strict=True) if not reason), None)
        if home is None:
            pools.append([run])
            notes += [
                f"'{run.name}' stands beside '{pool[0].name}' and is not pooled with it: {reason}."
                for pool, reason in zip(pools, reasons, strict=False)
            ]
        else:
            home.append(run)
    notes += [
        f"Pooled as one experiment: {', '.join(repr(run.name) for run in pool)}. Each stream is measured against the "
        "experts of its own run."
        for pool in pools
        if len(pool) > 1
    ]
    return pools, notes


def _apart(pool: Sequence[RunFolder], run: RunFolder) -> str:
    """Why a run is another experiment than a pool, or ''."""
    first = pool[0]
    a, b = first.record["config"], run.record["config"]
    changed = sorted(key for key in a.keys() & b.keys() - NOT_THE_EXPERIMENT if a[key] != b[key])
    if changed:
        return f"other settings ({', '.join(changed)})"
    other = [t for t, info in first.record.get("tasks", {}).items() if _content(run, t) != info["content"]]
    if other:
        return f"other data for {', '.join(repr(task) for task in other[:3])}" + (" and more" if other[3:] else "")
    known = {stream.key for member in pool for stream in member.streams}
    if any(stream.key in known for stream in run.streams):
        return "both have a stream of the same strategy, budget, order and seed"
    return ""


def _content(run: RunFolder, task: str) -> str | None:
    info = run.record.get("tasks", {}).get(task)
    return None if info is None else info["content"]


# ---------------------------------------------------------------- the numbers of one experiment


class _Pool:
    """The streams of one experiment, and what is computed from them."""

    def __init__(self, runs: Sequence[RunFolder], name: str) -> None:
        self.runs, self.name = runs, name
        self.budgets = {stream.key.budget for run in runs for stream in run.streams}
        self.named: list[Named] = []
        self.facts: list[StreamFacts] = []
        for run in runs:
            numbers: dict[StreamKey, list[dict[str, Any]]] = {}
            for row in run.rows:
                numbers.setdefault(stream_key(row), []).append(row)
            for stream in run.streams:
                if stream.key in numbers:
                    named = Named(self._label(stream.key), run, stream)
                    self.named.append(named)
                    self.facts.append(_stream_facts(named, numbers[stream.key]))

    def _label(self, key: StreamKey) -> str:
        label = line_label(key.strategy, key.budget, self.budgets)
        return f"{label} · {self.name}" if self.name else label

    def lines(self) -> list[LineFacts]:
        labels = dict.fromkeys(named.label for named in self.named)
        return [self._line([pair for pair in self._pairs() if pair[0].label == label]) for label in labels]

    def _pairs(self) -> list[tuple[Named, StreamFacts]]:
        return list(zip(self.named, self.facts, strict=True))

    def _line(self, pairs: Sequence[tuple[Named, StreamFacts]]) -> LineFacts:
        done = [pair for pair in pairs if pair[1].finished]
        facts = [stream for _, stream in done]
        intervals = {"gain_final": _of_gain, "performance": _of_performance, "change": _of_change}
        metrics: dict[str, Estimate | None] = {}
        for name, _ in _STREAM_METRICS.values():
            values = [stream.metrics[name] for stream in facts if name in stream.metrics]
            of_rows = intervals.get(name, lambda named, stream: None)
            metrics[name] = estimate(values, lambda of_rows=of_rows: of_rows(*done[0]))  # type: ignore[misc]
        gains = {
            stage: estimate([stream.gains[stage] for _, stream in pairs if stage in stream.gains])
            for stage in sorted({stage for _, stream in pairs for stage in stream.gains})
        }
        named = pairs[0][0]
        return LineFacts(
            label=named.label,
            strategy=named.stream.key.strategy,
            budget=named.stream.key.budget,
            pool=self.name,
            streams=len(done),
            unfinished=len(pairs) - len(done),
            tokens=_mean([stream.tokens for stream in facts]),
            seconds=_mean([stream.seconds for stream in facts]),
            replayed=_mean([stream.replayed for stream in facts]),
            gains={stage: found for stage, found in gains.items() if found},
            tasks=tuple(_task_facts(done)),
            **metrics,
        )

    def differences(self, lines: Sequence[LineFacts]) -> Iterable[Comparison]:
        """Every line against every earlier one of the same budget, or of none."""
        rows = {key: kept for run in self.runs for key, kept in run.final_rows().items()}
        return comparisons([self._contender(line, rows) for line in lines])

    def _contender(self, line: LineFacts, rows: Mapping[StreamKey, Mapping[str, list[float]]]) -> Contender:
        finals = {
            (stream.order, stream.seed): stream.metrics["gain_final"]
            for stream in self.facts
            if stream.line == line.label and "gain_final" in stream.metrics
        }
        mine = {(key.order, key.seed): kept for key, kept in rows.items() if self._label(key) == line.label}
        return Contender(label=line.label, strategy=line.strategy, budget=line.budget, finals=finals, rows=mine)

    def joint(self) -> Iterable[JointFacts]:
        """Joint training over its seeds, against the experts of the same run."""
        gains: list[float] = []
        means: list[float] = []
        by_task: dict[str, list[float]] = {}
        for run in self.runs:
            experts = {row["task"]: row["value"] for row in run.rows if row["metric"] == "expert"}
            scores = [row for row in run.rows if row["strategy"] == "joint" and row["metric"] == run.config.scorer]
            for seed in dict.fromkeys(row["seed"] for row in scores):
                found = {row["task"]: row["value"] for row in scores if row["seed"] == seed}
                if found.keys() <= experts.keys():
                    gains.append(100 * fmean(found[task] / experts[task] for task in found))
                    means.append(100 * fmean(found.values()))
                    for task, value in found.items():
                        by_task.setdefault(task, []).append(100 * value)
        gain, performance = estimate(gains), estimate(means)
        if gain and performance:
            scores_of = {task: fmean(values) for task, values in by_task.items()}
            yield JointFacts(gain=gain, performance=performance, scores=scores_of)


def _stream_facts(named: Named, rows: Sequence[Mapping[str, Any]]) -> StreamFacts:
    main = named.run.config.scorer
    scores: dict[int, dict[str, Score]] = {}
    costs: dict[str, list[float]] = {}
    metrics, gains, experts = {}, {}, {}
    for row in rows:
        stage, task, metric, value = row["stage"], row["task"], row["metric"], row["value"]
        if metric == main and value is not None:
            ends = {end: None if row[end] is None else 100 * row[end] for end in ("low", "high")}
            scores.setdefault(stage, {})[task] = Score(value=100 * value, n=row["n"], **ends)
        elif metric == "expert":
            experts[task] = 100 * value
        elif metric == "relative_gain":
            gains[stage] = value
        elif stage is None and task is None and metric in _STREAM_METRICS:
            name, factor = _STREAM_METRICS[metric]
            metrics[name] = factor * value
        elif stage and task is None:
            costs.setdefault(metric, []).append(value)
    untrained = {task: score.value for task, score in scores.pop(0, {}).items()}
    return StreamFacts(
        line=named.label,
        run=named.run.name,
        order=named.stream.key.order,
        seed=named.stream.key.seed,
        tasks=named.stream.tasks,
        scores=tuple(scores[stage] for stage in sorted(scores)),
        untrained=untrained,
        experts=experts,
        gains=gains,
        metrics=metrics,
        tokens=_sum(costs.get("tokens")),
        seconds=_sum(costs.get("seconds")),
        replayed=_percent(costs.get("replayed_share", [])[1:]),
    )


def _task_facts(done: Sequence[tuple[Named, StreamFacts]]) -> Iterable[TaskFacts]:
    """Each task's change since it was learnt, over the streams that learnt another one after it."""
    for task in dict.fromkeys(task for _, stream in done for task in stream.tasks):
        seen = [(named, stream) for named, stream in done if task in stream.tasks[:-1]]
        learnt = [stream.scores[stream.tasks.index(task)][task].value for _, stream in seen]
        now = [stream.scores[-1][task].value for _, stream in seen]
        change = estimate(
            [b - a for a, b in zip(learnt, now, strict=True)],
            lambda seen=seen, task=task: _of_task(seen[0][0], task),  # type: ignore[misc]
        )
        if change:
            yield TaskFacts(task=task, learnt=fmean(learnt), now=fmean(now), change=change)


# ---------------------------------------------------------------- intervals over the test rows of one stream


def _of_gain(named: Named, stream: StreamFacts) -> Estimate | None:
    return _of_rows(named.run.final_rows().get(named.stream.key, {}))


def _of_performance(named: Named, stream: StreamFacts) -> Estimate | None:
    if not named.stream.finished:
        return None
    found, last = named.run.result(named.stream), len(stream.tasks) - 1
    return _of_rows({task: [100 * score for score in found.row_scores(last, task)] for task in stream.tasks})


def _of_change(named: Named, stream: StreamFacts) -> Estimate | None:
    return _of_rows({task: changes for task in stream.tasks[:-1] if (changes := _changes(named, task)[0])})


def _of_task(named: Named, task: str) -> Estimate | None:
    changes, instructions = _changes(named, task)
    return mean_interval(changes, instructions) if changes else None


def _of_rows(rows: dict[str, list[float]]) -> Estimate | None:
    """The mean over tasks of the mean over rows; None where the row scores are gone."""
    if not rows:
        return None
    return crossed_difference([rows], [{task: np.zeros(len(values)) for task, values in rows.items()}])


def _changes(named: Named, task: str) -> tuple[list[float], Sequence[str]]:
    """Row by row the change of a task's score since it was learnt, in points, and the rows' instructions.

    Where the last stages score more rows than the earlier ones, the rows that both have.
    """
    if not named.stream.finished:
        return [], []
    found, learnt, last = named.run.result(named.stream), named.stream.tasks.index(task), len(named.stream.tasks) - 1
    pairs = zip(found.row_scores(learnt, task), found.row_scores(last, task), strict=False)
    changes = [100 * (now - before) for before, now in pairs]
    return changes, found.stages[last][task].instructions[: len(changes)]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _sum(values: Sequence[float] | None) -> float | None:
    return float(np.sum(values)) if values else None


def _percent(shares: Sequence[float]) -> float | None:
    return 100 * fmean(shares) if shares else None
