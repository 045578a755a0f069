"""What earlier stages replayed, as later plans look at it: how often each row, and what rounding left owing."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class ReplayLog:
    """The replay of earlier stages, from their records.

    Parameters
    ----------
    stages : iterable of mappings, oldest first
        As `Memory.stages` gives them: each has the ``name`` of its task and ``tasks``, a list of mappings with
        ``name``, the keys of the replayed ``rows`` in hex, what is ``carried`` to the next stage, and the ``losses`` of
        the stage's model on some training rows by their keys. Records of older releases name no rows and no losses:
        they count for nothing.
    """

    def __init__(self, stages: Iterable[Mapping[str, Any]] = ()) -> None:
        self._times: dict[str, Counter[str]] = {}
        self._carried: dict[str, float] = {}
        self._first: dict[str, Mapping[str, float]] = {}  # losses after the task's own stage
        self._last: dict[str, Mapping[str, float]] = {}
        for stage in stages:
            for task in stage.get("tasks", ()):
                self._read(task, stage.get("name"))

    def _read(self, task: Mapping[str, Any], newest: str | None) -> None:
        name = task["name"]
        self._times.setdefault(name, Counter()).update(task.get("rows", ()))
        self._carried[name] = task.get("carried", self.carried(name))
        if "losses" in task:
            self._last[name] = task["losses"]
            if name == newest:
                self._first[name] = task["losses"]

    def times(self, task: str, keys: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """How often each row of a task was replayed, by its key."""
        known = self._times.get(task, Counter())
        return np.array([known[key.hex()] for key in keys], dtype=np.int64)

    def carried(self, task: str) -> float:
        """Examples that the task is still owed by the budgets of earlier stages; negative where it had too many."""
        return self._carried.get(task, 0.0)

    def increases(self, task: str) -> dict[str, float]:
        """How much the loss of a task's measured rows has risen since the task was learnt, by their keys in hex."""
        first, last = self._first.get(task, {}), self._last.get(task, {})
        return {key: last[key] - first[key] for key in sorted(first.keys() & last.keys())}

    def plain(self, tasks: Iterable[str]) -> list[tuple[object, ...]]:
        """All that the log knows of some tasks, in one form that can be hashed."""
        return [
            (name, sorted(self._times.get(name, Counter()).items()), self.carried(name), *self._losses(name))
            for name in tasks
        ]

    def _losses(self, task: str) -> list[dict[str, float]]:
        found = self.increases(task)
        return [found] if found else []
