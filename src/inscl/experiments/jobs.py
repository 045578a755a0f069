"""What a run has to do, as data: the models of all streams, each once, and what each of them is scored on.

A job is known by what it depends on, and by nothing else: the tasks learnt so far, the strategy and budget that
chose the replayed rows, and the seed. Equal jobs of two streams are one job, so that the first stage of all
strategies, an expert and the first stage of its task, or two orders that begin alike, are done once.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from inscl.core.orders import Order
from inscl.experiments.config import StreamConfig, TestRows
from inscl.replay.budget import Budget

Scored = dict[str, int | None]  # task -> rows of its test side; None: all


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model: what it has learnt, and with which replay.

    Attributes
    ----------
    learnt : tuple of str
        The tasks in the order they were learnt; none for the untrained model.
    seed : int
    strategy : str
        Empty where there was nothing to replay yet.
    budget : Budget, optional
        None where the strategy replays nothing.
    joint : bool
        Whether the tasks were learnt all at once.
    """

    learnt: tuple[str, ...] = ()
    seed: int = 0
    strategy: str = ""
    budget: Budget | None = None
    joint: bool = False

    @classmethod
    def expert(cls, task: str, seed: int) -> "Job":
        """The model that learns one task alone."""
        return cls(learnt=(task,), seed=seed)

    @classmethod
    def joined(cls, tasks: Sequence[str], seed: int) -> "Job":
        """The model that learns all tasks at once."""
        return cls(learnt=tuple(tasks), seed=seed, joint=True)

    @property
    def start(self) -> "Job | None":
        """The job whose model this one trains on; None: the untrained model."""
        if self.joint or len(self.learnt) < 2:
            return None
        return _stage_job(self.learnt[:-1], self.strategy, self.budget, self.seed)

    @property
    def task(self) -> str:
        """The newest task."""
        return self.learnt[-1]

    @property
    def name(self) -> str:
        """Name of its folder: readable, and different for different jobs.

        >>> Job().name
        'untrained'
        >>> Job(learnt=("a", "b"), strategy="inscl", budget=Budget(4)).name
        'inscl-4-per-task-seed0-02-752ea25c'
        """
        if not self.learnt:
            return "untrained"
        label = "" if self.budget is None else self.budget.label
        kind = "joint" if self.joint else f"{self.strategy or 'first'} {label}"
        words = re.sub(r"[^a-z0-9]+", "-", kind.lower().replace("%", " percent")).strip("-")
        digest = blake2b("\0".join([kind, str(self.seed), *self.learnt]).encode(), digest_size=4).hexdigest()
        return f"{words}-seed{self.seed}-{len(self.learnt):02d}-{digest}"


UNTRAINED = Job()


def _stage_job(learnt: Sequence[str], strategy: str, budget: Budget | None, seed: int) -> Job:
    """The job of a stream's stage; nothing is replayed at the first, so strategy and budget do not count."""
    replays = len(learnt) > 1
    return Job(
        learnt=tuple(learnt), seed=seed, strategy=strategy if replays else "", budget=budget if replays else None
    )


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """One stream: an order of tasks, learnt with one strategy, budget and seed."""

    order: Order
    tasks: tuple[str, ...]  # in that order
    strategy: str
    budget: Budget | None
    seed: int

    @classmethod
    def all_of(
        cls, config: StreamConfig, orders: Callable[[int], Iterable[tuple[Order, Sequence[str]]]]
    ) -> "list[StreamPlan]":
        """All streams, those that share a first stage next to each other; `orders` gives those of a seed."""
        return [
            cls(order=order, tasks=tuple(tasks), strategy=strategy, budget=budget, seed=seed)
            for seed in config.seeds
            for order, tasks in orders(seed)
            for strategy in config.strategies
            for budget in _budgets_of(strategy, config)
        ]

    @property
    def order_name(self) -> str:
        """The order as tables show it."""
        return self.order if isinstance(self.order, str) else " > ".join(self.order)

    @property
    def budget_name(self) -> str:
        """The budget as tables show it; empty where nothing is replayed."""
        return "" if self.budget is None else self.budget.label

    def jobs(self) -> list[Job]:
        """The stages, first to last."""
        n = len(self.tasks)
        return [_stage_job(self.tasks[:i], self.strategy, self.budget, self.seed) for i in range(1, n + 1)]

    def scored(self, rows: TestRows) -> Iterator[tuple[Job, Scored]]:
        """What each stage scores: all earlier tasks, its own and the next one."""
        n = len(self.tasks)
        for i, job in enumerate(self.jobs()):
            yield job, dict.fromkeys(self.tasks[: i + 2], rows.at(i, n))


def _budgets_of(strategy: str, config: StreamConfig) -> tuple[Budget | None, ...]:
    """The budgets that make a difference to a strategy: none for one that replays nothing."""
    from inscl.replay.strategies import STRATEGIES

    return (None,) if STRATEGIES[strategy].budget is None else config.budgets


def _larger(a: int | None, b: int | None) -> int | None:
    """The larger number of rows, where None stands for all.

    >>> _larger(3, 5), _larger(3, None)
    (5, None)
    """
    return None if a is None or b is None else max(a, b)


def merge_scored(wanted: Iterable[tuple[Job, Scored]]) -> dict[Job, Scored]:
    """Each job once, with the most rows that any stream wants of a task.

    >>> [*merge_scored([(UNTRAINED, {"a": 4}), (UNTRAINED, {"a": 9, "b": 4})]).values()]
    [{'a': 9, 'b': 4}]
    """
    merged: dict[Job, Scored] = {}
    for job, scored in wanted:
        known = merged.setdefault(job, {})
        for task, rows in scored.items():
            known[task] = _larger(known[task], rows) if task in known else rows
    return merged
