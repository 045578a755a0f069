"""Replay strategies: each names a budget (how much from each earlier task) and a selector (which of its rows).

To add one, write a function of a `StageView` and a line in `STRATEGIES`; from outside, call `add_strategy`.
"""

from dataclasses import replace
from functools import reduce

import numpy as np

from inscl.core import selection as select
from inscl.core.rotation import rotate
from inscl.replay.parts import PARTS
from inscl.replay.registry import Rows, Strategies, Strategy
from inscl.replay.views import StageView, TaskView

_MOST_INCREASE = 5.0  # of a loss, beyond which a task counts as forgotten altogether


def _with(strategy: Strategy, *names: str) -> Strategy:
    """A strategy with parts at their own numbers: what a name with ``+`` means."""
    return reduce(lambda made, name: PARTS[name].on(made, name, ""), names, strategy)


def by_distance(stage: StageView) -> list[float]:
    """More from tasks whose instructions are further from the new ones (paper)."""
    return stage.distances


def equally(stage: StageView) -> list[float]:
    """The same from each."""
    return [1.0] * len(stage.earlier)


def _by_size(stage: StageView) -> list[float]:
    """In proportion to the training rows each has."""
    return [float(view.rows) for view in stage.earlier]


def _by_loss_increase(stage: StageView) -> list[float]:
    """More from tasks that are forgotten more: the ratio of their perplexity now to that when they were learnt."""
    return [float(np.exp(min(stage.loss_increase(view), _MOST_INCREASE))) for view in stage.earlier]


def at_random(stage: StageView, view: TaskView, count: int) -> Rows:
    return select.random(view.counts.tolist(), count, stage.rng("task", view.name))


def by_insinfo(stage: StageView, view: TaskView, count: int) -> Rows:
    scores = [stage.insinfo[key] for key in view.keys]
    return select.insinfo(view.counts.tolist(), scores, count, stage.rng("task", view.name))


def _by_fresh_insinfo(stage: StageView, view: TaskView, count: int) -> Rows:
    """As `by_insinfo`, where what earlier stages replayed counts for less, and its rows come last."""
    scores = [stage.insinfo[key] for key in view.keys]
    return select.insinfo(view.counts.tolist(), scores, count, stage.rng("task", view.name), stage.times(view))


def _by_rotation(stage: StageView, view: TaskView, count: int) -> Rows:
    """What earlier stages replayed least, and among equals what stands best for the rest."""
    return rotate(
        view.counts.tolist(),
        stage.times(view),
        lambda instructions: view.embeddings[instructions],
        lambda rows: stage.input_vectors(view, rows),
        count,
        stage.rng("task", view.name),
    )


def _by_surprise(stage: StageView, view: TaskView, count: int) -> Rows:
    """Rows whose loss has risen most since their task was learnt; those that were not measured come last, by chance."""
    rises, mixed = stage.log.increases(view.name), stage.rng("task", view.name).permutation(view.rows)
    order = sorted(mixed.tolist(), key=lambda row: -rises.get(view.row_keys[row].hex(), -np.inf))
    return np.sort(np.array(order[:count], dtype=np.int64))


def _prototype_data(stage: StageView, view: TaskView, count: int) -> Rows:
    seed = int(stage.rng("task", view.name).integers(2**31))
    return select.prototype_data(stage.example_vectors(view), count, seed)


def _prototype_instruction(stage: StageView, view: TaskView, count: int) -> Rows:
    return select.prototype_instruction(view.counts.tolist(), view.embeddings, count, stage.rng("task", view.name))


def _diverse_instruction(stage: StageView, view: TaskView, count: int) -> Rows:
    rng = stage.rng("task", view.name)
    return select.diverse_instruction(view.counts.tolist(), view.embeddings, stage.new.embeddings, count, rng)


_ROTATE = Strategy("equal shares, what was replayed least first", equally, _by_rotation)

STRATEGIES = Strategies(
    {
        "none": Strategy("no replay", None, at_random),
        "random": Strategy("equal shares, random rows", equally, at_random),
        "inscl": Strategy(
            "more from distant tasks, informative instructions first (the paper)", by_distance, by_insinfo
        ),
        "inscl-mean": Strategy("inscl, with InsInfo per tag", by_distance, by_insinfo, "mean"),
        "inscl-density": Strategy("inscl, with InsInfo from embeddings", by_distance, by_insinfo, "density"),
        "inscl-rotate": Strategy(
            "inscl, where what was replayed before counts for less", by_distance, _by_fresh_insinfo
        ),
        "rotate": _ROTATE,
        "steady": replace(
            _with(_ROTATE, "balance", "interpolate"),
            about="rotate, weighing a fifth of the loss, and a fifth of the start's weights kept",
        ),
        "rgd": Strategy(
            "more from tasks whose loss has risen more, random rows",
            _by_loss_increase,
            at_random,
            carry=True,
            losses=True,
        ),
        "surprise": Strategy("equal shares, rows whose loss has risen most", equally, _by_surprise, losses=True),
        "dynamic": Strategy("more from distant tasks, random rows", by_distance, at_random),
        "insinfo": Strategy("equal shares, informative instructions first", equally, by_insinfo),
        "proportional": Strategy("shares by task size, random rows", _by_size, at_random),
        "prototype-data": Strategy(
            "equal shares, rows nearest the centroids of the task's data", equally, _prototype_data
        ),
        "prototype-instruction": Strategy(
            "equal shares, rows of the instructions nearest the centroids", equally, _prototype_instruction
        ),
        "diverse-instruction": Strategy(
            "equal shares, instructions least like the new ones first", equally, _diverse_instruction
        ),
    },
    PARTS,
)


def add_strategy(name: str, strategy: Strategy) -> None:
    """Make a strategy of your own known to this process, for `plan`, `learn` and `run` alike.

    A package brings one to every process, and to the command line, by an entry point of the group
    ``inscl.strategies`` that names a `Strategy`.

    Parameters
    ----------
    name : str
        None of inscl's own; one that was added before is replaced.
    strategy : Strategy

    Raises
    ------
    PlanError
        If the name cannot be used.
    """
    STRATEGIES.add(name, strategy)
