"""InsInfo: how much an instruction says, from how rare its intention tags are."""

import math
from collections import Counter
from collections.abc import Collection, Sequence


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
    pool_sets = _as_sets("pool", tags if pool is None else pool)
    scored = pool_sets if pool is None else _as_sets("tags", tags)
    frequency = Counter(tag for instruction in pool_sets for tag in instruction)
    unknown = {tag for instruction in scored for tag in instruction if tag not in frequency}
    if unknown:
        raise ValueError(
            f"{len(unknown)} tags are not in `pool`, the first {min(unknown)!r}. "
            "The pool must contain the instructions that are scored."
        )
    rarity = {tag: math.log(len(pool_sets) / count) for tag, count in frequency.items()}
    # fsum rounds once, so equal tags give equal scores in whatever order a set yields them.
    return [math.fsum(rarity[tag] for tag in instruction) for instruction in scored]


def _as_sets(name: str, collections: Sequence[Collection[str]]) -> list[set[str]]:
    for i, collection in enumerate(collections):
        if isinstance(collection, str):
            raise ValueError(f"`{name}[{i}]` must be a collection of tags, got the string {collection!r}.")
    return [set(collection) for collection in collections]
