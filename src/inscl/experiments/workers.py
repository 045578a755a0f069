"""Models of one run trained side by side: processes that each do one chain of jobs at a time.

A chain is a list of jobs in which each model may start from the one before it: an expert alone, or a stream. Chains
share the folder of the run and nothing else, so they are as resumable as one process is. On a CPU each process has
its share of the cores; on a GPU several small models fill what one leaves idle.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from inscl.errors import InsclError
from inscl.experiments.jobs import Job, Scored, StreamPlan
from inscl.libraries import prepare_libraries
from inscl.memory.locks import hold_with

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from inscl.experiments.run import Event


class _ChainRunner(Protocol):
    """What follows chains: `inscl.experiments.run.Run`, made anew in every process."""

    jobs: dict[Job, Scored]
    done: set[Job]
    trained: int
    scored: int
    finished: Callable[[Job], None]

    def follow(self, chain: "Chain", streams: Sequence[StreamPlan]) -> None:
        """Do the jobs of a chain."""


@dataclass(frozen=True)
class Step:
    """One job of a chain, and where it stands in a stream."""

    job: Job
    stream: StreamPlan | None = None
    stage: int = 1


Chain = tuple[Step, ...]


def chains_of(streams: Sequence[StreamPlan], *, side_by_side: bool) -> list[list[Chain]]:
    """The chains of streams, in rounds, each of which begins when the one before it is done.

    One process walks stream by stream. Side by side the first stages are done first, each once; then streams that share
    more than their first stage are one chain, so that no model is trained by two.
    """
    in_turn = [
        tuple(Step(job, stream, stage) for stage, job in enumerate(stream.jobs(), start=1)) for stream in streams
    ]
    if not side_by_side:
        return [in_turn]
    firsts: dict[Job, Chain] = {}
    rest: dict[Job, Chain] = {}
    for first, *later in in_turn:
        firsts.setdefault(first.job, (first,))
        if later:
            rest[later[0].job] = (*rest.get(later[0].job, ()), *later)
    return [list(firsts.values()), list(rest.values())]


class Workers:
    """Processes for the chains of a run.

    Parameters
    ----------
    make : callable
        Makes a `_ChainRunner` from the function that it tells of its steps; sent to each process, so of a module.
    out : Path
        Folder of the run; its data are there already.
    workers : int
    progress : callable
        Told of every step, from a thread.
    finished : callable
        Told of every job that is done, from the same thread.
    """

    def __init__(
        self,
        make: Callable[..., _ChainRunner],
        out: Path,
        workers: int,
        progress: Callable[["Event"], None],
        finished: Callable[[Job], None],
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._told: Queue[Event | Job | None] = spawn.Queue()
        threads = max(1, (os.cpu_count() or 1) // workers)
        self._others = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(workers, spawn, _begin, (make, out, self._told, threads))
        self._listener = threading.Thread(target=self._listen, args=(progress, finished), daemon=True)
        self._listener.start()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # what they have not finished is taken up by the next call
            for child in set(multiprocessing.active_children()) - self._others:
                child.kill()
        self._pool.shutdown(cancel_futures=True)
        self._told.put(None)
        self._listener.join()

    def do(
        self, chains: Sequence[Chain], wanted: Mapping[Job, Scored], streams: Sequence[StreamPlan]
    ) -> tuple[int, int]:
        """Do all chains; how many models were trained, and how many scored.

        Raises
        ------
        InsclError
            As soon as one chain fails, or a process dies.
        """
        left = {self._pool.submit(_do, chain, dict(wanted), list(streams)) for chain in chains}
        trained = scored = 0
        try:
            while left:
                done, left = wait(left, return_when=FIRST_COMPLETED)
                for one in done:
                    more = one.result()
                    trained, scored = trained + more[0], scored + more[1]
        except BrokenProcessPool as error:
            raise InsclError(
                "A process of the run was killed, perhaps for want of memory. Run the same command again to go on, "
                "with fewer --workers."
            ) from error
        return trained, scored

    def _listen(self, progress: Callable[["Event"], None], finished: Callable[[Job], None]) -> None:
        while (said := self._told.get()) is not None:
            if isinstance(said, Job):
                finished(said)
            else:
                progress(said)


# ---------------------------------------------------------------- inside a process

_run: Any = None
_lock: Any = None


def _begin(make: Callable[..., _ChainRunner], out: Path, told: "Queue[Event | Job | None]", threads: int) -> None:
    """Make a process ready: it ends with its parent, and holds the folder as long as it lives."""
    global _run, _lock
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch is not loaded yet
    prepare_libraries()
    _lock = hold_with(out)

    _run = make(progress=told.put)
    _run.finished = told.put


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _do(chain: Chain, wanted: dict[Job, Scored], streams: list[StreamPlan]) -> tuple[int, int]:
    before = _run.trained, _run.scored
    _run.jobs, _run.done = wanted, set()
    _run.follow(chain, streams)
    return _run.trained - before[0], _run.scored - before[1]
