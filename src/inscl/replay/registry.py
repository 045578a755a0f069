"""What a strategy is, and the table of all there are: ours, those of installed packages, and those a script adds.

A name may go on with parts: ``inscl+carry`` is the strategy `inscl` with the part `carry`; ``random+balance=0.3`` gives
its part a number.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from importlib.metadata import EntryPoint, entry_points

import numpy as np
import numpy.typing as npt

from inscl.errors import PlanError
from inscl.replay.settings import DEFAULT_INSINFO, Settings
from inscl.replay.views import StageView, TaskView
from inscl.suggest import suggest

_GROUP = "inscl.strategies"  # entry points of installed packages

Rows = npt.NDArray[np.int64]
_BudgetRule = Callable[[StageView], Sequence[float]]  # weight of each earlier task
_WeightRule = Callable[[StageView, Sequence[Rows]], Sequence[float]]  # from each task's chosen rows to their weight
Selector = Callable[[StageView, TaskView, int], Rows]  # row numbers among the task's training rows


@dataclass(frozen=True)
class Strategy:
    """A named combination: how much from each earlier task, and which of its rows.

    Attributes
    ----------
    about : str
        What it does, in a line.
    budget : callable, optional
        Of a `StageView`: a weight of at least 0 for each earlier task; shares are in proportion. None replays nothing.
    selector : callable
        Of a `StageView`, a `TaskView` and a count: that many different row numbers of the task, ascending.
    insinfo : str, optional
        The InsInfo it stands for; None: as the settings say.
    carry : bool
        Whether what rounding keeps from a task is carried to the next stage.
    weight : callable, optional
        Of a `StageView` and the rows chosen of each earlier task: how strongly the loss on them counts, a number for
        each task. None: 1.
    training : mapping from str to float
        What the stage's training is asked for, by the name of a part.
    losses : bool
        Whether it looks at losses of earlier tasks, which stages then measure.
    """

    about: str
    budget: _BudgetRule | None
    selector: Selector
    insinfo: str | None = None
    carry: bool = False
    weight: _WeightRule | None = None
    training: Mapping[str, float] = field(default_factory=dict)
    losses: bool = False

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


@dataclass(frozen=True)
class Part:
    """What a strategy's name may go on with.

    Attributes
    ----------
    about : str
    put : callable
        From a strategy and a number to the strategy with this part.
    number : float, optional
        The number where the name gives none. None: the part takes no number.
    most : float
        Numbers lie above 0 and are at most this.
    """

    about: str
    put: Callable[[Strategy, float], Strategy]
    number: float | None = None
    most: float = 1.0

    def on(self, strategy: Strategy, name: str, number: str) -> Strategy:
        """The strategy with this part, called `name`; the number as it was written, '' for none."""
        if not number:
            return self.put(strategy, self.number or 0.0)
        value = float(number) if re.fullmatch(r"[0-9]*\.?[0-9]+", number) else 0.0
        if self.number is None:
            raise PlanError(f"The part '{name}' of a strategy takes no number, got '{number:.20}'. Write '+{name}'.")
        if not 0 < value <= self.most:
            raise PlanError(
                f"The part '{name}' of a strategy wants a number above 0, at most {self.most:g}, got '{number:.20}'. "
                f"Write '+{name}={self.number:g}', say."
            )
        return self.put(strategy, value)


class Strategies(Mapping[str, Strategy]):
    """All strategies by name. It can be read like any mapping; `add` is the way to write.

    Parameters
    ----------
    ours : mapping from name to Strategy
        Those that nobody else may name.
    parts : mapping from name to Part
        What each can be combined with.
    """

    def __init__(self, ours: Mapping[str, Strategy], parts: Mapping[str, Part]) -> None:
        self._ours, self._parts = dict(ours), parts
        self._added: dict[str, Strategy] = {}

    def __getitem__(self, name: str) -> Strategy:
        """The strategy of a name, with its parts; one of an installed package is loaded."""
        base, *parts = name.split("+")
        found = self._ours.get(base) or self._added.get(base) or _load(self._installed[base])
        return reduce(self._with, parts, found)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._ours, **self._added, **self._installed})

    def __len__(self) -> int:
        return len({*self._ours, *self._added, *self._installed})

    def __contains__(self, name: object) -> bool:
        base, *parts = str(name).split("+")
        known = base in self._ours or base in self._added or base in self._installed
        return known and all(part.partition("=")[0] in self._parts for part in parts)

    def _known_to_training(self, name: str, strategy: Strategy) -> Strategy:
        if unknown := [part for part in strategy.training if part not in self._parts]:
            raise PlanError(
                f"The strategy '{name}' asks training for '{unknown[0]}'; wanted one of {', '.join(self._parts)}. "
                "Take it out of the strategy's `training`."
            )
        return strategy

    def _with(self, strategy: Strategy, part: str) -> Strategy:
        name, _, number = part.partition("=")
        return self._parts[name].on(strategy, name, number)

    def named(self, name: str) -> Strategy:
        """The strategy of a name.

        Raises
        ------
        PlanError
            If there is none, or the package that brings it cannot be used.
        """
        if name in self:
            return self._known_to_training(name, self[name])
        base, *parts = name.split("+")
        if base not in self:
            raise PlanError(f"There is no strategy '{base}'; wanted one of {', '.join(self)}.{suggest(base, self)}")
        unknown = next(part for part in (part.partition("=")[0] for part in parts) if part not in self._parts)
        raise PlanError(
            f"A strategy has no part '{unknown}'; wanted one of {', '.join(self._parts)}."
            f"{suggest(unknown, self._parts)}"
        )

    def add(self, name: str, strategy: Strategy) -> None:
        """Make a strategy known to this process; one that was added before under the name is replaced.

        Raises
        ------
        PlanError
            If the name is one of ours or cannot be one, or what is added is no `Strategy`.
        """
        if name in self._ours:
            raise PlanError(f"The strategy '{name}' comes with inscl. Give yours another name.")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,59}", name):
            raise PlanError(
                f"A strategy cannot be called {name!r:.80}; wanted up to 60 small letters, digits, '-', '_' or '.', "
                "a letter or digit first. Choose another name."
            )
        if not isinstance(strategy, Strategy):
            raise PlanError(f"The strategy '{name}' is a {type(strategy).__name__}; wanted an `inscl.Strategy`.")
        self._added[name] = strategy

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=_GROUP) if entry.name not in self._ours}


def _load(entry: EntryPoint) -> Strategy:
    """The strategy that an installed package brings."""
    try:
        found = entry.load()
    except Exception as error:
        raise PlanError(
            f"The strategy '{entry.name}' cannot be loaded from {entry.value} ({error}). Mend or uninstall its package."
        ) from error
    if not isinstance(found, Strategy):
        raise PlanError(
            f"The strategy '{entry.name}' ({entry.value}) is a {type(found).__name__}; wanted an `inscl.Strategy`. "
            "Mend its package."
        )
    return found
