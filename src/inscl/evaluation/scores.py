"""What a model scored on a task, row by row, and the file that holds it for all tasks of a stage."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any

import numpy as np
from pydantic import Strict, TypeAdapter

from inscl.core.scoring import SCORERS, exact_match
from inscl.core.stats import Estimate, mean_interval, score_interval
from inscl.data.example import Example, instruction_key, key_of, normalise
from inscl.evaluation.predictions import Prediction

_Score = Annotated[float, Strict()]  # no text that can be read as one


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
    keys : list of str, shape (n_rows,) or empty
        What was asked in each row and which answers are accepted, as two hashes joined by a dash: two models are
        compared on rows with equal keys. Empty where it is not known.
    """

    rows: Mapping[str, Sequence[_Score]]
    instructions: Sequence[str]
    capped: int = 0
    keys: Sequence[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.instructions)

    def mean(self, score: str, limit: int | None = None) -> float:
        """Mean of a score over the first `limit` rows."""
        return float(np.mean(self.rows[score][:limit]))

    def estimate(self, score: str, limit: int | None = None) -> Estimate:
        """Mean of a score with its interval, over the first `limit` rows."""
        values = self.rows[score][:limit]
        bounded = score != "loss" and all(0 <= value <= 1 for value in values)
        return (score_interval if bounded else mean_interval)(values, self.instructions[:limit])

    def are_of(self, answered: Sequence[Prediction]) -> bool:
        """Whether these answers are to the rows that were scored, as far as keys, or else instructions, tell."""
        if self.keys:
            return list(self.keys) == [row_key(row.instruction, row.input, row.references) for row in answered]
        return list(self.instructions) == instructions_of(answered)

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON holds."""
        return {**asdict(self), "n": self.n}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "RowScores":
        """What `to_dict` gave.

        Raises
        ------
        ValueError
            If it is something else.
        """
        found = _schema().validate_python(plain)
        if any(len(values) != found.n for values in found.rows.values()):
            raise ValueError("a score does not have a value for each row")
        return found

    @classmethod
    def of(cls, predictions: Sequence[Prediction], scorer: str) -> "RowScores":
        """Scores of a task's answers, by a scorer and by exact match; the loss too, where every row has one."""
        scores = {
            scorer: [SCORERS[scorer](row.prediction, row.references) for row in predictions],
            "exact_match": [exact_match(row.prediction, row.references) for row in predictions],
        }
        if all(row.loss is not None for row in predictions):
            scores["loss"] = [(row.loss or 0.0) / max(row.tokens, 1) for row in predictions]
        keys = [row_key(row.instruction, row.input, row.references) for row in predictions]
        return cls(scores, instructions_of(predictions), sum(row.capped for row in predictions), keys)


@cache
def _schema() -> TypeAdapter[RowScores]:
    return TypeAdapter(RowScores)


def row_key(instruction: str, input: str, references: Sequence[str]) -> str:
    """What was asked and which answers are accepted, each as 64 bits of a hash.

    >>> row_key("Add.", "1 1", ["2"]).split("-")[0] == row_key("Add.", "1 1", ["two"]).split("-")[0]
    True
    """
    return f"{key_of('asked', normalise(instruction), input).hex()[:16]}-{key_of('accepted', *references).hex()[:16]}"


def instructions_of(examples: Sequence[Example | Prediction]) -> list[str]:
    """Short keys of the rows' instructions."""
    return [instruction_key(example.instruction).hex()[:12] for example in examples]
