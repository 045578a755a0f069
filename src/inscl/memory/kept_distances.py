"""Distances between tasks that stay in the memory, so that no process pays for one that another has computed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from inscl.data.example import key_of
from inscl.memory.cache_table import KEY, CacheTable
from inscl.memory.task import TaskInfo


class KeptDistances:
    """Distances of earlier tasks to new ones, one table for each encoder and way to measure.

    Parameters
    ----------
    folder : str, optional
        Folder or URI that holds the tables; None keeps distances in this process only.
    encoder : str
        Identity of the encoder.
    storage : dict, optional
        Lance's options for an object store.
    """

    def __init__(self, folder: str | None, encoder: str, *, storage: dict[str, str] | None = None) -> None:
        self._folder, self._encoder, self._storage = folder, encoder, storage
        self._known: dict[str, dict[tuple[bytes, bytes], float]] = {}  # by way, then by the two tasks

    @staticmethod
    def key(info: TaskInfo) -> bytes:
        """Key of what a distance sees of a task: its instructions' embeddings and counts, and not its name."""
        return key_of("distance", info.content, info.embeddings)

    def __call__(
        self,
        way: Sequence[str],
        earlier: Sequence[TaskInfo],
        new: TaskInfo,
        measure: Callable[[Sequence[int]], Iterator[float]],
    ) -> list[float]:
        """Distance of each earlier task to the new one.

        Parameters
        ----------
        way : sequence of str
            All that a distance depends on besides the two tasks: weights, method, versions.
        earlier, new
        measure : callable
            Computes the distances of some earlier tasks, by their numbers; asked for those that are not known.
        """
        name = blake2b("\n".join([self._encoder, *way]).encode(), digest_size=8).hexdigest()
        known, made = self._known.setdefault(name, {}), {}
        pairs = [(self.key(info), self.key(new)) for info in earlier]
        table = self._table(name)
        if table is not None and (missing := [first for first, second in pairs if (first, second) not in known]):
            known.update(_read(table.find(first=missing, second=[self.key(new)])))
        unknown = {pair: number for number, pair in enumerate(pairs) if pair not in known}
        try:
            for pair, value in zip(unknown, measure([*unknown.values()]), strict=True):
                known[pair] = made[pair] = value
        finally:  # who is interrupted keeps what was done
            if table is not None and made:
                table.append(_rows(made))
        return [known[pair] for pair in pairs]

    def _table(self, name: str) -> CacheTable | None:
        if self._folder is None:
            return None
        return CacheTable("the cache of distances", f"{self._folder}/{name}-distances.lance", self._storage)


def _read(rows: pa.Table | None) -> dict[tuple[bytes, bytes], float]:
    if rows is None:
        return {}
    first, second, value = (rows[column].to_pylist() for column in ("first", "second", "value"))
    return dict(zip(zip(first, second, strict=True), value, strict=True))


def _rows(distances: Mapping[tuple[bytes, bytes], float]) -> pa.Table:
    first, second = zip(*distances, strict=True)
    value = np.array(list(distances.values()))
    return pa.table({"first": pa.array(first, KEY), "second": pa.array(second, KEY), "value": value})
