"""Continual learning inside a training script of one's own: a callback for TRL's `SFTTrainer`.

    replay = plan(memory, "billing", dataset, budget=200)
    SFTTrainer(model, train_dataset=replay.mixture(), callbacks=[ContinualCallback(replay)], ...).train()

When training has ended well, the new task is remembered, the earlier tasks and the new one are scored, and the scores
go to the trainer's trackers. Training that fails or is killed changes nothing.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from inscl.core.scoring import SCORERS
from inscl.data.example import Example
from inscl.data.split import Shares
from inscl.errors import ConfigError
from inscl.evaluation.evaluate import TaskScore, answer_limit, generate_and_score
from inscl.memory.task import OWN_TAGS, Task
from inscl.memory.writing import Added
from inscl.models.loading import LoadedModel
from inscl.replay.planner import Replay
from inscl.stages.metrics import metric_name, metrics_so_far
from inscl.training.tracking import Tracked

if TYPE_CHECKING:
    from inscl.models.loading import Weights

_logger = logging.getLogger(__name__)

_ANSWERS_LOOKED_AT = 1000  # training answers from which a task's longest answer is taken


class ContinualCallback(TrainerCallback):
    """Remembers a task when a trainer has learnt it, and says what that did to the earlier ones.

    Nothing that goes wrong here stops the script, which has a trained model to save: it is told in the log.

    Parameters
    ----------
    replay : Replay
        What `inscl.plan` gave, and the trainer trains on.
    rows : int, optional
        Most test rows of a task to score; None scores all, 0 none. Weights that are sharded over processes are not
        scored.
    scorer : {"rouge_l", "superni"}
        See `inscl.core.scoring`.
    max_length : int
        Most tokens of a prompt.

    Attributes
    ----------
    scores : dict of str to TaskScore
        After training, of every task that was scored.
    added : Added or None
        After training, what the memory did; None if the task was not remembered.
    """

    def __init__(
        self, replay: Replay, *, rows: int | None = 50, scorer: str = "rouge_l", max_length: int = 1024
    ) -> None:
        if rows is not None and rows < 0:
            raise ConfigError(f"`rows` is {rows}; wanted a number of at least 0, or None for all.")
        if scorer not in SCORERS:
            raise ConfigError(f"`scorer` must be one of {', '.join(SCORERS)}, got {scorer!r}.")
        self.replay, self.rows, self.scorer, self.max_length = replay, rows, scorer, max_length
        self.scores: dict[str, TaskScore] = {}
        self.added: Added | None = None
        self._tracked = Tracked()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Note where the trackers have opened their runs: they close them before this callback's end."""
        if state.is_world_process_zero:
            self._tracked = Tracked.just_opened(args.report_to, _tensorboard_folder(args))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: object, **given: Any) -> None:
        """Remember, score and log; only training that ended well comes here."""
        if not state.is_world_process_zero:
            return
        name, memory = self.replay.plan.name, self.replay.memory
        if not _finite(state.log_history):
            _logger.error("the loss is not finite, so task '%s' is not remembered", name)
            return
        with _told("the earlier tasks were not scored"):
            before = memory.stages()
            self.scores = self._score(args, given["model"], given["processing_class"])
            means = {task: score.rouge_l for task, score in self.scores.items()}
            metrics = _metrics(self.scores, self.scorer) | metrics_so_far(before, means, name, self.scorer)
            state.log_history.append({**metrics, "step": state.global_step})
            self._tracked.log(metrics, state.global_step)
        with _told(f"task '{name}' was not remembered; do it with `memory.add`"):
            self.added = self._remember()
            memory.log_stage(self._record(args))

    def _remember(self) -> Added:
        """Add the new task's rows as they came: a side is given only where the hash alone does not give it."""
        new, made = self.replay.new, self.replay.plan
        rows = list(new.examples(range(sum(new.info.rows.values()))))
        keys = zip(new.instructions.keys, new.tagged(), strict=True)
        options: dict[str, Any] = {
            "tags": {key: tags for key, (tags, by) in keys if by == OWN_TAGS},
            "shares": Shares(**new.info.shares),
        }
        if not new.info.given:
            added = self.replay.memory.add(made.name, [replace(row, split=None) for row in rows], **options)
            if added.info.content == made.new.content:
                return added
        return self.replay.memory.add(made.name, rows, **options)

    def _score(
        self, args: TrainingArguments, model: "Weights", tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, TaskScore]:
        if self.rows == 0:
            return {}
        if getattr(args, "fsdp", None) or getattr(args, "deepspeed", None):
            _logger.warning("the weights are sharded, so the earlier tasks are not scored")
            return {}
        chat = any(task.info.form == "chat" for task in self._tasks(replayed=True))
        with self.replay.memory.reading(), _as_it_was(model):
            tasks = {task.info.name: (task, task.sample("test", self.rows)) for task in self._tasks()}
            held_out: dict[str, list[Example]] = {name: rows for name, (_, rows) in tasks.items() if rows}
            limits = {
                name: answer_limit(tasks[name][0].sample("train", _ANSWERS_LOOKED_AT), tokenizer, chat=chat)
                for name in held_out
            }
            half = str(next(model.parameters()).dtype) == "torch.bfloat16"
            return generate_and_score(
                LoadedModel(model, tokenizer, base=""),
                held_out,
                max_new_tokens=limits,
                max_length=self.max_length,
                chat=chat,
                scorer=self.scorer,
                dtype="bfloat16" if half else "float32",
            )

    def _tasks(self, replayed: bool = False) -> list[Task]:
        """The earlier tasks, or those of which rows were replayed, general ones too; and the new one."""
        memory = self.replay.memory
        parts = [part for part in self.replay.plan.tasks if (part.count if replayed else not part.general)]
        parts = [part for part in parts if part.name in memory]
        return [*(memory.task(part.name) for part in parts), self.replay.new]

    def _record(self, args: TrainingArguments) -> dict[str, Any]:
        """The stage as a memory logs it; the next stage starts from the folder in which the script saves its model."""
        scores = {
            task: {"score": score.rouge_l, "exact_match": score.exact, "n": score.n}
            for task, score in self.scores.items()
        }
        return self.replay.plan.finished(str(args.output_dir), self.scorer, scores)


def _metrics(scores: dict[str, TaskScore], scorer: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for task, score in scores.items():
        values = {scorer: score.rouge_l, "exact_match": score.exact, "loss": score.loss}
        found |= {f"task/{metric_name(task)}/{name}": value for name, value in values.items() if value is not None}
    return found


def _tensorboard_folder(args: TrainingArguments) -> Path | None:
    """Where a plain trainer has TensorBoard's files: what the environment says, or the newest of its runs."""
    if "tensorboard" not in (args.report_to or ()):
        return None
    if chosen := os.environ.get("TENSORBOARD_LOGGING_DIR"):
        return Path(chosen).expanduser()
    runs = [path for path in Path(str(args.output_dir), "runs").glob("*") if path.is_dir()]
    return max(runs, key=lambda path: path.stat().st_mtime_ns, default=None)


def _finite(history: list[dict[str, float]]) -> bool:
    """Whether the last loss and gradient that were logged are numbers."""
    last = {name: entry[name] for entry in history for name in ("loss", "grad_norm", "train_loss") if name in entry}
    return all(isfinite(value) for value in last.values())


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Log an error instead of raising it."""
    try:
        yield
    except Exception:
        _logger.exception("%s", what)


@contextmanager
def _as_it_was(model: "Weights") -> Iterator[None]:
    """Take off what trainers put around `forward`, and put it back: the script goes on with this model."""
    training = model.training
    parts = {id(part): part for part in (model, getattr(model, "get_base_model", lambda: model)())}.values()
    wrapped = [(part, vars(part).pop("forward")) for part in parts if "forward" in vars(part)]
    try:
        yield
    finally:
        for part, forward in wrapped:
            vars(part)["forward"] = forward
        model.train(training)
