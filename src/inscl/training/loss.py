"""The plain loss of a stage: negative log-likelihood of the answer tokens, and of nothing else."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from inscl.models.parts import head_at

if TYPE_CHECKING:
    from inscl.models.kept import KeptStates


def answer_losses(model: Any, batch: Mapping[str, Any], kept: "KeptStates | None" = None, wrapped: Any = None) -> Any:
    """Loss of every answer token of a batch, (n_answers,), in float32.

    The output head sees only the places that are trained, and the frozen layers are not run where their states are
    kept.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
    batch : mapping
        From `inscl.training.batches.Collator`.
    kept : KeptStates, optional
        Where the batch's ``states`` come from.
    wrapped : torch.nn.Module, optional
        The model as several processes call it.
    """
    index = batch["answer_index"]
    places = {"position_ids": batch["position_ids"]} if "position_ids" in batch else {}
    with head_at(model, index), kept.bottom.given(batch["states"]) if kept else nullcontext():
        logits = (wrapped or model)(input_ids=batch["input_ids"], **places, use_cache=False).logits
    targets = batch["labels"].reshape(-1).index_select(0, index + 1)
    return torch.nn.functional.cross_entropy(logits[0].float(), targets, reduction="none")


def is_plain(model: Any, args: Any) -> bool:
    """Whether an `SFTConfig` asks for this loss, and the model is one whose loss it can be."""
    adapter = getattr(model, "active_peft_config", None)
    balances_experts = hasattr(model.config.get_text_config(), "output_router_logits") and args.router_aux_loss_coef
    return (
        args.loss_type in ("nll", "chunked_nll")
        and not args.label_smoothing_factor
        and not balances_experts
        and not getattr(adapter, "is_prompt_learning", False)  # its extra tokens would shift our places
    )
