"""Trains and scores models for runs and for `learn`, and keeps the last one in memory for what comes next.

A stage's model is trained, then scored, then trained on: it is read from disk only where another one is wanted.
Whether a model comes from memory or from disk changes nothing: both have the same weights in the same form.
Where a command was launched as several processes, the others hold the same model, and train the same stages.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inscl.data.example import Example
from inscl.evaluation.evaluate import answer_limit, generate_and_score
from inscl.evaluation.losses import row_losses
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.scores import RowScores
from inscl.models.loading import RECORD, LoadedModel
from inscl.stages.folder import Progress, Wishes
from inscl.training import ranks
from inscl.training.checkpoints import FOLDER as CHECKPOINTS
from inscl.training.config import Protect, StageConfig
from inscl.training.stage import StageRecord
from inscl.training.tracking import check_trackers
from inscl.training.train import load_start, train_stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from inscl.models.kept import Keeping

ANSWERS_LOOKED_AT = 1000  # training answers from which a task's longest answer is taken


class ModelTrainer:
    """The real one: TRL trains, our generation answers.

    Parameters
    ----------
    config : StageConfig
        With `dtype` chosen.
    answers : callable
        Training rows of a task by name, from which the most tokens of its answers are taken.
    chat : callable
        Whether rows are asked in chat form.
    keep_in : Path, optional
        Folder for what leaves frozen layers; None keeps it while a stage lasts.
    """

    def __init__(
        self,
        config: StageConfig,
        answers: Callable[[str], Sequence[Example]],
        chat: Callable[[], bool],
        keep_in: Path | None = None,
    ) -> None:
        check_trackers(config.fields.get("report_to"))
        self.config, self._answers, self._chat, self._keep_in = config, answers, chat, keep_in
        self._limits: dict[str, int] = {}
        self._held: tuple[str, LoadedModel] | None = None

    def train(
        self, mixture: Path, start: str | Path, out: Path, *, seed: int, progress: Progress, asked: Wishes | None = None
    ) -> Mapping[str, Any]:
        """Train a stage in `out`; the record of a finished one is read."""
        if (out / RECORD).exists():
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)  # of a process that died right after its record
            return dict(json.loads((out / RECORD).read_text(encoding="utf-8")))
        config = _as_asked(self.config, asked or {})
        ranks.post(
            {
                "config": config.plain(),
                "mixture": str(mixture),
                "start": str(start),
                "out": str(out),
                "seed": seed,
                "held": self._holds(start),
            }
        )
        return asdict(self._train(mixture, start, out, seed, progress, config))

    def join(self, job: Mapping[str, Any]) -> None:
        """Take part in a stage that the first process trains, from the same weights in the same form."""
        self.config = StageConfig.model_validate(job["config"])
        if not job["held"]:
            self._held = None
        self._train(Path(job["mixture"]), job["start"], Path(job["out"]), job["seed"], None, self.config)

    def _train(
        self,
        mixture: Path,
        start: str | Path,
        out: Path,
        seed: int,
        progress: Progress | None,
        config: StageConfig,
    ) -> StageRecord:
        model = self._load(start)
        self._held = None  # its weights are about to change
        record = train_stage(
            mixture,
            model,
            out,
            config,
            seed=seed,
            progress=progress,
            tracks=mixture.parent,
            keep_in=self._keep_in,
        )
        self._held = str(out), model
        return record

    def score(
        self, model: str | Path, tasks: Mapping[str, Sequence[Example]], out: Path, *, progress: Progress
    ) -> dict[str, RowScores]:
        """Answer and score the rows of each task."""
        loaded = self._load(model)
        generate_and_score(
            loaded,
            tasks,
            max_new_tokens={task: self._limit(task, loaded.tokenizer) for task in tasks},
            max_length=self.config.max_length,
            chat=self._chat(),
            scorer=self.config.scorer,
            out=out,
            dtype=self.config.dtype,
            keeping=self._keeping(),
            progress=lambda done, total: progress(done, total, None),
        )
        return _predicted(out, tasks, self.config.scorer)

    def losses(self, model: str | Path, tasks: Mapping[str, Sequence[Example]]) -> dict[str, list[float]]:
        """Loss of each row of each task."""
        found = iter(
            row_losses(
                self._load(model),
                [row for rows in tasks.values() for row in rows],
                max_length=self.config.max_length,
                chat=self._chat(),
                dtype=self.config.dtype,
                keeping=self._keeping(),
            )
        )
        return {task: list(islice(found, len(rows))) for task, rows in tasks.items()}

    def _keeping(self) -> "Keeping | None":
        from inscl.models.kept import Keeping

        depth = self.config.protect.freeze_bottom_layers
        return Keeping(self._keep_in, depth, self.config.kept) if self._keep_in else None

    def _limit(self, task: str, tokenizer: "PreTrainedTokenizerBase") -> int:
        if self.config.max_new_tokens is not None:
            return self.config.max_new_tokens
        if task not in self._limits:
            self._limits[task] = answer_limit(self._answers(task), tokenizer, chat=self._chat())
        return self._limits[task]

    def _load(self, model: str | Path) -> LoadedModel:
        if self._held is None or not self._holds(model):
            self._held = None  # two models at once may not fit
            self._held = str(model), load_start(model, self.config)
        return self._held[1]

    def _holds(self, model: str | Path) -> bool:
        return self._held is not None and self._held[0] == str(model)


def _as_asked(config: StageConfig, asked: Wishes) -> StageConfig:
    """A stage's settings with what a strategy asks of the training."""
    changes = {name: value for name, value in asked.items() if name in Protect.model_fields}
    return config.model_copy(update={"protect": config.protect.model_copy(update=changes)}) if changes else config


def follow() -> int:
    """What every process but the first does under ``torchrun`` or ``accelerate launch``; the exit code."""
    trainer = ModelTrainer(StageConfig(), answers=lambda task: (), chat=lambda: False)
    return ranks.follow(trainer.join)


def _predicted(folder: Path, tasks: Mapping[str, Sequence[Example]], scorer: str) -> dict[str, RowScores]:
    """Row scores of the predictions that lie in a folder.

    Parameters
    ----------
    folder : Path
        Where `generate_and_score` left a file per task.
    tasks : mapping from task to sequence of Example
        The rows that were asked.
    scorer : str
        Name of the scorer beside exact match.
    """
    kept = [rows for sets in Prediction.sets_in(folder).values() for rows in sets]
    files = {_asked(rows[0].task, rows): rows for rows in reversed(kept)}  # of equal questions the newest answers
    return {task: RowScores.of(files[_asked(task, examples)], scorer) for task, examples in tasks.items()}


def _asked(task: str, rows: Sequence[Prediction] | Sequence[Example]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What tells the predictions of one set of rows from another."""
    return task, tuple((row.instruction, row.input) for row in rows)
