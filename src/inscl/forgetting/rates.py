"""Which rows were once right and are not any more, and how many of them there are: counts, no judgement."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inscl.core.stats import ratio_estimate
from inscl.errors import ConfigError
from inscl.forgetting.facts import StreamFacts

EVER_RIGHT, DROP = 0.5, 0.3
_ROUNDING = 1e-9  # 0.7 - 0.4 is a little less than 0.3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a row counts as right, and when as forgotten.

    Attributes
    ----------
    ever_right : float
        The best earlier score from which on a row was once right.
    drop : float
        How far its score now lies below that best, at least.
    """

    ever_right: float = EVER_RIGHT
    drop: float = DROP

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value <= 1:
                raise ConfigError(f"`{name}` must lie above 0 and be at most 1, as scores do, got {value}.")


class RowHistory(NamedTuple):
    """A row that was once right.

    Attributes
    ----------
    row : int
        Its place in the task's test side.
    instruction : str
        Key of its instruction.
    best, score : float
        Its best score at an earlier stage, and its score now.
    best_stage : int
        The last stage with that best score.
    forgotten : bool
    """

    row: int
    instruction: str
    best: float
    best_stage: int
    score: float
    forgotten: bool


@dataclass(frozen=True)
class Share:
    """Part of a number of rows, with its 95 % interval; None without rows."""

    count: int
    of: int
    value: float | None
    low: float | None
    high: float | None


def histories(stream: StreamFacts, stage: int, task: str, limits: Limits) -> list[RowHistory]:
    """The rows of a task that an earlier stage of the stream answered right, seen from a stage.

    Every earlier stage that scored the row counts, also one before the task was learnt.

    Parameters
    ----------
    stream : StreamFacts
    stage : int
        From 2; the first is 1.
    task : str
        Scored at that stage.
    limits : Limits
    """
    now = stream.stages[stage - 1]
    clusters, score = now.instructions(task), np.asarray(now.scores(task), dtype=np.float64)
    earlier = np.full((stage - 1, score.size), -np.inf)  # (n_stages, n_rows)
    for before, scores in zip(stream.stages, earlier, strict=False):
        if task in before:
            known = before.scores(task)[: score.size]
            scores[: len(known)] = known
    best = earlier.max(axis=0)
    best_stage = stage - 1 - earlier[::-1].argmax(axis=0)
    forgotten = best - score >= limits.drop - _ROUNDING
    return [
        RowHistory(row, clusters[row], *values)
        for row, values in enumerate(zip(*(a.tolist() for a in (best, best_stage, score, forgotten)), strict=True))
        if values[0] >= limits.ever_right - _ROUNDING
    ]


def share(flags: Sequence[bool], clusters: Sequence[str]) -> Share:
    """How many of some rows are true, with a 95 % interval for other rows like these.

    The interval is at each end the wider one of two: Student's t with an error that counts instructions and not rows
    (`inscl.core.stats.ratio_estimate`), because rows of one instruction stand or fall together, and Wilson's, because
    12 of 12 do not prove 100 %. It covers other test rows, not other seeds or orders.

    Parameters
    ----------
    flags : sequence of bool, shape (n,)
    clusters : sequence of str, shape (n,)
        Key of each row's instruction.

    References
    ----------
    Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.

    Examples
    --------
    >>> share([True, False, False, False], ["a", "a", "b", "b"]).value
    0.25
    >>> round(share([True] * 12, ["a", "b"] * 6).low, 2)
    0.76
    """
    if not flags:
        return Share(0, 0, None, None, None)
    n, count = len(flags), sum(flags)
    low, high = _wilson(count, n)
    sums: Counter[str] = Counter()
    for flag, cluster in zip(flags, clusters, strict=True):
        sums[cluster] += flag
    sizes = Counter(clusters)
    if len(sums) > 1 and 0 < count < n:
        mean = ratio_estimate([sums[cluster] for cluster in sizes], list(sizes.values()))
        low, high = min(low, max(0.0, mean.low(0.025))), max(high, min(1.0, mean.high(0.025)))
    return Share(count, n, count / n, low, high)


def _wilson(count: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share."""
    z = 1.959963984540054
    centre = (count + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(count * (n - count) / n + z * z / 4)
    # Exactly 0 and 1 at the ends, where rounding would miss them.
    return (0.0 if count == 0 else centre - half), (1.0 if count == n else centre + half)
