"""What a number comes from: versions, hardware and the precision that was computed in."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

PACKAGES = (
    "inscl", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy", "POT",
    "scikit-learn", "scipy", "sentence-transformers", "simplemma", "pylance", "rouge-score",
)  # fmt: skip
WORTH_IT = 1.2  # how much faster bfloat16 must be on a CPU before it is taken


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that bear on a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def hardware() -> dict[str, Any]:
    """Processor, memory, threads and accelerators."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_size(),
        "accelerators": gpus,
    }


def choose_dtype(asked: str) -> str:
    """The precision to compute in; "auto" takes bfloat16 where it is faster.

    On a GPU that means wherever it is supported; on a CPU a probe of some tenths of a second decides, since
    processors differ: with instructions of its own it is up to twice as fast, without them many times slower.
    """
    if asked != "auto":
        return asked
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if _seconds(torch.float32) > WORTH_IT * _seconds(torch.bfloat16) else "float32"


def _seconds(dtype: Any) -> float:
    """The fastest of some products of the size that small models have."""
    import torch

    a, b = torch.ones(256, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        begun = perf_counter()
        for _ in range(4):
            a @ b
        best = min(best, perf_counter() - begun)
    return best


def processor() -> str:
    """The processor's name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_size() -> int | None:
    """Bytes of memory of this machine, where the system tells."""
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
