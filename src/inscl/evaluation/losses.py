"""The loss of a model on given answers, row by row: one pass, and nothing is generated."""

from collections.abc import Sequence

from inscl.data.example import Example
from inscl.data.template import answer_ids, prompt_ids
from inscl.evaluation.evaluate import batch_limits, ready
from inscl.models.kernels import flexible_attention
from inscl.models.loading import LoadedModel


def row_losses(
    model: LoadedModel, rows: Sequence[Example], *, max_length: int, chat: bool, dtype: str = "float32"
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
    """
    from inscl.evaluation.generate import answer_losses

    weights, tokenizer = ready(model.model, dtype), model.tokenizer
    known = [
        (prompt_ids(row, tokenizer, max_length=max_length, chat=chat).ids, answer_ids(row, tokenizer, chat=chat))
        for row in rows
    ]
    limits = batch_limits(weights)
    limits["batch_tokens"] = max(1, limits["batch_tokens"] // 4)  # logits are larger than the cache
    with flexible_attention():
        found = answer_losses(weights, known, pad_id=tokenizer.pad_token_id, **limits)
    return [total / max(n, 1) for total, n in found]
