"""What a number comes from: versions and hardware."""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

_PACKAGES = (
    "inscl", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy", "POT",
    "scikit-learn", "scipy", "sentence-transformers", "simplemma", "pylance", "rouge-score",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that bear on a result."""
    return {"python": platform.python_version(), **versions_of(_PACKAGES)}


@cache
def versions_of(packages: tuple[str, ...]) -> Mapping[str, str]:
    """Versions of those of some packages that are installed."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return MappingProxyType(found)


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
