"""Where the instructions of a plan lie: two dimensions of their embeddings, and what would move where between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import Self

import numpy as np
import numpy.typing as npt

from inscl.core.distance import coupling
from inscl.errors import MemoryStateError, PlanError
from inscl.memory.memory import Memory
from inscl.memory.task import Task
from inscl.replay.plan import Plan, TaskPlan
from inscl.replay.planner import resume
from inscl.replay.views import TaskView

_MOST_TASKS, _MOST_INSTRUCTIONS = 24, 1_200  # that a reader can tell from each other, and a browser can draw
_LEAST_MOVED = 0.05  # of an instruction's own weight: what is less is not drawn

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MappedInstruction:
    """An instruction and its place."""

    text: str
    x: float
    y: float
    rows: int  # training rows it has
    chosen: int  # of them replayed


@dataclass(frozen=True, kw_only=True)
class Move:
    """What an optimal coupling takes from an instruction of an earlier task to one of the new task."""

    start: int
    end: int
    share: float  # of the earlier task's weight, in (0, 1]


@dataclass(frozen=True, kw_only=True)
class MappedTask:
    """A task's instructions on the map.

    Attributes
    ----------
    name : str
    instructions : tuple of MappedInstruction
    all_instructions : int
        How many it has; more than are drawn where a map would be too full.
    distance : float or None
        To the new task, as in the plan; None where the strategy looks at none, and of the new task.
    moves : tuple of Move
        Of the new task: none.
    """

    name: str
    instructions: tuple[MappedInstruction, ...]
    all_instructions: int
    distance: float | None = None
    moves: tuple[Move, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InstructionMap:
    """The instructions of a plan in the plane of their two principal components.

    Attributes
    ----------
    new : MappedTask
    earlier : tuple of MappedTask
        In the order of the plan; of more than two dozen the ones most replayed.
    left_out : int
        Earlier tasks that are not drawn.
    spread : float
        The share of all variance that the two dimensions hold, in [0, 1].
    """

    new: MappedTask
    earlier: tuple[MappedTask, ...]
    left_out: int
    spread: float

    @classmethod
    def of(cls, plan: Plan, memory: Memory) -> Self | None:
        """The map of a plan, from the memory that it was made from; None for a plan without remembered tasks.

        Moves are those of an optimal coupling at cosine cost between the instructions that are drawn, weighted as the
        plan weights them: what the Wasserstein distance between tasks is made of.

        Raises
        ------
        PlanError
            If the memory or the new task's data are no longer what the plan was made from.
        """
        names = {info.name for info in memory.tasks()}
        known = [task for task in plan.tasks if task.name in names]
        if not known:
            return None
        most_replayed = {task.name for task in nlargest(_MOST_TASKS, known, key=lambda task: task.count)}
        drawn = [task for task in known if task.name in most_replayed]
        most = _MOST_INSTRUCTIONS // (len(drawn) + 1)
        with memory.reading():
            resumed = resume(plan, memory)  # whose folder lives as long
            new = _Drawn.of(resumed.new, {}, most, memory)
            earlier = [_Drawn.of(_as_planned(memory, task), _chosen(task), most) for task in drawn]
        places, spread = _plane([one.vectors for one in (new, *earlier)])
        frequency = plan.settings.get("weights") != "uniform"
        return cls(
            new=new.at(places[0]),
            earlier=tuple(
                replace(one.at(place), distance=task.distance, moves=tuple(_moves(one, new, frequency=frequency)))
                for task, one, place in zip(drawn, earlier, places[1:], strict=True)
            ),
            left_out=len(plan.tasks) - len(drawn),
            spread=spread,
        )


@dataclass(frozen=True)
class _Drawn:
    """The instructions of a task that are drawn."""

    view: TaskView
    places: npt.NDArray[np.int64]  # in the view
    chosen: npt.NDArray[np.int64]  # replayed rows
    vectors: _Floats  # (n, d)

    @classmethod
    def of(cls, task: Task, chosen: Mapping[str, int], most: int, memory: Memory | None = None) -> Self:
        """At most so many: those with replayed rows, then those with the most rows; encoded by a memory, if given."""
        view = TaskView.of(task)
        replayed = np.array([chosen.get(key.hex(), 0) for key in view.keys], np.int64)
        places = np.sort(np.lexsort((-view.counts, -replayed))[:most])
        vectors = memory.encode([view.texts[i] for i in places]).vectors if memory else view.embeddings[places]
        return cls(view, places, replayed[places], vectors.astype(np.float64))

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Training rows of each."""
        return self.view.counts[self.places]

    def at(self, places: _Floats) -> MappedTask:
        """The task with its instructions at some places, (n, 2)."""
        facts = zip(self.places, places.tolist(), self.rows.tolist(), self.chosen.tolist(), strict=True)
        return MappedTask(
            name=self.view.name,
            instructions=tuple(
                MappedInstruction(text=self.view.texts[i], x=x, y=y, rows=rows, chosen=chosen)
                for i, (x, y), rows, chosen in facts
            ),
            all_instructions=len(self.view.keys),
        )


def _as_planned(memory: Memory, planned: TaskPlan) -> Task:
    try:
        return memory.task(planned.name, planned.content)
    except MemoryStateError:
        raise PlanError(
            f"Task '{planned.name}' is no longer what the plan was made from. Plan again with `inscl plan`."
        ) from None


def _chosen(planned: TaskPlan) -> dict[str, int]:
    return {instruction.key: instruction.count for instruction in planned.instructions}


def _plane(groups: Sequence[_Floats]) -> tuple[list[_Floats], float]:
    """Each group's rows along the two principal directions of all rows, and the share of the variance in these.

    A direction points to where its largest part is positive, so that the same rows give the same picture.
    """
    rows = np.concatenate(groups)
    centred = rows - rows.mean(0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    two = directions[:2]
    largest = np.take_along_axis(two, np.abs(two).argmax(1)[:, None], 1)
    at = np.zeros((len(rows), 2))
    at[:, : len(two)] = centred @ (two * np.sign(largest)).T
    variance = sizes**2
    spread = float(variance[:2].sum() / variance.sum()) if variance.any() else 1.0
    return np.split(at, np.cumsum([len(group) for group in groups])[:-1]), spread


def _moves(task: _Drawn, new: _Drawn, *, frequency: bool) -> Iterator[Move]:
    """The moves that take a fair part of an instruction's weight."""
    weights = (task.rows, new.rows) if frequency else (None, None)
    moved = coupling(task.vectors, new.vectors, *weights)
    for start, end in np.argwhere(moved > _LEAST_MOVED * moved.sum(1, keepdims=True)).tolist():
        yield Move(start=start, end=end, share=float(moved[start, end]))
