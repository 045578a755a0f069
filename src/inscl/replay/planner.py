"""From a memory and a new task to a replay plan, and a plan with its data found again."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from inscl.data.mixture import MixtureRow
from inscl.data.readers import ReadReport
from inscl.data.split import Shares
from inscl.errors import MemoryStateError, PlanError
from inscl.memory.encoder import Encoded
from inscl.memory.memory import Memory
from inscl.memory.task import Task, check_name
from inscl.memory.task_tables import Recipe, write_task
from inscl.memory.writing import read_sides
from inscl.replay.budget import DEFAULT_BUDGET, Budget, general_share
from inscl.replay.general import general_tasks
from inscl.replay.log import ReplayLog
from inscl.replay.making import make_plan
from inscl.replay.mixing import mixture_rows
from inscl.replay.plan import Plan
from inscl.replay.settings import DEFAULT_INSINFO, Settings
from inscl.replay.strategies import STRATEGIES
from inscl.replay.views import Derived, StageView

if TYPE_CHECKING:
    from datasets import Dataset

_derived: WeakKeyDictionary[Memory, Derived] = WeakKeyDictionary()


@dataclass(frozen=True)
class Replay:
    """A plan together with what it was made from, so that its mixture can be had at once."""

    plan: Plan
    memory: Memory
    new: Task
    keep: object = None  # the folder in which unremembered new data lie lives as long as this
    report: ReadReport | None = None  # what was kept of the new data; None where they were remembered

    def rows(self) -> list[MixtureRow]:
        """The mixture: the new task's training rows and the replayed ones, in the order of training."""
        return mixture_rows(self.plan, self.memory, self.new)

    def mixture(self) -> "Dataset":
        """The mixture as a `datasets.Dataset` that `trl.SFTTrainer` takes as it is."""
        from inscl.data.records import to_dataset

        return to_dataset(self.rows())


def plan(
    memory: Memory,
    name: str,
    data: object = None,
    *,
    budget: int | float | Budget | None = None,
    budget_per_task: int | float | None = None,
    strategy: str = "inscl",
    seed: int = 0,
    weights: str | None = None,
    insinfo: str | None = None,
    settings: Settings | None = None,
    earlier: Sequence[str] | None = None,
    general: float | None = None,
    log: Callable[[], ReplayLog] | None = None,
    tags: Mapping[bytes, Sequence[str]] | None = None,
    shares: Shares = Shares(),
    **reading: object,
) -> Replay:
    """Decide what to replay when the model learns a new task. The memory is not changed.

    Parameters
    ----------
    memory : Memory
    name : str
        The new task. A remembered task of this name is not an earlier task.
    data : anything `Memory.add` takes, optional
        The new task's data; None takes them from the memory.
    budget, budget_per_task : int, float or Budget, optional
        In total or per earlier task; a float in (0, 1] is a share of the new task's training rows. Default:
        `inscl.replay.budget.DEFAULT_BUDGET`, 20 % of the new task's training rows in total.
    strategy : str
        A name in `inscl.replay.strategies.STRATEGIES`.
    seed : int
        Seeds every draw, together with the stage and the task.
    weights : "frequency" or "uniform", optional
        Weight of an instruction in its task's distribution; "frequency" by default.
    insinfo : str, optional
        Which InsInfo: a name in `inscl.replay.settings.INSINFO`; the paper's by default.
    settings : Settings, optional
        Says both, and how tags are cleaned; so it is not given beside `weights` or `insinfo`.
    earlier : sequence of str, optional
        The earlier tasks, in order; default all remembered tasks but `name` and those that are marked general.
    general : float, optional
        The share of the budget, above 0 and at most 1, that goes to general tasks: those that the memory marks so, or,
        where it has none, everyday instructions that come with inscl. The strategy chooses between them as it does
        between earlier tasks, and they count as none.
    log : callable, optional
        Gives what earlier stages replayed, for strategies that look at it; default what the memory has logged of the
        stages of other tasks than `name`.
    tags, shares, **reading
        As in `Memory.add`.

    Returns
    -------
    Replay

    Raises
    ------
    PlanError
        For an unknown strategy, weight or InsInfo, an impossible budget or share, a seed below 0, or `weights` or
        `insinfo` beside `settings`.
    """
    check_name(name)
    chosen = STRATEGIES.named(strategy)
    if seed < 0:
        raise PlanError(f"The seed is {seed}; wanted a whole number of at least 0.")
    asked = _budget(budget, budget_per_task)
    share = 0.0 if general is None else general_share(general)
    derived = _derived.setdefault(memory, Derived(memory.encode, memory.distances, memory.engine))
    settings = chosen.settle(strategy, _settings(memory, weights, insinfo, settings))
    with memory.reading():
        new, keep, report = _new_task(memory, name, data, tags, shares, reading)
        tasks = _earlier(memory, name, earlier)
        with _beside(memory, {name, *(task.info.name for task in tasks)}, share) as beside:
            check_encoders([*tasks, *beside], memory.encode.identity)
            views, pool = ([derived.view(task) for task in some] for some in (tasks, beside))
            stage = StageView(derived.view(new), views, seed, settings, derived, log or partial(_logged, memory, name))
            made = make_plan(stage, name, strategy, chosen, asked, pool, share)
    return Replay(replace(made, source=_source(data, shares, reading)), memory, new, keep, report)


def _earlier(memory: Memory, name: str, asked: Sequence[str] | None) -> list[Task]:
    """The earlier tasks asked for, or all that are not general, without the new one."""
    tasks = [task for task in memory.open(asked) if task.info.name != name]
    return tasks if asked else [task for task in tasks if not task.info.general]


def _beside(memory: Memory, besides: Set[str], share: float) -> AbstractContextManager[list[Task]]:
    """The general tasks but those named `besides`; none where they have no share."""
    if not share:
        return nullcontext([])
    return general_tasks(memory, _recipe(memory, {}, Shares(0.0, 0.0)), besides)


def _source(data: object, shares: Shares, reading: Mapping[str, object]) -> Mapping[str, object] | None:
    """Where the new data are, and how they were read; None where no path says it."""
    if not _is_path(data):
        return None
    places = [str(part) for part in data] if isinstance(data, list) else str(data)
    return {"data": places, **reading, "shares": asdict(shares)}


def _logged(memory: Memory, name: str) -> ReplayLog:
    """What was replayed when other tasks were learnt."""
    return ReplayLog(stage for stage in memory.stages() if stage["name"] != name)


def _settings(memory: Memory, weights: str | None, insinfo: str | None, settings: Settings | None) -> Settings:
    if settings is None:
        encoder = memory.encode.identity
        return Settings.for_encoder(encoder, weights=weights or "frequency", insinfo=insinfo or DEFAULT_INSINFO)
    if given := [name for name, value in (("weights", weights), ("insinfo", insinfo)) if value is not None]:
        raise PlanError(f"`{given[0]}` was given beside `settings`, which says it too. Give it in `settings` alone.")
    return settings


def resume(made: Plan, memory: Memory, data: object = None, **reading: object) -> Replay:
    """A plan that was read from a file, with the new task's data found again.

    Raises
    ------
    PlanError
        If the data, or an earlier task, are no longer those the plan was made from.
    """
    source = dict(made.source or {})
    shares = Shares(**source.pop("shares", asdict(Shares())))
    found = source.pop("data", None)
    data = data if data is not None else found
    if data is None and made.name not in memory:
        raise PlanError(f"The plan does not say where the data of '{made.name}' are. Pass them.")
    with memory.reading():
        new, keep, report = _new_task(memory, made.name, data, None, shares, {**source, **reading}, measured=False)
    if new.info.content != made.new.content:
        raise PlanError(
            f"The data of '{made.name}' have changed since the plan was made. Plan again with `inscl plan`."
        )
    return Replay(made, memory, new, keep, report)


def _budget(budget: int | float | Budget | None, per_task: int | float | None) -> Budget:
    if budget is not None and per_task is not None:
        raise PlanError("Both a total budget and one per task were given. Give one of them.")
    if isinstance(budget, Budget):
        return budget
    if per_task is not None:
        return Budget(per_task, per_task=True)
    return DEFAULT_BUDGET if budget is None else Budget(budget, per_task=False)


def _new_task(
    memory: Memory,
    name: str,
    data: object,
    tags: Mapping[bytes, Sequence[str]] | None,
    shares: Shares,
    reading: Mapping[str, object],
    measured: bool = True,
) -> tuple[Task, object, ReadReport | None]:
    """The new task's tables: remembered ones, or written to a temporary folder that the second value keeps."""
    if data is None:
        return memory.task(name), None, None
    folder = tempfile.TemporaryDirectory(prefix="inscl-")
    if measured:
        recipe = _recipe(memory, tags or {}, shares)
    else:
        recipe = Recipe(encode=_unencoded, encoder="", tagger=_Untagged(), shares=shares)
    options = dict(reading)
    dev, test = options.pop("dev", None), options.pop("test", None)
    report = ReadReport()
    return write_task(name, read_sides(data, dev, test, report, options), folder.name, recipe), folder, report


def _recipe(memory: Memory, tags: Mapping[bytes, Sequence[str]], shares: Shares) -> Recipe:
    """How rows become a task that is encoded and tagged as the memory's are."""
    return Recipe(
        encode=memory.encode,
        encoder=memory.encode.identity,
        tagger=memory.tagger,
        engine=memory.engine,
        own_tags=tags,
        shares=shares,
    )


class _Untagged:
    """Stands for a tagger where only the rows are wanted."""

    identity = ""

    def __call__(self, texts: list[str], /) -> list[list[str]]:
        return [[] for _ in texts]


def _unencoded(texts: Sequence[str]) -> Encoded:
    """Stands for an encoder where only the rows are wanted."""
    return Encoded(np.ones((len(texts), 1), np.float16), np.zeros(len(texts), bool))


def _is_path(data: object) -> bool:
    return isinstance(data, str | Path) or (
        isinstance(data, list) and bool(data) and all(isinstance(part, str | Path) for part in data)
    )


def check_encoders(tasks: Iterable[Task], wanted: str) -> None:
    """Refuse tasks that another encoder has encoded.

    Raises
    ------
    MemoryStateError
        If there is one; the first is named.
    """
    other = [task.info for task in tasks if task.info.encoder != wanted]
    if other:
        raise MemoryStateError(
            f"Task '{other[0].name}' was encoded with '{other[0].encoder}', and the encoder is now '{wanted}'. "
            "Use that encoder, or add the task again."
        )
