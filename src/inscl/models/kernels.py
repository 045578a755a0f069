"""Which attention kernels run, and whether they keep rows apart that stand in one sequence.

cuDNN's kernel builds a plan for every new shape, and our batches have a new one each.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from inscl.models.loading import Weights

_SHORT = 256  # tokens


@contextmanager
def flexible_attention() -> Iterator[None]:
    """Leave cuDNN's attention out inside the block; flash and the other kernels take any shape at once."""
    import torch

    switches: Any = torch.backends.cuda
    before = switches.cudnn_sdp_enabled()
    switches.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        switches.enable_cudnn_sdp(before)


@contextmanager
def short_attention(longest: int, device: "torch.device", *, half: bool) -> Iterator[None]:
    """Compute attention over short rows in plain products where that is faster: on a CPU in half precision.

    Torch's flash kernel for CPUs takes 38 ms for a backward pass over 8 rows of 52 tokens in bfloat16, and 3 in
    float32; with plain products a whole step of SmolLM2-135M's top six layers takes a sixth less. They need memory for
    the square of the length, so long rows keep the kernel.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if device.type == "cpu" and half and longest <= _SHORT:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


def keeps_rows_apart(model: "Weights") -> bool:
    """Whether a row computes the same alone and behind another one, told apart by positions that restart at 0.

    Attention of transformers does; recurrent layers and models of other make may let rows leak into each other.
    """
    import torch

    device, training = next(model.parameters()).device, model.training
    ids = torch.arange(3, 18, device=device)[None]
    positions = torch.cat([torch.arange(8), torch.arange(7)])[None].to(device)
    model.eval()
    try:
        with torch.no_grad():
            together = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0].float()
            alone = [model(input_ids=part, use_cache=False).logits[0].float() for part in (ids[:, :8], ids[:, 8:])]
    except TypeError:  # it takes no positions
        return False
    finally:
        model.train(training)
    apart = torch.cat(alone)
    whole = next(model.parameters()).dtype == torch.float32 and not torch.is_autocast_enabled(device.type)
    tolerance = 1e-4 if whole else 0.03  # of the largest logit; half precision rounds
    return bool((together - apart).abs().max() <= tolerance * max(1.0, float(apart.abs().max())))
