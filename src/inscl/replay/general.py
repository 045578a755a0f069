"""General tasks: what the model could do before, replayed beside the tasks that it learnt.

They are remembered tasks that are marked so, or, where none is, the everyday instructions that come with inscl.
"""

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from inscl.data.everyday import everyday
from inscl.data.example import Example
from inscl.errors import PlanError
from inscl.memory.memory import Memory
from inscl.memory.task import Task
from inscl.memory.task_tables import Recipe, write_task

EVERYDAY = "inscl/everyday"  # what plans call the instructions that come with inscl


@contextmanager
def general_tasks(memory: Memory, recipe: Recipe, besides: Collection[str]) -> Iterator[list[Task]]:
    """The memory's general tasks but those named `besides`, or what comes with inscl, written as the recipe says.

    Raises
    ------
    PlanError
        If another task has the name of what comes with inscl.
    """
    remembered = [task for task in memory.open() if task.info.general and task.info.name not in besides]
    if remembered:
        yield remembered
    elif EVERYDAY in memory or EVERYDAY in besides:
        raise PlanError(
            f"A task is called '{EVERYDAY}', as what comes with inscl is. Give it another name, or mark a task general "
            "with `inscl add --general`."
        )
    else:
        with tempfile.TemporaryDirectory(prefix="inscl-") as folder:
            yield [write_task(EVERYDAY, everyday(), folder, recipe)]


def is_shipped(name: str, memory: Memory) -> bool:
    """Whether a plan's task is what comes with inscl."""
    return name == EVERYDAY and name not in memory


def training_rows(memory: Memory, name: str, limit: int | None = None) -> Sequence[Example]:
    """Training rows of a plan's task, remembered or not."""
    return everyday()[:limit] if is_shipped(name, memory) else memory.task(name).sample("train", limit)
