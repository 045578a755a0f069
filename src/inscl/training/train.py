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
from inscl.errors import DataError, InsclError
from inscl.models.loading import RECORD, LoadedModel, identity, load
from inscl.models.precision import choose_dtype
from inscl.training import checkpoints, tracking
from inscl.training.batches import TokenisedMixture, tokenise_mixture
from inscl.training.config import StageConfig
from inscl.training.fields import checked
from inscl.training.stage import Stage, StageRecord

_logger = logging.getLogger(__name__)

_WITHOUT_EFFECT = tracking.TRACKER_FIELDS | {"per_device_train_batch_size"}  # on the result


def train_stage(
    mixture: Path,
    model: str | Path | LoadedModel,
    out: Path,
    config: StageConfig = StageConfig(),
    *,
    seed: int = 0,
    keep_in: Path | None = None,
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
    config : StageConfig
        How to train.
    seed : int
        Of the order of rows, dropout and new adapters.
    keep_in : Path, optional
        Folder for what leaves the frozen layers (see `inscl.models.kept`), which stages may share; None: one in `out`
        that goes when the stage is finished.
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
    fields = checked(config.fields)
    config = config.model_copy(update={"dtype": choose_dtype(config.dtype)})
    fingerprint = _fingerprint(_settings(config, fields, seed), mixture, model)
    if record := _finished(out, fingerprint):
        if isinstance(model, LoadedModel):
            model.become(load(out, merge=not config.adapters.goes_on))
        return record
    with _mendable(out.name):
        loaded = model if isinstance(model, LoadedModel) else load_start(model, config)
        rows = tokenise_mixture(
            read_mixture(mixture),
            loaded.tokenizer,
            config.max_length,
            config.loss,
            vocabulary=loaded.vocabulary,
            positions=loaded.positions,
        )
        _say_what_was_cut(rows, config.max_length)
        config.adapters.prepare(loaded, seed, config.protect.freeze_bottom_layers)
        return Stage(
            loaded=loaded,
            rows=rows,
            out=out,
            config=config,
            keep_in=keep_in or out / checkpoints.FOLDER / "kept",
            fields=fields,
            seed=seed,
            checkpoint_every=checkpoint_every,
            progress=progress,
            fingerprint=fingerprint,
            tracks=tracks or out,
        ).run()


def load_start(model: str | Path, config: StageConfig) -> LoadedModel:
    """The model that a stage begins with, in the form in which it is trained; `config.dtype` is chosen.

    The weights under an adapter that is trained on are never changed, so half precision is enough for them.
    """
    return load(model, dtype=config.dtype if config.adapters.goes_on else "float32", merge=not config.adapters.goes_on)


def _settings(config: StageConfig, fields: Mapping[str, object], seed: int) -> dict[str, Any]:
    """All that bears on the weights, in the form that fingerprints have always been made from."""
    protect = config.protect
    return {
        "training": {name: value for name, value in fields.items() if name not in _WITHOUT_EFFECT},
        "peft": dict(config.peft) if config.peft else None,
        "batch_size": config.batch_size,
        "max_length": config.max_length,
        "seed": seed,
        "adapter": config.adapters.mode,
        "dtype": config.dtype,
        "freeze_bottom_layers": protect.freeze_bottom_layers,
        "protection": [protect.l2_start, protect.ema, protect.interpolate],
        "template": TEMPLATE_ID,
        **({"loss": config.loss} if config.loss != "token" else {}),
        **({"padding_free": True} if config.padding_free else {}),
        **({"kept": config.kept} if config.kept not in ("auto", "off", config.dtype) else {}),  # another precision
    }


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


def _fingerprint(settings: Mapping[str, object], mixture: Path, model: str | Path | LoadedModel) -> str:
    start = model.identity if isinstance(model, LoadedModel) else identity(model)
    try:
        content = sha256(mixture.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"The mixture {mixture} does not exist. Make it with `inscl mix`.") from error
    return sha256(json.dumps([start, content, settings], sort_keys=True, default=str).encode()).hexdigest()


def _say_what_was_cut(rows: TokenisedMixture, max_length: int) -> None:
    if rows.skipped:
        _logger.warning(
            "%d rows were left out: instruction and answer alone exceed %d tokens (%s)",
            sum(rows.skipped.values()),
            max_length,
            ", ".join(f"{task}: {n}" for task, n in rows.skipped.items()),
        )
    for remark, count in rows.remarks.items():
        _logger.warning("%d rows: %s", count, remark)
    if rows.truncated:
        _logger.info("%d rows lost the end of their input at %d tokens", sum(rows.truncated.values()), max_length)


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
