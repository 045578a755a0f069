"""TRL's trainer with our loss, checkpoints that are complete or not there, and a watch on the loss.

Imported only where a stage is trained: it brings torch, transformers and TRL.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback
from trl.trainer.sft_trainer import SFTTrainer

from inscl.errors import InsclError
from inscl.evaluation.generate import head_at
from inscl.training import checkpoints
from inscl.training.tracking import TENSORBOARD, Tracked, open_runs

Progress = Callable[[int, int, float], None]  # step, steps, loss

_SECONDS_BETWEEN_CHECKPOINTS = 300
_STEPS_TO_TIME = 20


@dataclass
class Watch:
    """The losses and the time of a stage, over all its interruptions."""

    stage: str
    steps: int
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    pending: list[Any] = field(default_factory=list)  # tensors, read together to spare the device
    running: Any = None
    started: float = field(default_factory=time.perf_counter)

    def add(self, loss: Any) -> None:
        """Add the loss of a part of the current step."""
        self.running = loss if self.running is None else self.running + loss

    def step(self) -> None:
        """End the current step."""
        self.pending.append(self.running)
        self.running = None

    def read(self) -> None:
        """Fetch the losses of the steps since the last reading, averaged over processes.

        Raises
        ------
        InsclError
            If one is not finite.
        """
        if not self.pending:
            return
        values = torch.stack(self.pending).double()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(values)
            values = values / torch.distributed.get_world_size()
        self.pending = []
        for loss in values.tolist():
            self.losses.append(loss)
            if not isfinite(loss):
                raise InsclError(
                    f"Stage {self.stage!r}: the loss is {loss} at step {len(self.losses)} of {self.steps}. "
                    "Lower `learning_rate`, or train in float32."
                )

    def session(self) -> float:
        """Seconds of training since this process began the stage."""
        return time.perf_counter() - self.started

    def elapsed(self) -> float:
        """Seconds of training, earlier sessions included."""
        return self.seconds + self.session()


class StageTrainer(SFTTrainer):
    """`SFTTrainer` on rows that are already tokens, with the loss summed over answer tokens only.

    The plain loss is computed here: the output head sees only the places that are trained, which TRL does on
    some devices only, and nothing waits for the device. Any other loss (`loss_type`, label smoothing, balance
    of experts, adapters that prepend tokens) stays TRL's.
    """

    def __init__(
        self,
        *args: Any,
        watch: Watch,
        fingerprint: str,
        save_more: Callable[[Path], None] | None,
        folder: Path,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)  # it prints to standard output
        if self.args.report_to:
            self.add_callback(TrackersCallback(folder, self._tensorboard(folder)))
        self.watch, self.fingerprint, self.save_more = watch, fingerprint, save_more
        self.model_accepts_loss_kwargs = True  # our loss is normalised over the whole step
        settings: Any = self.args
        adapter = getattr(self.model, "active_peft_config", None)
        self.plain_loss = (
            settings.loss_type in ("nll", "chunked_nll")
            and self.label_smoother is None
            and not self.aux_loss_enabled
            and not getattr(adapter, "is_prompt_learning", False)  # its extra tokens would shift our places
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Negative log-likelihood of the answer tokens over the number of them in the whole step."""
        index, weight = inputs.pop("answer_index"), inputs.pop("answer_weight", None)
        if not self.plain_loss:
            theirs: Any = super().compute_loss
            loss = theirs(model, inputs, return_outputs, num_items_in_batch)
        else:
            with head_at(self.model, index):
                places = {"position_ids": inputs["position_ids"]} if "position_ids" in inputs else {}
                logits = model(input_ids=inputs["input_ids"], **places, use_cache=False).logits
            targets = inputs["labels"].reshape(-1).index_select(0, index + 1)
            each = torch.nn.functional.cross_entropy(logits[0].float(), targets, reduction="none")
            total = each.sum() if weight is None else (each * weight).sum()
            # Processes average their gradients, but the count is that of all of them together.
            loss = total / num_items_in_batch * self.accelerator.num_processes
        self.watch.add(loss.detach())
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save, and mark the checkpoint as complete when everything of it is on disk."""
        self.watch.read()
        save: Any = super()._save_checkpoint
        save(model, trial)
        self.accelerator.wait_for_everyone()
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            watch = self.watch
            if self.save_more:
                self.save_more(folder)
            mark = checkpoints.Mark(self.fingerprint, self.state.global_step, watch.elapsed(), watch.losses)
            checkpoints.complete(folder, mark)
        self.accelerator.wait_for_everyone()

    def _tensorboard(self, folder: Path) -> Path | None:
        """Where TensorBoard's files go: not among the checkpoints, which are deleted, and apart for each stage."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback):
                chosen = Path(callback.logging_dir, folder.name) if callback.logging_dir else folder / TENSORBOARD
                callback.logging_dir = str(chosen)
                return chosen
        return None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No card: the stage's record says what it is."""

    def floating_point_ops(self, inputs: Any) -> int:
        """No estimate: it costs a walk over all parameters at every step."""
        return 0


class StageCallback(TrainerCallback):
    """Reads the losses now and then, reports progress and asks for checkpoints."""

    def __init__(self, watch: Watch, every: int | None, reading: int, progress: Progress | None) -> None:
        self.watch, self.every, self.reading, self.progress = watch, every, reading, progress
        self.steps_here = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After every step of the optimizer."""
        self.watch.step()
        self.steps_here += 1
        last = state.global_step >= state.max_steps
        if last or state.global_step % self.reading == 0:
            self.watch.read()
            if self.progress and state.is_world_process_zero:
                self.progress(state.global_step, state.max_steps, self.watch.losses[-1])
        if self.every is None and self.steps_here == _STEPS_TO_TIME:
            self.every = self._steps_between()
        control.should_save = bool(self.every) and state.global_step % self.every == 0 and not last

    def _steps_between(self) -> int:
        """Steps in about five minutes, as the first process measures it, so that all processes agree."""
        pace = torch.tensor([self.watch.session() / self.steps_here], dtype=torch.float64)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            pace = pace.to("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
            torch.distributed.broadcast(pace, src=0)
        return max(_STEPS_TO_TIME, round(_SECONDS_BETWEEN_CHECKPOINTS / pace.item()))


class TrackersCallback(TrainerCallback):
    """Notes where a stage's tracker runs are, so that its scores can follow its loss there."""

    def __init__(self, folder: Path, tensorboard: Path | None) -> None:
        self.folder, self.tensorboard = folder, tensorboard
        wandb = sys.modules.get("wandb")
        self.inside = wandb is not None and wandb.run is not None  # a run of the caller's, which goes on afterwards

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """When the trackers, which come before this callback, have opened their runs."""
        if state.is_world_process_zero:
            Tracked(open_runs(args.report_to, self.tensorboard), state.global_step).write(self.folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """When they have closed them; W&B's stays open, and would take the next stage's loss as well."""
        if state.is_world_process_zero:
            Tracked(Tracked.read(self.folder).places, state.global_step).write(self.folder)
            if "wandb" in args.report_to and not self.inside:
                sys.modules["wandb"].finish()
