"""How surprised a model is by plain text: whether training on tasks has cost it general ability.

The text comes with the package: short paragraphs of our own (facts, talk, letters, notices, code, arithmetic). It is
small, so its perplexity says nothing about a model by itself; it is meant for comparing a model with an earlier one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Self

from inscl.core.stats import ratio_estimate
from inscl.data.example import key_of

if TYPE_CHECKING:
    from inscl.models.loading import LoadedModel


@dataclass(frozen=True)
class Perplexity:
    """Log likelihood of the bundled text under one model.

    Attributes
    ----------
    text : str
        Hash of the text, so that different texts are never compared.
    nll : sequence of float, shape (n_paragraphs,)
        Negative log likelihood of each paragraph after its first token, in nats.
    tokens : sequence of int, shape (n_paragraphs,)
        How many tokens that are.
    """

    text: str
    nll: Sequence[float]
    tokens: Sequence[int]

    @classmethod
    def of(cls, model: "LoadedModel") -> Self:
        """That of a model which is ready to answer (see `inscl.models.precision.ready`).

        A paragraph is encoded as the tokenizer does by itself. Its first token has nothing before it and is not
        counted, as in transformers' own loss; nor is what the model has no positions for.
        """
        from inscl.evaluation.reading import read_answers
        from inscl.models.generate import batch_limits

        ids = [model.tokenizer(text)["input_ids"][: model.positions] for text in paragraphs()]
        pairs = [(row[:1], row[1:]) for row in ids]
        pad, batch = model.tokenizer.pad_token_id, batch_limits(model.model)
        found = read_answers(model.model, pairs, pad_id=pad, batch=batch)
        return cls(key_of(*paragraphs()).hex(), [row.nll for row in found], [row.tokens for row in found])

    @property
    def value(self) -> float:
        """``exp(Σ nll / Σ tokens)``, the perplexity of a token."""
        return math.exp(sum(self.nll) / sum(self.tokens))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of the perplexity for other paragraphs like these.

        >>> low, high = Perplexity("", [20.0, 22.0, 18.0], [10, 10, 10]).interval()
        >>> round(low, 2), round(math.exp(2), 2), round(high, 2)
        (4.5, 7.39, 12.14)
        """
        mean = ratio_estimate(self.nll, self.tokens)
        return math.exp(mean.low((1 - level) / 2)), math.exp(mean.high((1 - level) / 2))


@cache
def paragraphs() -> tuple[str, ...]:
    """The bundled text."""
    text = (files("inscl.evaluation") / "general.txt").read_text(encoding="utf-8")
    return tuple(" ".join(part.split()) for part in text.split("\n\n") if part.strip())
