"""Strategies that must not win if the paper's ideas are what helps: each turns one of them round, or drops it."""

from dataclasses import replace

import numpy as np

from inscl import add_strategy
from inscl.core import selection
from inscl.replay.registry import Rows, Strategy
from inscl.replay.strategies import STRATEGIES
from inscl.replay.views import StageView, TaskView


def by_nearness(stage: StageView) -> list[float]:
    """Less from tasks that are further from the new one."""
    return [1 / max(distance, 1e-6) for distance in stage.distances]


def by_another_distance(stage: StageView) -> list[float]:
    """The distances, each given to a task by chance."""
    return [float(distance) for distance in stage.rng("permuted").permutation(stage.distances)]


def least_informative(stage: StageView, view: TaskView, count: int) -> Rows:
    """As by InsInfo, from the other end."""
    scores = np.array([stage.insinfo[key] for key in view.keys])
    upside_down = scores.max() + scores.min() - scores
    return selection.insinfo(view.counts.tolist(), upside_down.tolist(), count, stage.rng("task", view.name))


def add_controls() -> None:
    """Make the controls known to this process."""
    inscl: Strategy = STRATEGIES["inscl"]
    add_strategy("inscl-inverted", replace(inscl, about="inscl, more from near tasks", budget=by_nearness))
    add_strategy("inscl-permuted", replace(inscl, about="inscl, shares by chance", budget=by_another_distance))
    add_strategy("inscl-bottom", replace(inscl, about="inscl, InsInfo bottom first", selector=least_informative))
