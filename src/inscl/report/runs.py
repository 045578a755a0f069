"""A run's folder as a report reads it, finished or not: its record, streams, numbers, row scores, plans, answers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa

from inscl.errors import InsclError
from inscl.evaluation.scores import RowScores
from inscl.experiments.config import StreamConfig
from inscl.experiments.jobs import UNTRAINED, Scored, expert_job, joint_job, most_rows
from inscl.experiments.results import PARQUET, Cell, Stream, StreamResult, to_table
from inscl.experiments.run import COSTS, RUN, STREAMS, UPPER_BOUND_ORDER
from inscl.experiments.summary import StreamKey, recorded_config
from inscl.replay.plan import Plan
from inscl.stages.folder import PLAN, PREDICTIONS, StageFolder, read_json


@dataclass(frozen=True, kw_only=True)
class StreamFolder:
    """A stream of a run, and the folders of its stages."""

    key: StreamKey
    tasks: tuple[str, ...]
    stages: tuple[StageFolder, ...]

    def plan(self, stage: int) -> Plan | None:
        """What was replayed at a stage (counted from 1); None where nothing was planned yet."""
        path = self.stages[stage - 1].path / PLAN
        return Plan.read(path) if path.exists() else None


class RunFolder:
    """What lies in a run's folder.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InsclError
        If the folder holds no run, or one that has not begun its streams.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.name = folder.resolve().name
        self.record: dict[str, Any] = read_json(folder / RUN)
        if "config" not in self.record:
            raise InsclError(
                f"'{folder}' holds no run: there is no {RUN}. Name a folder that `inscl run` or `inscl demo` wrote, "
                "or a plan that `inscl plan --out` wrote."
            )
        self.config: StreamConfig = recorded_config(self.record)
        try:
            listed = json.loads((folder / STREAMS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InsclError(
                f"The run '{folder}' has not begun its streams yet: there is nothing to report. "
                "Run the same `inscl run` command again to go on."
            ) from None
        self.streams = tuple(self._stream(entry) for entry in listed)
        self._answers: dict[Path, dict[str, Path]] = {}

    def _stream(self, entry: Mapping[str, Any]) -> StreamFolder:
        return StreamFolder(
            key=StreamKey(entry["strategy"], entry["budget"], entry["order"], entry["seed"]),
            tasks=tuple(entry["tasks"]),
            stages=tuple(self.folder(name) for name in entry["stages"]),
        )

    def folder(self, name: str) -> StageFolder:
        """The folder of a model."""
        return StageFolder(self.path / "stages" / name)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order of the configuration."""
        return tuple(self.record.get("tasks") or self.streams[0].tasks)

    @cached_property
    def table(self) -> pa.Table:
        """Every number: the run's own table if it covers all streams, else made from what is scored so far."""
        from pyarrow import parquet

        path = self.path / PARQUET
        if path.exists():
            table = parquet.read_table(path)
            if {stream.key for stream in self.streams} <= _finished(table):
                return table
        return to_table(self._results())

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The table as plain rows."""
        return list(self.table.to_pylist())

    @property
    def finished(self) -> bool:
        """Whether every stream has reached its last stage."""
        return {stream.key for stream in self.streams} <= _finished(self.table)

    def stages_done(self) -> tuple[int, int]:
        """Stages that are scored, and stages in all."""
        scored = {
            (row["strategy"], row["budget"], row["order"], row["seed"], row["stage"])
            for row in self.rows
            if row["metric"] == self.config.scorer and row["stage"] and row["order"] != UPPER_BOUND_ORDER
        }
        return len(scored), sum(len(stream.stages) for stream in self.streams)

    def row_scores(self, stream: StreamFolder, stage: int) -> dict[str, RowScores]:
        """Row scores of a stage (counted from 1), cut to the rows that count there."""
        limit = self._limit(stream, stage)
        return {task: _first(scores, limit) for task, scores in stream.stages[stage - 1].scores().items()}

    def answers(self, stream: StreamFolder, stage: int, task: str) -> list[dict[str, Any]]:
        """The answers of a stage's model to a task, in the order of its row scores; none where they are gone."""
        path = self._files_of_answers(stream.stages[stage - 1].path).get(task)
        if path is None:
            return []
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines][: self._limit(stream, stage)]

    def _files_of_answers(self, folder: Path) -> dict[str, Path]:
        """The latest file of each task, by the task that its first line names."""
        if folder not in self._answers:
            found: dict[str, Path] = {}
            paths = (folder / PREDICTIONS / "test").glob("*.jsonl")
            for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns):
                with path.open(encoding="utf-8") as lines:
                    if first := lines.readline():
                        found[json.loads(first)["task"]] = path
            self._answers[folder] = found
        return self._answers[folder]

    def _limit(self, stream: StreamFolder, stage: int) -> int | None:
        return self.config.test_rows.at(stage - 1, len(stream.tasks))

    # ---------------------------------------------------------------- a run that is not finished

    def _results(self) -> Iterator[StreamResult]:
        zero = self._means(UNTRAINED.name)
        experts = self._experts()
        for stream in self.streams:
            stages, costs = [], []
            for stage, folder in enumerate(stream.stages, start=1):
                wanted: Scored = dict.fromkeys(stream.tasks[: stage + 1], self._limit(stream, stage))
                scores = folder.scores()
                if not wanted.keys() <= scores.keys():
                    break
                stages.append(_cells(scores, wanted))
                costs.append(_costs(folder))
            if stages:
                yield self._result(stream.key, stream.tasks, stages, costs, experts, zero)
        if self.config.joint:
            yield from self._joint()

    def _joint(self) -> Iterator[StreamResult]:
        wanted: Scored = dict.fromkeys(self.tasks, most_rows(self.config.test_rows))
        for seed in self.config.seeds:
            folder = self.folder(joint_job(self.tasks, seed).name)
            scores = folder.scores()
            if wanted.keys() <= scores.keys():
                key = StreamKey("joint", "", UPPER_BOUND_ORDER, seed)
                yield self._result(key, self.tasks, [_cells(scores, wanted)], [_costs(folder)], None, {})

    def _result(
        self,
        key: StreamKey,
        tasks: tuple[str, ...],
        stages: list[dict[tuple[str, str], Cell]],
        costs: list[dict[str, float]],
        experts: Mapping[str, float] | None,
        zero: Mapping[str, float],
    ) -> StreamResult:
        return StreamResult(
            stream=Stream(run_id=self.name, model=self.config.model, **key._asdict()),
            tasks=tasks,
            stages=stages,
            main=self.config.scorer,
            experts=experts,
            zero_shot=zero if zero.keys() >= set(tasks) else None,
            costs=costs,
        )

    def _experts(self) -> dict[str, float] | None:
        """Mean score of each task's experts; None where one is missing, or scores 0."""
        seeds = self.config.experts.seeds if self.config.experts else ()
        found = {
            task: [self._means(expert_job(task, seed).name).get(task, 0.0) for seed in seeds] for task in self.tasks
        }
        return {t: fmean(scores) for t, scores in found.items()} if seeds and all(map(all, found.values())) else None

    def _means(self, name: str) -> dict[str, float]:
        return {task: scores.mean(self.config.scorer) for task, scores in self.folder(name).scores().items()}


def _finished(table: pa.Table) -> set[StreamKey]:
    columns = (table[name].to_pylist() for name in (*StreamKey._fields, "metric"))
    return {StreamKey(*key) for *key, metric in zip(*columns, strict=True) if metric == "average_performance"}


def _cells(scores: Mapping[str, RowScores], wanted: Scored) -> dict[tuple[str, str], Cell]:
    found: dict[tuple[str, str], Cell] = {}
    for task, limit in wanted.items():
        found |= scores[task].cells(task, limit)
    return found


def _costs(folder: StageFolder) -> dict[str, float]:
    trained = folder.read().get("trained", {})
    return {name: float(trained[key]) for name, key in COSTS.items() if key in trained}


def _first(scores: RowScores, limit: int | None) -> RowScores:
    rows = {score: values[:limit] for score, values in scores.rows.items()}
    return RowScores(rows, scores.instructions[:limit], scores.capped)
