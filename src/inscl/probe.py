"""Which precision trains faster here: a few steps in each, timed."""

import copy
import time
from dataclasses import dataclass
from typing import Any

from inscl.models import LoadedModel


@dataclass(frozen=True)
class DtypeProbe:
    """The faster precision, and seconds of a step in each.

    Attributes
    ----------
    dtype : str
        "float32" or "bfloat16", as for `inscl.train.train_stage`.
    seconds : dict of str to float
        Of one forward and backward pass, the faster of two after a warm-up.
    """

    dtype: str
    seconds: dict[str, float]


def choose_dtype(loaded: LoadedModel, *, adapters: bool, rows: int = 4, length: int = 64) -> DtypeProbe:
    """Time one pass of a small batch in float32 and in bfloat16 on this machine's processor.

    Processors differ: some have bfloat16 units, on others it is several times slower.

    Parameters
    ----------
    loaded : LoadedModel
        The model that will be trained; it is not changed.
    adapters : bool
        Whether adapters will be trained on frozen weights, and not the weights themselves.
    rows, length : int
        Shape of the batch.
    """
    seconds = {dtype: _seconds(loaded.model, dtype, adapters, rows, length) for dtype in ("float32", "bfloat16")}
    return DtypeProbe(min(seconds, key=seconds.__getitem__), seconds)


def _seconds(model: Any, dtype: str, adapters: bool, rows: int, length: int) -> float:
    import torch

    probed = copy.deepcopy(model).train()
    probed.zero_grad()
    if adapters:  # as in a stage: frozen weights in the dtype itself, gradients through the activations only
        probed = probed.to(getattr(torch, dtype)).requires_grad_(False)
    ids = torch.arange(rows * length).reshape(rows, length) % model.config.get_text_config().vocab_size
    times = []
    for _ in range(3):
        start = time.perf_counter()
        embedded = probed.get_input_embeddings()(ids).detach().requires_grad_(adapters)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = probed(inputs_embeds=embedded, use_cache=False, logits_to_keep=8).logits
        logits.float().logsumexp(-1).mean().backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])
