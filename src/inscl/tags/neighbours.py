"""All pairs of tags that lie close to each other, found without comparing most pairs in full.

Along the few directions in which embeddings differ most, a cosine has a bound that is cheap and seldom wrong: what is
left of two vectors adds at most the product of its lengths (Cauchy and Schwarz). Only pairs whose bound reaches the
radius are computed in full, so the answer is that of comparing all.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_Rows = NDArray[np.float32]  # (n, d), of unit length
Pairs = tuple[NDArray[np.int32], NDArray[np.int32]]  # two columns: tag i and tag j are neighbours, i < j

_TILE = 1024  # tags on each side of a block of pairs: 4 MiB of cosines
_DIRECTIONS = 64
_SAMPLE = 2048  # tags that the directions come from
_MANY = 16 * _TILE**2  # pairs from which on directions are looked for
_FEW = _TILE**2 // 256  # pairs of a block that are computed one by one; where there are more, all at once
_PATIENCE = 4  # blocks, and a quarter of all, in which bounds may rule too few pairs out
_BAND = 1e-4  # wider than the rounding error of a float32 dot product of unit vectors


def pairs_within(vectors: _Rows, radius: float, start: int = 0) -> Iterator[Pairs]:
    """Pairs i < j with j >= `start` at cosine distance of at most `radius`, a block at a time.

    Pairs close to the radius are settled in float64 one by one, so that the answer never depends on the block.

    Parameters
    ----------
    vectors : array of float32, shape (n, d)
        _Rows of unit length.
    radius : float
    start : int
        Pairs of the rows before it are known already.
    """
    n, least = len(vectors), 1 - radius
    bounds = _sketch(vectors) if n * (n - start) > _MANY and vectors.shape[1] > _DIRECTIONS else None
    tried = spoiled = 0
    for low in range(start, n, _TILE):
        rows = slice(low, min(low + _TILE, n))
        for left in range(0, rows.stop, _TILE):
            columns = slice(left, min(left + _TILE, rows.stop))
            if bounds is not None and spoiled <= _PATIENCE + tried / 4:  # else they say too little
                found = np.flatnonzero(_cosines(bounds, rows, columns) >= least - _BAND)
                tried += 1
                if len(found) <= _FEW:
                    j, i = np.divmod(found, columns.stop - columns.start)
                    yield _near(vectors, i + left, j + low, least)
                    continue
                spoiled += 1
            yield _in_full(vectors, rows, columns, least)


def _sketch(vectors: _Rows) -> _Rows:
    """Each vector's coordinates along the directions of most difference, then the length of what is left of it."""
    sample = vectors[:: -(-len(vectors) // _SAMPLE)].astype(np.float64)
    directions = np.linalg.eigh(sample.T @ sample)[1][:, -_DIRECTIONS:].astype(np.float32)
    along = vectors @ directions
    rest = np.sqrt(np.maximum(1.0 - np.square(along, dtype=np.float64).sum(axis=1), 0.0))
    return np.column_stack([along, rest.astype(np.float32)])


def _in_full(vectors: _Rows, rows: slice, columns: slice, least: float) -> Pairs:
    """Neighbours in a block, from all its cosines."""
    cosines = _cosines(vectors, rows, columns)
    found = np.flatnonzero(cosines >= least - _BAND)
    j, i = np.divmod(found, columns.stop - columns.start)
    i, j = i + columns.start, j + rows.start
    sure = cosines[found] >= least + _BAND
    keep = sure & (i < j)
    near = _near(vectors, i[~sure], j[~sure], least)
    return np.concatenate([i[keep].astype(np.int32), near[0]]), np.concatenate([j[keep].astype(np.int32), near[1]])


def _near(vectors: _Rows, i: NDArray[np.int64], j: NDArray[np.int64], least: float) -> Pairs:
    """Those of some pairs that are neighbours, each computed in float64."""
    upper = i < j
    i, j = i[upper], j[upper]
    cosines = [
        (vectors[i[part]].astype(np.float64) * vectors[j[part]]).sum(axis=1)
        for part in (slice(at, at + _FEW) for at in range(0, len(i), _FEW))
    ]
    keep = np.concatenate([*cosines, np.zeros(0)]) >= least - 1e-9
    return i[keep].astype(np.int32), j[keep].astype(np.int32)


def _cosines(vectors: _Rows, rows: slice, columns: slice) -> _Rows:
    """Flat, which is searched several times faster than a matrix."""
    return (vectors[rows] @ vectors[columns].T).ravel()
