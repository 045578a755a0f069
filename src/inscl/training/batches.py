"""What a stage trains on, in order: rows as tokens, and the order of all steps.

The order of a whole stage is drawn here and not by the trainer, so that it is the same for any number of
devices, any accumulation and any interruption. Within one global batch rows go by length: the same rows meet
the same weights, but the smaller batches they are computed in hold little padding.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from inscl.data.mixture import MixtureRow, in_time
from inscl.data.row_check import check_rows
from inscl.data.template import IGNORED, check_fits, row_named, tokenise
from inscl.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_Loss = Literal["token", "row"]  # what a step's loss is the mean over


@dataclass(frozen=True)
class TokenRow:
    """One training row as tokens; `weight` is that of each of its answer tokens (see `_Loss`)."""

    input_ids: list[int]
    labels: list[int]
    weight: float
    after: float = 0.0  # share of the training that is over when it is first seen
    soft: float = 0.0  # share of its target that is the distribution of the stage's start

    @property
    def answers(self) -> int:
        """Number of trained tokens; nothing stands before the first to predict it from."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class TokenisedMixture:
    """All rows that fit; per task how many were cut and how many left out, and to how many each remark applies."""

    rows: list[TokenRow]
    truncated: dict[str, int]
    skipped: dict[str, int]
    replayed_share: float
    remarks: dict[str, int] = field(default_factory=dict)


def tokenise_mixture(
    rows: Sequence[MixtureRow],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    loss: _Loss = "token",
    *,
    vocabulary: int | None = None,
    positions: int | None = None,
) -> TokenisedMixture:
    """Tokenise a mixture; if any row is a conversation, all rows take the chat form.

    `loss` says what the weights of the rows mean; see `_weighted`. `vocabulary` and `positions` are what the model has.

    Raises
    ------
    DataError
        If no row fits `max_length`, the chat template refuses one, or it has a token outside the model's vocabulary, or
        more tokens than positions; the message names task and row.
    """
    chat = any(row.example.messages is not None for row in rows)
    check_rows(rows, tokenizer, chat=chat)
    kept: list[TokenRow] = []
    truncated, skipped, remarks, replayed = Counter[str](), Counter[str](), Counter[str](), 0
    for number, row in enumerate(rows, start=1):
        with row_named(row.task, number):
            tokens = tokenise(row.example, tokenizer, max_length=max_length, chat=chat)
            check_fits(tokens.input_ids if tokens else (), tokenizer, vocabulary, positions)
        if tokens is None:
            skipped[row.task] += 1
            continue
        truncated[row.task] += tokens.truncated
        remarks.update([tokens.remark] if tokens.remark else [])
        replayed += row.replayed
        kept.append(TokenRow(tokens.input_ids, tokens.labels, row.weight, row.after, row.soft))
    if not kept:
        raise DataError(
            f"None of the {len(rows)} rows fits `max_length` {max_length}, even without its input. Raise `max_length`."
        )
    return TokenisedMixture(_weighted(kept, loss), dict(+truncated), dict(skipped), replayed / len(kept), dict(remarks))


def _weighted(rows: Sequence[TokenRow], loss: _Loss) -> list[TokenRow]:
    """Rows with the weights of their tokens, from the weights of rows: all of them scaled to a mean of 1.

    So a weight says how rows count against each other, and never how fast is learnt.

    Parameters
    ----------
    rows : sequence of TokenRow
        At least one with a weight above 0.
    loss : {"token", "row"}
        A step's loss is the mean over its answer tokens, or over its rows of each row's mean: then a one-word answer
        counts as much as a paragraph.

    Raises
    ------
    DataError
        If no row has a weight.

    Examples
    --------
    >>> rows = [TokenRow([0, 1, 2], [-100, 1, 2], weight=3.0), TokenRow([0, 1], [-100, 1], weight=1.0)]
    >>> [row.weight for row in _weighted(rows, "row")]  # of 2 tokens and of 1
    [0.75, 0.5]
    """
    answers = [row.answers for row in rows]
    counts = answers if loss == "token" else [min(n, 1) for n in answers]
    total = math.fsum(row.weight * count for row, count in zip(rows, counts, strict=True))
    if not total:
        raise DataError("No row of the mixture has both an answer and a weight above 0.")
    scale = sum(counts) / total
    return [
        replace(row, weight=row.weight * scale * count / n) if n else row
        for row, n, count in zip(rows, answers, counts, strict=True)
    ]


def order_of_steps(
    lengths: Sequence[int],
    *,
    batch_size: int,
    epochs: float,
    max_steps: int,
    seed: int,
    after: Sequence[float] | None = None,
) -> list[list[int]]:
    """Rows of every step: each epoch a fresh permutation, the last batch of an epoch as small as it comes.

    Parameters
    ----------
    lengths : sequence of int, shape (n_rows,)
        Tokens per row.
    batch_size : int
        Rows of a step, over all devices.
    epochs : float
        Passes over the rows; a fraction ends within an epoch.
    max_steps : int
        Steps in all, instead of `epochs`, where it is positive.
    seed : int
        Of the permutations.
    after : sequence of float, shape (n_rows,), optional
        Share of all steps that are over when a row is first seen (see `inscl.data.mixture.in_time`). It is then seen
        as often, in less time.

    Returns
    -------
    list of list of int
        Row numbers of each step, longest first.

    Examples
    --------
    >>> order_of_steps([3, 1, 2], batch_size=2, epochs=2, max_steps=-1, seed=0)
    [[0, 2], [1], [2, 1], [0]]
    """
    rng = np.random.default_rng(seed)
    per_epoch = -(-len(lengths) // batch_size)
    steps = max_steps if max_steps > 0 else max(1, int(np.ceil(epochs * per_epoch)))
    batches: list[list[int]] = []
    while len(batches) < steps:
        order = [int(i) for i in rng.permutation(len(lengths))]
        batches += [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    batches = batches[:steps]
    if after is not None and any(after):
        batches = _waiting(batches, after)
    return [sorted(batch, key=lambda i: (-lengths[i], i)) for batch in batches]


def _waiting(batches: Sequence[Sequence[int]], after: Sequence[float]) -> list[list[int]]:
    """Batches of the same sizes, in which rows wait until their share of the time is over."""
    rows = [i for batch in batches for i in batch]
    waited = iter([rows[place] for place in in_time([after[i] for i in rows])])
    return [list(islice(waited, len(batch))) for batch in batches]
