"""One stage as a folder, for a stream's stage and for `learn` alike: planned, mixed, trained, scored.

    plan.json        what is replayed, and why
    mixture.jsonl    what the stage trains on
    model/           the trainer's folder; finished when its record stands in it
    predictions/     answers, a file per task
    scores.json      what was scored so far, row by row, and what training cost

Each file appears whole or not at all, and each step is skipped where its file is there.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from inscl.data.example import Example
from inscl.data.mixture import MixtureRow, write_mixture
from inscl.errors import InsclError, first_line
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.scores import RowScores
from inscl.files import write_json
from inscl.memory.task import Task
from inscl.models.loading import RECORD
from inscl.replay.plan import Plan
from inscl.replay.planner import Replay
from inscl.stages.own import replayed_of, with_own_answers

PLAN, MIXTURE, MODEL, PREDICTIONS, SCORES = "plan.json", "mixture.jsonl", "model", "predictions", "scores.json"
_OWN = "own"  # the side of the replayed rows, where the model that a stage starts from answers them
_MEASURED_ROWS = 64  # of a task, where its losses are measured
Wishes = Mapping[str, float]  # what a strategy asks of the training (see `inscl.replay.parts`)
Progress = Callable[[int, int, float | None], None]  # done, of how many, and the loss where there is one


class Trainer(Protocol):
    """Who trains and scores: `inscl.stages.trainer.ModelTrainer`, or a stand-in."""

    def train(
        self, mixture: Path, start: str | Path, out: Path, *, seed: int, progress: Progress, asked: Wishes | None = None
    ) -> Mapping[str, Any]:
        """Train on a mixture from a model; the record of what it did. A finished `out` gives its record."""

    def score(
        self, model: str | Path, tasks: Mapping[str, Sequence[Example]], out: Path, *, progress: Progress
    ) -> dict[str, RowScores]:
        """Answer and score the rows of each task; predictions go to `out`."""

    def losses(self, model: str | Path, tasks: Mapping[str, Sequence[Example]]) -> dict[str, list[float]]:
        """Loss of each row of each task; asked only for strategies that look at losses."""


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage; ``model`` is where the trainer works, which for `learn` is the folder itself."""

    path: Path
    inner: str = MODEL

    @classmethod
    def at(cls, path: Path) -> "StageFolder | None":
        """The stage in a folder, or that of a model's folder; None where there is none."""
        places = (path.parent, path) if path.name == MODEL else (path,)
        return next((stage for stage in map(cls, places) if stage.scored), None)

    @property
    def model(self) -> Path:
        """Where the model is."""
        return self.path / self.inner

    @property
    def trained(self) -> bool:
        """Whether the finished model is there."""
        return (self.model / RECORD).exists()

    @property
    def finished(self) -> bool:
        """Whether the model is there and its training's record is noted: a process may die between the two."""
        return self.trained and "trained" in self.read()

    @property
    def scored(self) -> bool:
        """Whether anything was scored, or trained, in it."""
        return (self.path / SCORES).exists()

    def prepare(
        self, replay: Callable[[], Replay], chat: bool, trainer: Trainer, start: str | Path, progress: Progress
    ) -> None:
        """Write plan and mixture, unless they are there."""
        if (self.path / MIXTURE).exists():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        made = replay()
        made.plan.write(self.path / PLAN)
        self.mix(self.rows(made, trainer, start, progress), chat)

    def rows(self, replay: Replay, trainer: Trainer, start: str | Path, progress: Progress) -> list[MixtureRow]:
        """The mixture, where the plan asks for it with the answers of the model that the stage starts from."""
        rows, at_least = replay.rows(), replay.plan.training.get("own")
        asked = replayed_of(rows) if at_least else {}
        if not at_least or not asked:
            return rows
        began = time.perf_counter()
        scores = self.score(trainer, start, asked, side=_OWN, progress=progress)
        changed = with_own_answers(rows, scores, self.answers(_OWN), at_least)
        own = sum(new is not old for new, old in zip(changed, rows, strict=True))
        self._write({**self.read(), "answering": {"own": own, "seconds": time.perf_counter() - began}})
        return changed

    def mix(self, rows: Iterable[MixtureRow], chat: bool) -> None:
        """Write the mixture, in chat form where any task of the memory or run is."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_mixture(self.path / MIXTURE, _as_chat(rows) if chat else rows)

    def train(self, trainer: Trainer, start: str | Path, *, seed: int, progress: Progress) -> Mapping[str, Any]:
        """Train, or go on training; the record goes into the scores file."""
        record = trainer.train(
            self.path / MIXTURE, start, self.model, seed=seed, progress=progress, **self._asked_of_training()
        )
        known = self.read()
        besides = sum(known[work]["seconds"] for work in ("answering", "measuring") if work in known)
        record = {**record, "seconds": record["seconds"] + besides} if besides else record
        self._write({**known, "trained": dict(record)})
        return record

    def measure(self, trainer: Trainer, tasks: Iterable[Task]) -> None:
        """Note the new model's losses on some training rows of tasks, unless that is done; the time is the stage's."""
        known = self.read()
        if "losses" in known:
            return
        began = time.perf_counter()
        measured = {task.info.name: task.sample("train", _MEASURED_ROWS) for task in tasks}
        found = trainer.losses(self.model, measured)
        losses = {
            task: {row.key.hex(): round(loss, 6) for row, loss in zip(rows, found[task], strict=True)}
            for task, rows in measured.items()
        }
        seconds = time.perf_counter() - began
        trained = {**known["trained"], "seconds": known["trained"]["seconds"] + seconds}
        self._write({**known, "trained": trained, "losses": losses, "measuring": {"seconds": seconds}})

    def losses(self) -> dict[str, dict[str, dict[str, float]]]:
        """Per task what a log keeps of its measured losses."""
        return {task: {"losses": losses} for task, losses in self.read().get("losses", {}).items()}

    def replayed(self) -> dict[str, Any] | None:
        """What a log keeps of the stage; None where nothing was planned."""
        made, losses = self.plan(), self.losses()
        if made is None:
            return None
        tasks = [*made.replayed(), {"name": made.name}]
        return {"name": made.name, "tasks": [{**task, **losses.get(task["name"], {})} for task in tasks]}

    def score(
        self,
        trainer: Trainer,
        model: str | Path,
        tasks: Mapping[str, Sequence[Example]],
        *,
        side: str = "test",
        answers: Path | None = None,
        progress: Progress,
    ) -> dict[str, RowScores]:
        """Score the rows of each task that are not scored yet; `answers` is where predictions are kept."""
        missing = {task: rows for task, rows in tasks.items() if self._rows(side, task) < len(rows)}
        if missing:
            self.path.mkdir(parents=True, exist_ok=True)
            found = trainer.score(model, missing, answers or self.path / PREDICTIONS / side, progress=progress)
            known = self.read()
            scored = {**known.get(side, {}), **{task: rows.to_dict() for task, rows in found.items()}}
            self._write({**known, side: scored})
        return {task: rows for task, rows in self.scores(side).items() if task in tasks}

    def scores(self, side: str = "test") -> dict[str, RowScores]:
        """What was scored so far."""
        try:
            return {task: RowScores.from_dict(plain) for task, plain in self.read().get(side, {}).items()}
        except (AttributeError, ValueError) as error:
            raise damaged(self.path / SCORES, error) from error

    def answers(self, side: str = "test") -> dict[str, list[Prediction]]:
        """The answers behind the scores; a task is left out whose answers are gone or belong to other rows."""
        kept, found = self.answer_sets(side), {}
        for task, scores in self.scores(side).items():
            if mine := next((rows for rows in kept.get(task, ()) if scores.are_of(rows)), None):
                found[task] = mine
        return found

    def answer_sets(self, side: str = "test") -> dict[str, list[list[Prediction]]]:
        """Per task all sets of rows that were answered, the newest first."""
        return Prediction.sets_in(self.path / PREDICTIONS / side)

    def plan(self) -> Plan | None:
        """What was replayed; None where nothing was planned."""
        path = self.path / PLAN
        return Plan.read(path) if path.exists() else None

    def read(self) -> dict[str, Any]:
        """The scores file; empty where there is none."""
        return read_json(self.path / SCORES)

    def drop_model(self) -> None:
        """Delete the model; what is left of it after an interruption does not count as one."""
        gone = self.path / f".{self.inner}.gone"
        shutil.rmtree(gone, ignore_errors=True)
        if self.model.exists():
            self.model.replace(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _asked_of_training(self) -> dict[str, Mapping[str, float]]:
        """What the plan's strategy asks; nothing where it asks nothing, or there is no plan."""
        asked = Plan.read(self.path / PLAN).training if (self.path / PLAN).exists() else {}
        return {"asked": asked} if asked else {}

    def _rows(self, side: str, task: str) -> int:
        known = self.read().get(side, {}).get(task)
        return -1 if known is None else int(known["n"])

    def _write(self, content: dict[str, object]) -> None:
        write_json(self.path / SCORES, content)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none.

    Raises
    ------
    InsclError
        If the file is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> InsclError:
    """What is said of a file whose content is not what was written."""
    return InsclError(f"{path} is damaged ({first_line(error)}). Remove it, and run the same command again.")


def _as_chat(rows: Iterable[MixtureRow]) -> Iterable[MixtureRow]:
    from inscl.data.chat_form import to_messages

    for row in rows:
        yield replace(row, example=replace(row.example, messages=tuple(to_messages(row.example))))
