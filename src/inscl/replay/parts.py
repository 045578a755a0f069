"""What can be added to any strategy, as in ``inscl+carry``: a function, and a line in `PARTS`."""

from collections.abc import Mapping
from dataclasses import replace

from inscl.replay.registry import Part, Strategy


def carry(strategy: Strategy, number: float) -> Strategy:
    """Small differences between shares add up over the stages instead of being rounded away at each."""
    return replace(strategy, carry=True)


PARTS: Mapping[str, Part] = {
    "carry": Part("what rounding keeps from a task is carried to the next stage", carry),
}
