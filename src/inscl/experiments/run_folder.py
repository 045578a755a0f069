"""A run's folder: the one place that knows what lies where in it, writes it and reads it, finished or not.

run.json          the configuration, versions, hardware and data that the numbers come from
memory/           the run's own memory: `whole`, and `seed-N` where training rows are drawn per seed
stages/NAME/      a folder per model (see `inscl.stages.folder` and `inscl.experiments.jobs`)
streams.json      the stages of each stream
kept/             what leaves frozen layers (see `inscl.models.kept`); it may be deleted
results.parquet   every number (see `inscl.experiments.results`), also as CSV
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import IO, Annotated, Any, Self

import pyarrow as pa
from pydantic import BaseModel, Field, TypeAdapter, model_validator

from inscl.errors import InsclError
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.scores import RowScores
from inscl.experiments.comparison import FinalRows
from inscl.experiments.config import StreamConfig
from inscl.experiments.jobs import UNTRAINED, Job, StreamPlan
from inscl.experiments.results import (
    FINAL,
    SCHEMA,
    Reference,
    Stream,
    StreamKey,
    StreamResult,
    TableRow,
    to_table,
)
from inscl.files import whole_file, write_json
from inscl.replay.plan import Plan
from inscl.settings import Natural
from inscl.stages.folder import SCORES, StageFolder, damaged, read_json

FORMAT = 1
RECORD, STREAMS, KEPT, PARQUET, CSV = "run.json", "streams.json", "kept", "results.parquet", "results.csv"
_COSTS = ("tokens", "replayed_share", "seconds", "peak_memory")  # of a stage's training record, as in the table
_LIKE_A_FORMULA = r"^(?:[\t\r\n]|\s*['=+@＝＋＠－-])"
_LATER_COLUMNS = ("clusters",)  # which the first release did not write
_UPPER_BOUND_ORDER = ""  # what the table says of joint training, which has no order


class _Entry(BaseModel):
    """A stream in the list of streams."""

    strategy: str
    budget: str
    order: str
    seed: Natural
    tasks: Annotated[list[str], Field(min_length=1)]
    stages: list[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,200}$")]]  # names of folders (see `Job.name`)

    @model_validator(mode="after")
    def _one_stage_a_task(self) -> Self:
        if len(self.stages) != len(self.tasks):
            raise ValueError("wanted a stage a task")
        return self


class _FinishedStage:
    """A stage that is scored: row scores, answers and plan, each read when first asked for."""

    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder

    @cached_property
    def scores(self) -> dict[str, RowScores]:
        """Scores of each task's rows, in the fixed order of its test side."""
        return self._folder.scores()

    @cached_property
    def answers(self) -> dict[str, list[Prediction]]:
        """The answers behind the scores; a task is left out whose answers are gone or belong to other rows."""
        return self._folder.answers()

    @cached_property
    def plan(self) -> Plan | None:
        """What was replayed; None where nothing was planned."""
        return self._folder.plan()

    @property
    def costs(self) -> dict[str, float]:
        """What training took."""
        trained = self._folder.read().get("trained", {})
        try:
            return {name: float(trained[name]) for name in _COSTS if name in trained}
        except (TypeError, ValueError) as error:
            raise damaged(self._folder.path / SCORES, error) from error


@dataclass(frozen=True, kw_only=True)
class StreamFolder:
    """A stream of a run.

    Attributes
    ----------
    key : StreamKey
        Strategy, budget, order and seed.
    tasks : tuple of str
        All tasks in the order they are learnt.
    folders : tuple of StageFolder
        Of every stage, there or not.
    scorer : str
        The score that counts.
    """

    key: StreamKey
    tasks: tuple[str, ...]
    folders: tuple[StageFolder, ...]
    scorer: str

    @cached_property
    def stages(self) -> tuple[_FinishedStage, ...]:
        """The stages that are scored, the first first."""
        found = map(_FinishedStage, self.folders)
        wanted = (self.tasks[: number + 1] for number in range(1, len(self.tasks) + 1))  # learnt ones, and the next
        scored = takewhile(lambda pair: pair[0].scores.keys() >= set(pair[1]), zip(found, wanted, strict=False))
        return tuple(stage for stage, _ in scored)

    @property
    def finished(self) -> bool:
        """Whether the last stage is there."""
        return len(self.stages) == len(self.tasks)

    @property
    def title(self) -> str:
        """How messages call it."""
        strategy, budget, order, seed = self.key
        return f"{strategy}{f' with {budget}' if budget else ''}, order {order}, seed {seed}"


class RunFolder:
    """What lies in a run's folder; `read` opens one that must be a run's.

    Parameters
    ----------
    path : path
        Need not exist yet.

    Attributes
    ----------
    path : Path
    name : str
    record : dict
        What ``run.json`` holds; empty where there is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        self.record: dict[str, Any] = read_json(self.path / RECORD) if self.path.is_dir() else {}

    @classmethod
    def read(cls, path: str | Path) -> "RunFolder":
        """The folder of a run.

        Raises
        ------
        InsclError
            If the folder holds none.
        """
        found = cls(path)
        if "config" not in found.record:
            raise InsclError(
                f"'{path}' holds no run: there is no {RECORD}. Name a folder that `inscl run` or `inscl demo` wrote."
            )
        return found

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / RECORD).exists()

    @property
    def kept(self) -> Path:
        """Where what leaves frozen layers is kept."""
        return self.path / KEPT

    # ---------------------------------------------------------------- what a run writes

    def note(self, **facts: object) -> None:
        """Add to the record, and write it where that changes it."""
        if self.record != (noted := {**self.record, **facts}):
            self.record = noted
            write_json(self.path / RECORD, noted)

    def write_streams(self, streams: Iterable[StreamPlan]) -> None:
        """Write which stages each stream has."""
        write_json(self.path / STREAMS, [_described(stream) for stream in streams])

    def write_table(self, table: pa.Table) -> None:
        """Write the table of all numbers; each file is the old one or the new one, never half."""
        write_tables(self.path, {CSV: table, PARQUET: table})

    # ---------------------------------------------------------------- where things are

    def memory(self, seed: int | None = None) -> Path:
        """Folder of the run's memory: of all rows, or of the training rows drawn for a seed."""
        return self.path / "memory" / ("whole" if seed is None else f"seed-{seed}")

    def stage(self, name: str) -> StageFolder:
        """Folder of a model, by the name of its job."""
        return StageFolder(self.path / "stages" / Path(name).name)

    def scored(self) -> list[StageFolder]:
        """Folders of the models that were scored, by name."""
        found = map(StageFolder, sorted((self.path / "stages").glob("*")))
        return [stage for stage in found if stage.scored]

    # ---------------------------------------------------------------- what a run says

    @cached_property
    def config(self) -> StreamConfig:
        """The recorded configuration; settings that this version does not know are left out."""
        try:
            known = {key: value for key, value in self.record["config"].items() if key in StreamConfig.model_fields}
            return StreamConfig.model_validate(known)
        except (AttributeError, ValueError) as error:
            raise damaged(self.path / RECORD, error) from error

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that streams learn, in the order of the configuration; general data is no such task."""
        streamed = self.streams[0].tasks if self.streams else ()
        tasks = self.record.get("tasks") or streamed
        if not isinstance(tasks, list | tuple | dict) or not all(isinstance(task, str) for task in tasks):
            raise damaged(self.path / RECORD, TypeError("its tasks are no names"))
        if not set(streamed) <= set(tasks):
            raise damaged(self.path / RECORD, ValueError("its tasks are not those of its streams"))
        return tuple(task for task in tasks if not streamed or task in streamed)

    @cached_property
    def streams(self) -> tuple[StreamFolder, ...]:
        """The streams, each as far as it is; none where they have not begun."""
        if not (self.path / STREAMS).exists():
            return ()
        try:
            listed = TypeAdapter(list[_Entry]).validate_json((self.path / STREAMS).read_bytes(), strict=True)
            if len({frozenset(entry.tasks) for entry in listed}) > 1:
                raise ValueError("its streams have different tasks")
        except ValueError as error:  # pydantic's too
            raise damaged(self.path / STREAMS, error) from error
        return tuple(self._stream(entry.model_dump()) for entry in listed)

    def _stream(self, entry: Mapping[str, Any]) -> StreamFolder:
        return StreamFolder(
            key=StreamKey.of(entry),
            tasks=tuple(entry["tasks"]),
            folders=tuple(map(self.stage, entry["stages"])),
            scorer=self.config.scorer,
        )

    @cached_property
    def table(self) -> pa.Table:
        """Every number: the run's own table if it covers all streams, else made from what is scored so far."""
        path = self.path / PARQUET
        if path.exists():
            table = _whole(path)
            if table is not None and self._listed <= _finished(table) and self._has_all_scores(table):
                return table
        results = [result for result in self.results() if result.stages]
        try:
            return to_table(results)
        except ValueError:  # an expert that scores 0: what needs experts is left out
            return to_table(replace(result, experts=None) for result in results)

    def _has_all_scores(self, table: pa.Table) -> bool:
        """Whether the table has a score of each task at every stage from its own on: old tables carry no checksums."""
        columns = (table[name].to_pylist() for name in (*StreamKey._fields, "stage", "task", "metric", "value"))
        there = {
            (StreamKey(*key), stage, task)
            for *key, stage, task, metric, value in zip(*columns, strict=True)
            if metric == self.config.scorer and value is not None
        }
        return all(
            (stream.key, stage, task) in there
            for stream in self.streams
            for stage in range(1, len(stream.tasks) + 1)
            for task in stream.tasks[:stage]
        )

    @property
    def _listed(self) -> set[StreamKey]:
        return {stream.key for stream in self.streams}

    @cached_property
    def rows(self) -> list[TableRow]:
        """The table as plain rows."""
        return list(self.table.to_pylist())

    @property
    def finished(self) -> bool:
        """Whether every stream has reached its last stage."""
        return self._listed <= _finished(self.table)

    def stages_done(self) -> tuple[int, int]:
        """Stages that are scored, and stages in all."""
        scored = {
            (StreamKey.of(row), row["stage"])
            for row in self.rows
            if row["metric"] == self.config.scorer and row["stage"] and row["order"] != _UPPER_BOUND_ORDER
        }
        return len(scored), sum(len(stream.tasks) for stream in self.streams)

    def limit(self, stream: StreamFolder, stage: int) -> int | None:
        """How many rows of a task count at a stage (counted from 1); None: all."""
        return self.config.test_rows.at(stage - 1, len(stream.tasks))

    # ---------------------------------------------------------------- what was measured

    def results(self) -> list[StreamResult]:
        """What every stream has measured so far, and joint training where it is done."""
        joint = {seed: self._joint_stage(seed) for seed in self.config.seeds} if self.config.joint else {}
        done = {seed: stage for seed, stage in joint.items() if stage.scores.keys() >= set(self.tasks)}
        return [*map(self.result, self.streams), *(self._joint_result(seed, stage) for seed, stage in done.items())]

    def result(self, stream: StreamFolder) -> StreamResult:
        """What a stream has measured so far."""
        return StreamResult(
            stream=self._columns(stream.key),
            tasks=stream.tasks,
            stages=[_known(stage.scores, stream.tasks[: i + 1]) for i, stage in enumerate(stream.stages, start=1)],
            limits=[self.limit(stream, i) for i in range(1, len(stream.stages) + 1)],
            main=self.config.scorer,
            experts=self._experts,
            zero_shot=self._zero_shot,
            joint=self._joint,
            costs=[stage.costs for stage in stream.stages],
        )

    def result_so_far(self, stream: StreamPlan, stage: int) -> StreamResult:
        """What a stream has measured up to a stage, as if it ended there."""
        entry = _described(stream)
        cut = self._stream({**entry, "stages": entry["stages"][:stage]})
        return replace(self.result(cut), tasks=stream.tasks[:stage])

    def _joint_result(self, seed: int, stage: _FinishedStage) -> StreamResult:
        """Joint training as a stream of one stage."""
        return StreamResult(
            stream=self._columns(StreamKey("joint", "", _UPPER_BOUND_ORDER, seed)),
            tasks=self.tasks,
            stages=[_known(stage.scores, self.tasks)],
            main=self.config.scorer,
            experts=self._experts,
            costs=[stage.costs],
            at_once=True,
        )

    def _columns(self, key: StreamKey) -> Stream:
        return Stream(run_id=self.name, model=self.config.model, **key._asdict())

    @cached_property
    def _zero_shot(self) -> dict[str, RowScores] | None:
        scores = self.stage(UNTRAINED.name).scores()
        return scores if scores.keys() >= set(self.tasks) else None

    @cached_property
    def _experts(self) -> Reference | None:
        seeds = self.config.experts.seeds if self.config.experts else ()
        return self._reference(Job.expert, seeds)

    @cached_property
    def _joint(self) -> Reference | None:
        seeds = self.config.seeds if self.config.joint else ()
        return self._reference(lambda task, seed: Job.joined(self.tasks, seed), seeds)

    def _reference(self, job: Callable[[str, int], Job], seeds: Sequence[int]) -> Reference | None:
        """Row scores of every task by a model per seed; None where one is missing."""
        found = {task: [self.stage(job(task, seed).name).scores().get(task) for seed in seeds] for task in self.tasks}
        known = {task: [scores for scores in models if scores] for task, models in found.items()}
        return known if seeds and known == found else None

    def _joint_stage(self, seed: int) -> _FinishedStage:
        return _FinishedStage(self.stage(Job.joined(self.tasks, seed).name))

    def final_rows(self) -> dict[StreamKey, FinalRows]:
        """What makes up the final Relative Gain of each finished stream, row by row.

        Streams without one are left out, and those whose row scores are gone.
        """
        with_gain = {StreamKey.of(row) for row in self.rows if row["metric"] == FINAL}
        kept = [stream for stream in self.streams if stream.finished and stream.key in with_gain]
        return {stream.key: self._final_rows(self.result(stream)) for stream in kept} if self._experts else {}

    def _final_rows(self, result: StreamResult) -> FinalRows:
        last = len(result.stages) - 1
        pairs = zip(result.tasks, result.pairs(last, result.experts or {})[:-1], strict=False)
        scores = {task: [100 * score / base for score in result.row_scores(last, task)] for task, (_, base) in pairs}
        asked = {task: result.stages[last][task].instructions[: len(rows)] for task, rows in scores.items()}
        return FinalRows(scores, asked)


def run_of(stage: str | Path) -> RunFolder | None:
    """The run that a stage's folder, or the model in it, belongs to; None where it is no run's."""
    runs = map(RunFolder, Path(stage).absolute().parents[:3])
    return next((run for run in runs if run.exists), None)


def write_tables(folder: Path, tables: Mapping[str, pa.Table]) -> None:
    """Write tables as CSV or Parquet, by the name of their file; each is the old one or the new one, never half."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with whole_file(folder / name, "wb") as file:
            (_write_csv if name.endswith(".csv") else _write_parquet)(table, file)


def _write_parquet(table: pa.Table, file: IO[bytes]) -> None:
    """Write a table whose pages have checksums."""
    from pyarrow import parquet

    parquet.write_table(table, file, write_page_checksum=True)


def _whole(path: Path) -> pa.Table | None:
    """A table as it was written; None of one that is damaged, which can be made from the scores again."""
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, page_checksum_verification=True)
        table.validate(full=True)  # texts that are none, too
        later = [field for field in SCHEMA if field.name in _LATER_COLUMNS and field.name not in table.column_names]
        return table if {*table.schema, *later} >= {*SCHEMA} else None
    except (OSError, pa.ArrowException):
        return None


def _write_csv(table: pa.Table, file: IO[bytes]) -> None:
    """Write a table of which no spreadsheet takes a text for a formula.

    A text that begins like one, or with an apostrophe, gets an apostrophe in front.
    """
    from pyarrow import compute, csv

    for i, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            table = table.set_column(i, column, compute.replace_substring_regex(table[i], _LIKE_A_FORMULA, r"'\0"))
    csv.write_csv(table, file)


def _described(stream: StreamPlan) -> dict[str, Any]:
    return {
        "strategy": stream.strategy,
        "budget": stream.budget_name,
        "order": stream.order_name,
        "seed": stream.seed,
        "tasks": list(stream.tasks),
        "stages": [job.name for job in stream.jobs()],
    }


def _finished(table: pa.Table) -> set[StreamKey]:
    columns = (table[name].to_pylist() for name in (*StreamKey._fields, "metric"))
    return {StreamKey(*key) for *key, metric in zip(*columns, strict=True) if metric == "average_performance"}


def _known(scores: Mapping[str, RowScores], tasks: Sequence[str]) -> dict[str, RowScores]:
    return {task: scores[task] for task in tasks if task in scores}
