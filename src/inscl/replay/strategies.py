"""Replay strategies: each names a budget (how much from each earlier task) and a selector (which of its rows).

To add one, write a function of a `Stage` and add a line to `STRATEGIES`. InsInfo has variants: a function in
`inscl.core.insinfo` and a line in `INSINFO` each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from inscl.core import selection as select
from inscl.core.distance import wasserstein
from inscl.core.insinfo import density_insinfo, insinfo, mean_insinfo
from inscl.data.example import SPLITS, key_of
from inscl.data.split import TRAIN
from inscl.errors import PlanError
from inscl.memory.encoder import Embeddings
from inscl.memory.task import Task
from inscl.suggest import suggest
from inscl.tags.clean import DEFAULT_MIN_SAMPLES, DEFAULT_RADIUS, MergedTags, TagSpace, clean_tags

Rows = npt.NDArray[np.int64]
WEIGHTS = ("frequency", "uniform")
DEFAULT_INSINFO = "paper"
DISTANCE_DIGITS = 9  # plans keep distances to this many decimals, so that another machine's last bits do not count


@dataclass(frozen=True)
class Measure:
    """A way to measure how much each instruction of a pool says."""

    about: str
    of: Literal["tags", "embeddings"]
    score: Callable[..., list[float]]  # of the merged tags, or the embeddings, of all instructions


INSINFO: Mapping[str, Measure] = {
    "paper": Measure("rarity of its tags, summed (the paper)", "tags", insinfo),
    "mean": Measure("rarity per tag, which does not grow with their number", "tags", mean_insinfo),
    "density": Measure("distance to the nearest other instructions, without tags", "embeddings", density_insinfo),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What shapes the measures. All of it stands in the plan.

    Raises
    ------
    PlanError
        For an unknown word.
    """

    weights: str = "frequency"  # of an instruction in its task's distribution: "frequency" or "uniform"
    radius: float = DEFAULT_RADIUS  # cosine distance within which tags merge
    min_samples: int = DEFAULT_MIN_SAMPLES
    language: str = "en"  # of the tags
    insinfo: str = DEFAULT_INSINFO  # a name in `INSINFO`

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise PlanError(f"The weights are '{self.weights}'; wanted one of {', '.join(WEIGHTS)}.")
        if self.insinfo not in INSINFO:
            hint = suggest(self.insinfo, INSINFO)
            raise PlanError(f"There is no InsInfo '{self.insinfo}'; wanted one of {', '.join(INSINFO)}.{hint}")


@dataclass(frozen=True)
class View:
    """What a strategy may see of a task: its instructions that have training rows."""

    task: Task
    keys: list[bytes]
    texts: list[str]
    counts: npt.NDArray[np.int64]  # (n,) training rows
    tags: list[tuple[str, ...]]  # as given
    embeddings: Embeddings  # (n, d)

    @classmethod
    def of(cls, task: Task) -> "View":
        whole = task.instructions
        used = np.flatnonzero(whole.counts[:, TRAIN])
        return cls(
            task=task,
            keys=[whole.keys[i] for i in used],
            texts=[whole.texts[i] for i in used],
            counts=whole.counts[used, TRAIN],
            tags=[whole.tags[i] for i in used],
            embeddings=whole.embeddings[used],
        )

    @property
    def name(self) -> str:
        return self.task.info.name

    @property
    def rows(self) -> int:
        return self.task.info.rows[SPLITS[TRAIN]]


@dataclass
class Derived:
    """What was computed from contents that never change, kept for the next plan of this process."""

    encode: Callable[[Sequence[str]], Any]  # a `CachedEncoder`
    views: dict[tuple[str, str], View] = field(default_factory=dict)
    distances: dict[tuple[str, ...], float] = field(default_factory=dict)
    clean: dict[tuple[str, str], list[tuple[str, ...]]] = field(default_factory=dict)
    spaces: dict[tuple[float, int], TagSpace] = field(default_factory=dict)

    def view(self, task: Task) -> View:
        key = (task.info.content, task.info.embeddings)
        found = self.views.get(key)
        # Two tasks may have the same content; the view carries the name.
        if found is None or found.task.folder != task.folder:
            found = self.views[key] = View.of(task)
        return found

    def space(self, settings: Settings) -> TagSpace:
        key = (settings.radius, settings.min_samples)
        if key not in self.spaces:
            self.spaces[key] = TagSpace(
                lambda tags: self.encode(tags).vectors, radius=settings.radius, min_samples=settings.min_samples
            )
        return self.spaces[key]

    def cleaned(self, view: View, language: str) -> list[tuple[str, ...]]:
        key = (view.task.info.content, language)
        if key not in self.clean:
            self.clean[key] = [clean_tags(tags, language) for tags in view.tags]
        return self.clean[key]


class Pool:
    """The distinct instructions that InsInfo is counted over, by ascending key; what they measure, when asked for.

    An instruction of two tasks counts once, with the tags of both. The order of the tasks changes nothing.

    Parameters
    ----------
    views : sequence of View
        The tasks.
    settings : Settings
    derived : Derived
    """

    def __init__(self, views: Sequence[View], settings: Settings, derived: Derived) -> None:
        self.settings = settings
        self._views, self._derived = views, derived

    @cached_property
    def clean(self) -> dict[bytes, frozenset[str]]:
        """Clean tags by instruction key, not merged yet."""
        found: dict[bytes, frozenset[str]] = {}
        for view in self._views:
            for key, tags in zip(view.keys, self._derived.cleaned(view, self.settings.language), strict=True):
                found[key] = found.get(key, frozenset()).union(tags)
        return dict(sorted(found.items()))

    @cached_property
    def merged(self) -> MergedTags:
        """The pool's tags after merging."""
        return self.merge(self.clean)

    def merge(self, clean: Mapping[bytes, frozenset[str]]) -> MergedTags:
        """Merge any clean tags as the pool's are merged."""
        return self._derived.space(self.settings).merge(list(clean.values()))

    @cached_property
    def tags(self) -> dict[bytes, frozenset[str]]:
        """Merged tags by instruction key."""
        return dict(zip(self.clean, self.merged.tag_sets, strict=True))

    @cached_property
    def texts(self) -> dict[bytes, str]:
        """Text by instruction key: of texts that differ in white space, the smallest."""
        return {key: text for key, (text, _, _) in self._places.items()}

    @cached_property
    def embeddings(self) -> Embeddings:
        """The embedding of each instruction, (n, d)."""
        return np.stack([self._views[v].embeddings[i] for _, v, i in self._places.values()])

    @cached_property
    def insinfo(self) -> dict[bytes, float]:
        """InsInfo by instruction key, as the settings name it."""
        measure = INSINFO[self.settings.insinfo]
        scores = measure.score(list(self.tags.values()) if measure.of == "tags" else self.embeddings)
        return dict(zip(self._places, scores, strict=True))

    @cached_property
    def _places(self) -> dict[bytes, tuple[str, int, int]]:
        """Where each instruction stands: its text, the view and the row in it."""
        found: dict[bytes, tuple[str, int, int]] = {}
        for v, view in enumerate(self._views):
            for i, (key, text) in enumerate(zip(view.keys, view.texts, strict=True)):
                found[key] = min(found.get(key, (text, v, i)), (text, v, i))
        return dict(sorted(found.items()))


class Stage:
    """What budgets and selectors look at: the earlier tasks, the new one, and measures computed when asked for.

    Parameters
    ----------
    new : View
    earlier : list of View
        In the order of the memory.
    seed : int
    settings : Settings
    derived : Derived
    """

    def __init__(self, new: View, earlier: list[View], seed: int, settings: Settings, derived: Derived) -> None:
        self.new, self.earlier, self.seed, self.settings = new, earlier, seed, settings
        self.number = len(earlier) + 1
        self._derived = derived

    def rng(self, *about: str) -> np.random.Generator:
        """The generator of this seed, this stage and whatever `about` names (a task)."""
        return np.random.default_rng([self.seed, self.number, int.from_bytes(key_of(*about), "big")])

    @cached_property
    def distances(self) -> list[float]:
        """Wasserstein distance of each earlier task to the new one."""
        return [self._distance(task) for task in self.earlier]

    @cached_property
    def pool(self) -> "Pool":
        """Every distinct instruction of the earlier tasks and the new one."""
        return Pool([*self.earlier, self.new], self.settings, self._derived)

    @property
    def tags(self) -> dict[bytes, frozenset[str]]:
        """Merged tags by instruction key."""
        return self.pool.tags

    @property
    def insinfo(self) -> dict[bytes, float]:
        """InsInfo by instruction key."""
        return self.pool.insinfo

    def example_vectors(self, view: View) -> Embeddings:
        """Embedding of each training row (instruction and input), in row order."""
        rows = view.task.examples(view.task.side("train"))
        vectors: Embeddings = self._derived.encode([f"{row.instruction}\n{row.input}".strip() for row in rows]).vectors
        return vectors

    def _distance(self, view: View) -> float:
        how, new = self.settings.weights, self.new
        key = (view.task.info.content, view.task.info.embeddings, new.task.info.content, new.task.info.embeddings, how)
        if key not in self._derived.distances:
            weights = (view.counts, new.counts) if how == "frequency" else (None, None)
            self._derived.distances[key] = round(
                wasserstein(view.embeddings, new.embeddings, *weights), DISTANCE_DIGITS
            )
        return self._derived.distances[key]


BudgetRule = Callable[[Stage], Sequence[float]]  # weight of each earlier task
Selector = Callable[[Stage, View, int], Rows]  # row numbers among the task's training rows


def by_distance(stage: Stage) -> list[float]:
    """More from tasks whose instructions are further from the new ones (paper)."""
    return stage.distances


def equally(stage: Stage) -> list[float]:
    """The same from each."""
    return [1.0] * len(stage.earlier)


def by_size(stage: Stage) -> list[float]:
    """In proportion to the training rows each has."""
    return [float(view.rows) for view in stage.earlier]


def at_random(stage: Stage, view: View, count: int) -> Rows:
    return select.random(view.counts.tolist(), count, stage.rng("task", view.name))


def by_insinfo(stage: Stage, view: View, count: int) -> Rows:
    scores = [stage.insinfo[key] for key in view.keys]
    return select.insinfo(view.counts.tolist(), scores, count, stage.rng("task", view.name))


def prototype_data(stage: Stage, view: View, count: int) -> Rows:
    seed = int(stage.rng("task", view.name).integers(2**31))
    return select.prototype_data(stage.example_vectors(view), count, seed)


def prototype_instruction(stage: Stage, view: View, count: int) -> Rows:
    return select.prototype_instruction(view.counts.tolist(), view.embeddings, count, stage.rng("task", view.name))


def diverse_instruction(stage: Stage, view: View, count: int) -> Rows:
    rng = stage.rng("task", view.name)
    return select.diverse_instruction(view.counts.tolist(), view.embeddings, stage.new.embeddings, count, rng)


@dataclass(frozen=True)
class Strategy:
    """A named combination."""

    about: str
    budget: BudgetRule | None  # None replays nothing
    selector: Selector
    insinfo: str | None = None  # the InsInfo it stands for; None: as the settings say

    def settle(self, name: str, settings: Settings) -> Settings:
        """The settings of a plan by this strategy, called `name`.

        Raises
        ------
        PlanError
            If they ask for another InsInfo than the one that the strategy stands for.
        """
        if self.insinfo is None:
            return settings
        if settings.insinfo not in (DEFAULT_INSINFO, self.insinfo):
            raise PlanError(
                f"Strategy '{name}' chooses by InsInfo '{self.insinfo}', and the settings ask for "
                f"'{settings.insinfo}'. Leave one of them out."
            )
        return replace(settings, insinfo=self.insinfo)


STRATEGIES: Mapping[str, Strategy] = {
    "none": Strategy("no replay", None, at_random),
    "random": Strategy("equal shares, random rows", equally, at_random),
    "inscl": Strategy("more from distant tasks, informative instructions first (the paper)", by_distance, by_insinfo),
    "inscl-mean": Strategy("inscl, with InsInfo per tag", by_distance, by_insinfo, "mean"),
    "inscl-density": Strategy("inscl, with InsInfo from embeddings", by_distance, by_insinfo, "density"),
    "dynamic": Strategy("more from distant tasks, random rows", by_distance, at_random),
    "insinfo": Strategy("equal shares, informative instructions first", equally, by_insinfo),
    "proportional": Strategy("shares by task size, random rows", by_size, at_random),
    "prototype-data": Strategy("equal shares, rows nearest the centroids of the task's data", equally, prototype_data),
    "prototype-instruction": Strategy(
        "equal shares, rows of the instructions nearest the centroids", equally, prototype_instruction
    ),
    "diverse-instruction": Strategy(
        "equal shares, instructions least like the new ones first", equally, diverse_instruction
    ),
}
