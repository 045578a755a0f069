"""TRL's trainer with our loss, and checkpoints that are complete or not there.

Imported only where a stage is trained: it brings torch, transformers and TRL.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from trl.trainer.sft_trainer import SFTTrainer

from inscl.models.kept import KeptStates
from inscl.training.checkpoints import Checkpoint
from inscl.training.loss import answer_losses, is_plain
from inscl.training.tracking import TENSORBOARD, Tracked
from inscl.training.watch import Watch

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

    from inscl.models.loading import Weights


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
        kept: KeptStates | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)  # it prints to standard output
        if self.args.report_to:
            self.add_callback(_TrackersCallback(folder, self._tensorboard(folder)))
        self.watch, self.fingerprint, self.save_more, self._kept = watch, fingerprint, save_more, kept
        self.model_accepts_loss_kwargs = True  # our loss is normalised over the whole step
        self.plain_loss = is_plain(cast("Weights", self.model), cast("SFTConfig", self.args))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Negative log-likelihood of the answer tokens over the number of them, or of rows, in the whole step."""
        weight, _ = inputs.pop("answer_weight", None), inputs.pop("items", None)
        if not self.plain_loss:
            del inputs["answer_index"]
            theirs: Any = super().compute_loss
            loss = theirs(model, inputs, return_outputs, num_items_in_batch)
        else:
            each = answer_losses(cast("Weights", self.model), inputs, self._kept, wrapped=model)
            total = each.sum() if weight is None else (each * weight).sum()
            # Processes average their gradients, but the count is that of all of them together.
            loss = total / num_items_in_batch * self.accelerator.num_processes
        self.watch.add(loss.detach())
        return loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """What the loss of a step is the mean over: trained labels, or, where batches say otherwise, their items."""
        counted = [{"labels": batch["items"]} if "items" in batch else batch for batch in batch_samples]
        return super()._get_num_items_in_batch(counted, device)

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
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
            Checkpoint(self.fingerprint, self.state.global_step, watch.elapsed(), watch.losses).complete(folder)
        self.accelerator.wait_for_everyone()

    def _tensorboard(self, folder: Path) -> Path | None:
        """Where TensorBoard's files go: not among the checkpoints, which are deleted, and apart for each stage."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback):
                chosen = Path(callback.logging_dir, folder.name) if callback.logging_dir else folder / TENSORBOARD
                callback.logging_dir = str(chosen)
                return chosen
        return None

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """No card: the stage's record says what it is."""

    def floating_point_ops(self, inputs: object) -> int:
        """No estimate: it costs a walk over all parameters at every step."""
        return 0


class _TrackersCallback(TrainerCallback):
    """Notes where a stage's tracker runs are, so that its scores can follow its loss there."""

    def __init__(self, folder: Path, tensorboard: Path | None) -> None:
        self.folder, self.tensorboard = folder, tensorboard
        wandb = sys.modules.get("wandb")
        self.inside = wandb is not None and wandb.run is not None  # a run of the caller's, which goes on afterwards

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        """When the trackers, which come before this callback, have opened their runs."""
        if state.is_world_process_zero:
            Tracked.just_opened(args.report_to, self.tensorboard, state.global_step).write(self.folder)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        """When they have closed them; W&B's stays open, and would take the next stage's loss as well."""
        if state.is_world_process_zero:
            Tracked(Tracked.read(self.folder).places, state.global_step).write(self.folder)
            if "wandb" in (args.report_to or ()) and not self.inside:
                sys.modules["wandb"].finish()
