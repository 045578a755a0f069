"""A stage in the making: the trainer, its arguments and data, the record and the saved result."""

import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inscl.data.template import IGNORED
from inscl.errors import ConfigError
from inscl.files import write_json
from inscl.models.collator import Collator
from inscl.models.kernels import flexible_attention, keeps_rows_apart
from inscl.models.loading import RECORD, LoadedModel, load
from inscl.training import checkpoints, tracking
from inscl.training.batches import TokenisedMixture, TokenRow, order_of_steps
from inscl.training.checkpoints import Checkpoint
from inscl.training.config import StageConfig
from inscl.training.fields import shares

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig

    from inscl.models.kept import KeptStates
    from inscl.models.loading import Weights
    from inscl.training.trainer import StageTrainer
    from inscl.training.watch import Watch

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage did and what it cost.

    Attributes
    ----------
    steps : int
        Steps of the optimizer.
    losses : list of float, one per step
        Mean negative log-likelihood of a step's answer tokens, before the step.
    answer_tokens, tokens : int
        Tokens trained on: with a loss, and in all.
    seconds : float
        Of training, interrupted sessions included.
    peak_memory : int
        Bytes: of the device, on a CPU of the process.
    truncated, skipped : dict of str to int
        Per task, rows with a cut input and rows left out because instruction and answer alone were too long.
    replayed_share : float
        Share of replayed rows in the mixture.
    dtype, device : str
        What was computed in, and on.
    fingerprint : str
        Hash of the mixture, the settings and the start.
    base : str
        Name of the model that the adapters of the folder stand on; empty for a whole model.
    versions : dict of str to str
        Of the packages that bear on the result.
    """

    steps: int
    losses: list[float]
    answer_tokens: int
    tokens: int
    seconds: float
    peak_memory: int
    truncated: dict[str, int]
    skipped: dict[str, int]
    replayed_share: float
    dtype: str
    device: str
    fingerprint: str
    base: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything a stage needs once the model and the rows are in memory."""

    loaded: LoadedModel
    rows: TokenisedMixture
    out: Path
    config: StageConfig  # with `dtype` chosen
    fields: dict[str, Any]  # of the trainer
    seed: int
    keep_in: Path
    checkpoint_every: int | None
    progress: Callable[[int, int, float], None] | None
    fingerprint: str
    tracks: Path

    def run(self) -> StageRecord:
        """Train to the end and leave a finished folder."""
        from inscl.training.protect import freeze_bottom

        self.out.mkdir(parents=True, exist_ok=True)
        frozen = freeze_bottom(self.loaded.model, self.config.protect.freeze_bottom_layers)
        order = order_of_steps(
            [len(row.input_ids) for row in self.rows.rows],
            batch_size=self.config.batch_size,
            epochs=float(self.fields.get("num_train_epochs", 3.0)),
            max_steps=int(self.fields.get("max_steps", -1)),
            seed=self.seed,
            after=[row.after for row in self.rows.rows],
        )
        try:
            trainer, watch = self._train(order)
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
        self.loaded.identity = self.fingerprint
        record = self._record(order, watch)
        self._save(trainer, record)
        if trainer and _is_sharded(trainer):  # no process holds the whole model, and whoever uses it next is alone
            self.loaded.become(load(self.out, merge=not self.config.adapters.goes_on))
        return record

    def _train(self, order: list[list[int]]) -> "tuple[StageTrainer | None, Watch]":
        """The trainer that trained, None where the plain loop did, and what was watched."""
        from inscl.training.loop import PlainLoop
        from inscl.training.protect import Protection, StartCallback
        from inscl.training.watch import StageCallback, Watch

        args = self._arguments(len(order))
        with args.main_process_first():
            found = Checkpoint.newest(self.out, self.fingerprint)
        watch = Watch(stage=self.out.name, steps=len(order))
        protect = self.config.protect
        protection = Protection(protect.l2_start, protect.ema, protect.interpolate)
        start = (
            StartCallback(self.loaded.model, protection, merge=self.config.adapters.merge)
            if protection.active
            else None
        )
        every = 1 if args.device.type == "cpu" else int(args.logging_steps) or 10
        callbacks: list[TrainerCallback] = [StageCallback(watch, self.checkpoint_every, every, self.progress)]
        if start:
            callbacks.insert(0, start)
        if found:
            watch.losses, watch.seconds = found[1].losses, found[1].seconds
            if start:
                start.resume(found[0])
            _logger.info("%s: going on from step %d of %d", self.out.name, found[1].step, len(order))
        shared: dict[str, Any] = {
            "model": self.loaded.model,
            "args": args,
            "callbacks": callbacks,
            "watch": watch,
            "fingerprint": self.fingerprint,
            "save_more": start.save if start else None,
        }
        kept = self._kept_states(args)
        checkpoint = found[0] if found else None
        trainer = None
        if kept and PlainLoop.does(self.fields):
            self._loop(order, kept, checkpoint, shared)
        else:
            trainer = self._trainer(order, kept, checkpoint, shared)
        watch.seconds = watch.elapsed()
        if start:
            start.finish()
        return trainer, watch

    def _loop(
        self, order: list[list[int]], kept: "KeptStates", checkpoint: Path | None, shared: dict[str, Any]
    ) -> None:
        """Train with little around a step."""
        from inscl.training.loop import PlainLoop

        self._refuse_what_cannot_be(shared["args"])
        loop = PlainLoop(
            rows=self.rows.rows, order=order, collator=self._collator(shared["args"], kept), kept=kept, **shared
        )
        with flexible_attention():
            loop.train(checkpoint)

    def _trainer(
        self, order: list[list[int]], kept: "KeptStates | None", checkpoint: Path | None, shared: dict[str, Any]
    ) -> "StageTrainer":
        """Train with TRL."""
        from inscl.training.trainer import StageTrainer

        trainer = StageTrainer(
            train_dataset=self._dataset(order),
            processing_class=self.loaded.tokenizer,
            data_collator=self._collator(shared["args"], kept),
            kept=kept,
            folder=self.tracks,
            **shared,
        )
        self._refuse_what_cannot_be(shared["args"])
        if self.config.adapters.merge and _is_sharded(trainer):
            raise ConfigError("Adapters cannot be merged where weights are sharded; set `adapter` to continue or new.")
        try:
            reports = shared["args"].report_to
            talk = redirect_stdout(sys.stderr) if reports else nullcontext()  # what trackers say is no result
            with flexible_attention(), talk:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            _unpatch(self.loaded.model)
        return trainer

    def _collator(self, args: "SFTConfig", kept: "KeptStates | None") -> Collator:
        from inscl.training.soft import SoftTargets

        plain = Collator(
            self.loaded.tokenizer.pad_token_id,
            self._weighted,
            self.config.padding_free,
            kept,
            by_row=self.config.loss == "row",
        )
        if not any(row.soft for row in self.rows.rows):
            return plain
        self.loaded.to(args.device)
        return replace(
            plain, soft=SoftTargets(self.loaded.model, self.rows.rows, plain, half=self.config.dtype == "bfloat16")
        )

    def _kept_states(self, args: "SFTConfig") -> "KeptStates | None":
        """The rows' states above the frozen layers, unless something stands in the way."""
        from inscl.models.kept import Keeping
        from inscl.training.loss import is_plain

        model = self.loaded.model
        why_not = (
            "the loss is not the plain one" * (not is_plain(model, args))
            or "several processes train" * (args.world_size > 1)
            or "gradient checkpointing is on" * bool(args.gradient_checkpointing)
        )
        depth = self.config.protect.freeze_bottom_layers
        if not why_not and depth:
            self.loaded.to(args.device)
        keeping = Keeping(self.keep_in, depth, self.config.kept)
        kept = keeping.of(model, half=self.config.dtype == "bfloat16", why_not=why_not)
        rows = [*(row.input_ids for row in self.rows.rows), self._filler.input_ids]
        return kept if kept and kept.keep(rows) else None

    def _refuse_what_cannot_be(self, args: "SFTConfig") -> None:
        import torch

        from inscl.training.loss import is_plain

        plain = is_plain(self.loaded.model, args)
        if self._weighted and not plain:
            raise ConfigError(
                "Rows with weights, and `loss: row`, need the plain loss; leave out `training.loss_type` and the like."
            )
        if any(row.soft for row in self.rows.rows) and not plain:
            raise ConfigError(
                "A strategy with '+kl' needs the plain loss; leave out `training.loss_type` and the like."
            )
        if not self.config.padding_free:
            return
        if not plain:
            raise ConfigError("`padding_free` needs the plain loss; leave out `training.loss_type` and the like.")
        half = self.config.dtype == "bfloat16"
        with torch.autocast(args.device.type, torch.bfloat16, enabled=half), flexible_attention():
            apart = keeps_rows_apart(self.loaded.model)
        if not apart:
            kind = type(self.loaded.model).__name__
            raise ConfigError(f"`padding_free`: {kind} lets rows in one sequence see each other. Leave it out.")

    def _arguments(self, steps: int) -> "SFTConfig":
        import torch
        from trl.trainer.sft_config import SFTConfig

        accelerated = torch.accelerator.is_available() and not self.fields.get("use_cpu")
        small = sum(p.numel() for p in self.loaded.model.parameters()) < 1_000_000_000
        usual = 8 if not accelerated else 32 if small else 4
        rows, accumulation = shares(
            self.config.batch_size,
            int(os.environ.get("WORLD_SIZE", "1")),
            int(self.fields.get("per_device_train_batch_size", usual)),
            strict="per_device_train_batch_size" in self.fields,
        )
        usual_fields = {
            "use_cpu": not accelerated,
            "gradient_checkpointing": False,
            "ddp_find_unused_parameters": False,  # all trained weights take part in every step
            "report_to": "none",
            "project": tracking.PROJECT,
            "dataloader_pin_memory": accelerated,
        }
        ours = {
            "output_dir": str(self.out / checkpoints.FOLDER),
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": accumulation,
            "max_steps": steps,
            "seed": self.seed,
            "data_seed": self.seed,
            "bf16": self.config.dtype == "bfloat16",
            "max_length": None,
            "train_sampling_strategy": "sequential",
            "remove_unused_columns": False,
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "save_strategy": "no",
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            "run_name": "-".join(filter(None, [self.fields.get("run_name"), self.tracks.name])),
        }
        try:
            return SFTConfig(**{**usual_fields, **self.fields, **ours})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"`training`: {error}") from error

    @property
    def _weighted(self) -> bool:
        return self.config.loss == "row" or any(row.weight != 1.0 for row in self.rows.rows)

    @property
    def _filler(self) -> TokenRow:
        return TokenRow([self.loaded.tokenizer.pad_token_id], [IGNORED], 1.0)

    def _dataset(self, order: list[list[int]]) -> "Dataset":
        """All rows of all steps in order; a short batch is filled up with rows that carry no loss."""
        from datasets import Dataset

        rows = [*self.rows.rows, self._filler]
        table = Dataset.from_dict(
            {name: [getattr(row, name) for row in rows] for name in ("input_ids", "labels", "weight")}
        )
        missing = len(rows) - 1
        return table.select([i for step in order for i in (*step, *[missing] * (self.config.batch_size - len(step)))])

    def _record(self, order: list[list[int]], watch: "Watch") -> StageRecord:
        device = str(next(self.loaded.model.parameters()).device)
        rows = [self.rows.rows[i] for step in order for i in step]
        return StageRecord(
            steps=len(order),
            losses=watch.losses,
            answer_tokens=sum(row.answers for row in rows),
            tokens=sum(len(row.input_ids) for row in rows),
            seconds=watch.seconds,
            peak_memory=_peak_memory(device),
            truncated=self.rows.truncated,
            skipped=self.rows.skipped,
            replayed_share=self.rows.replayed_share,
            dtype=self.config.dtype,
            device=device,
            fingerprint=self.fingerprint,
            base=self.loaded.base if self.config.peft and not self.config.adapters.merge else "",
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "transformers", "trl", "peft", "accelerate")},
            },
        )

    def _save(self, trainer: "StageTrainer | None", record: StageRecord) -> None:
        """Write the result, then the record that makes it count, and only then drop the checkpoints."""
        several = trainer.accelerator if trainer and trainer.accelerator.num_processes > 1 else None
        whole = several.get_state_dict(trainer.model_wrapped) if several and trainer else None
        if trainer is None or trainer.is_world_process_zero():
            self.loaded.tokenizer.save_pretrained(self.out)
            self.config.adapters.save(self.loaded, self.out, whole)
            write_json(self.out / RECORD, asdict(record))
            shutil.rmtree(self.out / checkpoints.FOLDER, ignore_errors=True)
        if several:
            several.wait_for_everyone()


def _is_sharded(trainer: "StageTrainer") -> bool:
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def _unpatch(model: "Weights") -> None:
    """Take off what TRL and accelerate put around `forward`, so that the model can go into the next stage."""
    for part in {id(m): m for m in (model, getattr(model, "get_base_model", lambda: model)())}.values():
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            vars(part).pop(name, None)


def _peak_memory(device: str) -> int:
    import resource

    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
