"""Pieces of work, done in this process, by several, or by a cluster: one `map` for all that runs side by side.

A piece is coarse (a few thousand texts, the distance of two tasks, a chain of trainings). How work is cut does not
depend on who does it, so neither do the results.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Who does pieces of work; a context that ends what it has started."""

    def map(
        self, work: Callable[..., Result], items: Iterable[Item], listen: Callable[[Any], None] | None = None
    ) -> Iterator[Result]:
        """The result of each piece, in the order of the items.

        Parameters
        ----------
        work : callable
            Takes an item. Where other processes work it is sent to them, and each keeps the one it had last: what
            work loads when it is first called (a model) is loaded once a process.
        items : iterable
            Read as far as there is room for pieces on their way.
        listen : callable, optional
            Told what pieces have to say, from a thread; `work` then takes a function to say it with, too, as `tell`.

        Raises
        ------
        InsclError
            What a piece raised, as soon as any of those on their way did; or that a process died.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, *_: object) -> None: ...


class Local:
    """This process, one piece after another."""

    def map(
        self, work: Callable[..., Result], items: Iterable[Item], listen: Callable[[Any], None] | None = None
    ) -> Iterator[Result]:
        """The result of each piece, when it is asked for."""
        return map(partial(work, tell=listen) if listen else work, items)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None: ...
