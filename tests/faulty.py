"""Calls in which a process dies, or the disk fills, at the n-th thing done to files under a folder (see faults.c)."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

COUNT, KILL, FULL = 1, 2, 3  # as in faults.c


def compiled(folder: Path) -> Path:
    """The library that makes calls fail, to be loaded before all others."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library, source = folder / "faults.so", Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def with_faults(how: int, at: int, answer: str, folder: str, call: Callable[[], object]) -> None:
    """Make a call with faults armed, and write down how often files were touched, or what was said."""
    faults = ctypes.CDLL(os.environ["LD_PRELOAD"])
    faults.arm(how, ctypes.c_long(at), folder.encode())
    said = ""
    try:
        call()
    except Exception as error:
        said = f"{type(error).__module__}.{type(error).__name__}: {error}"
    calls = faults.counted()
    faults.arm(0, ctypes.c_long(0), b"/")
    Path(answer).write_text(f"{calls}\n{said}", "utf-8")
