"""Greedy answers of a causal model, in large batches: left padding, a key-value cache, finished rows dropped.

Needs a model in memory and torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inscl.models.parts import head_at

if TYPE_CHECKING:
    from inscl.models.loading import Weights

_LOOK_EVERY = 4  # steps between looks at which rows have ended: each look waits for the device


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to answer, in at most `limit` tokens."""

    ids: list[int]
    limit: int


@dataclass(frozen=True, slots=True)
class Generated:
    """The answer's tokens without the end token, and whether the limit cut it off."""

    ids: list[int]
    capped: bool


def batch_limits(weights: "Weights", batch_tokens: int | None = None, batch_size: int | None = None) -> dict[str, int]:
    """Batches whose key-value cache takes a few GiB of a GPU, one of a CPU's memory."""
    config = weights.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    element = next(weights.parameters()).element_size()
    token_bytes = max(1, 2 * config.num_hidden_layers * heads * size * element)
    on_gpu = next(weights.parameters()).device.type != "cpu"
    cache, most, rows = (8 << 30, 1 << 17, 512) if on_gpu else (1 << 30, 1 << 14, 64)
    return {
        "batch_tokens": batch_tokens or max(1, min(most, cache // token_bytes)),
        "batch_size": batch_size or rows,
    }


def batches_of(sizes: Sequence[int], *, batch_tokens: int, batch_size: int) -> list[list[int]]:
    """Rows grouped by size, largest first, so that a batch that fits is met first and padding stays small.

    Parameters
    ----------
    sizes : sequence of int, shape (n_rows,)
        Tokens of each row at its longest.
    batch_tokens : int
        Most tokens of a batch, padding included; a larger row goes alone.
    batch_size : int
        Most rows of a batch.

    Examples
    --------
    >>> batches_of([3, 9, 4], batch_tokens=10, batch_size=8)
    [[1], [2, 0]]
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        full = not batches or len(batches[-1]) >= batch_size
        if full or sizes[batches[-1][0]] * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


def generate(
    model: "Weights",
    prompts: Sequence[Prompt],
    *,
    end_ids: frozenset[int],
    pad_id: int,
    batch_tokens: int,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Generated]:
    """Greedy answers, in the order of the prompts.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        In evaluation mode.
    prompts : sequence of Prompt
        Each with its own limit.
    end_ids : frozenset of int
        Tokens that end an answer.
    pad_id : int
        Token to pad with; it is masked.
    batch_tokens, batch_size : int
        Most tokens (prompt and answer) and most rows of a batch.
    progress : callable, optional
        Called with (rows done, rows) after each batch.
    """
    answers: list[Generated | None] = [None] * len(prompts)
    sizes = [len(prompt.ids) + prompt.limit for prompt in prompts]
    done = 0
    for batch in batches_of(sizes, batch_tokens=batch_tokens, batch_size=batch_size):
        for i, answer in zip(batch, _answer([prompts[i] for i in batch], model, end_ids, pad_id), strict=True):
            answers[i] = answer
        done += len(batch)
        if progress:
            progress(done, len(prompts))
    return [answer for answer in answers if answer is not None]


@torch.inference_mode()
def _answer(prompts: Sequence[Prompt], model: "Weights", end_ids: frozenset[int], pad_id: int) -> list[Generated]:
    """Greedy decoding of one batch; rows that have ended leave it, so that the last ones do not carry all."""
    from transformers import DynamicCache

    device = next(model.parameters()).device
    width = max(len(prompt.ids) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (width - len(p.ids)) + p.ids for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts], device=device)
    limits = torch.tensor([prompt.limit for prompt in prompts], device=device)
    ends = torch.tensor(sorted(end_ids), device=device)

    rows = torch.arange(len(prompts), device=device)  # the prompts still in the batch
    longest = max(prompt.limit for prompt in prompts)
    found = torch.full((len(prompts), longest), pad_id, device=device)
    lengths = limits.clone()
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)

    cache = DynamicCache(config=model.config)
    position = mask.cumsum(1) - 1
    inputs, positions = ids, position.clamp(min=0)
    for step in range(longest):
        last = torch.arange(1, len(rows) + 1, device=device) * inputs.shape[1] - 1
        with head_at(model, last):
            logits = model(
                input_ids=inputs,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).logits[0]
        chosen = logits.argmax(-1)
        found[rows, step] = chosen
        over = torch.isin(chosen, ends) & ~ended[rows] & (limits[rows] > step)
        lengths[rows] = torch.where(over, torch.clamp(lengths[rows], max=step), lengths[rows])
        ended[rows] |= over
        if step % _LOOK_EVERY == _LOOK_EVERY - 1:
            alive = ~ended[rows] & (limits[rows] > step + 1)
            kept = int(alive.sum())
            if kept == 0:
                break
            if kept <= 0.75 * len(rows):
                keep = alive.nonzero().squeeze(1)
                cache.batch_select_indices(keep)
                rows, mask, chosen, positions = rows[keep], mask[keep], chosen[keep], positions[keep]
        inputs, positions = chosen.unsqueeze(1), positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    texts, ends_seen, sizes = found.tolist(), ended.tolist(), lengths.tolist()
    return [Generated(text[:size], capped=not seen) for text, seen, size in zip(texts, ends_seen, sizes, strict=True)]
