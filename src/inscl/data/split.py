"""Which rows are for training, for choosing (dev) and for reporting (test).

A row's side follows a salted hash of its input, the same for all tasks, by threshold: an input never stands on two
sides, and no row changes side when a task grows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inscl.data.example import SPLITS
from inscl.errors import DataError

TRAIN, DEV, TEST = range(len(SPLITS))
UNSET = -1

Sides = npt.NDArray[np.int8]  # (n,) TRAIN, DEV, TEST or UNSET
Keys = npt.NDArray[np.uint64]  # (n, 2) keys as big-endian halves, so that their order is that of the bytes


@dataclass(frozen=True)
class Shares:
    """Share of the inputs that goes to each held-out side; the rest trains."""

    dev: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        if not (self.dev >= 0 and self.test >= 0 and self.dev + self.test < 1):
            raise DataError(
                f"The held-out shares are dev {self.dev:g} and test {self.test:g}; wanted two numbers of at least 0 "
                "whose sum is below 1. Lower them."
            )

    @classmethod
    def parse(cls, text: str) -> "Shares":
        """Shares as written on a command line: train/dev/test in percent.

        >>> Shares.parse("70/10/20")
        Shares(dev=0.1, test=0.2)
        """
        try:
            train, dev, test = (float(part) for part in text.split("/"))
        except ValueError:
            train, dev, test = 0.0, 0.0, 0.0
        if not abs(train + dev + test - 100) <= 1e-9:  # so that NaN is refused too
            raise DataError(f"The split is '{text}'; wanted train/dev/test in percent, such as 70/10/20.")
        return cls(dev / 100, test / 100)


@dataclass(frozen=True)
class Assignment:
    """Sides of all rows, and what had to be done beyond the hash."""

    sides: Sides  # (n,)
    moved: dict[str, int]  # input key (hex) -> side, for inputs moved because a side was empty


def assign_sides(
    inputs: Keys,
    asked: Sides,
    *,
    shares: Shares = Shares(),
    given: frozenset[int] = frozenset(),
    moved: Mapping[str, int] | None = None,
) -> Assignment:
    """Give every row its side.

    Parameters
    ----------
    inputs : uint64 array (n, 2)
        Key of each row's input.
    asked : int8 array (n,)
        The side somebody fixed for the row, or UNSET. Rows with the same input as a fixed row follow it.
    shares : Shares
        Share of the inputs on each held-out side.
    given : set of int
        Held-out sides the user supplied whole; no row is hashed into them.
    moved : mapping
        Inputs moved earlier (see `Assignment.moved`); they stay where they are.

    Returns
    -------
    Assignment
        If the hash leaves a side empty and there are at least three distinct inputs, the input whose hash lies
        nearest to that side moves there. With fewer, no row is held out that nobody asked for.
    """
    distinct, row_of = distinct_keys(inputs)
    side = np.full(len(distinct), UNSET, dtype=np.int8)
    fixed = asked != UNSET
    # Later writes win, so training rows first: an input fixed on two sides pulls its free rows to the held-out one.
    for wanted in (TRAIN, DEV, TEST):
        side[row_of[fixed & (asked == wanted)]] = wanted
    for key, to in (moved or {}).items():
        at = np.flatnonzero((distinct == _from_hex(key)).all(axis=1))
        side[at[side[at] == UNSET]] = to
    free = side == UNSET
    position = _position(distinct)
    side[free] = _by_threshold(position[free], shares, given)
    newly = _fill_empty(side, position, free, shares, given)
    sides = np.where(fixed, asked, side[row_of]).astype(np.int8)
    record = dict(moved or {}) | {_to_hex(distinct[i]): int(side[i]) for i in newly}
    return Assignment(sides, record)


def distinct_keys(keys: Keys) -> tuple[Keys, npt.NDArray[np.int64]]:
    """The distinct keys, ascending, and which of them each row has: as `np.unique` over rows, but faster."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    fresh = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)][: len(keys)]
    row_of = np.empty(len(keys), np.int64)
    row_of[order] = np.cumsum(fresh) - 1
    return ordered[fresh], row_of


def _position(keys: Keys) -> npt.NDArray[np.float64]:
    """Where each input falls in [0, 1); the keys are hashes already, so their first half is uniform."""
    return (keys[:, 0] >> np.uint64(11)).astype(np.float64) / 2**53


def _by_threshold(position: npt.NDArray[np.float64], shares: Shares, given: frozenset[int]) -> Sides:
    side = np.full(len(position), TRAIN, dtype=np.int8)
    if DEV not in given:
        side[(position >= shares.test) & (position < shares.test + shares.dev)] = DEV
    if TEST not in given:
        side[position < shares.test] = TEST
    return side


def _fill_empty(
    side: Sides, position: npt.NDArray[np.float64], free: npt.NDArray[np.bool_], shares: Shares, given: frozenset[int]
) -> list[int]:
    """Move one input into each side left empty; `side` is changed in place and the moved places are returned."""
    if len(side) < len(SPLITS):
        side[free] = TRAIN
        return []
    middle = {TEST: shares.test / 2, DEV: shares.test + shares.dev / 2, TRAIN: 1.0}
    wanted = [TRAIN] + [s for s, share in ((DEV, shares.dev), (TEST, shares.test)) if share > 0 and s not in given]
    newly: list[int] = []
    for target in wanted:
        if (side == target).any():
            continue
        crowded = [s for s in range(len(SPLITS)) if (side == s).sum() > 1]
        candidates = np.flatnonzero(free & np.isin(side, crowded))
        if candidates.size:
            nearest = int(candidates[np.abs(position[candidates] - middle[target]).argmin()])
            side[nearest] = target
            newly.append(nearest)
    return newly


def _to_hex(key: npt.NDArray[np.uint64]) -> str:
    return f"{int(key[0]):016x}{int(key[1]):016x}"


def _from_hex(key: str) -> npt.NDArray[np.uint64]:
    return np.array([int(key[:16], 16), int(key[16:], 16)], dtype=np.uint64)
