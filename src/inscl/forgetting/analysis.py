"""The forgetting analysis of a run: how much of what was once right is lost, and what stands there now.

forgetting.parquet   a row per stream, stage and earlier task: rates, also as CSV
forgotten.parquet    a row per forgotten example of the stages that were judged
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from inscl.data.example import Example
from inscl.errors import ConfigError, InsclError
from inscl.files import whole_file
from inscl.forgetting.facts import Answer, RunFacts, StreamFacts, read_facts
from inscl.forgetting.offline import OfflineJudge
from inscl.forgetting.rates import Limits, RowHistory, Share, histories, share
from inscl.forgetting.server import SHOWN, ServerJudge
from inscl.forgetting.verdict import RELATED, UNRELATED, Case, Judge, Verdict
from inscl.llm.client import Asker
from inscl.memory.encoder import Encoder

if TYPE_CHECKING:
    from inscl.memory.memory import Memory

RATES, RATES_CSV, FORGOTTEN = "forgetting.parquet", "forgetting.csv", "forgotten.parquet"
TRAINING_ROWS = 300  # training rows of a task that the offline judge looks at
Stages = Literal["last", "all"]

_STREAM = [("run_id", pa.string()), ("strategy", pa.string()), ("budget", pa.string()), ("order", pa.string())]
_PLACE = [*_STREAM, ("seed", pa.int64()), ("stage", pa.int32()), ("task", pa.string())]
RATES_SCHEMA = pa.schema(
    [
        *_PLACE,
        ("rows", pa.int64()),  # scored at this stage
        ("ever_right", pa.int64()),  # of these, right at an earlier stage
        ("forgotten", pa.int64()),  # of these, not any more
        ("rate_forgotten", pa.float64()),  # null: no row was ever right
        ("rate_forgotten_low", pa.float64()),
        ("rate_forgotten_high", pa.float64()),
        ("judge", pa.string()),  # null: this stage was not judged
        ("related", pa.int64()),
        ("unrelated", pa.int64()),
        ("not_judged", pa.int64()),
        ("rate_unrelated", pa.float64()),  # of the judged forgotten rows; null: none
        ("rate_unrelated_low", pa.float64()),
        ("rate_unrelated_high", pa.float64()),
        ("ever_right_from", pa.float64()),  # the settings
        ("drop_from", pa.float64()),
    ]
)
FORGOTTEN_SCHEMA = pa.schema(
    [
        *_PLACE,
        ("row", pa.int64()),  # place in the task's test side
        ("best", pa.float64()),
        ("best_stage", pa.int32()),
        ("score", pa.float64()),
        ("judge", pa.string()),
        ("kind", pa.string()),  # null: not judged
        ("reason", pa.string()),
        ("nearest_task", pa.string()),
        ("instruction", pa.string()),
        ("input", pa.string()),
        ("reference", pa.string()),  # the first of the accepted answers
        ("once", pa.string()),  # the answer at `best_stage`; null: not kept
        ("now", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One task (None: all) under one strategy and budget, at the last finished stage, pooled over its streams.

    Attributes
    ----------
    task : str, optional
    strategy, budget : str
    streams : int
    forgotten : Share
        Of the rows that were ever right.
    unrelated : Share
        Of the judged forgotten rows.
    not_judged : int
    reasons : mapping from reason to int
        Of the judged forgotten rows, the most frequent first.
    """

    task: str | None
    strategy: str
    budget: str
    streams: int
    forgotten: Share
    unrelated: Share
    not_judged: int
    reasons: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Lost:
    """One forgotten row of a stream, seen from a stage; None for an answer that was not kept."""

    stream: StreamFacts
    stage: int
    task: str
    history: RowHistory
    once: Answer | None
    now: Answer | None
    verdict: Verdict

    @property
    def case(self) -> Case | None:
        """What a judge is asked."""
        if self.now is None:
            return None
        return Case(
            task=self.task,
            instruction=self.now.instruction,
            input=self.now.input,
            answer=self.now.text,
            references=self.now.references,
        )


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What became of what a run's models could do.

    Attributes
    ----------
    run_id, judge : str
    limits : Limits
    rates, forgotten : pyarrow.Table
        With the columns of `RATES_SCHEMA` and `FORGOTTEN_SCHEMA`.
    lines : tuple of Line
        Each task and strategy at the last stage, then each strategy over all tasks.
    notes : tuple of str
        What a reader must know: unfinished streams, answers that are gone or were not judged.
    """

    run_id: str
    judge: str
    limits: Limits
    rates: Any
    forgotten: Any
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def examples(self, per_task: int = 2) -> dict[str, list[dict[str, Any]]]:
        """The most telling forgotten examples of each task at the last judged stage of their streams.

        Those that dropped furthest come first, and each further one shows, where there is one, another reason or
        another answer than those before.
        """
        last = _last_stages(self.forgotten.to_pylist())
        last.sort(key=lambda row: (row["score"] - row["best"], row["strategy"], row["seed"], row["row"]))
        tasks = [line.task for line in self.lines if line.task is not None]
        found = {task: [row for row in last if row["task"] == task] for task in dict.fromkeys(tasks)}
        return {task: _various(rows, per_task) for task, rows in found.items() if rows and per_task}

    def to_dict(self, examples: int = 2) -> dict[str, Any]:
        """As plain data that JSON holds."""
        return {
            "run_id": self.run_id,
            "judge": self.judge,
            "limits": asdict(self.limits),
            "notes": list(self.notes),
            "lines": [asdict(line) for line in self.lines],
            "rates": self.rates.to_pylist(),
            "examples": self.examples(examples),
        }

    def write(self, folder: Path) -> None:
        """Write the tables into the run's folder; each file is the old one or the new one, never half."""
        from pyarrow import csv, parquet

        for name, table, write in (
            (FORGOTTEN, self.forgotten, parquet.write_table),
            (RATES_CSV, self.rates, csv.write_csv),
            (RATES, self.rates, parquet.write_table),
        ):
            with whole_file(folder / name, "wb") as file:
                write(table, file)


def analyse(
    run: str | Path | RunFacts,
    *,
    judge: Judge | None = None,
    limits: Limits | None = None,
    stage: Stages = "last",
    encoder: Encoder | None = None,
) -> Analysis:
    """Count what a run's models forgot, and judge what they answer instead.

    Parameters
    ----------
    run : path or RunFacts
        Folder of ``inscl run`` or ``inscl demo``, finished or not. Nothing in it changes but the embedding cache of its
        memory; `Analysis.write` stores the tables there.
    judge : Judge, optional
        Default: `inscl.forgetting.offline.OfflineJudge` on the run's training data.
    limits : Limits, optional
        When a row was right, and when it is forgotten.
    stage : {"last", "all"}
        The stages whose forgotten examples are judged: the last finished one of each stream, or every one.
    encoder : Encoder, optional
        For the offline judge. Default: the run's.

    Returns
    -------
    Analysis

    Raises
    ------
    InsclError
        If the folder holds no run, nothing of it is finished, or its memory is gone.
    ConfigError
        If `stage` or a limit is none.
    """
    if stage not in ("last", "all"):
        raise ConfigError(f"`stage` must be last or all, got {stage!r}.")
    facts, limits = run if isinstance(run, RunFacts) else read_facts(run), limits or Limits()
    judge = judge or offline_judge(facts, encoder)
    seen = {place: histories(*place, limits) for place in _places(facts)}
    asked = [place for place in seen if stage == "all" or place[1] == len(place[0].stages)]
    lost = _judged([entry for place in asked for entry in _lost(*place, seen[place])], judge)
    lost_at: dict[Place, list[Lost]] = {}
    for entry in lost:
        lost_at.setdefault((entry.stream, entry.stage, entry.task), []).append(entry)
    return Analysis(
        run_id=facts.run_id,
        judge=judge.name,
        limits=limits,
        rates=_rates_table(facts, seen, set(asked), lost_at, judge.name, limits),
        forgotten=_forgotten_table(facts, lost, judge.name),
        lines=tuple(_lines(seen, lost_at)),
        notes=tuple(_notes(facts, lost)),
    )


def offline_judge(facts: RunFacts, encoder: Encoder | None = None) -> OfflineJudge:
    """The offline judge on the run's training rows, with the embedding cache of the run's memory."""
    from inscl.memory.encoder import SentenceEncoder

    named = facts.config.get("encoder")
    memory = _memory(facts, encoder or (SentenceEncoder(named) if named else None))
    return OfflineJudge(_training(facts, memory, TRAINING_ROWS), memory.encode.vectors)


def server_judge(facts: RunFacts, asker: Asker, progress: Callable[[int, int], None] | None = None) -> ServerJudge:
    """A judge through a server that is shown training rows of the run."""
    return ServerJudge(asker, _training(facts, _memory(facts), SHOWN), progress)


def _memory(facts: RunFacts, encoder: Encoder | None = None) -> "Memory":
    from inscl.memory.memory import Memory

    memory = Memory(facts.folder / "memory" / "whole", encoder=encoder)
    if missing := [task for task in facts.tasks if task not in memory]:
        raise InsclError(
            f"The run's memory in '{facts.folder}' has no training rows of task '{missing[0]}', which a judge compares "
            "answers with. Bring the folder `memory` of the run back."
        )
    return memory


def _training(facts: RunFacts, memory: "Memory", rows: int) -> dict[str, list[Example]]:
    from inscl.memory.task import rows_of

    return {task: rows_of(memory.task(task), "train", rows) for task in facts.tasks}


Place = tuple[StreamFacts, int, str]  # a stream, a stage of it, and a task learnt before


def _places(facts: RunFacts) -> Iterator[Place]:
    for stream in facts.streams:
        for stage in range(2, len(stream.stages) + 1):
            for task in stream.tasks[: stage - 1]:
                yield stream, stage, task


def _lost(stream: StreamFacts, stage: int, task: str, rows: Iterable[RowHistory]) -> Iterator[Lost]:
    now = stream.stages[stage - 1].answers(task)
    for history in rows:
        if history.forgotten:
            before = stream.stages[history.best_stage - 1].answers(task)
            yield Lost(
                stream=stream,
                stage=stage,
                task=task,
                history=history,
                once=None if before is None else before[history.row],
                now=None if now is None else now[history.row],
                verdict=Verdict(kind=None, reason="its answer was not kept"),
            )


def _judged(lost: Sequence[Lost], judge: Judge) -> list[Lost]:
    """The same with verdicts; equal cases are judged once."""
    cases = [entry.case for entry in lost]
    distinct = list(dict.fromkeys(case for case in cases if case is not None))
    verdicts = dict(zip(distinct, judge(distinct), strict=True)) if distinct else {}
    return [
        entry if case is None else replace(entry, verdict=verdicts[case])
        for entry, case in zip(lost, cases, strict=True)
    ]


def _columns(facts: RunFacts, stream: StreamFacts, stage: int, task: str) -> dict[str, Any]:
    return {
        "run_id": facts.run_id,
        "strategy": stream.strategy,
        "budget": stream.budget,
        "order": stream.order,
        "seed": stream.seed,
        "stage": stage,
        "task": task,
    }


def _rates_table(
    facts: RunFacts,
    seen: Mapping[Place, Sequence[RowHistory]],
    asked: set[Place],
    lost_at: Mapping[Place, Sequence[Lost]],
    judge: str,
    limits: Limits,
) -> Any:
    records = []
    for place, rows in seen.items():
        stream, stage, task = place
        record = _columns(facts, stream, stage, task)
        record |= {"rows": len(stream.stages[stage - 1].scores(task)), "ever_right": len(rows)}
        record |= _named("rate_forgotten", _forgotten_share(rows))
        record |= {"forgotten": sum(row.forgotten for row in rows)}
        record |= {"ever_right_from": limits.ever_right, "drop_from": limits.drop}
        if place in asked:
            here = lost_at.get(place, ())
            kinds = Counter(entry.verdict.kind for entry in here)
            record |= {"judge": judge, "related": kinds[RELATED], "unrelated": kinds[UNRELATED]}
            record |= {"not_judged": kinds[None], **_named("rate_unrelated", _unrelated_share(here))}
        records.append(record)
    return pa.Table.from_pylist(records, schema=RATES_SCHEMA)


def _named(name: str, of: Share) -> dict[str, float | None]:
    return {name: of.value, f"{name}_low": of.low, f"{name}_high": of.high}


def _forgotten_share(rows: Sequence[RowHistory]) -> Share:
    return share([row.forgotten for row in rows], [row.instruction for row in rows])


def _unrelated_share(lost: Iterable[Lost]) -> Share:
    judged = [entry for entry in lost if entry.verdict.kind is not None]
    flags = [entry.verdict.kind == UNRELATED for entry in judged]
    return share(flags, [entry.history.instruction for entry in judged])


def _forgotten_table(facts: RunFacts, lost: Iterable[Lost], judge: str) -> Any:
    records = []
    for entry in lost:
        asked = entry.now or entry.once
        records.append(
            {
                **_columns(facts, entry.stream, entry.stage, entry.task),
                **{name: getattr(entry.history, name) for name in ("row", "best", "best_stage", "score")},
                "judge": judge,
                **asdict(entry.verdict),
                "instruction": asked.instruction if asked else "",
                "input": asked.input if asked else "",
                "reference": asked.references[0] if asked and asked.references else "",
                "once": entry.once.text if entry.once else None,
                "now": entry.now.text if entry.now else None,
            }
        )
    return pa.Table.from_pylist(records, schema=FORGOTTEN_SCHEMA)


@dataclass
class _Pool:
    """What several streams say of one task, or of all."""

    streams: set[int] = field(default_factory=set)
    rows: list[RowHistory] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)


def _lines(seen: Mapping[Place, Sequence[RowHistory]], lost_at: Mapping[Place, Sequence[Lost]]) -> Iterator[Line]:
    """The last stage of every stream, per task and strategy, then over all tasks."""
    single: dict[tuple[str | None, str, str], _Pool] = {}
    whole: dict[tuple[str | None, str, str], _Pool] = {}
    for place, rows in seen.items():
        stream, stage, task = place
        if stage == len(stream.stages):
            for pools, of in ((single, task), (whole, None)):
                pool = pools.setdefault((of, stream.strategy, stream.budget), _Pool())
                pool.streams.add(id(stream))
                pool.rows += rows
                pool.lost += lost_at.get(place, ())
    tasks = [*dict.fromkeys(task for task, _, _ in single)]
    ordered = sorted(single.items(), key=lambda item: tasks.index(item[0][0]))
    for (name, strategy, budget), pool in [*ordered, *whole.items()]:
        yield Line(
            task=name,
            strategy=strategy,
            budget=budget,
            streams=len(pool.streams),
            forgotten=_forgotten_share(pool.rows),
            unrelated=_unrelated_share(pool.lost),
            not_judged=sum(entry.verdict.kind is None for entry in pool.lost),
            reasons=dict(Counter(entry.verdict.reason for entry in pool.lost if entry.verdict.kind).most_common()),
        )


def _notes(facts: RunFacts, lost: Sequence[Lost]) -> Iterator[str]:
    if open_ones := [stream for stream in facts.streams if not stream.finished]:
        first = open_ones[0]
        yield (
            f"The run is not finished: {len(open_ones)} of {len(facts.streams)} streams lack stages (the first: "
            f"{first.title}, {len(first.stages)} of {len(first.tasks)} stages). What is there is analysed."
        )
    reasons = Counter(entry.verdict.reason for entry in lost if entry.verdict.kind is None)
    for reason, n in reasons.most_common():
        yield f"{n} of {len(lost)} forgotten examples are not judged: {reason}."


def _last_stages(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of each stream's last stage among them."""
    stream = ("strategy", "budget", "order", "seed")
    last: dict[tuple[Any, ...], int] = {}
    for row in rows:
        key = tuple(row[name] for name in stream)
        last[key] = max(last.get(key, 0), row["stage"])
    return [row for row in rows if row["stage"] == last[tuple(row[name] for name in stream)]]


def _various(rows: Sequence[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """The first `n` rows, those first that show a new reason, then a new answer."""
    chosen: list[dict[str, Any]] = []
    news: tuple[Callable[[dict[str, Any]], Any], ...] = (lambda row: row["reason"], lambda row: row["now"], id)
    for new in news:
        for row in rows:
            if len(chosen) < n and row not in chosen and new(row) not in map(new, chosen):
                chosen.append(row)
    return chosen
