"""The one rule for the precision in which models are trained and answer, and weights that are ready to answer in it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from inscl.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from inscl.models.loading import LoadedModel, Weights


def choose_dtype(asked: str) -> str:
    """The precision to compute in: "auto" takes bfloat16 where the device has instructions for it.

    Processors without such instructions are many times slower in bfloat16, those with them up to twice as fast. The
    rule asks the device and no clock, so that the same machine always gives the same answer.

    Parameters
    ----------
    asked : {"auto", "float32", "bfloat16"}
    """
    return asked if asked != "auto" else "bfloat16" if _bfloat16_pays() else "float32"


def ready(loaded: "LoadedModel", dtype: str) -> "LoadedModel":
    """The model as it answers: merged, on the device, in `dtype`; weights that differ are copies."""
    import torch

    model = loaded.model
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    dtype = choose_dtype(dtype)
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"`dtype` must be auto, float32 or bfloat16, got {dtype!r}.")
    wanted = getattr(torch, dtype)
    if hasattr(model, "peft_config"):
        model = _merged(cast("PeftModel", model), lambda weights: weights.dtype == wanted and weights.device == device)
    elif any(parameter.dtype != wanted for parameter in model.parameters()):
        model = copy.deepcopy(model)
    cast("torch.nn.Module", model).to(device=device, dtype=wanted).eval()
    return replace(loaded, model=model)


def _merged(model: "PeftModel", fits: "Callable[[torch.Tensor], bool]") -> "Weights":
    """A copy with its adapters merged, which shares the weights that fit and the layers no adapter stands on."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    from inscl.models.parts import layers_of

    def adapted(model: "PeftModel") -> "list[torch.nn.Module]":
        kind: type = BaseTunerLayer  # not known as a module, which its adapters are
        return [part for part in model.modules() if isinstance(part, kind)]

    own = {id(p) for part in adapted(model) for p in part.parameters()}
    weights = [p for p in model.parameters() if fits(p) and id(p) not in own]
    shared = {id(p) for p in weights}
    layers = [layer for layer in layers_of(model) if all(id(p) in shared for p in layer.parameters())]
    copied = copy.deepcopy(model, {id(part): part for part in (*weights, *layers)})
    for part in adapted(copied):
        part.float()
    merged: Weights = copied.merge_and_unload()
    return merged


def _bfloat16_pays() -> bool:
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    can: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch do not tell
    return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
