"""Fixtures shared by all tests: tiny, made by hand, no network."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("POT_BACKEND_DISABLE_PYTORCH", "1")

settings.register_profile("untimed", deadline=None)  # the machine may be busy, and libraries load at their first use
settings.load_profile("untimed")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "natural-instructions"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def mixture(tmp_path) -> Path:
    """A file of rows of two tasks to train on."""
    import tiny  # it loads torch

    return tiny.mixture_file(tmp_path)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The 696 English tasks of Super-NaturalInstructions that lie beside the project."""
    if not (REAL_DATA / "categories.json").exists():
        pytest.skip("the real data (../shared/data/natural-instructions) are not here")
    return REAL_DATA
