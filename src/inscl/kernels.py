"""Which attention kernels run: cuDNN's builds a plan for every new shape, and our batches have a new one each."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
