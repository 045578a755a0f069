"""What a report says, as plain data: all that is shown comes from here (see `inscl.report.reading.summarize`).

Scores and their changes are in points (score x 100), Relative Gain and shares in per cent; stages count from 1.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from inscl.core.stats import Estimate
from inscl.experiments.comparison import Comparison
from inscl.report.forgotten import ForgottenFacts
from inscl.report.replayed import ReplayFacts


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
class StreamFacts:
    """All numbers of one stream.

    Attributes
    ----------
    line : str
        Label of the line it belongs to.
    run, order, seed
    tasks : tuple of str
        In the order they are learnt.
    scores : tuple of mapping from task to Estimate
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
    scores: tuple[Mapping[str, Estimate], ...]
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
    of_joint : Estimate, optional
        Score on the earlier tasks in per cent of joint training's.
    gain_equal_tokens : Estimate, optional
        Relative Gain at as many tokens as the cheapest line took (`inscl.experiments.equal_tokens`).
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
    of_joint: Estimate | None
    gain_equal_tokens: Estimate | None
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
    def best(self) -> LineFacts | None:
        """Of the lines with most streams, the one that keeps most of the experts' scores; without experts, scores best.

        None where no stream is finished.
        """

        def kept(line: LineFacts) -> float:
            found = line.gain_final or line.performance
            return found.mean if found else float("-inf")

        most = max((line.streams for line in self.lines), default=0)
        return max((line for line in self.lines if line.streams == most > 0), key=kept, default=None)

    @property
    def finished(self) -> bool:
        """Whether all runs are finished."""
        return all(run.finished for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON holds."""
        return asdict(self)
