"""What a long command shows on standard error: one live view in a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from inscl.cli.printing import printable, remark

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from inscl.experiments.run import Event

_SECONDS_BETWEEN_LINES = 30.0


class _View(AbstractContextManager[object]):
    """Bars in a terminal, as long as the context lasts, with a note at the end of each; nothing where `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.begun = time.monotonic()
        self.bars: Progress | None = None

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[note]}"))
            self.bars = Progress(*columns, *self._more(), console=Console(stderr=True), transient=True)
            self.bars.start()
        return self

    def _more(self) -> "tuple[ProgressColumn, ...]":
        """Further columns."""
        return ()

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()


class RunView(_View):
    """Streams, stage, step, loss and time left of a run, whose models may be trained side by side."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self.first: float | None = None  # share of the work that was done when this call began
        self.shares: dict[str, float] = {}  # of each model at hand
        self.said: dict[str, tuple[str, float]] = {}  # what was said of each of them last, and when
        self.parts: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        if self.bars is not None:
            self.whole = self.bars.add_task("all models", total=1.0, note="")
        return self

    def show(self, event: "Event") -> None:
        """Take an event of the run."""
        if self.quiet:
            return
        # Training is most of a model's time, scoring the rest.
        inside = event.done / max(event.total, 1)
        self.shares[event.what] = 0.7 * inside if event.doing == "train" else 0.7 + 0.3 * inside
        done = min(1.0, (event.job + sum(self.shares.values())) / max(event.jobs, 1))
        if self.first is None:
            self.first = done
        if self.bars is not None:
            self._draw(self.bars, event, done, inside)
        else:
            self._line(event, done)
        if event.doing == "score" and event.done == event.total:
            del self.shares[event.what]

    def _draw(self, bars: "Progress", event: "Event", done: float, inside: float) -> None:
        bars.update(self.whole, completed=done, note=f"{event.job} of {event.jobs} done, {self._left(done)}")
        if event.what not in self.parts:
            self.parts[event.what] = bars.add_task("", total=1.0, note="")
        what = f"{event.what}: {event.doing} {event.task}"
        bars.update(self.parts[event.what], completed=inside, description=printable(what), note=_note(event))
        if event.doing == "score" and event.done == event.total:
            bars.remove_task(self.parts.pop(event.what))

    def _line(self, event: "Event", done: float) -> None:
        """A line when something else begins or ends, and otherwise twice a minute."""
        now = time.monotonic()
        doing, when = self.said.get(event.what, ("", float("-inf")))
        if event.doing == doing and event.done != event.total and now - when < _SECONDS_BETWEEN_LINES:
            return
        self.said[event.what] = event.doing, now
        remark(
            f"[{event.job + 1}/{event.jobs}] {event.what}: {event.doing} {event.task}, {_note(event)}, "
            f"{self._left(done)}"
        )

    def _left(self, done: float) -> str:
        gained = done - (self.first or 0.0)
        if gained < 0.05:
            return "time left not known yet"
        return f"about {_duration((time.monotonic() - self.begun) / gained * (1 - done))} left"


class StageProgress(_View):
    """What one stage is doing, its step, loss and time left."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self.doing, self.said = "", float("-inf")

    def _more(self) -> "tuple[ProgressColumn, ...]":
        from rich.progress import TimeRemainingColumn

        return (TimeRemainingColumn(),)

    def counting(self, doing: str) -> Callable[[int, int], None]:
        """What takes many equal steps: how many are done, and of how many."""
        return lambda done, total: self.show(doing, done, total, None)

    def show(self, doing: str, done: int, total: int, loss: float | None) -> None:
        """Take a step of what is being done."""
        if self.quiet:
            return
        now = time.monotonic()
        if doing != self.doing:
            self.doing, self.begun, self.said = doing, now, float("-inf")
            if self.bars is not None:
                self.task = self.bars.add_task(doing, note="")
        note = f"{done} of {total}" + ("" if loss is None else f", loss {loss:.3f}")
        if self.bars is not None:
            self.bars.update(self.task, completed=done, total=total, note=note)
        elif done == total or now - self.said >= _SECONDS_BETWEEN_LINES:
            left = (now - self.begun) / done * (total - done) if done else 0.0
            more = f", about {_duration(left)} left" if left else ""
            self.said = now
            remark(f"{doing}: {note}{more}")


def _note(event: "Event") -> str:
    loss = "" if event.loss is None else f", loss {event.loss:.3f}"
    return f"{'step' if event.doing == 'train' else 'row'} {event.done} of {event.total}{loss}"


def _duration(seconds: float) -> str:
    """A time that a person reads.

    >>> _duration(45), _duration(200), _duration(9000)
    ('45 s', '3 min', '2 h 30 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
