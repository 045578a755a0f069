"""The sets of tasks that come with inscl, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inscl.data.example import Example
from inscl.demo.forms import FORM_TASKS, form_tasks
from inscl.demo.tasks import TASKS, demo_tasks


@dataclass(frozen=True)
class _TaskSet:
    """Tasks that are made from a seed: their names in the stream's order, and what makes them."""

    names: tuple[str, ...]
    make: Callable[..., dict[str, list[Example]]]


TASK_SETS: Mapping[str, _TaskSet] = {
    "six": _TaskSet(tuple(TASKS), demo_tasks),
    "forms": _TaskSet(tuple(FORM_TASKS), form_tasks),
}
