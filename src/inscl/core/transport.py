"""Optimal transport between sets too large for one matrix of costs: column generation, between two bounds.

Only few of the n * m routes carry mass in an optimal coupling. So the network simplex solves the problem on a small set
of routes, and its potentials say which others would pay. Every coupling on few routes is one of the whole problem: its
cost is never below the optimum. Every potential becomes a feasible dual solution: its value is never above. Costs are
made a tile at a time and never kept.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from inscl.core.simplex import Floats, Places, potentials_of, sparse_coupling

TILE = 1 << 20  # costs computed at a time: 8 MiB, and a few times that while they are searched
SAMPLE = 1000  # points of each side from which the first potentials come
_NEAREST = 5  # routes added a round for each point
_ROUNDS = 1000  # far beyond what is needed: each round but the last adds a route that pays
_ANY = 1e3  # more than any slack
_FLOOR = 1e-12  # gap between the bounds that is rounding


class Costs(Protocol):
    """Costs of n * m routes, made when asked for."""

    shape: tuple[int, int]

    def block(self, rows: slice | Places, columns: slice | Places) -> Floats:
        """Costs from some points to others, a matrix."""

    def at(self, rows: Places, columns: Places) -> Floats:
        """Costs of single routes."""


def bounded_cost(costs: Costs, p: Floats, q: Floats, tolerance: float) -> float:
    """Cost of a coupling of `p` and `q` that is proved to lie at most `tolerance` (relative) above the least.

    Parameters
    ----------
    costs : Costs
    p, q : arrays of float, shapes (n,) and (m,)
        Positive, each of sum 1.
    tolerance : float

    References
    ----------
    Ford and Fulkerson (1958), "A suggested computation for maximal multi-commodity network flows"; Schmitzer (2016),
    "A sparse multiscale algorithm for dense optimal transport".
    """
    low, high, routes = -np.inf, np.inf, np.zeros(0, np.int64)
    potentials = Potentials(None, _first_potentials(costs, p, q))
    for _ in range(_ROUNDS):
        sweep = _sweep(costs, p, q, potentials)
        low = max(low, sweep.low)
        known = routes if len(routes) else _any_coupling(sweep.f, sweep.g, p, q)
        routes = np.union1d(known, sweep.routes)
        if high - low <= max(tolerance * low, _FLOOR) or (high < np.inf and len(routes) == len(known)):
            return high
        cost, potentials = _couple(costs, p, q, routes)
        high = min(high, cost)
        if high - low <= max(tolerance * low, _FLOOR):
            return high
    raise RuntimeError(f"The transport problem has not been solved in {_ROUNDS} rounds (from {low} to {high}).")


class Potentials(NamedTuple):
    """Dual variables of the sources and of the targets."""

    f: Floats | None  # (n,); None where only the targets' are known
    g: Floats  # (m,)


@dataclass(frozen=True)
class _Sweep:
    """One pass over all costs."""

    f: Floats  # feasible potentials: f_i + g_j <= c_ij
    g: Floats
    low: float  # their value
    routes: Places  # those that promise most for each point, as row * m + column


def _sweep(costs: Costs, p: Floats, q: Floats, potentials: Potentials) -> _Sweep:
    """Make potentials feasible, and find the routes that are too cheap for them.

    The potentials of the sources become what the targets' allow; then those of the targets rise as far as they may.
    """
    n, m = costs.shape
    f, nearest, routes = np.empty(n), _Nearest(m), []
    step = max(1, TILE // m)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        slack = costs.block(rows, slice(None)) - potentials.g
        f[rows] = slack.min(axis=1)
        slack -= f[rows, None]
        # A route with less slack than this lowers the cost.
        pays = _ANY if potentials.f is None else (potentials.f[rows] - f[rows])[:, None]
        routes.append(_smallest(slack, pays) + start * m)
        nearest.add(slack, pays, start)
    least, of_columns = nearest.done()
    g = potentials.g + least
    return _Sweep(f, g, float(p @ f + q @ g), np.concatenate([*routes, of_columns]))


def _smallest(slack: Floats, pays: Floats | float) -> Places:
    """The routes of each row that have the least slack, of those that pay."""
    k = min(_NEAREST, slack.shape[1])
    columns = np.argpartition(slack, k - 1, axis=1)[:, :k]
    chosen = np.take_along_axis(slack, columns, axis=1) < pays
    row, place = np.nonzero(chosen)
    routes: Places = row * slack.shape[1] + columns[row, place]
    return routes


class _Nearest:
    """The routes of each column that have the least slack, tile by tile: of each tile one."""

    def __init__(self, m: int) -> None:
        self._m = m
        self._slack: list[Floats] = []  # each (m,)
        self._rows: list[Places] = []  # each (m,)
        self._least = np.full(m, np.inf)

    def add(self, slack: Floats, pays: Floats | float, start: int) -> None:
        np.minimum(self._least, slack.min(axis=0), out=self._least)
        gain = slack - pays
        best = gain.argmin(axis=0)
        self._rows.append(best + start)
        self._slack.append(gain[best, np.arange(self._m)])
        if len(self._rows) > 4 * _NEAREST:
            self._thin()

    def done(self) -> tuple[Floats, Places]:
        """The least slack of each column, and its routes that pay."""
        self._thin()
        tile, column = np.nonzero(np.stack(self._slack) < 0)
        return self._least, np.stack(self._rows)[tile, column] * self._m + column

    def _thin(self) -> None:
        slack, rows = np.stack(self._slack), np.stack(self._rows)
        k = min(_NEAREST, len(slack))
        best = np.argpartition(slack, k - 1, axis=0)[:k], np.arange(self._m)
        self._slack, self._rows = list(slack[best]), list(rows[best])


def _couple(costs: Costs, p: Floats, q: Floats, routes: Places) -> tuple[float, Potentials]:
    """The best coupling on some routes, and its potentials."""
    rows, columns = np.divmod(routes, len(q))
    cost, f, g = sparse_coupling(p, q, rows, columns, costs.at(rows, columns))
    return cost, Potentials(f, g)


def _first_potentials(costs: Costs, p: Floats, q: Floats) -> Floats:
    """Potentials of the targets from the exact solution between samples."""
    rng = np.random.default_rng(0)
    (i, p_i), (j, q_j) = _sampled(p, rng), _sampled(q, rng)
    among = np.ascontiguousarray(costs.block(i, j))
    f = potentials_of(p_i, q_j, among)
    step = max(1, TILE // len(i))
    parts = [costs.block(i, slice(a, min(a + step, len(q)))) for a in range(0, len(q), step)]
    return np.concatenate([(part - f[:, None]).min(axis=0) for part in parts])


def _sampled(masses: Floats, rng: np.random.Generator) -> tuple[Places, Floats]:
    """Up to SAMPLE points, drawn by mass at equal distances, and how much each stands for."""
    if len(masses) <= SAMPLE:
        return np.arange(len(masses)), masses
    order = rng.permutation(len(masses))
    marks = (np.arange(SAMPLE) + rng.random()) / SAMPLE
    drawn = np.searchsorted(np.cumsum(masses[order]), marks).clip(max=len(masses) - 1)
    points, counts = np.unique(order[drawn], return_counts=True)
    return points, counts / SAMPLE


def _any_coupling(f: Floats, g: Floats, p: Floats, q: Floats) -> Places:
    """Routes of a coupling, whatever it costs: both sides in the order of their potentials, filled up in turn."""
    rows, columns = np.argsort(f), np.argsort(g)
    down, right = np.cumsum(p[rows]), np.cumsum(q[columns])
    ends = np.unique(np.concatenate([down, right]))
    middles = (np.concatenate([[0.0], ends[:-1]]) + ends) / 2
    row = np.searchsorted(down, middles).clip(max=len(p) - 1)
    column = np.searchsorted(right, middles).clip(max=len(q) - 1)
    routes: Places = rows[row] * len(q) + columns[column]
    return routes
