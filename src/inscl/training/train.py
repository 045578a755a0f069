"""One stage: train a model on a mixture through TRL's `SFTTrainer`, whatever interrupts it.

The folder of a stage is finished when its record stands in it; until then the newest complete checkpoint is
where the same call goes on. With the same settings an interrupted stage ends with the same bits as an
undisturbed one.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from errno import ENOSPC
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from inscl.data.mixture import read_mixture
from inscl.data.template import TEMPLATE_ID
from inscl.errors import ConfigError, DataError, InsclError, require
from inscl.models.loading import RECORD, LoadedModel, identity, load
from inscl.training import adapters, checkpoints, tracking
from inscl.training.adapters import Adapter
from inscl.training.batches import TokenisedMixture, tokenise_mixture
from inscl.training.fields import checked
from inscl.training.stage import Stage, StageRecord, become

logger = logging.getLogger(__name__)

WITHOUT_EFFECT = tracking.FIELDS | {"per_device_train_batch_size"}  # fields that change nothing of the result


def train_stage(
    mixture: Path,
    model: str | Path | LoadedModel,
    out: Path,
    *,
    training: Mapping[str, Any] | None = None,
    peft: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    max_length: int = 512,
    padding_free: bool = False,
    seed: int = 0,
    adapter: Adapter = "continue",
    dtype: str = "auto",
    freeze_bottom_layers: int = 0,
    l2_start: float = 0.0,
    ema: float = 0.0,
    interpolate: float = 0.0,
    checkpoint_every: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    tracks: Path | None = None,
) -> StageRecord:
    """Train one stage, or continue it, or return the record of a finished one.

    Parameters
    ----------
    mixture : Path
        File written by `inscl.data.mixture.write_mixture`.
    model : str, Path or LoadedModel
        Where the stage starts: a name as for `inscl.models.loading.resolve`, or a model in memory, which is trained
        in place and afterwards is the stage's result.
    out : Path
        Folder of the stage.
    training : mapping, optional
        Any field of TRL's `SFTConfig` except those in `OWNED`. `per_device_train_batch_size` limits the
        memory and changes nothing else.
    peft : mapping, optional
        ``{"type": "LoraConfig", "r": 16, ...}``, any PEFT configuration; None trains all weights.
    batch_size : int
        Rows of a step over all devices.
    max_length : int
        Most tokens of a row; longer ones lose the end of their input.
    padding_free : bool
        Compute the rows of a device's batch as one sequence without padding, where the model keeps them apart.
    seed : int
        Of the order of rows, dropout and new adapters.
    adapter : {"continue", "merge", "new"}
        Train the same adapter on, merge it into the weights after the stage, or put a new one on the earlier
        ones, which stay as they are. OSF always merges: it protects only what it decomposes anew.
    dtype : {"auto", "float32", "bfloat16"}
        Of the computation. All weights that are trained are float32. "auto" is bfloat16 on a GPU.
    freeze_bottom_layers : int
        Freeze the embeddings and this many of the lowest layers.
    l2_start, ema, interpolate : float
        Stay close to the stage's start, see `inscl.training.protect.Protection`; not with sharded weights.
    checkpoint_every : int, optional
        Steps between checkpoints; None is about every five minutes, 0 never.
    progress : callable, optional
        Called with (step, steps, loss).
    tracks : Path, optional
        Folder for what trackers leave (see `inscl.training.tracking`), and which names their runs; `out` by default.

    Raises
    ------
    ConfigError
        If a setting is wrong, or one that inscl owns; all such settings are named together.
    DataError
        If the mixture cannot be used.
    InsclError
        If the model cannot be loaded, the loss is not finite, memory or disk run out, or `out` holds another
        stage.
    """
    sft = require("trl", extra="train", purpose="Training")
    fields = checked(training or {}, set(sft.SFTConfig.__dataclass_fields__))
    mode = adapters.mode_of(peft, adapter) if peft else adapter
    settings = {
        "training": {name: value for name, value in fields.items() if name not in WITHOUT_EFFECT},
        "peft": dict(peft) if peft else None,
        "batch_size": batch_size,
        "max_length": max_length,
        "seed": seed,
        "adapter": mode,
        "dtype": _dtype(dtype),
        "freeze_bottom_layers": freeze_bottom_layers,
        "protection": [l2_start, ema, interpolate],
        "template": TEMPLATE_ID,
        **({"padding_free": True} if padding_free else {}),
    }
    fingerprint = _fingerprint(settings, mixture, model)
    if record := _finished(out, fingerprint):
        if isinstance(model, LoadedModel):
            become(model, load(out, merge=mode != "continue"))
        return record
    with _mendable(out.name):
        lean = peft is not None and mode == "continue" and _dtype(dtype) == "bfloat16"
        loaded = (
            model
            if isinstance(model, LoadedModel)
            else load(model, dtype="bfloat16" if lean else "float32", merge=peft is None or mode != "continue")
        )
        rows = tokenise_mixture(read_mixture(mixture), loaded.tokenizer, max_length)
        _say_what_was_cut(rows, max_length)
        adapters.prepare(loaded, peft, mode, seed)
        return Stage(
            loaded=loaded,
            rows=rows,
            out=out,
            fields=fields,
            batch_size=batch_size,
            padding_free=padding_free,
            seed=seed,
            dtype=_dtype(dtype),
            mode=mode if peft else None,
            freeze_bottom_layers=freeze_bottom_layers,
            protection=(l2_start, ema, interpolate),
            checkpoint_every=checkpoint_every,
            progress=progress,
            fingerprint=fingerprint,
            tracks=tracks or out,
        ).run()


def _finished(out: Path, fingerprint: str) -> StageRecord | None:
    """The record of a finished stage; what an interruption right after it left behind is removed."""
    try:
        record = StageRecord(**json.loads((out / RECORD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InsclError(f"{out / RECORD} is not the record of a stage. Remove the folder, or name another.") from error
    if record.fingerprint != fingerprint:
        raise InsclError(
            f"{out} holds a finished stage of another mixture, model or configuration. Remove it, or name "
            "another "
            "folder."
        )
    shutil.rmtree(out / checkpoints.FOLDER, ignore_errors=True)
    return record


def _fingerprint(settings: Mapping[str, Any], mixture: Path, model: str | Path | LoadedModel) -> str:
    start = model.identity if isinstance(model, LoadedModel) else identity(model)
    try:
        content = sha256(mixture.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"The mixture {mixture} does not exist. Make it with `inscl mix`.") from error
    return sha256(json.dumps([start, content, settings], sort_keys=True, default=str).encode()).hexdigest()


def _dtype(asked: str) -> str:
    import torch

    if asked not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"`dtype` must be auto, float32 or bfloat16, got {asked!r}.")
    if asked != "auto":
        return asked
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def _say_what_was_cut(rows: TokenisedMixture, max_length: int) -> None:
    if rows.skipped:
        logger.warning(
            "%d rows were left out: instruction and answer alone exceed %d tokens (%s)",
            sum(rows.skipped.values()),
            max_length,
            ", ".join(f"{task}: {n}" for task, n in rows.skipped.items()),
        )
    if rows.truncated:
        logger.info("%d rows lost the end of their input at %d tokens", sum(rows.truncated.values()), max_length)


@contextmanager
def _mendable(stage: str) -> Iterator[None]:
    """Say in one line that memory or disk ran out, and that nothing is lost."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError, SafetensorError) as error:
        text = str(error)
        if isinstance(error, InsclError):
            raise
        if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
            raise InsclError(
                f"Stage {stage!r}: out of memory. Lower `training.per_device_train_batch_size` (the "
                "result stays the "
                "same) or `max_length`, and run it again; it goes on from its last checkpoint."
            ) from error
        if getattr(error, "errno", None) == ENOSPC or "No space left" in text or "StreamWriter failed" in text:
            raise InsclError(
                f"Stage {stage!r}: the disk is full. Make room and run it again; it goes on from its last checkpoint."
            ) from error
        raise
