"""From a plan to the mixture that a stage trains on."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inscl.data.everyday import everyday
from inscl.data.example import Example
from inscl.data.mixture import MixtureRow, in_time
from inscl.errors import PlanError
from inscl.memory.memory import Memory
from inscl.memory.task import Task
from inscl.replay.general import is_shipped
from inscl.replay.plan import Plan, TaskPlan


def mixture_rows(made: Plan, memory: Memory, new: Task | None) -> list[MixtureRow]:
    """New and replayed rows, shuffled by the plan's seed and stage; never a held-out row.

    Without the new task the replayed rows alone, in the order of the plan.

    Raises
    ------
    PlanError
        If a chosen row is no longer in the memory.
    """
    with memory.reading():
        replayed = _replayed_rows(made, memory)
    if new is None:
        return replayed
    rows = [*(MixtureRow(made.name, _bare(row)) for row in new.examples(new.side("train"))), *replayed]
    order = np.random.default_rng([made.seed, made.stage]).permutation(len(rows))
    shuffled = [rows[i] for i in order]
    return [shuffled[i] for i in in_time([row.after for row in shuffled])]


def _replayed_rows(made: Plan, memory: Memory) -> list[MixtureRow]:
    asked = {"after": made.training.get("late", 0.0), "soft": made.training.get("kl", 0.0)}
    return [
        MixtureRow(part.name, row, replayed=True, weight=part.weight, **asked)
        for part in made.tasks
        if part.count
        for row in _find(part, memory)
        for _ in range(part.repeats)
    ]


def _find(part: TaskPlan, memory: Memory) -> Iterator[Example]:
    if part.general and is_shipped(part.name, memory):
        return _find_shipped(part)
    if part.name not in memory:
        raise PlanError(f"The plan replays task '{part.name}', which the memory no longer has. Plan again.")
    task = memory.task(part.name)
    train = task.side("train")
    keys = pa.array([bytes.fromhex(key) for i in part.instructions for key in i.rows], pa.binary(16))
    stored = task.columns(["key"])["key"]
    places = pc.index_in(keys, stored.combine_chunks()).to_pylist()
    if any(place is None or place not in train for place in places):
        raise PlanError(f"Task '{part.name}' has changed since the plan was made. Plan again with `inscl plan`.")
    return (_bare(row) for row in task.examples(places))


def _find_shipped(part: TaskPlan) -> Iterator[Example]:
    known = {row.key.hex(): row for row in everyday()}
    keys = [key for i in part.instructions for key in i.rows]
    if any(key not in known for key in keys):
        raise PlanError(f"The plan replays '{part.name}' of another release of inscl. Plan again with `inscl plan`.")
    return (known[key] for key in keys)


def _bare(example: Example) -> Example:
    return replace(example, split=None)
