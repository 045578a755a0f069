"""What was replayed, and why: distances, budgets, InsInfo and tags, from the plans and the run's memory.

Of each line and order the first stream is read; a plan of another seed differs in what is drawn.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Never, Self

from inscl.errors import InsclError
from inscl.experiments.run_folder import RunFolder, StreamFolder
from inscl.replay.plan import Plan

if TYPE_CHECKING:
    from inscl.replay.settings import Settings

First = tuple[str, RunFolder, StreamFolder]  # label of a line, and the first stream of an order
_TOP_TAGS = 8


@dataclass(frozen=True, kw_only=True)
class _DistanceFacts:
    """Wasserstein distance of a new task to an earlier one."""

    task: str
    earlier: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class StageBudget:
    """What one stage replayed."""

    stage: int
    task: str  # the new one
    new_rows: int
    counts: Mapping[str, int]  # earlier task -> rows replayed
    tokens: int  # estimated, of the replayed rows


@dataclass(frozen=True, kw_only=True)
class BudgetFacts:
    """How a stream's budget was shared out at each stage."""

    line: str
    order: str
    seed: int
    tasks: tuple[str, ...]
    stages: tuple[StageBudget, ...]


@dataclass(frozen=True, kw_only=True)
class InstructionFacts:
    """One instruction of an earlier task at the last stage."""

    task: str
    text: str
    insinfo: float
    chosen: int  # rows replayed
    available: int | None  # rows there are; None where only the chosen ones are known
    tags: tuple[str, ...]

    @classmethod
    def chosen_by(cls, plan: Plan) -> Iterator[Self]:
        """The instructions of a plan that are replayed."""
        for task in plan.tasks:
            for i in task.instructions:
                yield cls(
                    task=task.name,
                    text=i.text,
                    insinfo=i.insinfo or 0.0,
                    chosen=i.count,
                    available=i.available,
                    tags=i.tags or (),
                )


@dataclass(frozen=True, kw_only=True)
class InsInfoFacts:
    """InsInfo of the chosen instructions and of the rest, at the last planned stage of a stream.

    `missing` says why the rest is not there, where it is not.
    """

    line: str
    order: str
    seed: int
    stage: int
    task: str  # the new one
    instructions: tuple[InstructionFacts, ...]
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class _TagFacts:
    """Tags of one task's instructions."""

    task: str
    instructions: int
    per_instruction: float  # mean number of tags
    top: tuple[tuple[str, int], ...]  # the most frequent tags, and how many instructions carry them


@dataclass(frozen=True, kw_only=True)
class ReplayFacts:
    """What was replayed, and why.

    Attributes
    ----------
    distances : tuple of _DistanceFacts
        Of a pair that was met in several streams, the first.
    budgets : tuple of BudgetFacts
    insinfo : tuple of InsInfoFacts
        Of strategies that look at tags.
    tags : tuple of _TagFacts
        As the last stage of the first such stream saw them, after merging.
    """

    distances: tuple[_DistanceFacts, ...]
    budgets: tuple[BudgetFacts, ...]
    insinfo: tuple[InsInfoFacts, ...]
    tags: tuple[_TagFacts, ...]

    @classmethod
    def of(cls, firsts: Iterable[First]) -> Self:
        """Read the plans of each line's first stream per order."""
        distances: dict[tuple[str, str], float] = {}
        budgets: list[BudgetFacts] = []
        infos: dict[str, InsInfoFacts] = {}
        for label, run, stream in firsts:
            plans = _plans(stream)
            for pair, distance in _distances(plans):
                distances.setdefault(pair, distance)
            if any(plan.count for plan in plans):
                budgets.append(_budget(label, stream, plans))
            if label not in infos and plans and _looks_at_tags(plans[-1]):
                infos[label] = _insinfo(label, run, stream, plans[-1])
        return cls(
            distances=tuple(_DistanceFacts(task=t, earlier=e, distance=d) for (t, e), d in distances.items()),
            budgets=tuple(budgets),
            insinfo=tuple(infos.values()),
            tags=tuple(_tags(next(iter(infos.values())).instructions)) if infos else (),
        )


def _plans(stream: StreamFolder) -> list[Plan]:
    """The plans of the stages that replay."""
    return [plan for folder in stream.folders[1:] if (plan := folder.plan())]


def _distances(plans: Iterable[Plan]) -> Iterator[tuple[tuple[str, str], float]]:
    """Each pair of a new and an earlier task, with its distance."""
    for plan in plans:
        for task in plan.tasks:
            if task.distance is not None:
                yield (plan.name, task.name), task.distance


def _budget(label: str, stream: StreamFolder, plans: Sequence[Plan]) -> BudgetFacts:
    return BudgetFacts(
        line=label,
        order=stream.key.order,
        seed=stream.key.seed,
        tasks=stream.tasks,
        stages=tuple(
            StageBudget(
                stage=plan.stage,
                task=plan.name,
                new_rows=plan.new.rows,
                counts={task.name: task.count for task in plan.tasks},
                tokens=plan.tokens,
            )
            for plan in plans
        ),
    )


def _looks_at_tags(plan: Plan) -> bool:
    return any(instruction.insinfo is not None for task in plan.tasks for instruction in task.instructions)


def _insinfo(label: str, run: RunFolder, stream: StreamFolder, plan: Plan) -> InsInfoFacts:
    chosen = tuple(InstructionFacts.chosen_by(plan))
    try:
        found, missing = _all_instructions(run, stream, plan, chosen), ""
    except (InsclError, OSError, KeyError, TypeError) as error:  # the last two of settings that somebody edited
        found, missing = chosen, f"the run's memory cannot be read: {error}"
    return InsInfoFacts(
        line=label,
        order=stream.key.order,
        seed=stream.key.seed,
        stage=plan.stage,
        task=plan.name,
        instructions=found,
        missing=missing,
    )


def _all_instructions(
    run: RunFolder, stream: StreamFolder, plan: Plan, chosen: Sequence[InstructionFacts]
) -> tuple[InstructionFacts, ...]:
    """The chosen instructions and the rest, measured again from the memory that the plan was made from."""
    from inscl.memory.memory import Memory
    from inscl.replay.views import Derived, StageView

    sampled = run.config.limits.train is not None
    memory = Memory(
        run.memory(stream.key.seed if sampled else None), encoder=_CacheOnly(plan.settings["encoder"])
    ).existing()
    derived, tagged = Derived(memory.encode), any(i.tags for i in chosen)
    with memory.reading():
        new, *earlier = (derived.view(task) for task in memory.open([plan.name, *(task.name for task in plan.learnt)]))
        pool = StageView(new, earlier, plan.seed, _settings(plan), derived).pool
        counts = {(i.task, i.text): i.chosen for i in chosen}
        return tuple(
            InstructionFacts(
                task=view.name,
                text=text,
                insinfo=pool.insinfo[key],
                chosen=counts.get((view.name, text), 0),
                available=int(available),
                tags=tuple(sorted(pool.tags[key])) if tagged else (),
            )
            for view in earlier
            for key, text, available in zip(view.keys, view.texts, view.counts, strict=True)
        )


def _settings(plan: Plan) -> "Settings":
    """What the plan was asked for, as far as this release knows it."""
    from inscl.replay.settings import Settings

    known = {field.name for field in fields(Settings)}
    return Settings(**{key: value for key, value in plan.settings.items() if key in known})


class _CacheOnly:
    """Stands for an encoder whose embeddings are all in the cache; a report encodes nothing."""

    def __init__(self, identity: str) -> None:
        self.identity = identity

    def __call__(self, texts: list[str], /) -> Never:
        raise InsclError(f"{len(texts)} tags or instructions have no embedding in its cache")

    def too_long(self, texts: list[str]) -> Iterable[bool]:
        """Never asked: nothing is encoded."""
        return [False for _ in texts]


def _tags(instructions: Sequence[InstructionFacts]) -> Iterator[_TagFacts]:
    """The tags of each task; none where no instruction has any."""
    if not any(i.tags for i in instructions):
        return
    for task in dict.fromkeys(i.task for i in instructions):
        sets = [i.tags for i in instructions if i.task == task]
        counts = Counter(tag for tags in sets for tag in tags)
        yield _TagFacts(
            task=task,
            instructions=len(sets),
            per_instruction=sum(map(len, sets)) / len(sets),
            top=tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_TOP_TAGS]),
        )
