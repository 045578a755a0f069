"""InsInfo: how much an instruction says, from how rare its intention tags are (the paper's), and two other ways.

`insinfo` is the paper's and the default. `mean_insinfo` does not grow with the number of tags; `density_insinfo`
needs none. docs/tags.md says what each prefers on real instructions.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike

_NEIGHBOURS = 5
_BLOCK = 1 << 20  # distances computed at a time: 8 MiB


def insinfo(tags: Sequence[Collection[str]], pool: Sequence[Collection[str]] | None = None) -> list[float]:
    """Sum of the tags' rarities for each instruction: ``sum over t of ln(N / f_t)``.

    ``N`` is the number of instructions in the pool and ``f_t`` the number of them that carry tag ``t``. A tag
    counts once per instruction, so ``f_t`` never exceeds ``N`` and no value is negative. Neither the order of
    the tags nor that of the pool changes a bit of the result.

    Parameters
    ----------
    tags : sequence of collections of str
        The tags of each instruction to score.
    pool : sequence of collections of str, optional
        The tags of every instruction seen so far, those to score included. None: `tags` itself.

    Returns
    -------
    list of float, shape (len(tags),)
        0 for an instruction without tags.

    Raises
    ------
    ValueError
        If an instruction's tags are one string, or a tag is not in the pool.

    References
    ----------
    Wang et al. (2024), "InsCL", arXiv:2403.11435, section on InsInfo.

    Examples
    --------
    >>> [round(score, 4) for score in insinfo([["news", "rewrite"], ["news"], []])]
    [1.5041, 0.4055, 0.0]
    """
    scored, rarity, _ = _rarities(tags, pool)
    # fsum rounds once, so equal tags give equal scores in whatever order a set yields them.
    return [math.fsum(rarity[tag] for tag in instruction) for instruction in scored]


def mean_insinfo(tags: Sequence[Collection[str]], pool: Sequence[Collection[str]] | None = None) -> list[float]:
    """Rarity per tag, shrunk: ``(a + sum over t of r_t) / (1 + n)``, with ``r_t = ln(N / f_t)`` and ``n`` tags.

    ``a`` is the average of ``r_t`` over all tags of all instructions of the pool. The paper's sum is n times the
    mean rarity, so whatever writes more tags (a longer text, an eager tagger) wins. The plain mean has the opposite
    fault: one tag that nobody else carries, a slip of the tagger as often as not, leads the ranking. Counting one
    further tag of average rarity tempers the mean of a few tags and hardly moves that of many.

    Parameters
    ----------
    tags, pool
        As in `insinfo`.

    Returns
    -------
    list of float, shape (len(tags),)
        Between 0 and ln N. An instruction without tags has the average ``a``: of it nothing is known. All are 0
        where the pool has no tag, or where every tag is on every instruction.

    Raises
    ------
    ValueError
        As in `insinfo`.

    References
    ----------
    The average as a further observation is additive smoothing; Efron and Morris (1977), "Stein's paradox in
    statistics", say why shrunk means are closer to the truth.

    Examples
    --------
    >>> tags = [["news", "rewrite"], ["news"], []]  # rarities 0.4055, 1.0986, 0.4055: on average 0.6365
    >>> [round(score, 4) for score in mean_insinfo(tags)]
    [0.7135, 0.521, 0.6365]
    """
    scored, rarity, frequency = _rarities(tags, pool)
    total = math.fsum(count * rarity[tag] for tag, count in frequency.items())
    average = total / max(1, frequency.total())
    return [
        math.fsum([average, *(rarity[tag] for tag in instruction)]) / (1 + len(instruction)) for instruction in scored
    ]


def density_insinfo(embeddings: ArrayLike, neighbours: int = _NEIGHBOURS) -> list[float]:
    """How alone each instruction stands: mean of ``1 - cos`` to its `neighbours` nearest others, without tags.

    Where the pool is dense, many instructions say nearly the same and any of them stands for the rest; where it is
    sparse, an instruction says what no other does. Distance to near neighbours estimates density (large is sparse)
    and, unlike a kernel, has no bandwidth that must be calibrated to the encoder.

    float16 embeddings of about unit norm have products and sums that are exact in float64, so their scores are the
    same bits on every machine. Time grows with n² × d; a few rows of distances are in memory at a time.

    Parameters
    ----------
    embeddings : array_like, shape (n, d)
        One per distinct instruction of the pool, in any floating type; they need not be normalised.
    neighbours : int
        At least 1; all others where there are fewer.

    Returns
    -------
    list of float, shape (n,)
        Between 0 and 2. An instruction that has as many copies as `neighbours`, or is alone, has 0.

    Raises
    ------
    ValueError
        If `embeddings` is no matrix, a row holds NaN or infinity or is all zero, or `neighbours` is below 1.

    References
    ----------
    Loftsgaarden and Quesenberry (1965), "A nonparametric estimate of a multivariate density function"; the mean over
    the nearest instead of the distance to the last of them: Angiulli and Pizzuti (2002), "Fast outlier detection in
    high dimensional spaces".

    Examples
    --------
    >>> density_insinfo([[1, 0], [2, 0], [0, 1]], neighbours=1)
    [0.0, 0.0, 1.0]
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"`embeddings` must be a matrix with one row per instruction, got shape {rows.shape}.")
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise ValueError("`embeddings` must be finite and without zero-norm rows. Check the encoder.")
    if neighbours < 1:
        raise ValueError(f"`neighbours` must be at least 1, got {neighbours}.")
    n, k = len(rows), min(neighbours, len(rows) - 1)
    if k < 1:
        return [0.0] * n
    scores: list[float] = []
    step = max(1, _BLOCK // n)
    for low in range(0, n, step):
        block = np.arange(low, min(low + step, n))
        cosine = rows[block] @ rows.T  # (len(block), n)
        # Norms divide last: until then all is exact for float16 rows.
        cosine /= norms[block, None]
        cosine /= norms
        distance = np.clip(1 - cosine, 0, 2)
        distance[block - low, block] = np.inf  # an instruction is not its own neighbour
        nearest = np.partition(distance, k - 1, axis=1)[:, :k]
        scores += [math.fsum(row) / k for row in nearest.tolist()]
    return scores


def _rarities(
    tags: Sequence[Collection[str]], pool: Sequence[Collection[str]] | None
) -> tuple[list[set[str]], dict[str, float], Counter[str]]:
    """The sets to score, the rarity ``ln(N / f_t)`` of each tag of the pool, and ``f_t``."""
    pool_sets = _as_sets("pool", tags if pool is None else pool)
    scored = pool_sets if pool is None else _as_sets("tags", tags)
    frequency = Counter(tag for instruction in pool_sets for tag in instruction)
    unknown = {tag for instruction in scored for tag in instruction if tag not in frequency}
    if unknown:
        raise ValueError(
            f"{len(unknown)} tags are not in `pool`, the first {min(unknown)!r}. "
            "The pool must contain the instructions that are scored."
        )
    return scored, {tag: math.log(len(pool_sets) / count) for tag, count in frequency.items()}, frequency


def _as_sets(name: str, collections: Sequence[Collection[str]]) -> list[set[str]]:
    for i, collection in enumerate(collections):
        if isinstance(collection, str):
            raise ValueError(f"`{name}[{i}]` must be a collection of tags, got the string {collection!r}.")
    return [set(collection) for collection in collections]
