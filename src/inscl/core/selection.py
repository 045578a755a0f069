"""Which examples of one earlier task are replayed.

A task's training rows are numbered from 0, grouped by instruction in a canonical order (ascending content
key): with ``counts[i]`` rows, instruction ``i`` owns rows ``sum(counts[:i])`` to ``sum(counts[:i + 1]) - 1``.
Every selector returns ``min(budget, rows)`` distinct row numbers, ascending, as int64. Ties go to the
instruction that comes first, and so by content key. An instruction may have no rows.

Selectors that draw take a generator; equal arguments and generator state give equal rows. k-means runs on one
thread, so the number of cores does not change its result; another kind of processor may.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inscl.core.budget import apportion

_Rows = NDArray[np.int64]
_Floats = NDArray[np.float32]

_SILHOUETTE_SAMPLE = 2_000  # instructions on which the number of clusters is chosen
_MAX_CLUSTERS = 10


def random(counts: Sequence[int], budget: int, rng: np.random.Generator) -> _Rows:
    """Rows drawn uniformly, without regard to their instructions.

    >>> random([2, 3], budget=9, rng=np.random.default_rng(0))
    array([0, 1, 2, 3, 4])
    """
    total = int(_counts(counts).sum())
    return _sorted(rng.choice(total, _size(budget, total), replace=False))


def insinfo(
    counts: Sequence[int],
    scores: Sequence[float],
    budget: int,
    rng: np.random.Generator,
    times: ArrayLike | None = None,
) -> _Rows:
    """More rows from the instructions that say more, at least one from each while the budget lasts.

    The budget is shared in proportion to `scores` (InsInfo), capped by what an instruction has and at least
    one each (`inscl.core.budget.apportion`). A budget below the number of instructions gives one row to each of
    those with the highest scores. Rows are drawn at random within an instruction.

    Parameters
    ----------
    counts : sequence of int, shape (n,)
        Training rows per instruction.
    scores : sequence of float, shape (n,)
        InsInfo per instruction. All zero: equal shares.
    budget : int
        Rows wanted.
    rng : numpy.random.Generator
        Source of the draw.
    times : array_like of int, shape (n_rows,), optional
        How often each row was replayed before. Given, the score of an instruction is divided by one more than its
        rows were replayed together, and the rows least replayed are drawn first (ours).

    References
    ----------
    Wang et al. (2024), "InsCL", arXiv:2403.11435; the case of a small budget follows the authors' code.

    Examples
    --------
    >>> insinfo([1, 2, 2], scores=[0.5, 3.0, 1.0], budget=4, rng=np.random.default_rng(0)).size
    4
    """
    available = _counts(counts)
    if len(scores) != len(available):
        raise ValueError(f"`scores` must have one entry per instruction: {len(available)}, got {len(scores)}.")
    before = None if times is None else _times(times, available)
    if before is not None:
        scores = (np.asarray(scores, dtype=np.float64) / (1 + _per_instruction(before, available))).tolist()
    budget = _size(budget, int(available.sum()))
    present = np.flatnonzero(available)
    if budget >= len(present):
        quotas = np.array(apportion(scores, budget, capacities=available.tolist(), minimum=1), dtype=np.int64)
    else:
        quotas = np.zeros_like(available)
        ranked = np.argsort(-np.asarray(scores, dtype=np.float64)[present], kind="stable")
        quotas[present[ranked[:budget]]] = 1
    return _draw(available, quotas, rng, before)


def prototype_data(embeddings: ArrayLike, budget: int, seed: int) -> _Rows:
    """The rows nearest the centroids of a k-means clustering of all rows, one cluster per row of the budget.

    Parameters
    ----------
    embeddings : array_like, shape (n_rows, d)
        One per training row; normalised here.
    budget : int
        Rows wanted.
    seed : int
        Of the clustering.

    Returns
    -------
    array of int64
        Where two centroids share their nearest row, the later one takes the nearest that is still unused.

    Examples
    --------
    >>> prototype_data([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]], budget=2, seed=0).size
    2
    """
    points = _unit_rows("embeddings", embeddings)
    budget = _size(budget, len(points))
    if budget in (0, len(points)):
        return np.arange(budget, dtype=np.int64)
    return _sorted(_nearest(points, _kmeans(points, budget, seed, starts=1).cluster_centers_))


def prototype_instruction(counts: Sequence[int], embeddings: ArrayLike, budget: int, rng: np.random.Generator) -> _Rows:
    """Random rows of the instructions nearest the centroids of a k-means clustering of the instructions.

    The number of clusters, 2 to 10 and below the number of distinct instruction embeddings, is that with the
    highest silhouette, the smaller on ties, chosen on a random 2,000 where there are more; up to two distinct
    embeddings each are a cluster of their own. If these prototypes hold fewer rows than the budget, all are
    taken, and the other instructions follow, those nearest to any centroid first. Instructions without rows
    take no part.

    Parameters
    ----------
    counts : sequence of int, shape (n,)
        Training rows per instruction.
    embeddings : array_like, shape (n, d)
        One per instruction; normalised here.
    budget : int
        Rows wanted.
    rng : numpy.random.Generator
        Source of the draw.
    """
    available = _counts(counts)
    points = _one_per_instruction(embeddings, len(available))
    budget = _size(budget, int(available.sum()))
    if budget == 0:
        return np.empty(0, dtype=np.int64)
    present = np.flatnonzero(available)
    points = points[present]
    seed = int(rng.integers(2**31))
    centroids = _kmeans(points, _best_k(points, seed, rng), seed).cluster_centers_
    prototypes = _nearest(points, centroids)
    closeness = np.round((points @ centroids.T).max(axis=1), 6)
    closeness[prototypes] = np.inf
    ranked = present[np.argsort(-closeness, kind="stable")]

    first, others = ranked[: len(prototypes)], ranked[len(prototypes) :]
    pool = np.concatenate([_rows_of(available, i) for i in np.sort(first)])
    chosen = [rng.choice(pool, min(budget, len(pool)), replace=False)]
    left = budget - len(chosen[0])
    for i in others:
        if left == 0:
            break
        rows = _rows_of(available, i)
        chosen.append(rng.choice(rows, min(left, len(rows)), replace=False))
        left -= len(chosen[-1])
    return _sorted(np.concatenate(chosen))


def diverse_instruction(
    counts: Sequence[int],
    embeddings: ArrayLike,
    new_embeddings: ArrayLike,
    budget: int,
    rng: np.random.Generator,
    per_instruction: int | None = None,
) -> _Rows:
    """Random rows of the instructions least similar to the new task's, a few from each.

    Instructions are taken by ascending sum of cosines to those of the new task, at most `per_instruction`
    rows each. When all have been visited and the budget is not filled, another round with the same limit
    follows.

    Parameters
    ----------
    counts : sequence of int, shape (n,)
        Training rows per instruction.
    embeddings : array_like, shape (n, d)
        One per instruction of the earlier task; normalised here.
    new_embeddings : array_like, shape (m, d)
        One per instruction of the new task; normalised here.
    budget : int
        Rows wanted.
    rng : numpy.random.Generator
        Source of the draw.
    per_instruction : int, optional
        At least 1. None: a tenth of the budget, rounded down but at least 1, so that ten instructions or more
        appear where the task and the budget have as many.

    References
    ----------
    After the replay experiment of Yin et al. (2023), "Dynosaur", arXiv:2305.14327. The limit is our reading.
    """
    available = _counts(counts)
    points = _one_per_instruction(embeddings, len(available))
    new = _unit_rows("new_embeddings", new_embeddings)
    if len(new) == 0:
        raise ValueError("`new_embeddings` must hold at least one instruction of the new task, got none.")
    budget = _size(budget, int(available.sum()))
    limit = max(1, budget // 10) if per_instruction is None else per_instruction
    if limit < 1:
        raise ValueError(f"`per_instruction` must be at least 1, got {per_instruction}.")
    # The mean orders as the sum does. Six decimals: below that, float32 products depend on the machine.
    similarity = np.round(points @ new.mean(axis=0), 6)
    quotas = np.zeros_like(available)
    order = np.argsort(similarity, kind="stable")
    while (left := budget - int(quotas.sum())) > 0:
        room = np.minimum(available - quotas, limit)[order]
        before = np.cumsum(room) - room
        quotas[order] += np.clip(left - before, 0, room)
    return _draw(available, quotas, rng)


def _draw(available: _Rows, quotas: _Rows, rng: np.random.Generator, times: _Rows | None = None) -> _Rows:
    """`quotas[i]` random rows of each instruction, the least replayed first where `times` are given."""
    drawn = [np.empty(0, dtype=np.int64)]
    for i in np.flatnonzero(quotas).tolist():
        rows, size = _rows_of(available, i), int(quotas[i])
        if times is None:
            drawn.append(rng.choice(rows, size, replace=False))
        else:
            mixed = rng.permutation(rows)
            drawn.append(mixed[np.argsort(times[mixed], kind="stable")[:size]])
    return _sorted(np.concatenate(drawn))


def _times(times: ArrayLike, available: _Rows) -> _Rows:
    values = np.asarray(times, dtype=np.int64)
    if values.shape != (available.sum(),) or (values < 0).any():
        raise ValueError(f"`times` must hold a count of at least 0 for each of {available.sum()} rows.")
    return values


def _per_instruction(values: _Rows, available: _Rows) -> _Rows:
    """Sums of values of rows over each instruction."""
    ends = np.cumsum(available)
    sums: _Rows = np.diff(np.concatenate([[0], np.cumsum(values)])[np.concatenate([[0], ends])])
    return sums


def _rows_of(available: _Rows, i: int) -> _Rows:
    start = int(available[:i].sum())
    return np.arange(start, start + int(available[i]), dtype=np.int64)


def _nearest(points: _Floats, centroids: _Floats) -> list[int]:
    """For each centroid in turn the nearest unused point; on the unit sphere that is the largest product."""
    chosen: list[int] = []
    for centroid in centroids:
        similarity = np.round(points @ centroid, 6)  # equal points stay equal: the first one wins
        similarity[chosen] = -np.inf
        chosen.append(int(similarity.argmax()))
    return chosen


def _best_k(points: _Floats, seed: int, rng: np.random.Generator) -> int:
    """Number of clusters with the highest silhouette."""
    from sklearn.metrics import silhouette_score

    if len(points) > _SILHOUETTE_SAMPLE:
        points = points[np.sort(rng.choice(len(points), _SILHOUETTE_SAMPLE, replace=False))]
    distinct = len(np.unique(points, axis=0))
    if distinct <= 2:
        return distinct
    scores = {}
    for k in range(2, min(_MAX_CLUSTERS, distinct - 1) + 1):
        scores[k] = silhouette_score(points, _kmeans(points, k, seed).labels_)
    return max(scores, key=lambda k: round(float(scores[k]), 6))


def _kmeans(points: _Floats, k: int, seed: int, starts: int = 4) -> Any:
    """scikit-learn's KMeans, fitted on one thread: sums over several threads depend on their number."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        return KMeans(n_clusters=k, n_init=starts, random_state=seed).fit(points)


def _sorted(rows: ArrayLike) -> _Rows:
    return np.sort(np.asarray(rows, dtype=np.int64))


def _size(budget: int, available: int) -> int:
    """The budget, capped by what there is."""
    if isinstance(budget, bool) or not isinstance(budget, Integral) or budget < 0:
        raise ValueError(f"`budget` must be an integer of at least 0, got {budget!r}.")
    return min(int(budget), available)


def _counts(counts: Sequence[int]) -> _Rows:
    values = np.asarray(counts, dtype=np.int64)
    if values.ndim != 1 or (values < 0).any():
        raise ValueError(f"`counts` must be a flat sequence of integers of at least 0, got {counts!r}.")
    return values


def _one_per_instruction(embeddings: ArrayLike, n: int) -> _Floats:
    points = _unit_rows("embeddings", embeddings)
    if len(points) != n:
        raise ValueError(f"`embeddings` must have one row per instruction: {n}, got {len(points)}.")
    return points


def _unit_rows(name: str, embeddings: ArrayLike) -> _Floats:
    points = np.asarray(embeddings, dtype=np.float32)
    if points.ndim != 2:
        raise ValueError(f"`{name}` must be a matrix with one embedding per row, got shape {points.shape}.")
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        raise ValueError(f"`{name}` must be finite and without zero-norm rows. Check the encoder.")
    unit: _Floats = points / norms
    return unit
