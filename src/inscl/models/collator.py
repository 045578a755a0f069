"""Rows of tokens as the tensors of a batch, for training and for scoring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inscl.data.template import IGNORED

if TYPE_CHECKING:
    from inscl.models.kept import KeptStates


class _Targets(Protocol):
    """What is asked of the answer tokens of rows beside the given ones: `inscl.training.soft.SoftTargets`."""

    def of(self, rows: Sequence[Mapping[str, object]]) -> dict[str, Any]:
        """Tensors that go into the batch."""


@dataclass(frozen=True)
class Collator:
    """Right-padded tensors of a batch, and where its trained tokens are predicted.

    Causal attention never looks to the right, so right padding needs no mask, and the model can take its
    fastest kernels. ``answer_index`` holds the places in the flattened batch that predict a trained token; with
    weights, ``items`` has a label for each thing that the loss is the mean over, answer tokens or (`by_row`) rows.
    """

    pad_token_id: int
    weighted: bool
    padding_free: bool = False
    kept: "KeptStates | None" = None
    soft: _Targets | None = None
    by_row: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """input_ids, labels, attention_mask (n_rows, length) and answer_index (n_answers,) of the rows.

        With `kept`, also the states (n_rows, length, width) that leave the frozen layers; with `soft`, also
        target_ids and target_shares (n_answers, k).

        Without padding, all rows stand in one of shape (1, total length), and position_ids, which restart at 0, take
        the place of the mask.
        """
        import torch

        arrays = self._in_one(rows) if self.padding_free else self._padded(rows)
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.kept:
            batch["states"] = (self.kept.joined if self.padding_free else self.kept.padded)(
                [row["input_ids"] for row in rows]
            )
        return batch | (self.soft.of(rows) if self.soft else {})

    def _in_one(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        lengths = [len(row["input_ids"]) for row in rows]
        labels = np.concatenate([[IGNORED, *row["labels"][1:]] for row in rows])
        answers = np.flatnonzero(labels != IGNORED)
        batch = {
            "input_ids": np.concatenate([row["input_ids"] for row in rows])[None],
            "labels": labels[None],
            "position_ids": np.concatenate([np.arange(n) for n in lengths])[None],
            "answer_index": answers - 1,
        }
        if self.weighted:
            weights = np.array([row["weight"] for row in rows], dtype=np.float32)
            batch["answer_weight"] = np.repeat(weights, lengths)[answers]
            batch["items"] = self._items(rows)
        return batch

    def _padded(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in rows)
        ids = np.full((len(rows), width), self.pad_token_id)
        labels = np.full((len(rows), width), IGNORED)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            ids[i, :n], labels[i, :n], mask[i, :n] = row["input_ids"], row["labels"], 1
        labels[:, 0] = IGNORED  # nothing stands before it to predict it from
        answers = np.flatnonzero(labels != IGNORED)
        batch = {"input_ids": ids, "labels": labels, "attention_mask": mask, "answer_index": answers - 1}
        if self.weighted:
            weights = np.array([row["weight"] for row in rows], dtype=np.float32)
            batch["answer_weight"] = weights[answers // width]
            batch["items"] = self._items(rows)
        return batch

    def _items(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """(1, 1 + n_items), as the first label of a sequence is never trained."""
        answers = [sum(label != IGNORED for label in row["labels"][1:]) for row in rows]
        return np.zeros((1, 1 + sum(min(n, 1) if self.by_row else n for n in answers)), dtype=np.int64)
