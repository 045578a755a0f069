"""What a strategy is, and the table of all there are: ours, those of installed packages, and those a script adds."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

import numpy as np
import numpy.typing as npt

from inscl.errors import PlanError
from inscl.replay.settings import DEFAULT_INSINFO, Settings
from inscl.replay.views import StageView, TaskView
from inscl.suggest import suggest

GROUP = "inscl.strategies"  # entry points of installed packages

Rows = npt.NDArray[np.int64]
BudgetRule = Callable[[StageView], Sequence[float]]  # weight of each earlier task
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
    """

    about: str
    budget: BudgetRule | None
    selector: Selector
    insinfo: str | None = None

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


class Strategies(Mapping[str, Strategy]):
    """All strategies by name. It can be read like any mapping; `add` is the way to write.

    Parameters
    ----------
    ours : mapping from name to Strategy
        Those that nobody else may name.
    """

    def __init__(self, ours: Mapping[str, Strategy]) -> None:
        self._ours = dict(ours)
        self._added: dict[str, Strategy] = {}

    def __getitem__(self, name: str) -> Strategy:
        for known in (self._ours, self._added):
            if name in known:
                return known[name]
        return _load(self._installed[name])

    def __iter__(self) -> Iterator[str]:
        return iter({**self._ours, **self._added, **self._installed})

    def __len__(self) -> int:
        return len({*self._ours, *self._added, *self._installed})

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in self._added or name in self._installed

    def named(self, name: str) -> Strategy:
        """The strategy of a name.

        Raises
        ------
        PlanError
            If there is none, or the package that brings it cannot be used.
        """
        if name not in self:
            raise PlanError(f"There is no strategy '{name}'; wanted one of {', '.join(self)}.{suggest(name, self)}")
        return self[name]

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
        return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in self._ours}


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
