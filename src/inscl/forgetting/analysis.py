"""The forgetting analysis of a run: how much of what was once right is lost, and what stands there now."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from inscl.core.stats import Estimate
from inscl.data.example import Example
from inscl.errors import ConfigError, InsclError
from inscl.experiments.results import TableRow
from inscl.experiments.run_folder import RunFolder
from inscl.forgetting.fates import PastTask, RowFate, Tally
from inscl.forgetting.offline import OfflineJudge
from inscl.forgetting.rates import ForgettingRule
from inscl.forgetting.server import SHOWN, ServerJudge
from inscl.forgetting.tables import Tables, last_stages
from inscl.forgetting.verdict import Judge
from inscl.llm.client import Asker
from inscl.memory.encoder import Encoder

if TYPE_CHECKING:
    from inscl.memory.memory import Memory

_TRAINING_ROWS = 300  # training rows of a task that the offline judge looks at
_Stages = Literal["last", "all"]


@dataclass(frozen=True, kw_only=True)
class ForgettingLine:
    """One task (None: all) under one strategy and budget, at the last finished stage, pooled over its streams.

    Attributes
    ----------
    task : str, optional
    strategy, budget : str
    streams : int
    forgotten : Estimate, optional
        Of the rows that were ever right.
    unrelated : Estimate, optional
        Of the judged forgotten rows.
    not_judged : int
    reasons : mapping from reason to int
        Of the judged forgotten rows, the most frequent first.
    """

    task: str | None
    strategy: str
    budget: str
    streams: int
    forgotten: Estimate | None
    unrelated: Estimate | None
    not_judged: int
    reasons: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What became of what a run's models could do.

    Attributes
    ----------
    run : RunFolder
    judge : str
    rule : ForgettingRule
    rates, forgotten : pyarrow.Table
        With the columns of `inscl.forgetting.tables`.
    lines : tuple of ForgettingLine
        Each task and strategy at the last stage, then each strategy over all tasks.
    notes : tuple of str
        What a reader must know: unfinished streams, answers that are gone or were not judged.
    """

    run: RunFolder
    judge: str
    rule: ForgettingRule
    rates: pa.Table
    forgotten: pa.Table
    lines: tuple[ForgettingLine, ...]
    notes: tuple[str, ...]

    def examples(self, per_task: int = 2) -> dict[str, list[TableRow]]:
        """The most telling forgotten examples of each task at the last judged stage of their streams.

        Those that dropped furthest come first, and each further one shows, where there is one, another reason or
        another answer than those before.
        """
        last = last_stages(self.forgotten.to_pylist())
        last.sort(key=lambda row: (row["score"] - row["best"], row["strategy"], row["seed"], row["row"]))
        tasks = [line.task for line in self.lines if line.task is not None]
        found = {task: [row for row in last if row["task"] == task] for task in dict.fromkeys(tasks)}
        return {task: _various(rows, per_task) for task, rows in found.items() if rows and per_task}

    def to_dict(self, examples: int = 2) -> dict[str, object]:
        """As plain data that JSON holds."""
        return {
            "run_id": self.run.name,
            "judge": self.judge,
            "rule": asdict(self.rule),
            "notes": list(self.notes),
            "lines": [asdict(line) for line in self.lines],
            "rates": self.rates.to_pylist(),
            "examples": self.examples(examples),
        }

    def write(self) -> None:
        """Write the tables into the run's folder."""
        Tables(self.rates, self.forgotten).write(self.run)


def analyse(
    run: str | Path | RunFolder,
    *,
    judge: Judge | Asker | None = None,
    rule: ForgettingRule | None = None,
    stage: _Stages = "last",
    encoder: Encoder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Analysis:
    """Count what a run's models forgot, and judge what they answer instead.

    Parameters
    ----------
    run : path or RunFolder
        Folder of ``inscl run`` or ``inscl demo``, finished or not. Nothing in it changes but the embedding cache of its
        memory; `Analysis.write` stores the tables there.
    judge : Judge or Asker, optional
        An `Asker` stands for `inscl.forgetting.server.ServerJudge`, which is shown training rows of the run. Default:
        `inscl.forgetting.offline.OfflineJudge` on the run's training data.
    rule : ForgettingRule, optional
        When a row was right, and when it is forgotten.
    stage : {"last", "all"}
        The stages whose forgotten examples are judged: the last finished one of each stream, or every one.
    encoder : Encoder, optional
        For the offline judge. Default: the run's.
    progress : callable, optional
        Called with (answers judged, answers) where a server is asked.

    Returns
    -------
    Analysis

    Raises
    ------
    InsclError
        If the folder holds no run, no stage of it is finished, or its memory is gone.
    ConfigError
        If `stage` or a limit is none.
    """
    if stage not in ("last", "all"):
        raise ConfigError(f"`stage` must be last or all, got {stage!r}.")
    folder, rule = run if isinstance(run, RunFolder) else _read_run(run), rule or ForgettingRule()
    judge = _judge(folder, judge, encoder, progress)
    seen = {past: Tally([row for row in past.histories(rule) if row.right]) for past in PastTask.all_of(folder)}
    asked = {past for past in seen if stage == "all" or past.is_last}
    for fate in _judged(_forgotten(seen, asked), judge):
        seen[fate.past].lost.append(fate)
    tables = Tables.of(folder, seen, asked, judge.name, rule)
    return Analysis(
        run=folder,
        judge=judge.name,
        rule=rule,
        rates=tables.rates,
        forgotten=tables.forgotten,
        lines=tuple(_lines(seen)),
        notes=tuple(_notes(folder, [fate for tally in seen.values() for fate in tally.lost])),
    )


def _forgotten(seen: Mapping[PastTask, Tally], asked: Set[PastTask]) -> list[RowFate]:
    """What became of the forgotten rows of the past tasks asked for."""
    return [
        fate
        for past, tally in seen.items()
        if past in asked
        for fate in past.fates(row for row in tally.rows if row.forgotten)
    ]


def _judged(rows: Sequence[RowFate], judge: Judge) -> list[RowFate]:
    """The same with verdicts; equal cases are judged once."""
    cases = [fate.case for fate in rows]
    distinct = list(dict.fromkeys(case for case in cases if case is not None))
    verdicts = dict(zip(distinct, judge(distinct), strict=True)) if distinct else {}
    return [
        fate if case is None else replace(fate, verdict=verdicts[case]) for fate, case in zip(rows, cases, strict=True)
    ]


def _read_run(path: str | Path) -> RunFolder:
    """The folder of a run of which something can be forgotten."""
    run = RunFolder.read(path)
    if not any(stream.stages for stream in run.streams):
        raise InsclError(
            f"The run in '{path}' has not finished a stage of any stream yet, so nothing can be forgotten. Go on "
            "with it, then ask again."
        )
    return run


def _judge(
    run: RunFolder,
    asked: Judge | Asker | None,
    encoder: Encoder | None,
    progress: Callable[[int, int], None] | None,
) -> Judge:
    """Who judges: who was given, or a judge that knows the run's training rows."""
    if isinstance(asked, Asker):
        return ServerJudge(asked, _training(run, _memory(run), SHOWN), progress)
    return asked or _offline_judge(run, encoder)


def _offline_judge(run: RunFolder, encoder: Encoder | None) -> OfflineJudge:
    """The offline judge on the run's training rows, with the embedding cache of the run's memory."""
    from inscl.memory.encoder import SentenceEncoder

    named = run.config.encoder
    memory = _memory(run, encoder or (SentenceEncoder(named) if named else None))
    return OfflineJudge(_training(run, memory, _TRAINING_ROWS), memory.encode.vectors)


def _memory(run: RunFolder, encoder: Encoder | None = None) -> "Memory":
    from inscl.memory.memory import Memory

    memory = Memory(run.memory(), encoder=encoder)
    if missing := [task for task in run.tasks if task not in memory]:
        raise InsclError(
            f"The run's memory in '{run.path}' has no training rows of task '{missing[0]}', which a judge compares "
            "answers with. Bring the folder `memory` of the run back."
        )
    return memory


def _training(run: RunFolder, memory: "Memory", rows: int) -> dict[str, list[Example]]:

    return {task: memory.task(task).sample("train", rows) for task in run.tasks}


@dataclass
class _Pool(Tally):
    """What several streams say of one task, or of all."""

    streams: set[int] = field(default_factory=set)

    def add(self, past: PastTask, tally: Tally) -> None:
        """Take in what one stream says."""
        self.streams.add(id(past.stream))
        self.rows += tally.rows
        self.lost += tally.lost


def _lines(seen: Mapping[PastTask, Tally]) -> Iterator[ForgettingLine]:
    """The last stage of every stream, per task and strategy, then over all tasks."""
    single: dict[tuple[str | None, str, str], _Pool] = {}
    whole: dict[tuple[str | None, str, str], _Pool] = {}
    for past, tally in seen.items():
        if past.is_last:
            for pools, of in ((single, past.task), (whole, None)):
                pools.setdefault((of, *past.stream.key[:2]), _Pool()).add(past, tally)
    tasks = [*dict.fromkeys(task for task, _, _ in single)]
    ordered = sorted(single.items(), key=lambda item: tasks.index(item[0][0]))
    for (name, strategy, budget), pool in [*ordered, *whole.items()]:
        yield ForgettingLine(
            task=name,
            strategy=strategy,
            budget=budget,
            streams=len(pool.streams),
            forgotten=pool.forgotten,
            unrelated=pool.unrelated,
            not_judged=sum(fate.verdict.kind is None for fate in pool.lost),
            reasons=dict(Counter(fate.verdict.reason for fate in pool.lost if fate.verdict.kind).most_common()),
        )


def _notes(run: RunFolder, lost: Sequence[RowFate]) -> Iterator[str]:
    if open_ones := [stream for stream in run.streams if not stream.finished]:
        first = open_ones[0]
        yield (
            f"The run is not finished: {len(open_ones)} of {len(run.streams)} streams lack stages (the first: "
            f"{first.title}, {len(first.stages)} of {len(first.tasks)} stages). What is there is analysed."
        )
    reasons = Counter(entry.verdict.reason for entry in lost if entry.verdict.kind is None)
    for reason, n in reasons.most_common():
        yield f"{n} of {len(lost)} forgotten examples are not judged: {reason}."


def _various(rows: Sequence[TableRow], n: int) -> list[TableRow]:
    """The first `n` rows, those first that show a new reason, then a new answer."""
    chosen: list[TableRow] = []
    news: tuple[Callable[[TableRow], object], ...] = (lambda row: row["reason"], lambda row: row["now"], id)
    for new in news:
        for row in rows:
            if len(chosen) < n and row not in chosen and new(row) not in map(new, chosen):
                chosen.append(row)
    return chosen
