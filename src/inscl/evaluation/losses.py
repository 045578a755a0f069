"""The loss of a model on given answers, row by row: one pass, and nothing is generated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inscl.data.example import Example
from inscl.data.template import answer_ids, prompt_ids
from inscl.models.kernels import flexible_attention
from inscl.models.loading import LoadedModel
from inscl.models.precision import ready

if TYPE_CHECKING:
    from inscl.models.kept import Keeping


def row_losses(
    model: LoadedModel,
    rows: Sequence[Example],
    *,
    max_length: int,
    chat: bool,
    dtype: str = "float32",
    keeping: "Keeping | None" = None,
) -> list[float]:
    """Mean negative log-likelihood of a token of each row's first answer, its end token included.

    Parameters
    ----------
    model : LoadedModel
    rows : sequence of Example
    max_length : int
        Most tokens of a prompt; longer ones lose the end of their input.
    chat : bool
        Whether the rows are asked through the tokenizer's chat template.
    dtype : {"float32", "bfloat16"}
        Of the computation.
    keeping : Keeping, optional
        Where states of the model's frozen layers are kept.
    """
    from inscl.evaluation.reading import read_answers
    from inscl.models.generate import batch_limits

    loaded = ready(model, dtype)
    weights, tokenizer = loaded.model, loaded.tokenizer
    known = [
        (prompt_ids(row, tokenizer, max_length=max_length, chat=chat).ids, answer_ids(row, tokenizer, chat=chat))
        for row in rows
    ]
    kept = keeping.of(weights, answering=True) if keeping else None
    if kept and not kept.keep([*prompt, *answer] for prompt, answer in known):
        kept = None
    with flexible_attention():
        found = read_answers(weights, known, pad_id=tokenizer.pad_token_id, batch=batch_limits(weights), kept=kept)
    return [row.nll / max(row.tokens, 1) for row in found]
