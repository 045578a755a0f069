"""What can be added to any strategy, as in ``inscl+carry``: a function, and a line in `PARTS`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from inscl.replay.registry import Part, Rows, Strategy
from inscl.replay.views import StageView

_MOST_WEIGHT = 4.0


def _carry(strategy: Strategy, number: float) -> Strategy:
    """Small differences between shares add up over the stages instead of being rounded away at each."""
    return replace(strategy, carry=True)


def _balance(strategy: Strategy, share: float) -> Strategy:
    """Replayed rows weigh so much that they hold at least this share of the loss."""
    return replace(strategy, weight=partial(_holding, share))


def _holding(share: float, stage: StageView, chosen: Sequence[Rows]) -> list[float]:
    """The one weight with which the chosen rows hold a share of the loss, as their answers' tokens are estimated.

    With A tokens in the new task's answers and R in the chosen ones a weight w holds w R / (w R + A). It is at least 1
    and at most `_MOST_WEIGHT`.
    """
    new = stage.answer_tokens(stage.new)
    replayed = sum(stage.answer_tokens(view, rows) for view, rows in zip(stage.earlier, chosen, strict=True))
    wanted = share / (1 - share) * new / max(replayed, 1)
    return [round(min(max(wanted, 1.0), _MOST_WEIGHT), 6)] * len(chosen)


def _asking(part: str) -> Callable[[Strategy, float], Strategy]:
    """What leaves a number to the stage's training, under the part's name."""
    return lambda strategy, number: replace(strategy, training={**strategy.training, part: number})


PARTS: Mapping[str, Part] = {
    "carry": Part("what rounding keeps from a task is carried to the next stage", _carry),
    "balance": Part("replayed rows weigh more, to hold this share of the loss", _balance, 0.2, most=0.5),
    "late": Part("replayed rows come when this share of the stage is over", _asking("late"), 0.5, most=0.95),
    "own": Part("replayed rows get the model's own answer where it scores at least this", _asking("own"), 0.8),
    "kl": Part("this share of a replayed row's target is what the stage's start says", _asking("kl"), 0.5),
    "interpolate": Part(
        "this share of the weights of the stage's start goes into its end", _asking("interpolate"), 0.2, most=0.95
    ),
}
