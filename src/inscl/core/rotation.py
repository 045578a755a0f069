"""Which rows of a task are replayed next if nothing is to return before all have been seen.

Rows are numbered and grouped by instruction as in `inscl.core.selection`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Rows = NDArray[np.int64]
_Embed = Callable[[_Rows], ArrayLike]  # from k numbers to k embeddings, (k, d)

_LOOKED_AT = 256  # instructions among equals, and among those seen: where there are more, these are drawn
_ROWS_LOOKED_AT = (
    32  # rows of an instruction, each of which is encoded; more where more than 8 are wanted, up to the above
)


def rotate(
    counts: Sequence[int],
    times: ArrayLike,
    embed_instructions: _Embed,
    embed_rows: _Embed,
    budget: int,
    rng: np.random.Generator,
) -> _Rows:
    """The least-replayed instructions first, then their least-replayed rows.

    Rows go one by one to the instruction whose rows were replayed least, this draw included, and within it to the row
    that was replayed least. Where the budget ends among equals, those are taken that, with what this round has seen
    already, stand best for all (`representatives`); instructions weigh as much as they have rows. So with ``b`` rows at
    every stage, each of ``n`` instructions has been replayed after ``ceil(n / b)`` stages, and none twice before.

    Parameters
    ----------
    counts : sequence of int, shape (n,)
        Training rows per instruction.
    times : array_like of int, shape (n_rows,)
        How often each row was replayed before.
    embed_instructions, embed_rows : callable
        From numbers of instructions, of rows, to their embeddings; asked only where the budget ends among equals.
    budget : int
        Rows wanted, at least 0.
    rng : numpy.random.Generator
        Decides between equal gains, and draws the equals that are looked at where there are many: `_LOOKED_AT`
        instructions, `_ROWS_LOOKED_AT` rows.

    Returns
    -------
    array of int64, shape (min(budget, n_rows),)
        Distinct row numbers, ascending.

    References
    ----------
    Ours. Facility location is that of Nemhauser, Wolsey and Fisher (1978), https://doi.org/10.1007/BF01588971.

    Examples
    --------
    >>> vectors = np.eye(4)
    >>> rotate([2, 2], [1, 1, 0, 1], vectors.take, lambda rows: vectors[rows], 1, np.random.default_rng(0))
    array([2])
    """
    available = np.asarray(counts, dtype=np.int64)
    before = np.asarray(times, dtype=np.int64)
    if before.shape != (available.sum(),) or (before < 0).any():
        raise ValueError(f"`times` must hold a number of at least 0 for each of the {available.sum()} rows.")
    ends = np.cumsum(available)
    starts = ends - available
    together = np.array([before[a:b].sum() for a, b in zip(starts, ends, strict=True)], dtype=np.int64)
    weights = available.astype(np.float64)
    quotas = _least_first(together, available, min(budget, len(before)), embed_instructions, weights, rng)
    chosen = [np.empty(0, dtype=np.int64)]
    for i in np.flatnonzero(quotas):
        rows = np.arange(starts[i], ends[i])
        chosen.append(_rows_of_one(rows, before[rows], int(quotas[i]), embed_rows, rng))
    return np.concatenate(chosen)


def representatives(points: ArrayLike, candidates: int, size: int, weights: ArrayLike | None = None) -> list[int]:
    """The candidates that, together with what is there already, stand best for all points: greedy facility location.

    Each step takes the candidate that adds most to the sum over all points of a point's weight times its highest
    similarity, (1 + cos) / 2, to one taken or there already. Gains are compared to 6 decimals of the largest sum there
    can be, so that another machine's last bits do not count; among equals the first is taken.

    Parameters
    ----------
    points : array_like, shape (n, d)
        Not of zero norm. The first `candidates` may be taken, the others are there already.
    candidates, size : int
        ``size <= candidates <= n``.
    weights : array_like, shape (n,), optional
        At least 0; None: 1 each.

    Returns
    -------
    list of int, shape (size,)
        Numbers of points, in the order in which they were taken.

    Examples
    --------
    >>> representatives([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], candidates=3, size=1)  # a tie
    [0]
    >>> representatives([[1.0, 0.0], [0.0, 1.0], [0.1, 0.9]], candidates=2, size=1)  # the third is there already
    [0]
    """
    vectors = np.asarray(points, dtype=np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = (1 + unit @ unit.T) / 2  # (n, n)
    weighed = np.ones(len(unit)) if weights is None else np.asarray(weights, dtype=np.float64)
    highest = similarity[:, candidates:].max(axis=1, initial=0.0)
    taken: list[int] = []
    for _ in range(size):
        gains = weighed @ np.maximum(similarity[:, :candidates] - highest[:, None], 0) / weighed.sum()
        gains[taken] = -1
        taken.append(int(np.round(gains, 6).argmax()))
        highest = np.maximum(highest, similarity[:, taken[-1]])
    return taken


def _rows_of_one(rows: _Rows, times: _Rows, size: int, embed: _Embed, rng: np.random.Generator) -> _Rows:
    """The rows of one instruction that were replayed least."""
    once = np.ones_like(rows)
    most = min(_LOOKED_AT, max(_ROWS_LOOKED_AT, 4 * size))
    taken = _least_first(times, once, size, lambda picked: embed(rows[picked]), np.ones(len(rows)), rng, most)
    return rows[taken > 0]


def _least_first(
    times: _Rows,
    capacities: _Rows,
    budget: int,
    embed: _Embed,
    weights: NDArray[np.float64],
    rng: np.random.Generator,
    most: int = _LOOKED_AT,
) -> _Rows:
    """What each entry gets if one after another goes to the entry with the least so far that has room."""
    quotas, equals = _lift(times, capacities, budget)
    left = budget - int(quotas.sum())
    if left:
        level = times[equals[0]] + quotas[equals[0]]
        ahead = (quotas > 0) | (times > level)
        seen = np.setdiff1d(np.flatnonzero(ahead), equals)
        quotas[_among(equals, seen, left, embed, weights, rng, most)] += 1
    return quotas


def _lift(times: _Rows, capacities: _Rows, budget: int) -> tuple[_Rows, _Rows]:
    """What lifts all to the highest common level that the budget reaches, and who could go one higher."""
    low, high = int(times.min(initial=0)), int((times + capacities).max(initial=0)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = np.clip(middle - times, 0, capacities).sum() <= budget
        low, high = (middle, high) if fits else (low, middle)
    quotas = np.clip(low - times, 0, capacities)
    return quotas, np.flatnonzero((times + quotas == low) & (quotas < capacities))


def _among(
    equals: _Rows,
    seen: _Rows,
    size: int,
    embed: _Embed,
    weights: NDArray[np.float64],
    rng: np.random.Generator,
    most: int,
) -> _Rows:
    """Some of the equals, those that stand best for all first; beyond the most that are looked at by chance."""
    if size == len(equals):
        return equals
    mixed = rng.permutation(equals)
    known = rng.permutation(seen)[:most]
    shown = np.concatenate([mixed[:most], known])
    candidates = len(shown) - len(known)
    best = representatives(embed(shown), candidates, min(size, candidates), weights[shown])
    return np.concatenate([mixed[best], mixed[candidates:][: size - len(best)]])
