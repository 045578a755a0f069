"""Several processes under one command: the first leads, the others only join in training.

``torchrun`` and ``accelerate launch`` start the same command once per device. Planning, scoring and printing happen
in the first process alone. It posts each training as a job, plain data, on the launcher's store; the others wait
there, join in, and end when the first ends. Training itself makes its own process group, as it always does.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any

from inscl.errors import ConfigError, InsclError

_JOB, _BYE, _PREFIX = "job", "bye", "inscl"
_WAIT = timedelta(days=365)  # for the next job: the first process may score for hours
_START = timedelta(minutes=10)  # for all processes to come up
_GRACE = timedelta(seconds=30)  # for the first process to end over an error that all met
_PARTING = timedelta(seconds=5)  # for the others to hear that all is over

_posted = 0


def processes() -> int:
    """How many processes the launcher started; 1 without a launcher.

    >>> processes()
    1
    """
    launched = all(os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return int(os.environ["WORLD_SIZE"]) if launched else 1


def following() -> bool:
    """Whether this process is one of those that follow the first.

    >>> following()
    False
    """
    return processes() > 1 and int(os.environ["RANK"]) > 0


def post(job: Mapping[str, object]) -> None:
    """Hand the job that begins now to all other processes; without any, do nothing.

    Parameters
    ----------
    job : mapping
        Plain data, as JSON can hold it.

    Raises
    ------
    ConfigError
        If it holds anything else.
    InsclError
        If this process is one that follows.
    """
    if processes() == 1:
        return
    if following():
        raise InsclError(
            "Only the first process may plan, train and score. In the others (`inscl.training.ranks.following()`) call "
            "`inscl.stages.trainer.follow()`, as the command line does."
        )
    try:
        text = json.dumps({"job": dict(job)})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Settings for several processes must be plain data: {error}.") from error
    _put(text)


def end(code: int) -> None:
    """Tell all other processes to end with this exit code, and wait a moment until they heard."""
    if processes() == 1 or following():
        return
    try:
        _put(json.dumps({"end": code}))
        _store().wait([f"{_BYE}-{rank}" for rank in range(1, processes())], _PARTING)
    except RuntimeError:
        return  # they are stuck in a step that this process left; the launcher ends them
    if code == 0:
        _leave_group()


def follow(work: Callable[[Mapping[str, object]], None]) -> int:
    """Do the jobs that the first process posts, silently, until it ends.

    Parameters
    ----------
    work : callable
        Does one job. An error that the first process meets as well is told there, and only there.

    Returns
    -------
    int
        The exit code of the first process; 2 after an error of this process alone, which is then told.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first process says that it was interrupted
    errors = os.dup(2)
    _silence()
    done, failed = 0, None
    while True:
        try:
            message = _take(done, _GRACE if failed else _WAIT)
        except RuntimeError:  # nothing came, or the first process is gone
            if failed:
                os.write(errors, f"inscl: in process {os.environ['RANK']}: {failed}\n".encode())
            return 2
        done += 1
        if "end" in message:
            _store().set(f"{_BYE}-{os.environ['RANK']}", "")
            if message["end"] == 0:
                _leave_group()
            return int(message["end"])
        try:
            work(message["job"])
        except Exception as error:
            failed = str(error) or type(error).__name__


@cache
def _store() -> Any:
    """The store at which the launcher's processes meet, in a corner of our own."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=_START))
    return PrefixStore(_PREFIX, store)


def _put(text: str) -> None:
    global _posted
    _store().set(f"{_JOB}-{_posted}", text)
    _posted += 1


def _take(number: int, timeout: timedelta) -> dict[str, Any]:
    key = f"{_JOB}-{number}"
    _store().wait([key], timeout)
    return dict(json.loads(_store().get(key)))


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _leave_group() -> None:
    """Close the process group of training, which otherwise complains at exit."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
