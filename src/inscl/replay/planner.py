"""From a memory and a new task to a replay plan, and from the plan to the mixture that a stage trains on."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inscl.core.budget import allocate, allocate_carried
from inscl.data.example import Example
from inscl.data.mixture import MixtureRow, in_time
from inscl.data.readers import ReadReport
from inscl.data.split import Shares
from inscl.errors import MemoryStateError, PlanError
from inscl.memory.encoder import Encoded
from inscl.memory.memory import Memory
from inscl.memory.task import Task, check_name
from inscl.memory.task_tables import Recipe, write_task
from inscl.memory.writing import read_sides
from inscl.replay.budget import DEFAULT_BUDGET, Budget
from inscl.replay.log import ReplayLog
from inscl.replay.notes import notes_of
from inscl.replay.plan import InstructionPlan, NewTask, Plan, TaskPlan
from inscl.replay.registry import Rows, Selector, Strategy
from inscl.replay.settings import DEFAULT_INSINFO, Settings
from inscl.replay.strategies import STRATEGIES
from inscl.replay.views import Derived, StageView, TaskView
from inscl.tags.clean import radius_for

COUNTED_VERSIONS = ("inscl", "numpy", "POT", "scikit-learn", "scipy", "simplemma")
_derived: WeakKeyDictionary[Memory, Derived] = WeakKeyDictionary()


@dataclass(frozen=True)
class Replay:
    """A plan together with what it was made from, so that its mixture can be had at once."""

    plan: Plan
    memory: Memory
    new: Task
    keep: Any = None  # the folder in which unremembered new data lie lives as long as this

    def rows(self) -> list[MixtureRow]:
        """The mixture: the new task's training rows and the replayed ones, in the order of training."""
        return mixture_rows(self.plan, self.memory, self.new)

    def mixture(self) -> Any:
        """The mixture as a `datasets.Dataset` that `trl.SFTTrainer` takes as it is."""
        from inscl.export import to_dataset

        return to_dataset(self.rows())


def plan(
    memory: Memory,
    name: str,
    data: Any = None,
    *,
    budget: int | float | Budget | None = None,
    budget_per_task: int | float | None = None,
    strategy: str = "inscl",
    seed: int = 0,
    weights: str | None = None,
    insinfo: str | None = None,
    settings: Settings | None = None,
    earlier: Sequence[str] | None = None,
    log: Callable[[], ReplayLog] | None = None,
    tags: Mapping[bytes, Sequence[str]] | None = None,
    shares: Shares = Shares(),
    **reading: Any,
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
        The earlier tasks, in order; default all remembered tasks but `name`.
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
        For an unknown strategy, weight or InsInfo, an impossible budget, a seed below 0, or `weights` or `insinfo`
        beside `settings`.
    """
    check_name(name)
    chosen = STRATEGIES.named(strategy)
    if seed < 0:
        raise PlanError(f"The seed is {seed}; wanted a whole number of at least 0.")
    asked = _budget(budget, budget_per_task)
    derived = _derived.setdefault(memory, Derived(memory.encode))
    settings = chosen.settle(strategy, _settings(memory, weights, insinfo, settings))
    with memory.reading():
        new, keep = _new_task(memory, name, data, tags, shares, reading)
        views = [derived.view(task) for task in memory.open(earlier) if task.info.name != name]
        check_encoders([view.task for view in views], memory.encode.identity)
        stage = StageView(derived.view(new), views, seed, settings, derived, log or partial(_logged, memory, name))
        made = _plan(stage, name, strategy, chosen, asked)
    if data is not None and _is_path(data):
        source = {"data": [str(part) for part in data] if isinstance(data, list) else str(data), **reading}
        made = replace(made, source={**source, "shares": asdict(shares)})
    return Replay(made, memory, new, keep)


def _logged(memory: Memory, name: str) -> ReplayLog:
    """What was replayed when other tasks were learnt."""
    return ReplayLog(stage for stage in memory.stages() if stage["name"] != name)


def _settings(memory: Memory, weights: str | None, insinfo: str | None, settings: Settings | None) -> Settings:
    if settings is None:
        return settings_for(memory, weights or "frequency", insinfo or DEFAULT_INSINFO)
    if given := [name for name, value in (("weights", weights), ("insinfo", insinfo)) if value is not None]:
        raise PlanError(f"`{given[0]}` was given beside `settings`, which says it too. Give it in `settings` alone.")
    return settings


def settings_for(memory: Memory, weights: str = "frequency", insinfo: str = DEFAULT_INSINFO) -> Settings:
    """The settings of a plan, with the merging radius of the memory's encoder."""
    radius = radius_for(memory.encode.identity) or Settings().radius
    return Settings(weights=weights, insinfo=insinfo, radius=radius)


def resume(made: Plan, memory: Memory, data: Any = None, **reading: Any) -> Replay:
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
        new, keep = _new_task(memory, made.name, data, None, shares, {**source, **reading}, measured=False)
    if new.info.content != made.new.content:
        raise PlanError(
            f"The data of '{made.name}' have changed since the plan was made. Plan again with `inscl plan`."
        )
    return Replay(made, memory, new, keep)


def mixture_rows(made: Plan, memory: Memory, new: Task) -> list[MixtureRow]:
    """New and replayed rows, shuffled by the plan's seed and stage; never a held-out row.

    Raises
    ------
    PlanError
        If a chosen row is no longer in the memory.
    """
    rows = [MixtureRow(made.name, _bare(row)) for row in new.examples(new.side("train"))]
    with memory.reading():
        rows += replayed_rows(made, memory)
    order = np.random.default_rng([made.seed, made.stage]).permutation(len(rows))
    shuffled = [rows[i] for i in order]
    return [shuffled[i] for i in in_time([row.after for row in shuffled])]


def replayed_rows(made: Plan, memory: Memory) -> list[MixtureRow]:
    """The replayed rows alone, in the order of the plan."""
    asked = {"after": made.training.get("late", 0.0), "soft": made.training.get("kl", 0.0)}
    return [
        MixtureRow(part.name, row, replayed=True, weight=part.weight, **asked)
        for part in made.tasks
        if part.count
        for row in _find(part, memory)
        for _ in range(part.repeats)
    ]


def _find(part: TaskPlan, memory: Memory) -> Iterator[Example]:
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


def _bare(example: Example) -> Example:
    return replace(example, split=None)


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
    data: Any,
    tags: Mapping[bytes, Sequence[str]] | None,
    shares: Shares,
    reading: Mapping[str, Any],
    measured: bool = True,
) -> tuple[Task, Any]:
    """The new task's tables: remembered ones, or written to a temporary folder that the second value keeps."""
    if data is None:
        return memory.task(name), None
    folder = tempfile.TemporaryDirectory(prefix="inscl-")
    if measured:
        recipe = Recipe(
            encode=memory.encode,
            encoder=memory.encode.identity,
            tagger=memory.tagger,
            own_tags=tags or {},
            shares=shares,
        )
    else:
        recipe = Recipe(encode=_unencoded, encoder="", tagger=_Untagged(), shares=shares)
    options = dict(reading)
    dev, test = options.pop("dev", None), options.pop("test", None)
    return write_task(name, read_sides(data, dev, test, ReadReport(), options), folder.name, recipe), folder


class _Untagged:
    """Stands for a tagger where only the rows are wanted."""

    identity = ""

    def __call__(self, texts: list[str], /) -> list[list[str]]:
        return [[] for _ in texts]


def _unencoded(texts: Sequence[str]) -> Encoded:
    """Stands for an encoder where only the rows are wanted."""
    return Encoded(np.ones((len(texts), 1), np.float16), np.zeros(len(texts), bool))


def _is_path(data: Any) -> bool:
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


def _plan(stage: StageView, name: str, strategy: str, chosen: Strategy, asked: Budget) -> Plan:
    new = stage.new
    total = asked.total(new.rows, len(stage.earlier)) if chosen.budget else 0
    weights = list(chosen.budget(stage)) if chosen.budget else [0.0] * len(stage.earlier)
    picks, carried = _pick(stage, weights, total, chosen, asked)
    loads = chosen.weight(stage, picks) if chosen.weight else [1.0] * len(picks)
    measured = stage.distances if stage.has_looked_at("distances") else [None] * len(stage.earlier)
    tasks = tuple(
        replace(_task_plan(stage, view, rows), share=share, distance=distance, carried=owed, weight=load)
        for view, rows, share, distance, owed, load in zip(
            stage.earlier, picks, _shares(weights), measured, carried, loads, strict=True
        )
    )
    made = Plan(
        name=name,
        new=NewTask(new.task.info.content, len(new.keys), new.rows, new.task.info.tokens["train"]),
        stage=stage.number,
        strategy=strategy,
        seed=stage.seed,
        budget=asked,
        total=total,
        settings=asdict(stage.settings) | {"encoder": new.task.info.encoder, "tagger": new.task.info.tagger},
        versions=dict(_versions()),
        hashes=_hashes(stage),
        tasks=tasks,
        training=dict(chosen.training) if stage.earlier else {},
    )
    return replace(made, notes=notes_of(made, stage))


def _pick(
    stage: StageView, weights: Sequence[float], total: int, chosen: Strategy, asked: Budget
) -> tuple[list[Rows], Sequence[float | None]]:
    """The rows of each earlier task, and what each is owed still."""
    nothing_owed: list[float | None] = [None] * len(stage.earlier)
    if chosen.budget is None:
        return [np.zeros(0, np.int64) for _ in stage.earlier], nothing_owed
    if asked.unit == "tokens":
        if chosen.carry:
            raise PlanError("Tokens are not carried from stage to stage. Give a budget in examples, or leave '+carry'.")
        return _within_tokens(stage, weights, total, chosen.selector), nothing_owed
    capacities = [view.rows for view in stage.earlier]
    if chosen.carry:
        before = [stage.log.carried(view.name) for view in stage.earlier]
        counts, owed = allocate_carried(weights, total, before, capacities)
        carried: Sequence[float | None] = owed
    else:
        counts, carried = _allocate(stage, weights, total, capacities), nothing_owed
    return [chosen.selector(stage, view, n) for view, n in zip(stage.earlier, counts, strict=True)], carried


def _allocate(stage: StageView, weights: Sequence[float], budget: int, capacities: Sequence[int]) -> list[int]:
    """Shares by weight; where all weights are equal, who gets what is left over changes with seed and stage."""
    n = len(weights)
    order = stage.rng("order").permutation(n) if len(set(weights)) == 1 else np.arange(n)
    shares = allocate([weights[j] for j in order], budget, [capacities[j] for j in order])
    result = [0] * n
    for j, share in zip(order, shares, strict=True):
        result[j] = share
    return result


def _within_tokens(stage: StageView, weights: Sequence[float], budget: int, selector: Selector) -> list[Rows]:
    """The most rows of each task whose tokens stay within its share of the budget."""
    lengths = [
        view.task.columns(["tokens"])["tokens"].to_numpy()[: view.rows].astype(np.int64) for view in stage.earlier
    ]
    shares = _allocate(stage, weights, budget, [int(length.sum()) for length in lengths])
    picks = []
    for view, length, share in zip(stage.earlier, lengths, shares, strict=True):
        low, high, best = 0, view.rows + 1, np.zeros(0, np.int64)
        while high - low > 1:
            middle = (low + high) // 2
            rows = selector(stage, view, middle)
            if length[rows].sum() <= share:
                low, best = middle, rows
            else:
                high = middle
        picks.append(best)
    return picks


def _task_plan(stage: StageView, view: TaskView, rows: Rows) -> TaskPlan:
    stored = view.task.marks(rows)
    keys = [key.hex() for key in stored["key"].to_pylist()]
    informed = stage.has_looked_at("insinfo")
    tagged = stage.has_looked_at("tags")
    ends = np.cumsum(view.counts)
    firsts, lasts = (np.searchsorted(rows, bounds).tolist() for bounds in (ends - view.counts, ends))
    available = view.counts.tolist()
    instructions = []
    for i, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        if first == last:
            continue
        key = view.keys[i]
        instructions.append(
            InstructionPlan(
                key=key.hex(),
                text=view.texts[i],
                count=last - first,
                available=available[i],
                rows=tuple(keys[first:last]),
                tags=tuple(sorted(stage.tags[key])) if tagged else None,
                insinfo=stage.insinfo[key] if informed else None,
            )
        )
    return TaskPlan(
        name=view.name,
        content=view.task.info.content,
        share=0.0,
        count=len(rows),
        available=view.rows,
        tokens=int(np.sum(stored["tokens"].to_numpy())),
        all_instructions=len(view.keys),
        instructions=tuple(instructions),
    )


def _shares(weights: Sequence[float]) -> list[float]:
    whole = sum(weights)
    return [weight / whole for weight in weights] if whole else [1 / len(weights) for _ in weights]


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in COUNTED_VERSIONS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _hashes(stage: StageView) -> dict[str, str]:
    """Hashes of all that a plan comes from."""
    infos = [view.task.info for view in stage.earlier]
    log = {"log": _hash(stage.log.plain(view.name for view in stage.earlier))} if stage.has_looked_at("log") else {}
    return {
        "memory": _hash([(info.name, info.content, info.tags) for info in infos]),
        "new": _hash([stage.new.task.info.content, stage.new.task.info.tags]),
        "embeddings": _hash([info.embeddings for info in (*infos, stage.new.task.info)]),
        **log,
    }


def _hash(parts: Any) -> str:
    return blake2b(json.dumps(parts, ensure_ascii=True).encode(), digest_size=16).hexdigest()
