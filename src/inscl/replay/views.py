"""What a strategy may look at: the earlier tasks, the new one, and measures of both, computed when asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from inscl.core.distance import METHOD, wasserstein
from inscl.data.chat_form import to_messages
from inscl.data.example import SPLITS, key_of, said
from inscl.data.split import TRAIN
from inscl.engine import Engine, Local
from inscl.memory.encoder import Embeddings, Encoded
from inscl.memory.kept_distances import KeptDistances
from inscl.memory.task import Task, estimate_tokens
from inscl.provenance import versions_of
from inscl.replay.log import ReplayLog
from inscl.replay.settings import INSINFO, Settings
from inscl.tags.clean import MergedTags, TagSpace, clean_tags

_Weighted = tuple[Embeddings, npt.NDArray[np.int64] | None]
_DISTANCE_DIGITS = 9  # plans keep distances to this many decimals, so that another machine's last bits do not count


@dataclass(frozen=True)
class TaskView:
    """What a strategy may see of a task: its instructions that have training rows."""

    task: Task
    keys: list[bytes]
    texts: list[str]
    counts: npt.NDArray[np.int64]  # (n,) training rows
    tags: list[tuple[str, ...]]  # as given
    embeddings: Embeddings  # (n, d)

    @classmethod
    def of(cls, task: Task) -> "TaskView":
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

    @cached_property
    def row_keys(self) -> list[bytes]:
        """Key of each training row."""
        keys: list[bytes] = self.task.columns(["key"])["key"].slice(0, self.rows).to_pylist()
        return keys


@dataclass
class Derived:
    """What was computed from contents that never change, kept for the next plan of this process."""

    encode: Callable[[Sequence[str]], Encoded]  # a `CachedEncoder`
    distances: KeptDistances = field(default_factory=partial(KeptDistances, None, ""))
    engine: Engine = field(default_factory=Local)
    views: dict[tuple[str, str], TaskView] = field(default_factory=dict)
    clean: dict[tuple[str, str], list[tuple[str, ...]]] = field(default_factory=dict)
    spaces: dict[tuple[float, int], TagSpace] = field(default_factory=dict)

    def view(self, task: Task) -> TaskView:
        key = (task.info.content, task.info.embeddings)
        found = self.views.get(key)
        # Two tasks may have the same content; the view carries the name.
        if found is None or found.task.folder != task.folder:
            found = self.views[key] = TaskView.of(task)
        return found

    def space(self, settings: Settings) -> TagSpace:
        key = (settings.radius, settings.min_samples)
        if key not in self.spaces:
            self.spaces[key] = TagSpace(
                lambda tags: self.encode(tags).vectors, radius=settings.radius, min_samples=settings.min_samples
            )
        return self.spaces[key]

    def cleaned(self, view: TaskView, language: str) -> list[tuple[str, ...]]:
        key = (view.task.info.content, language)
        if key not in self.clean:
            self.clean[key] = [clean_tags(tags, language) for tags in view.tags]
        return self.clean[key]


class Pool:
    """The distinct instructions that InsInfo is counted over, by ascending key; what they measure, when asked for.

    An instruction of two tasks counts once, with the tags of both. The order of the tasks changes nothing.

    Parameters
    ----------
    views : sequence of TaskView
        The tasks.
    settings : Settings
    derived : Derived
    """

    def __init__(self, views: Sequence[TaskView], settings: Settings, derived: Derived) -> None:
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


class StageView:
    """What budgets and selectors look at: the earlier tasks, the new one, and measures computed when asked for.

    Parameters
    ----------
    new : TaskView
    earlier : list of TaskView
        In the order of the memory.
    seed : int
    settings : Settings
    derived : Derived
    read_log : callable
        Gives the log of earlier stages; called when a strategy looks at it.
    """

    def __init__(
        self,
        new: TaskView,
        earlier: list[TaskView],
        seed: int,
        settings: Settings,
        derived: Derived,
        read_log: Callable[[], ReplayLog] = ReplayLog,
    ) -> None:
        self.new, self.earlier, self.seed, self.settings = new, earlier, seed, settings
        self.number = len(earlier) + 1
        self._derived, self._read_log = derived, read_log

    def beside(self, earlier: list[TaskView]) -> "StageView":
        """The same stage, with the same draws, seen with other earlier tasks."""
        other = StageView(self.new, earlier, self.seed, self.settings, self._derived, lambda: self.log)
        other.number = self.number
        return other

    def rng(self, *about: str) -> np.random.Generator:
        """The generator of this seed, this stage and whatever `about` names (a task)."""
        return np.random.default_rng([self.seed, self.number, int.from_bytes(key_of(*about), "big")])

    @cached_property
    def distances(self) -> list[float]:
        """Wasserstein distance of each earlier task to the new one."""
        way = (self.settings.weights, str(METHOD), *versions_of(("numpy", "POT")).values())
        earlier = [view.task.info for view in self.earlier]
        return self._derived.distances(way, earlier, self.new.task.info, self._measure)

    @cached_property
    def log(self) -> ReplayLog:
        """What earlier stages replayed."""
        return self._read_log()

    def times(self, view: TaskView) -> npt.NDArray[np.int64]:
        """How often earlier stages replayed each training row of a task."""
        return self.log.times(view.name, view.row_keys)

    def loss_increase(self, view: TaskView) -> float:
        """How much the mean loss of a task's measured rows has risen since it was learnt; 0 where none is known."""
        rises = self.log.increases(view.name).values()
        return round(sum(rises) / len(rises), _DISTANCE_DIGITS) if rises else 0.0

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

    def has_looked_at(self, measure: str) -> bool:
        """Whether the strategy has asked for `distances`, the `log`, or `tags`, `insinfo` or `merged` of the pool."""
        return measure in vars(self) or ("pool" in vars(self) and measure in vars(self.pool))

    def example_vectors(self, view: TaskView) -> Embeddings:
        """Embedding of each training row (instruction and input), in row order."""
        rows = view.task.examples(view.task.side("train"))
        return self._derived.encode([f"{row.instruction}\n{row.input}".strip() for row in rows]).vectors

    def answer_tokens(self, view: TaskView, rows: npt.NDArray[np.int64] | None = None) -> int:
        """Estimated tokens of the answers of some training rows; None means all."""
        chosen = range(view.rows) if rows is None else rows.tolist()
        turns = (turn for row in view.task.examples(chosen) for turn in to_messages(row))
        return sum(estimate_tokens(said(turn)) for turn in turns if turn["role"] == "assistant")

    def input_vectors(self, view: TaskView, rows: npt.NDArray[np.int64]) -> Embeddings:
        """Embedding of the input of some training rows; of the instruction where there is no input."""
        texts = [row.input or row.instruction for row in view.task.examples(rows.tolist())]
        return self._derived.encode(texts).vectors

    def _measure(self, numbers: Sequence[int]) -> Iterator[float]:
        """Distances of some earlier tasks, one a piece of work."""
        distance = partial(_distance, self._weighted(self.new))
        return self._derived.engine.map(distance, (self._weighted(self.earlier[j]) for j in numbers))

    def _weighted(self, view: TaskView) -> _Weighted:
        return view.embeddings, view.counts if self.settings.weights == "frequency" else None


def _distance(new: _Weighted, earlier: _Weighted) -> float:
    return round(wasserstein(earlier[0], new[0], earlier[1], new[1]), _DISTANCE_DIGITS)
