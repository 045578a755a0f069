"""Soft targets: what the model of a stage's start would have said, in the place of a part of the given answer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inscl.data.template import IGNORED
from inscl.models.collator import Collator
from inscl.models.logits import answer_logits
from inscl.training.batches import TokenRow

if TYPE_CHECKING:
    from inscl.models.loading import Weights

_LIKELIEST = 64  # tokens of the start's distribution that are kept for each place, their shares summing to 1
_ROWS = 8  # computed at once


class SoftTargets:
    """Targets of the answer tokens of rows, where some share of a row's target is the start's own distribution.

    With a share s a token's target is 1 - s for the given token and s times the start's distribution over its
    `_LIKELIEST` tokens. The cross entropy with it has the gradient of (1 - s) NLL + s KL(start || model).

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        As the stage starts with it, on its device.
    rows : sequence of TokenRow
        One pass is made over those whose `soft` is above 0.
    collator : Collator
        Without soft targets.
    half : bool
        Whether autocast computes the model in bfloat16.
    """

    def __init__(self, model: "Weights", rows: Sequence[TokenRow], collator: Collator, *, half: bool = False) -> None:
        self._known: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}
        asked = [row for row in rows if row.soft]
        training = model.training
        model.eval()
        for first in range(0, len(asked), _ROWS):
            self._look(model, asked[first : first + _ROWS], collator, half)
        model.train(training)

    @torch.no_grad()
    def _look(self, model: "Weights", rows: Sequence[TokenRow], collator: Collator, half: bool) -> None:
        device = next(model.parameters()).device
        plain = [{"input_ids": row.input_ids, "labels": row.labels, "weight": row.weight} for row in rows]
        batch = {name: part.to(device) for name, part in collator(plain).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = answer_logits(model, batch, collator.kept)
        likeliest = logits.float().softmax(dim=-1).topk(min(_LIKELIEST, logits.shape[-1]))
        shares = likeliest.values / likeliest.values.sum(dim=-1, keepdim=True)
        ends = np.cumsum([len(_given(row.labels)) for row in rows]).tolist()
        for row, start, end in zip(rows, [0, *ends], ends, strict=False):
            given = torch.tensor(_given(row.labels), dtype=torch.int64)[:, None]
            ids = torch.cat([given, likeliest.indices[start:end].cpu()], dim=1)
            own = torch.cat([torch.full(given.shape, 1 - row.soft), row.soft * shares[start:end].cpu()], dim=1)
            self._known[tuple(row.input_ids)] = ids, own

    def of(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """``target_ids`` and ``target_shares``, (n_answers, k), of the answer tokens of a batch, row by row."""
        found = [self._known.get(tuple(row["input_ids"])) or self._hard(row["labels"]) for row in rows]
        return {
            "target_ids": torch.cat([ids for ids, _ in found]),
            "target_shares": torch.cat([shares for _, shares in found]),
        }

    def _hard(self, labels: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The given tokens alone, in the same form."""
        given = _given(labels)
        width = next(iter(self._known.values()))[0].shape[1]
        ids, shares = torch.zeros(len(given), width, dtype=torch.int64), torch.zeros(len(given), width)
        if given:
            ids[:, 0], shares[:, 0] = torch.tensor(given), 1.0
        return ids, shares


def _given(labels: Sequence[int]) -> list[int]:
    """The trained tokens that are predicted from something."""
    return [label for label in labels[1:] if label != IGNORED]
