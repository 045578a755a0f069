"""What a run says of each test row: its score at every stage of a stream, and the answers behind the scores.

Read from a run's folder alone (see `inscl.experiments.run`), finished or not; nothing is trained, asked or scored
again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from inscl.data.example import Example
from inscl.errors import InsclError
from inscl.evaluation.scores import RowScores, instructions_of
from inscl.experiments.run import RUN, STREAMS
from inscl.stages.folder import PREDICTIONS, SCORES, StageFolder, read_json


@dataclass(frozen=True)
class Answer:
    """One row of a task's test side, and what a stage's model answered."""

    instruction: str
    input: str
    references: tuple[str, ...]
    text: str


class Stage:
    """One finished stage of a stream: scores of the main scorer row by row, and answers where they were kept."""

    def __init__(self, folder: StageFolder, scorer: str) -> None:
        self._folder, self._scorer = folder, scorer
        self._rows = folder.scores()

    def __contains__(self, task: str) -> bool:
        return task in self._rows

    def scores(self, task: str) -> Sequence[float]:
        """Score of each row, in the fixed order of the task's test side."""
        return self._rows[task].rows[self._scorer]

    def instructions(self, task: str) -> Sequence[str]:
        """Key of each row's instruction."""
        return self._rows[task].instructions

    def answers(self, task: str) -> list[Answer] | None:
        """The answers behind the scores; None where they are gone or belong to other rows."""
        return self._answers.get(task)

    @cached_property
    def _answers(self) -> dict[str, list[Answer]]:
        files = (self._folder.path / PREDICTIONS / "test").glob("*.jsonl")
        found: dict[str, list[Answer]] = {}
        for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name)):
            task, rows = _read_answers(path)
            if task in self._rows and _belong(rows, self._rows[task]):
                found[task] = rows
        return found


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """One stream as far as it went.

    Attributes
    ----------
    strategy, budget, order : str
    seed : int
    tasks : tuple of str
        All tasks in the order they are learnt.
    stages : tuple of Stage
        The finished ones, the first first.
    """

    strategy: str
    budget: str
    order: str
    seed: int
    tasks: tuple[str, ...]
    stages: tuple[Stage, ...]

    @property
    def finished(self) -> bool:
        """Whether the last stage is there."""
        return len(self.stages) == len(self.tasks)

    @property
    def title(self) -> str:
        """How messages call it."""
        replayed = f" with {self.budget}" if self.budget else ""
        return f"{self.strategy}{replayed}, order {self.order}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run's folder, read."""

    folder: Path
    run_id: str
    config: Mapping[str, Any]
    streams: tuple[StreamFacts, ...]

    @property
    def tasks(self) -> list[str]:
        """All tasks that any stream learns."""
        return list(dict.fromkeys(task for stream in self.streams for task in stream.tasks))


def read_facts(folder: str | Path) -> RunFacts:
    """Read the streams of a run.

    Parameters
    ----------
    folder : path
        Of ``inscl run`` or ``inscl demo``.

    Raises
    ------
    InsclError
        If it holds no run, no stream has begun, or a file is damaged.
    """
    folder = Path(folder)
    record = read_json(folder / RUN) if folder.is_dir() else {}
    if "inscl_run" not in record:
        raise InsclError(f"'{folder}' holds no run. Name the folder of an `inscl run` or `inscl demo`.")
    scorer = record["config"]["scorer"]
    streams = tuple(_stream(folder, described, scorer) for described in _described(folder))
    if not any(stream.stages for stream in streams):
        raise InsclError(
            f"The run in '{folder}' has not finished a stage of any stream yet, so nothing can be forgotten. Go on "
            "with it, then ask again."
        )
    return RunFacts(folder=folder, run_id=folder.resolve().name, config=record["config"], streams=streams)


def _described(folder: Path) -> list[dict[str, Any]]:
    path = folder / STREAMS
    try:
        return [dict(stream) for stream in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise InsclError(f"{path} is damaged ({error}). Remove it, and run the same `inscl run` again.") from error


def _stream(folder: Path, described: Mapping[str, Any], scorer: str) -> StreamFacts:
    tasks, stages = tuple(described["tasks"]), []
    for number, name in enumerate(described["stages"], start=1):
        stage_folder = StageFolder(folder / "stages" / Path(name).name)
        if not (stage_folder.path / SCORES).exists():
            break
        stage = Stage(stage_folder, scorer)
        if not all(task in stage for task in tasks[:number]):
            break
        stages.append(stage)
    columns = {name: described[name] for name in ("strategy", "budget", "order", "seed")}
    return StreamFacts(**columns, tasks=tasks, stages=tuple(stages))


def _read_answers(path: Path) -> tuple[str, list[Answer]]:
    """The task of a file of predictions, and its rows."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [
            Answer(line["instruction"], line["input"], tuple(line["references"]), line["prediction"]) for line in lines
        ]
        return (lines[0]["task"] if lines else ""), rows
    except (ValueError, TypeError, KeyError) as error:
        raise InsclError(f"{path} is damaged ({error!r}). Remove its stage's scores.json and run again.") from error


def _belong(answers: Sequence[Answer], scores: RowScores) -> bool:
    """Whether these are the rows that were scored, as far as their instructions tell."""
    asked = instructions_of([Example(answer.instruction) for answer in answers])
    return asked == list(scores.instructions)
