"""What a model scored on a task, row by row, and the file that holds it for all tasks of a stage."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from inscl.example import Example, instruction_key
from inscl.runs.results import Cell, cell_of


@dataclass(frozen=True)
class RowScores:
    """Scores of the rows of one task's side, in the fixed order of the side.

    Attributes
    ----------
    rows : mapping from score name to list of float, each of shape (n_rows,)
        ``rouge_l`` (or another scorer), ``exact_match``, ``loss``.
    instructions : list of str, shape (n_rows,)
        Key of each row's instruction: rows that share one are not independent.
    capped : int
        Answers that were cut off at the most tokens an answer may have.
    """

    rows: Mapping[str, Sequence[float]]
    instructions: Sequence[str]
    capped: int = 0

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.instructions)

    def mean(self, score: str, limit: int | None = None) -> float:
        """Mean of a score over the first `limit` rows."""
        return float(np.mean(self.rows[score][:limit]))

    def cells(self, task: str, limit: int | None = None) -> dict[tuple[str, str], Cell]:
        """Every score of the task with its interval, over the first `limit` rows."""
        groups = self.instructions[:limit]
        return {(score, task): cell_of(values[:limit], groups) for score, values in self.rows.items()}

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON holds."""
        return {**asdict(self), "n": self.n}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "RowScores":
        """What `to_dict` gave."""
        return cls(plain["rows"], plain["instructions"], plain["capped"])


def instructions_of(examples: Sequence[Example]) -> list[str]:
    """Short keys of the rows' instructions."""
    return [instruction_key(example.instruction).hex()[:12] for example in examples]
