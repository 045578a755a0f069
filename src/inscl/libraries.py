"""What the libraries under us are told before they are loaded."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def prepare_libraries() -> None:
    """Before torch is loaded: no bars and advice running through ours, and threads that wait without spinning.

    OpenMP's threads spin while they wait for one another. Where anything else runs on the machine that costs most of
    the time: a training step's products took 7.6 s instead of 38 s on two shared cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


@contextmanager
def hub_hushed() -> Iterator[None]:
    """Leave out what the Hub's client says of each of its tries: where all fail, that is told once."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        client.setLevel(level)
