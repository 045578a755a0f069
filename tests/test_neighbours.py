"""Pairs of neighbours, found in blocks and by bounds, against comparing all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inscl.tags import neighbours
from inscl.tags.neighbours import pairs_within


def all_pairs(vectors, radius, start=0):
    """Every pair in float64."""
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    i, j = np.nonzero(np.triu(cosines >= 1 - radius - 1e-9, 1))
    return {(a, b) for a, b in zip(i.tolist(), j.tolist(), strict=True) if b >= start}


def found(vectors, radius, start=0):
    listed = [
        pair for i, j in pairs_within(vectors, radius, start) for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    assert len(set(listed)) == len(listed)
    return set(listed)


def tags(rng, n, d, decay):
    """Unit rows in clusters, whose spread falls along the axes as that of real embeddings does."""
    scale = np.arange(1, d + 1) ** -decay
    rows = (rng.normal(size=(max(1, n // 3), d)) * scale)[rng.integers(max(1, n // 3), size=n)]
    rows += rng.choice([0.0, 0.1, 0.4], size=(n, 1)) * rng.normal(size=(n, d)) * scale
    rows = rows @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


SMALL = {"_TILE": 16, "_DIRECTIONS": 4, "_SAMPLE": 20, "_MANY": 100, "_FEW": 20}


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 70), st.sampled_from([3, 12]),
    st.sampled_from([0.0, 1.0, 3.0]), st.sampled_from([0.0, 0.01, 0.16, 0.5, 1.0, 2.0]),
)  # fmt: skip
def test_the_pairs_are_those_of_comparing_all(seed, n, d, decay, radius):
    rng = np.random.default_rng(seed)
    vectors = tags(rng, n, d, decay)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(neighbours, name, value)
        start = int(rng.integers(0, n + 1))
        assert found(vectors, radius, start) == all_pairs(vectors, radius, start)


def test_bounds_spare_most_full_comparisons(rng, monkeypatch):
    vectors = tags(rng, 4500, 96, 0.5)
    in_full, near = [], []
    monkeypatch.setattr(neighbours, "_in_full", counting(neighbours._in_full, in_full))
    monkeypatch.setattr(neighbours, "_near", counting(neighbours._near, near))
    assert found(vectors, 0.1) == all_pairs(vectors, 0.1)
    assert in_full == []
    assert sum(len(i) for _, i, _, _ in near) < 0.01 * 4500**2 / 2


def counting(inner, calls):
    def counted(*arguments):
        calls.append(arguments)
        return inner(*arguments)

    return counted
