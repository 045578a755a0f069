"""Models of one run trained side by side: processes that each do one chain of jobs at a time.

A chain is a list of jobs in which each model may start from the one before it: an expert alone, or a stream. Chains
share the folder of the run and nothing else, so they are as resumable as one process is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from inscl.experiments.jobs import Job, Scored, StreamPlan
from inscl.memory.locks import hold_with


class _ChainRunner(Protocol):
    """What follows chains: `inscl.experiments.run.Run`, made anew in every process."""

    jobs: dict[Job, Scored]
    done: set[Job]
    trained: int
    scored: int
    progress: Callable[[Any], None]
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


class Piece(NamedTuple):
    """A chain, and what a process has to know to do it."""

    chain: Chain
    wanted: Mapping[Job, Scored]
    streams: Sequence[StreamPlan]


class Follower:
    """Does chains of a run in any process that sees its folder; the run is opened there with the first one.

    Parameters
    ----------
    make : callable
        Makes a `_ChainRunner`; sent to each process, so of a module.
    out : Path
        Folder of the run; its data are there already.
    """

    def __init__(self, make: Callable[[], _ChainRunner], out: Path) -> None:
        self._make, self._out = make, out

    def __call__(self, piece: Piece, tell: Callable[[object], None]) -> tuple[int, int]:
        """Do a chain, telling of each step and of each `Job` done; how many models it trained and scored."""
        run = self._run
        before = run.trained, run.scored
        run.progress = run.finished = tell
        run.jobs, run.done = dict(piece.wanted), set()
        run.follow(piece.chain, piece.streams)
        return run.trained - before[0], run.scored - before[1]

    @cached_property
    def _run(self) -> _ChainRunner:
        self._lock = hold_with(self._out)  # as long as the process lives
        return self._make()
