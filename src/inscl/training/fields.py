"""Which fields of TRL's `SFTConfig` inscl sets itself, why, and how the global batch is shared out."""

from collections.abc import Mapping
from typing import Any

from inscl.errors import ConfigError, require
from inscl.suggest import suggest

_TOKENS = "rows are already tokens with labels, so that the loss covers the answers and nothing else"
_ORDER = "the order of rows is drawn once for all devices, so that any number of them trains the same"
_RESUME = "a stage marks its own checkpoints and resumes from them; use `checkpoint_every`"
_DTYPE = "use `dtype`"
_PUSH = "a stage stays on this machine; push the finished folder yourself"
_EVALUATE = "a stage is evaluated by inscl after it, on every task"

OWNED: dict[str, str] = {
    "output_dir": "use `out`",
    "gradient_accumulation_steps": "it follows from `batch_size`, which is global",
    "auto_find_batch_size": "it would change the global batch; lower `per_device_train_batch_size`",
    "average_tokens_across_devices": "the loss is always normalised over the whole step",
    "seed": "use `seed`",
    "data_seed": "use `seed`",
    "logging_nan_inf_filter": "a loss that is not finite stops the stage",
    "disable_tqdm": "progress goes through `progress`",
    **dict.fromkeys(("bf16", "fp16", "model_init_kwargs"), _DTYPE),
    "max_length": "use `max_length`: only the input is cut",
    "truncation_mode": "only the input is cut",
    **dict.fromkeys(("packing", "packing_strategy", "eval_packing"), _ORDER),
    "padding_free": "use `padding_free` beside `training`",
    **dict.fromkeys(("shuffle_dataset", "train_sampling_strategy", "length_column_name"), _ORDER),
    **dict.fromkeys(("dataloader_drop_last", "accelerator_config", "ignore_data_skip"), _ORDER),
    **dict.fromkeys(("dataset_text_field", "dataset_kwargs", "dataset_num_proc"), _TOKENS),
    **dict.fromkeys(("completion_only_loss", "assistant_only_loss", "remove_unused_columns"), _TOKENS),
    **dict.fromkeys(("chat_template_path", "eos_token", "pad_token", "label_names"), _TOKENS),
    "trust_remote_code": "no code of a model is run",
    **dict.fromkeys(("save_strategy", "save_steps", "save_total_limit", "save_only_model"), _RESUME),
    **dict.fromkeys(("resume_from_checkpoint", "load_best_model_at_end", "enable_jit_checkpoint"), _RESUME),
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_token", "hub_strategy"), _PUSH),
    **dict.fromkeys(("eval_strategy", "eval_steps", "eval_on_start", "do_eval", "do_predict"), _EVALUATE),
}


def checked(training: Mapping[str, object]) -> dict[str, Any]:
    """The user's fields, where none is unknown or ours.

    Parameters
    ----------
    training : mapping
        Fields of `SFTConfig` with their values.

    Raises
    ------
    ConfigError
        That names every wrong field, each with its reason.
    InsclError
        If TRL is not installed.
    """
    problems = [f"`training.{name}` is set by inscl: {OWNED[name]}." for name in training if name in OWNED]
    problems += unknown(training).values()
    if problems:
        raise ConfigError(" ".join([*problems, "Remove it from `training`."]))
    return dict(training)


def unknown(training: Mapping[str, object]) -> dict[str, str]:
    """The fields that TRL's `SFTConfig` does not have, with a sentence for each.

    Raises
    ------
    InsclError
        If TRL is not installed.
    """
    known = set(require("trl", extra="train", purpose="Training").SFTConfig.__dataclass_fields__)
    return {
        name: f"`training.{name}` is not a field of SFTConfig.{suggest(name, known - OWNED.keys())}"
        for name in training
        if name not in OWNED and name not in known
    }


def shares(batch_size: int, processes: int, limit: int, *, strict: bool) -> tuple[int, int]:
    """Rows per device and accumulation that make up a global batch.

    Parameters
    ----------
    batch_size : int
        Rows of a step over all devices, at least 1.
    processes : int
        Number of devices.
    limit : int
        Most rows a device holds at once.
    strict : bool
        Whether `limit` is the user's and has to divide the share of a device.

    Raises
    ------
    ConfigError
        If the batch cannot be shared out evenly.

    Examples
    --------
    >>> shares(32, 2, limit=6, strict=False)
    (4, 4)
    """
    if batch_size < 1 or batch_size % processes:
        raise ConfigError(
            f"`batch_size` {batch_size} cannot be shared out evenly over {processes} processes; make it a multiple."
        )
    local = batch_size // processes
    if strict and (limit < 1 or (limit < local and local % limit)):
        raise ConfigError(
            f"`training.per_device_train_batch_size` {limit} does not divide the {local} rows of "
            "`batch_size` that "
            "each process takes; choose a divisor."
        )
    rows = max(n for n in range(1, min(limit, local) + 1) if local % n == 0)
    return rows, local // rows
