"""What remembered instructions are tagged with, how that ranks them, and whether another tagger ranks them alike."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from inscl.errors import DataError, PlanError
from inscl.memory.memory import Memory
from inscl.replay.planner import check_encoders
from inscl.replay.settings import DEFAULT_INSINFO, INSINFO, Settings
from inscl.replay.views import Derived, Pool, TaskView
from inscl.tags.clean import clean_tags

if TYPE_CHECKING:
    from inscl.tags import Tagger

_Held = TypeVar("_Held")


@dataclass(frozen=True)
class _TagUse:
    """A tag after merging, and what carries it."""

    tag: str
    here: int  # instructions of the tasks asked for that carry it
    instructions: int  # instructions of the pool that carry it
    tasks: tuple[str, ...]  # of the pool
    rarity: float  # ln(N / instructions)
    merged: tuple[str, ...]  # clean tags that took this name


@dataclass(frozen=True)
class _InstructionUse:
    """An instruction, its merged tags and its InsInfo."""

    key: str  # hex
    text: str
    tasks: tuple[str, ...]
    tags: tuple[str, ...]
    insinfo: float


@dataclass(frozen=True)
class Survey:
    """The tags of a memory.

    Attributes
    ----------
    tasks : tuple of str
        Those asked for.
    pool : int
        Distinct instructions with training rows of all tasks: what InsInfo counts over.
    taggers : mapping from str to int
        Who made the tags, and of how many instructions of the tasks asked for ("yours": given with the data).
    n_tags, n_clusters, n_merged, radius
        Clean tags of the pool, clusters found among them, tags that took another's name, and the radius.
    warning : str
        What merging warns of, or ''.
    insinfo : str
        The InsInfo that `instructions` are ranked by: a name in `inscl.replay.settings.INSINFO`.
    tags : tuple of _TagUse
        Tags of the tasks asked for, the most frequent first.
    instructions : tuple of _InstructionUse
        Instructions of the tasks asked for, the highest InsInfo first.
    """

    tasks: tuple[str, ...]
    pool: int
    taggers: Mapping[str, int]
    n_tags: int
    n_clusters: int
    n_merged: int
    radius: float
    warning: str
    insinfo: str
    tags: tuple[_TagUse, ...]
    instructions: tuple[_InstructionUse, ...]


@dataclass(frozen=True)
class Agreement:
    """How alike two taggers rank the same instructions.

    Attributes
    ----------
    task : str
        '' for all together.
    n, of : int
        Instructions that are ranked, of how many: those that the other tagger did not see are left out.
    spearman, kendall : float or None
        Rank correlations (Kendall's is tau-b); None where a side ranks nothing: fewer than two instructions, or
        all alike.
    """

    task: str
    n: int
    of: int
    spearman: float | None
    kendall: float | None


def survey(memory: Memory, names: Sequence[str] = (), *, insinfo: str = DEFAULT_INSINFO) -> Survey:
    """Tags of remembered tasks and the InsInfo of their instructions. The memory is not changed.

    Everything is counted over the instructions of all remembered tasks, as a plan for a next task would; of general
    tasks only over those that are named.

    Parameters
    ----------
    memory : Memory
    names : sequence of str
        Tasks to tell of; none means all.
    insinfo : str
        A name in `inscl.replay.settings.INSINFO`.

    Raises
    ------
    MemoryStateError
        If a task is not remembered.
    PlanError
        If there is no such InsInfo.
    """
    with memory.reading():
        pool, views = _open(memory, names, insinfo)
        merged, tags, scores = pool.merged, pool.tags, pool.insinfo
        chosen = [views[name] for name in names or views]
        taggers = _taggers(chosen)
    everywhere, here = Counter(_each(tags.values())), Counter(_each(tags[key] for key in _keys(chosen)))
    homes = _homes({name: view.keys for name, view in views.items()})
    carriers = _homes({name: set(_each(tags[key] for key in view.keys)) for name, view in views.items()})
    joined: defaultdict[str, list[str]] = defaultdict(list)
    for tag, name in sorted(merged.names.items()):
        if tag != name:
            joined[name].append(tag)
    by_frequency = sorted(here, key=lambda tag: (-here[tag], -everywhere[tag], tag))
    by_score = sorted(_keys(chosen), key=lambda key: (-scores[key], key))
    return Survey(
        tasks=tuple(view.name for view in chosen),
        pool=len(tags),
        taggers=taggers,
        n_tags=merged.n_tags,
        n_clusters=merged.n_clusters,
        n_merged=merged.n_merged,
        radius=merged.radius,
        warning=merged.warning,
        insinfo=insinfo,
        tags=tuple(
            _TagUse(
                tag=tag,
                here=here[tag],
                instructions=everywhere[tag],
                tasks=tuple(carriers[tag]),
                rarity=math.log(len(tags) / everywhere[tag]),
                merged=tuple(joined[tag]),
            )
            for tag in by_frequency
        ),
        instructions=tuple(
            _InstructionUse(key.hex(), pool.texts[key], tuple(homes[key]), tuple(sorted(tags[key])), scores[key])
            for key in by_score
        ),
    )


def _homes(held: Mapping[str, Iterable[_Held]]) -> Mapping[_Held, list[str]]:
    """By what tasks hold the tasks that hold it."""
    found: defaultdict[_Held, list[str]] = defaultdict(list)
    for name, things in held.items():
        for thing in things:
            found[thing].append(name)
    return found


def agreement(
    memory: Memory,
    other: "Mapping[bytes, Sequence[str]] | Tagger",
    names: Sequence[str] = (),
    *,
    insinfo: str = DEFAULT_INSINFO,
) -> list[Agreement]:
    """Does another tagger rank the instructions as the tags in the memory do?

    Both sides are cleaned, merged and counted alike, over those instructions of the memory that `other` has tagged.

    Parameters
    ----------
    memory, names, insinfo
        As in `survey`.
    other : mapping or Tagger
        Raw tags by instruction key, as from `inscl.tags.read_tags`; or what tags the texts.

    Returns
    -------
    list of Agreement
        One a task asked for, and then one for all together; of a single task only that.

    Raises
    ------
    PlanError
        If that InsInfo looks at no tags.
    DataError
        If `other` has tagged none of the instructions asked for.
    """
    with memory.reading():
        pool, views = _open(memory, names, insinfo)
        score = _score_of_tags(insinfo)
        theirs = _cleaned(pool, other)
        ours = {key: pool.clean[key] for key in theirs}
        sides = [_scores(pool, side, score) for side in (ours, theirs)]
    chosen = [views[name] for name in names or views]
    if not any(key in theirs for key in _keys(chosen)):
        raise DataError(
            "The other tags are of none of these instructions. Tag the same texts; "
            "`inscl survey --insinfo paper --json` lists them."
        )
    parts = {view.name: view.keys for view in chosen}
    if len(parts) > 1:
        parts[""] = _keys(chosen)
    return [_compare(name, keys, *sides) for name, keys in parts.items()]


def _score_of_tags(insinfo: str) -> Callable[..., list[float]]:
    """How that InsInfo scores tags."""
    measure = INSINFO[insinfo]
    if measure.of != "tags":
        wanted = ", ".join(name for name, known in INSINFO.items() if known.of == "tags")
        raise PlanError(f"InsInfo '{insinfo}' looks at no tags: no tagger changes it. Compare by one of {wanted}.")
    return measure.score


def _cleaned(pool: Pool, other: "Mapping[bytes, Sequence[str]] | Tagger") -> dict[bytes, frozenset[str]]:
    """The other tags of the pool's instructions, of those that have any, cleaned as the pool's own."""
    given = dict(zip(pool.clean, other(list(pool.texts.values())), strict=True)) if callable(other) else other
    return {key: frozenset(clean_tags(given[key], pool.settings.language)) for key in pool.clean if key in given}


def _open(memory: Memory, names: Sequence[str], insinfo: str) -> tuple[Pool, dict[str, TaskView]]:
    """The pool of all remembered tasks, and each task; `names` must be among them."""
    settings = Settings.for_encoder(memory.encode.identity, insinfo=insinfo)
    memory.open(names)
    tasks = [task for task in memory.open() if not task.info.general or task.info.name in names]
    check_encoders(tasks, memory.encode.identity)
    derived = Derived(memory.encode)
    views = {task.info.name: derived.view(task) for task in tasks}
    return Pool(list(views.values()), settings, derived), views


def _taggers(views: Iterable[TaskView]) -> dict[str, int]:
    """How many instructions each tagger has tagged, the busiest first."""
    made: set[tuple[bytes, str]] = set()
    for view in views:
        by_key = dict(zip(view.task.instructions.keys, view.task.tagged(), strict=True))
        made.update((key, by_key[key][1]) for key in view.keys)
    return dict(sorted(Counter(tagger for _, tagger in made).items(), key=lambda item: (-item[1], item[0])))


def _scores(pool: Pool, clean: Mapping[bytes, frozenset[str]], score: Callable[..., list[float]]) -> dict[bytes, float]:
    return dict(zip(clean, score(list(pool.merge(clean).tag_sets)), strict=True))


def _compare(task: str, keys: Sequence[bytes], ours: Mapping[bytes, float], theirs: Mapping[bytes, float]) -> Agreement:
    """Rank correlations of two scores of the instructions that have both."""
    both = [key for key in keys if key in theirs]
    first, second = [ours[key] for key in both], [theirs[key] for key in both]
    if len(set(first)) < 2 or len(set(second)) < 2:
        return Agreement(task, len(both), len(keys), None, None)
    from scipy.stats import kendalltau, spearmanr

    spearman, kendall = spearmanr(first, second).statistic, kendalltau(first, second).statistic
    return Agreement(task, len(both), len(keys), float(spearman), float(kendall))


def _keys(views: Iterable[TaskView]) -> list[bytes]:
    """The distinct instructions of some tasks."""
    return list(dict.fromkeys(key for view in views for key in view.keys))


def _each(sets: Iterable[frozenset[str]]) -> Iterable[str]:
    return (tag for tags in sets for tag in tags)
