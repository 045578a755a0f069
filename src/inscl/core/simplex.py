"""POT's network simplex, without the rest of POT."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

_MAX_PIVOTS = 10**9  # the solver's own limit, 100,000, is too low for a few hundred rows


def least_cost(p: Floats, q: Floats, cost: Floats) -> float:
    """Exact cost of moving masses `p` to masses `q`, all positive; what ``ot.emd2(p, q, cost)`` gives, bit for bit.

    Parameters
    ----------
    p, q : arrays of float, shapes (n,) and (m,)
        Of the same sum.
    cost : array of float, shape (n, m), in C order

    Raises
    ------
    RuntimeError
        If the solver finds no optimum.
    """
    return float(_solved(p, q, cost)[1])


def cheapest_coupling(p: Floats, q: Floats, cost: Floats) -> Floats:
    """What mass moves from where to where in an optimum of the same problem, shape (n, m)."""
    coupling: Floats = _solved(p, q, cost)[0]
    return coupling


def potentials_of(p: Floats, q: Floats, cost: Floats) -> Floats:
    """Dual variables of the sources in the optimum of the same problem, shape (n,)."""
    potentials: Floats = _solved(p, q, cost)[2]
    return potentials


def sparse_coupling(p: Floats, q: Floats, rows: Places, columns: Places, cost: Floats) -> tuple[float, Floats, Floats]:
    """Exact cost where mass may move along some routes alone, and the dual variables of both sides.

    Parameters
    ----------
    p, q
        As above.
    rows, columns, cost : arrays, shape (k,)
        The routes; some coupling must be possible on them.

    Raises
    ------
    RuntimeError
        If the solver finds no optimum.
    """
    routes = rows.astype(np.uint64), columns.astype(np.uint64), cost
    _, _, _, value, f, g, code = _solver().emd_c_sparse(p, q * p.sum() / q.sum(), *routes, _MAX_PIVOTS)
    _check(code)
    return float(value), f, g


def _solved(p: Floats, q: Floats, cost: Floats) -> Any:
    solved = _solver().emd_c(p, q * p.sum() / q.sum(), cost, _MAX_PIVOTS, 1, None, None)
    _check(solved[-1])
    return solved


def _check(code: int) -> None:
    problem = _solver().check_result(code)
    if problem is not None:
        raise RuntimeError(f"The transport solver found no optimum: {problem}")


@cache
def _solver() -> Any:
    """The compiled module alone: `import ot` takes 2 s, and seconds more where torch is installed."""
    if "ot" in sys.modules:
        return importlib.import_module("ot.lp.emd_wrap")
    with _bare_packages():
        return importlib.import_module("ot.lp.emd_wrap")


@contextmanager
def _bare_packages() -> Iterator[None]:
    """Stand-ins for the packages around the solver, whose own code would import all of POT."""
    found = find_spec("ot")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'ot' (POT), which inscl requires.", name="ot")
    root = found.submodule_search_locations[0]
    package, linear, helpers = ModuleType("ot"), ModuleType("ot.lp"), ModuleType("ot.utils")
    package.__path__, linear.__path__ = [root], [f"{root}/lp"]
    helpers.dist = _dist  # type: ignore[attr-defined]
    stand_ins = {"ot": package, "ot.lp": linear, "ot.utils": helpers}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _dist(*arguments: object, **named: object) -> Any:
    """`ot.dist`, which the solver's module wants to have at hand for other functions than ours."""
    return importlib.import_module("ot").dist(*arguments, **named)
