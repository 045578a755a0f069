"""Which rows were once right and are not any more: counts, no judgement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inscl.errors import ConfigError

_ROUNDING = 1e-9  # 0.7 - 0.4 is a little less than 0.3


class RowHistory(NamedTuple):
    """A test row that was scored at an earlier stage too.

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
    right : bool
        Whether it was once right.
    forgotten : bool
        Whether it was, and is not any more.
    """

    row: int
    instruction: str
    best: float
    best_stage: int
    score: float
    right: bool
    forgotten: bool


@dataclass(frozen=True, kw_only=True)
class ForgettingRule:
    """When a row counts as right, and when as forgotten.

    Attributes
    ----------
    ever_right, drop : float
        The best earlier score from which on a row was once right, and how far its score now lies below it, at least.
    """

    ever_right: float = 0.5
    drop: float = 0.3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value <= 1:
                raise ConfigError(f"`{name}` must lie above 0 and be at most 1, as scores do, got {value}.")

    def histories(self, stages: Sequence[Sequence[float] | None], instructions: Sequence[str]) -> list[RowHistory]:
        """What became of each row, from its scores at every stage up to now; rows never scored before are left out.

        Parameters
        ----------
        stages : sequence of (sequence of float, shape (at most n_rows,), or None)
            The last one is now and has all rows; None: the task was not scored at that stage.
        instructions : sequence of str, shape (n_rows,)

        Examples
        --------
        >>> [(row.row, row.best, row.right, row.forgotten)
        ...  for row in ForgettingRule().histories([[1, 0.4], [0, 0]], "ab")]
        [(0, 1.0, True, True), (1, 0.4, False, False)]
        """
        score = np.asarray(stages[-1], dtype=np.float64)
        earlier = np.full((len(stages) - 1, score.size), -np.inf)  # (n_stages, n_rows)
        for known, scores in zip(stages, earlier, strict=False):
            if known is not None:
                scores[: len(known)] = known[: score.size]
        best = earlier.max(axis=0)
        best_stage = len(stages) - 1 - earlier[::-1].argmax(axis=0)
        right = best >= self.ever_right - _ROUNDING
        forgotten = right & (best - score >= self.drop - _ROUNDING)
        columns = (a.tolist() for a in (best, best_stage, score, right, forgotten))
        found = (RowHistory(row, instructions[row], *values) for row, values in enumerate(zip(*columns, strict=True)))
        return [row for row in found if row.best > -np.inf]
