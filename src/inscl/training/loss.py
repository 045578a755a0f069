"""The plain loss of a stage: negative log-likelihood of the answer tokens, and of nothing else."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from inscl.models.logits import answer_logits

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

    from inscl.models.kept import KeptStates
    from inscl.models.loading import Weights


def answer_losses(
    model: "Weights",
    batch: Mapping[str, torch.Tensor],
    kept: "KeptStates | None" = None,
    wrapped: torch.nn.Module | None = None,
) -> torch.Tensor:
    """Loss of every answer token of a batch, (n_answers,), in float32; parameters as of `answer_logits`.

    Where the batch has soft targets (see `inscl.training.soft`), the cross entropy with them.
    """
    logits = answer_logits(model, batch, kept, wrapped).float()
    if "target_ids" in batch:
        likelihoods = logits.log_softmax(dim=-1).gather(1, batch["target_ids"])
        return -(likelihoods * batch["target_shares"]).sum(dim=-1)
    targets = batch["labels"].reshape(-1).index_select(0, batch["answer_index"] + 1)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def is_plain(model: "Weights", args: "SFTConfig") -> bool:
    """Whether an `SFTConfig` asks for this loss, and the model is one whose loss it can be."""
    adapter = getattr(model, "active_peft_config", None)
    balances_experts = hasattr(model.config.get_text_config(), "output_router_logits") and args.router_aux_loss_coef
    return (
        args.loss_type in ("nll", "chunked_nll")
        and not args.label_smoothing_factor
        and not balances_experts
        and not getattr(adapter, "is_prompt_learning", False)  # its extra tokens would shift our places
    )
