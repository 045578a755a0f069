"""Pieces on their way: results in the order of the items, failures at once, and what pieces say heard meanwhile."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any

from inscl.engine import Item, Result

_PATIENCE = 10.0  # seconds; a process killed while it wrote leaves the queue locked


def in_order(submit: Callable[[Item], "Future[Result]"], items: Iterable[Item], most: int) -> Iterator[Result]:
    """The results of pieces in the order of their items, with at most so many unfinished at a time.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     [*in_order(lambda item: pool.submit(abs, item), [-3, -2, -1], 2)]
    [3, 2, 1]
    """
    coming = iter(items)
    flying: deque[Future[Result]] = deque()
    pending: set[Future[Result]] = set()
    while True:
        more = [submit(item) for item in islice(coming, most - len(pending))]
        flying.extend(more)
        pending.update(more)
        if not flying:
            return
        if flying[0] in pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for one in done:
                one.result()  # a failure is raised however many pieces stand before it
        else:
            yield flying.popleft().result()


@contextmanager
def listening(messages: Any, listen: Callable[[Any], None] | None) -> Iterator[None]:
    """Tell `listen`, from a thread, of all that comes through a queue as long as the context lasts."""
    if listen is None:
        yield
        return

    def hear() -> None:
        while (said := messages.get()) is not None:
            listen(said)

    thread = threading.Thread(target=hear, daemon=True)
    thread.start()
    try:
        yield
    finally:
        messages.put(None)
        thread.join(_PATIENCE)
