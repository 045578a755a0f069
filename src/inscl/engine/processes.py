"""Processes of this machine. On a CPU each has its share of the cores; on a GPU several fill what one leaves idle."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import TYPE_CHECKING, Any, Self

from inscl.engine import Item, Result
from inscl.engine.order import in_order, listening
from inscl.errors import InsclError
from inscl.libraries import prepare_libraries

if TYPE_CHECKING:
    from multiprocessing.queues import Queue


class Processes:
    """So many processes, each started anew (a script needs the usual ``if __name__ == "__main__":``).

    Parameters
    ----------
    workers : int
    """

    def __init__(self, workers: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._told: Queue[Any] = spawn.Queue()
        threads = max(1, (os.cpu_count() or 1) // workers)
        self._others = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(workers, spawn, _begin, (self._told, threads))
        self._workers, self._number = workers, 0
        self._work: Callable[..., object] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # what they have not finished is taken up by the next call
            for child in set(multiprocessing.active_children()) - self._others:
                child.kill()
        self._pool.shutdown(cancel_futures=True)

    def map(
        self, work: Callable[..., Result], items: Iterable[Item], listen: Callable[[Any], None] | None = None
    ) -> Iterator[Result]:
        """The result of each piece, in the order of the items."""
        if work is not self._work:
            self._work, self._number = work, self._number + 1

        def submit(item: Item) -> Future[Result]:
            return self._pool.submit(_do, self._number, work, item, listen is not None)

        try:
            with listening(self._told, listen):
                yield from in_order(submit, items, 2 * self._workers)
        except BrokenProcessPool as error:
            raise InsclError(
                "A process of the run was killed, perhaps for want of memory. Run the same command again to go on, "
                "with fewer --workers."
            ) from error


# ---------------------------------------------------------------- inside a process

_told: Any = None
_known: tuple[int, Any] = 0, None  # the last work by its number, with what it has loaded


def _begin(told: "Queue[Any]", threads: int) -> None:
    """Make a process ready: it ends with its parent."""
    global _told
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch is not loaded yet
    prepare_libraries()
    _told = told


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _do(number: int, work: Callable[..., Result], item: Item, tells: bool) -> Result:
    global _known
    if _known[0] != number:
        _known = number, work
    known: Callable[..., Result] = _known[1]
    return known(item, tell=_told.put) if tells else known(item)
