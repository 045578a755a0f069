"""A cluster of Ray: pieces go to whatever machine has room, and those of a worker that dies go to another."""

import importlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

from inscl.engine import Item, Result
from inscl.engine.order import in_order, listening
from inscl.errors import ConfigError, InsclError, first_line, require
from inscl.libraries import prepare_libraries

_PATIENCE = 5.0  # seconds for a cluster's address to answer
_RETRIES = 3  # of a piece whose worker died


class Ray:
    """A cluster that is there, or processes that Ray starts on this machine; connected to with the first piece.

    Parameters
    ----------
    address : str, optional
        ``host:port`` of a cluster to which this machine belongs. None takes what the variable ``RAY_ADDRESS`` names
        or runs on this machine, and else starts Ray here until the engine ends.
    workers : int, optional
        Pieces at a time. None: one a GPU where the cluster has any, else one a core.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self._address, self._workers = address, workers
        self._work: tuple[Callable[..., object], Any] | None = None
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self._ray.shutdown()
            self.__dict__.pop("_ray")
            self._started, self._work = False, None

    def map(
        self, work: Callable[..., Result], items: Iterable[Item], listen: Callable[[Any], None] | None = None
    ) -> Iterator[Result]:
        """The result of each piece, in the order of the items."""
        ray, share = self._ray, _share(self._ray, self._workers)
        piece = ray.remote(max_retries=_RETRIES, num_cpus=share.cpus, num_gpus=share.gpus)(_do)
        sent, told = self._sent(work), self._queue() if listen else None
        flying: WeakKeyDictionary[Future[Result], Any] = WeakKeyDictionary()

        def submit(item: Item) -> Future[Result]:
            result = piece.remote([sent], item, told)
            future: Future[Result] = result.future()
            flying[future] = result
            return future

        try:
            with listening(told, listen):
                yield from in_order(submit, items, 2 * share.pieces)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except ray.exceptions.RayError as error:
            raise InsclError(
                f"A piece of the work was given up by Ray ({first_line(error)}), perhaps for want of memory. Run the "
                "same command again to go on, with fewer --workers."
            ) from error
        finally:
            for future, result in flying.items():
                if not future.done():
                    ray.cancel(result, force=True)

    def _sent(self, work: Callable[..., object]) -> Any:
        """Where the cluster has the work: sent once, with the arrays in it."""
        if self._work is None or self._work[0] is not work:
            self._work = work, self._ray.put(work)
        return self._work[1]

    def _queue(self) -> Any:
        """A queue beside this process, so that it is lost with no other machine."""
        queue = importlib.import_module("ray.util.queue").Queue
        near = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        here = near(self._ray.get_runtime_context().get_node_id(), soft=False)
        return queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    @cached_property
    def _ray(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning
        ray = require("ray", extra="ray", purpose="`--engine ray`")
        if not ray.is_initialized():
            _connect(ray, self._address)
            self._started = True
        return ray


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster or start one, in silence.

    Raises
    ------
    ConfigError
        If there is no cluster at the address.
    """
    import logging

    said = address or os.environ.get("RAY_ADDRESS") or ""
    try:
        host, colon, port = said.rpartition(":")
        if colon:
            socket.create_connection((host, int(port)), _PATIENCE).close()  # Ray would wait for a minute
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
        # Ray would still print what it has to say of a killed worker among a command's results.
        worker: Any = importlib.import_module("ray._private.worker")
        worker._worker_logs_enabled = False
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"There is no Ray cluster at '{said}' ({first_line(error)}). Give --engine ray:HOST:PORT with the address "
            "that `ray start --head` printed, on a machine that belongs to the cluster, or --engine ray to start one."
        ) from error


def _cause(error: Any) -> Exception:
    """What a piece raised; told in a line where its machine lacks a module."""
    if isinstance(error.cause, InsclError):
        return error.cause
    if lacks := re.search(r"No module named '[^']+'", str(error)):
        return InsclError(
            f"A machine of the cluster cannot do the work ({lacks[0]}). Install there what is installed here: the same "
            "inscl with its extras, and your own modules where Python finds them."
        )
    found: Exception = error
    return found


class _Share(NamedTuple):
    """How many pieces at a time, and what each may use."""

    pieces: int
    cpus: int
    gpus: float


def _share(ray: Any, workers: int | None) -> _Share:
    """The cluster in equal parts, none larger than a machine."""
    machines: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    gpus = sum(machine.get("GPU", 0) for machine in machines)
    pieces = workers or int(gpus) or sum(cores) or 1
    return _Share(pieces, max(1, min([sum(cores) // pieces, *cores])), min(1.0, gpus / pieces))


# ---------------------------------------------------------------- inside a worker

_known: tuple[Any, Any] = None, None  # the last work by its place, with what it has loaded


def _do(place: list[Any], item: Item, told: Any) -> Any:
    global _known
    if _known[0] != place[0]:
        prepare_libraries()
        _known = place[0], importlib.import_module("ray").get(place[0])
    if told is None:
        return _known[1](item)

    def tell(message: object) -> None:
        with suppress(Exception):  # whoever listened is gone
            told.put(message)

    return _known[1](item, tell=tell)
