"""Read the references under a model: their loss, and how far its greedy answer is the same.

One pass over prompt and reference tells what the model would choose after each of the reference's tokens. Up to the
first place where that is another token, reference and greedy answer are equal; where it never is, the end included,
the reference is the answer, and nothing has to be generated.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from inscl.data.template import IGNORED
from inscl.models.collator import Collator
from inscl.models.generate import Generated, batches_of
from inscl.models.kept import KeptStates
from inscl.models.logits import answer_logits

if TYPE_CHECKING:
    from inscl.models.loading import Weights


@dataclass(frozen=True, slots=True)
class ReferenceReading:
    """What one pass over a reference tells.

    Attributes
    ----------
    nll : float
        Negative log-likelihood of the reference, end token included, in nats.
    tokens : int
        How many tokens that are.
    begins : list of int
        How the greedy answer begins: the tokens that it shares with the reference, and the one after them.
    """

    nll: float
    tokens: int
    begins: list[int]

    def answer(self, limit: int, end_ids: frozenset[int]) -> Generated | None:
        """The whole greedy answer of at most `limit` tokens, where its beginning contains it.

        >>> ReferenceReading(0.1, 3, [5, 6, 2]).answer(9, frozenset({2}))
        Generated(ids=[5, 6], capped=False)
        >>> capped = ReferenceReading(0.1, 3, [5, 7])
        >>> capped.answer(9, frozenset({2})), capped.answer(2, frozenset({2}))
        (None, Generated(ids=[5, 7], capped=True))
        """
        known = self.begins[:limit]
        end = next((i for i, token in enumerate(known) if token in end_ids), None)
        if end is not None:
            return Generated(known[:end], capped=False)
        return Generated(known, capped=True) if len(known) == limit else None


@torch.inference_mode()
def read_answers(
    model: "Weights",
    rows: Sequence[tuple[list[int], list[int]]],
    *,
    pad_id: int,
    batch: Mapping[str, int],
    kept: KeptStates | None = None,
) -> list[ReferenceReading]:
    """Read each row's reference.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
        In evaluation mode.
    rows : sequence of (prompt ids, answer ids)
        The answer with its end token.
    pad_id : int
        Token to pad with.
    batch : mapping
        Most tokens and most rows of a batch that is generated; what is read is smaller, since logits are large.
    kept : KeptStates, optional
        Where states of the rows are kept.
    """
    found: list[ReferenceReading | None] = [None] * len(rows)
    collate = Collator(pad_id, weighted=False, kept=kept)
    device = next(model.parameters()).device
    sizes = [len(prompt) + len(answer) for prompt, answer in rows]
    most = max(1, batch["batch_tokens"] // 4)
    for part in batches_of(sizes, batch_tokens=most, batch_size=batch["batch_size"]):
        made = collate([_row(*rows[i]) for i in part])
        here = {name: tensor.to(device) for name, tensor in made.items()}
        logits = answer_logits(model, here, kept).float()
        targets = here["labels"].reshape(-1).index_select(0, here["answer_index"] + 1)
        nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double().tolist()
        choices = logits.argmax(-1).tolist()
        places = _places([len(rows[i][1]) for i in part])
        for i, place in zip(part, places, strict=True):
            found[i] = ReferenceReading(sum(nll[place]), len(rows[i][1]), _begins(rows[i][1], choices[place]))
    return [reading for reading in found if reading is not None]


def _row(prompt: list[int], answer: list[int]) -> dict[str, list[int]]:
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


def _places(lengths: Sequence[int]) -> Iterator[slice]:
    start = 0
    for length in lengths:
        yield slice(start, start + length)
        start += length


def _begins(reference: Sequence[int], choices: Sequence[int]) -> list[int]:
    """The choices up to the first that is not the reference's token.

    >>> _begins([5, 6, 2], [5, 7, 2]), _begins([5, 2], [5, 2])
    ([5, 7], [5, 2])
    """
    same = next((i for i, (token, choice) in enumerate(zip(reference, choices, strict=True)) if token != choice), None)
    return list(choices if same is None else choices[: same + 1])
