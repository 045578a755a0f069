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
        As `Plan.replayed` makes them and `Memory.stages` gives them back: each has ``tasks``, a list of mappings
        with ``name``, the keys of the replayed ``rows`` in hex and what is ``carried`` to the next stage. Records of
        older releases name no rows: they count for nothing.
    """

    def __init__(self, stages: Iterable[Mapping[str, Any]] = ()) -> None:
        self._times: dict[str, Counter[str]] = {}
        self._carried: dict[str, float] = {}
        for stage in stages:
            for task in stage.get("tasks", ()):
                self._times.setdefault(task["name"], Counter()).update(task.get("rows", ()))
                self._carried[task["name"]] = task.get("carried", self.carried(task["name"]))

    def times(self, task: str, keys: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """How often each row of a task was replayed, by its key."""
        known = self._times.get(task, Counter())
        return np.array([known[key.hex()] for key in keys], dtype=np.int64)

    def carried(self, task: str) -> float:
        """Examples that the task is still owed by the budgets of earlier stages; negative where it had too many."""
        return self._carried.get(task, 0.0)

    def plain(self, tasks: Iterable[str]) -> list[tuple[str, list[tuple[str, int]], float]]:
        """All that the log knows of some tasks, in one form that can be hashed."""
        return [(name, sorted(self._times.get(name, Counter()).items()), self.carried(name)) for name in tasks]
