"""Share a budget in proportion to weights: exact shares between bounds, rounded once."""

from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral

import numpy as np


def allocate(distances: Sequence[float], budget: int, capacities: Sequence[int] | None = None) -> list[int]:
    """Share `budget` examples between earlier tasks, more to the more distant ones.

    Task ``j`` is owed ``budget * d_j / sum(d)`` examples. Tasks owed more than they hold give all they hold,
    and what they leave is shared out again among the others by the same rule, until none is over. All of this
    is decided on exact rational shares. They are rounded once, at the end: each is floored, and the examples
    left over go to the largest fractional parts, ties to the earlier task.

    Parameters
    ----------
    distances : sequence of float, shape (n_tasks,)
        Distance of the new task from each earlier one, finite and non-negative.
    budget : int
        Total number of examples to replay, at least 0.
    capacities : sequence of int, shape (n_tasks,), optional
        How many examples each task holds. None: as many as are asked for.

    Returns
    -------
    list of int, shape (n_tasks,)
        Examples per task, in the same order. They sum to ``min(budget, sum(capacities))``. All-zero
        distances: equal shares. When every task with a positive distance is full, the others share the rest
        equally.

    Raises
    ------
    ValueError
        If a distance is negative or not finite, `budget` or a capacity is not a non-negative integer, or the
        numbers of distances and capacities differ.

    References
    ----------
    Wang et al. (2024), "InsCL", arXiv:2403.11435, section on dynamic replay. The caps and the rounding are
    ours.

    Examples
    --------
    >>> allocate([0.1, 0.3], budget=8)
    [2, 6]
    >>> allocate([0.1, 0.3], budget=8, capacities=[10, 4])
    [4, 4]
    >>> allocate([0.5, 0.5, 0.5], budget=4)
    [2, 1, 1]
    """
    _check_weights("distances", distances)
    return apportion(distances, budget, capacities=capacities)


def allocate_carried(
    distances: Sequence[float],
    budget: int,
    carried: Sequence[float],
    capacities: Sequence[int] | None = None,
) -> tuple[list[int], list[float]]:
    """As `allocate`, where each task is also owed what rounding kept from it at earlier stages.

    Task ``j`` is owed its exact share plus ``carried[j]``. The counts are the whole numbers within the capacities that
    lie nearest to what is owed (least sum of squares) and sum to the same as those of `allocate`; ties go to the
    earlier task. With budgets of one or two examples per task, `allocate` rounds every stage to the same counts; here
    small differences add up until they make an example.

    Parameters
    ----------
    distances, budget, capacities
        As in `allocate`.
    carried : sequence of float, shape (n_tasks,)
        The second value of the stage before; 0 for a task that was not there.

    Returns
    -------
    counts : list of int, shape (n_tasks,)
    carried : list of float, shape (n_tasks,)
        What each task is owed still, to 9 decimals; negative for one that got more.

    Raises
    ------
    ValueError
        As `allocate`, and if `carried` is not finite or of another length.

    References
    ----------
    Ours; the paper rounds every stage by itself.

    Examples
    --------
    >>> allocate_carried([0.5, 0.6], budget=2, carried=[0.0, 0.0])
    ([1, 1], [-0.090909091, 0.090909091])
    >>> allocate_carried([0.5, 0.6], budget=2, carried=[-0.5, 0.5])
    ([0, 2], [0.409090909, -0.409090909])
    """
    if len(carried) != len(distances) or not np.isfinite(carried).all():
        raise ValueError(f"`carried` must hold a finite number for each of {len(distances)} tasks, got {carried!r}.")
    shares = exact_shares(_check_weights("distances", distances), budget, capacities)
    owed = [share + Fraction(more) for share, more in zip(shares, carried, strict=True)]
    counts = _nearest_counts(owed, int(sum(shares)), capacities)
    return counts, [round(float(due - count), 9) for due, count in zip(owed, counts, strict=True)]


def exact_shares(weights: Sequence[float], budget: int, capacities: Sequence[int] | None = None) -> list[Fraction]:
    """The shares that `allocate` rounds: in proportion to the weights, none above its capacity.

    >>> exact_shares([1.0, 2.0], 4)
    [Fraction(4, 3), Fraction(8, 3)]
    """
    w, shares, free, left = _shared(weights, budget, capacities, 0)
    total = sum(w[i] for i in free)
    exact = [Fraction(share) for share in shares]
    for i in free:
        exact[i] = Fraction(left * w[i], total)
    return exact


def _nearest_counts(owed: Sequence[Fraction], total: int, capacities: Sequence[int] | None) -> list[int]:
    """Whole numbers that sum to `total` and lie nearest to what is owed: a step at a time, to whoever misses most."""
    upper = [total] * len(owed) if capacities is None else [int(most) for most in capacities]
    counts = [max(0, min(most, due.__floor__())) for due, most in zip(owed, upper, strict=True)]
    while (missing := total - sum(counts)) != 0:
        step = 1 if missing > 0 else -1
        movable = [i for i, most in enumerate(upper) if 0 <= counts[i] + step <= most]
        counts[max(movable, key=lambda i: step * (owed[i] - counts[i]))] += step
    return counts


def apportion(
    weights: Sequence[float], budget: int, *, capacities: Sequence[int] | None = None, minimum: int = 0
) -> list[int]:
    """Share `budget` in proportion to `weights`, every entry between a minimum and its capacity.

    The exact shares are ``s_i = clip(x * w_i, min(minimum, c_i), c_i)`` with the one ``x`` for which they sum
    to the budget. They are found on integers (every float is a multiple of a power of two), so no rounding
    decides who is full. Then they are rounded by largest remainder, ties to the earlier entry, which keeps
    the bounds.

    Parameters
    ----------
    weights : sequence of float, shape (n,)
        Finite and non-negative. Entries of weight 0 get their minimum, and equal parts of whatever the others
        cannot hold.
    budget : int
        What is shared out, at least the sum of the minimums.
    capacities : sequence of int, shape (n,), optional
        The most each entry can take. None: as much as is asked for.
    minimum : int
        The least each entry gets, or its capacity where that is smaller.

    Returns
    -------
    list of int, shape (n,)
        Integers that sum to ``min(budget, sum(capacities))``. No entry: [].

    Raises
    ------
    ValueError
        As for `allocate`, and if `budget` is less than the minimums together.

    Examples
    --------
    >>> apportion([1.0, 1.0, 98.0], 10, minimum=1)
    [1, 1, 8]
    """
    w, shares, free, left = _shared(weights, budget, capacities, minimum)
    _round_free(w, shares, free, left)
    return shares


def _shared(
    weights: Sequence[float], budget: int, capacities: Sequence[int] | None, minimum: int
) -> tuple[list[int], list[int], list[int], int]:
    """Whole weights, shares at their bounds, the entries strictly between, and what is left for these."""
    w = _as_integers(_check_weights("weights", weights))
    _check_count("budget", budget)
    _check_count("minimum", minimum)
    budget = int(budget)
    upper = [budget] * len(w) if capacities is None else _check_capacities(capacities, len(w))
    lower = [min(int(minimum), most) for most in upper]
    if budget < sum(lower):
        raise ValueError(
            f"`budget` is {budget}, less than the {sum(lower)} that a `minimum` of {minimum} asks for. "
            "Raise `budget` or lower `minimum`."
        )

    shares = list(lower)
    left = min(budget, sum(upper))
    weighted = [i for i, weight in enumerate(w) if weight]
    unweighted = [i for i, weight in enumerate(w) if not weight]
    at_most = sum(upper[i] for i in weighted)
    if at_most + sum(lower[i] for i in unweighted) <= left:  # every weighted entry is full
        for i in weighted:
            shares[i] = upper[i]
        for i in unweighted:
            w[i] = 1
        free, left = unweighted, left - at_most
    else:
        free, left = weighted, left - sum(lower[i] for i in unweighted)
    free, left = _fix_bounded(w, lower, upper, shares, free, left)
    return w, shares, free, left


def _fix_bounded(
    w: list[int], lower: list[int], upper: list[int], shares: list[int], free: list[int], left: int
) -> tuple[list[int], int]:
    """Set the shares that end at a bound; return the entries strictly free and what is left for them.

    Bitran and Hax (1981): share in proportion among the free entries. Where the sum above the upper bounds
    outweighs the sum missing below the lower ones, the final factor can only be larger, so the entries above
    are full; in the other case the entries below are at their minimum. Repeat with the rest.
    """
    while free:
        total = sum(w[i] for i in free)
        above = {i: left * w[i] - upper[i] * total for i in free if left * w[i] > upper[i] * total}
        below = {i: lower[i] * total - left * w[i] for i in free if left * w[i] < lower[i] * total}
        excess, missing = sum(above.values()), sum(below.values())
        fixed = {i: upper[i] for i in above} if excess >= missing else {}
        if missing >= excess:  # equal sums: this factor is the final one, and both sides are settled
            fixed |= {i: lower[i] for i in below}
        if not fixed:
            break
        for i, bound in fixed.items():
            shares[i] = bound
        left -= sum(fixed.values())
        free = [i for i in free if i not in fixed]
    return free, left


def _round_free(w: list[int], shares: list[int], free: list[int], left: int) -> None:
    """Round the exact shares ``left * w_i / sum(w)`` of the free entries by largest remainder."""
    total = sum(w[i] for i in free)
    remainders = {}
    for i in free:
        shares[i], remainders[i] = divmod(left * w[i], total)
    missing = left - sum(shares[i] for i in free)
    for i in sorted(free, key=lambda i: -remainders[i])[:missing]:  # stable: ties to the earlier entry
        shares[i] += 1


def _as_integers(weights: list[float]) -> list[int]:
    """The weights times the smallest power of two that makes them all whole."""
    ratios = [weight.as_integer_ratio() for weight in weights]
    scale = max((denominator for _, denominator in ratios), default=1)
    return [numerator * (scale // denominator) for numerator, denominator in ratios]


def _check_weights(name: str, weights: Sequence[float]) -> list[float]:
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"`{name}` must be a flat sequence of numbers, got an array of shape {values.shape}.")
    wrong = np.flatnonzero(~np.isfinite(values) | (values < 0))
    if wrong.size:
        raise ValueError(f"`{name}` must be finite and non-negative, got {values[wrong[0]]} at position {wrong[0]}.")
    result: list[float] = values.tolist()
    return result


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"`{name}` must be an integer of at least 0, got {value!r}.")


def _check_capacities(capacities: Sequence[int], wanted: int) -> list[int]:
    if len(capacities) != wanted:
        raise ValueError(f"`capacities` must have one entry for each weight: {wanted}, got {len(capacities)}.")
    for i, capacity in enumerate(capacities):
        _check_count(f"capacities[{i}]", capacity)
    return [int(capacity) for capacity in capacities]
