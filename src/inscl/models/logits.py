"""What a model says where it is trained or scored, and nowhere else."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from inscl.models.parts import head_at

if TYPE_CHECKING:
    import torch

    from inscl.models.kept import KeptStates
    from inscl.models.loading import Weights


def answer_logits(
    model: "Weights",
    batch: Mapping[str, "torch.Tensor"],
    kept: "KeptStates | None" = None,
    wrapped: "torch.nn.Module | None" = None,
) -> "torch.Tensor":
    """What the model says at every place that predicts an answer token, (n_answers, vocabulary).

    The output head sees only the places that are trained, and the frozen layers are not run where their states are
    kept.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
    batch : mapping
        From `inscl.models.collator.Collator`.
    kept : KeptStates, optional
        Where the batch's ``states`` come from.
    wrapped : torch.nn.Module, optional
        The model as several processes call it.
    """
    index = batch["answer_index"]
    places = {"position_ids": batch["position_ids"]} if "position_ids" in batch else {}
    with head_at(model, index), kept.bottom.given(batch["states"]) if kept else nullcontext():
        logits: torch.Tensor = (wrapped or model)(input_ids=batch["input_ids"], **places, use_cache=False).logits[0]
        return logits
