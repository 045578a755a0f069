"""A plain training loop, for steps so short that a trainer's own work would take as long as they do.

With a kept bottom a step of a small model takes a few tenths of a second on one core, and what TRL's trainer does
around it nearly as long again, and seconds a stage. This loop does what that trainer does with the settings in
`_FIELDS`, through the same optimizer, schedule, loss and callbacks, and nothing else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, get_scheduler, set_seed

from inscl.models.collator import Collator
from inscl.models.kept import KeptStates
from inscl.models.kernels import short_attention
from inscl.training.batches import TokenRow
from inscl.training.checkpoints import Checkpoint
from inscl.training.loss import answer_losses
from inscl.training.watch import Watch

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

    from inscl.models.loading import Weights

_FIELDS = frozenset({
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "weight_decay", "max_grad_norm",
    "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps",
    "warmup_ratio", "logging_steps", "use_cpu", "report_to", "dataloader_num_workers", "dataloader_pin_memory",
})  # fmt: skip
_STATE = "state.pt"


@dataclass(kw_only=True)
class PlainLoop:
    """The training of one stage.

    Attributes
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
    args : SFTConfig
    rows : sequence of TokenRow
    order : sequence of sequence of int
        Row numbers of every step.
    collator : Collator
    kept : KeptStates
        Of all rows.
    watch : Watch
    callbacks : sequence of TrainerCallback
    fingerprint : str
        Of the stage, for its checkpoints.
    save_more : callable, optional
        Adds to a checkpoint what a callback remembers.
    """

    model: "Weights"
    args: "SFTConfig"
    rows: Sequence[TokenRow]
    order: Sequence[Sequence[int]]
    collator: Collator
    kept: KeptStates
    watch: Watch
    callbacks: Sequence[TrainerCallback]
    fingerprint: str
    save_more: Callable[[Path], None] | None = None

    @staticmethod
    def does(fields: Mapping[str, object]) -> bool:
        """Whether the loop does all that a user's fields of `SFTConfig` ask for."""
        silent = fields.get("report_to") in (None, "none", [], ["none"])
        return silent and fields.keys() <= _FIELDS

    def train(self, checkpoint: Path | None = None) -> None:
        """Train to the end, from the start or from a complete checkpoint."""
        set_seed(self.args.seed)
        self.model.train()
        cast("torch.nn.Module", self.model).to(self.args.device)
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = self._optimizer()
        self.schedule = get_scheduler(
            self.args.lr_scheduler_type,
            optimizer=self.optimizer,
            num_warmup_steps=self.args.get_warmup_steps(len(self.order)),
            num_training_steps=len(self.order),
            scheduler_specific_kwargs=cast("dict[str, object] | None", self.args.lr_scheduler_kwargs),
        )
        state, control = TrainerState(max_steps=len(self.order)), TrainerControl()
        if checkpoint:
            state.global_step = self._load(checkpoint)
        self._tell("on_train_begin", state, control)
        longest = max(len(row.input_ids) for row in self.rows)
        with short_attention(longest, self.args.device, half=bool(self.args.bf16)):
            for step in self.order[state.global_step :]:
                self._step([self.rows[i] for i in step], state, control)
                if control.should_save:
                    self._save(state.global_step)

    def _step(self, rows: Sequence[TokenRow], state: TrainerState, control: TrainerControl) -> None:
        count = sum(min(row.answers, 1) if self.collator.by_row else row.answers for row in rows)
        for part in self._parts(rows):
            self._backward(part, count)
        if self.args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.trained.values(), self.args.max_grad_norm)
        self._tell("on_pre_optimizer_step", state, control)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        state.global_step += 1
        self._tell("on_step_end", state, control)

    def _parts(self, rows: Sequence[TokenRow]) -> Iterator[Sequence[TokenRow]]:
        """As many rows at a time as a device holds."""
        most = self.args.per_device_train_batch_size
        return (rows[i : i + most] for i in range(0, len(rows), most))

    def _backward(self, rows: Sequence[TokenRow], count: int) -> None:
        """Add the gradient of some rows' share of a step's loss."""
        batch = {name: part.to(self.args.device) for name, part in self.collator([vars(row) for row in rows]).items()}
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=bool(self.args.bf16)):
            each = answer_losses(self.model, batch, self.kept)
        loss = (each * batch.get("answer_weight", 1.0)).sum() / count
        loss.backward()
        self.watch.add(loss.detach())

    def _optimizer(self) -> torch.optim.Optimizer:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(self.args)
        nobody: Any = None  # the method reads nothing of a trainer
        decayed = set(Trainer.get_decay_parameter_names(nobody, self.model))
        groups = [
            {"params": [p for name, p in self.trained.items() if (name in decayed) == does], "weight_decay": decay}
            for does, decay in ((True, self.args.weight_decay), (False, 0.0))
        ]
        optimizer: torch.optim.Optimizer = kind([group for group in groups if group["params"]], **settings)
        return optimizer

    def _tell(self, event: str, state: TrainerState, control: TrainerControl) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self.args, state, control)

    def _save(self, step: int) -> None:
        self.watch.read()
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "weights": {name: weights.detach() for name, weights in self.trained.items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "chance": torch.get_rng_state(),
        }
        torch.save(content, folder / _STATE)
        if self.save_more:
            self.save_more(folder)
        Checkpoint(self.fingerprint, step, self.watch.elapsed(), self.watch.losses).complete(folder)

    def _load(self, folder: Path) -> int:
        """Go on from a checkpoint; the number of its steps."""
        content = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, weights in content["weights"].items():
                self.trained[name].copy_(weights)
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        torch.set_rng_state(content["chance"])
        return int(self.schedule.last_epoch)
