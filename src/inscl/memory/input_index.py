"""Which inputs stand in which version of a task, over the whole memory: adding a task looks into no other."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from inscl.memory.cache_table import KEY, CacheTable
from inscl.memory.task import Task

_SCHEMA = pa.schema([("version", KEY), ("input", KEY), ("split", pa.int64())])


class InputIndex:
    """The distinct inputs of every version, by hash, with their sides.

    Parameters
    ----------
    folder : str, optional
        Folder or URI that holds the table; None keeps none, and every task is looked into.
    storage : dict, optional
        Lance's options for an object store.
    """

    def __init__(self, folder: str | None, storage: dict[str, str] | None = None) -> None:
        self._table = None if folder is None else CacheTable("the index of inputs", f"{folder}/inputs.lance", storage)

    @staticmethod
    def key(version: str) -> bytes:
        """Key of a task's version, by its id."""
        return bytes.fromhex(version)

    def add(self, version: str, task: Task) -> None:
        """Remember a version's inputs."""
        if self._table is not None:
            self._table.append(_rows({version: task}))

    def shared(self, task: Task, others: Mapping[str, Task]) -> tuple[int, int]:
        """Distinct inputs of a task that other tasks have too, and those of them that stand on another side there.

        Parameters
        ----------
        task : Task
        others : mapping
            The other tasks, by version. Those that are not in the index, or not whole, are put into it.
        """
        mine = task.inputs
        keys = {self.key(version) for version in others}
        theirs = [self._rest(others)]
        if self._table is not None and (found := self._table.find(input=mine["input_key"].to_pylist())) is not None:
            theirs.append(found.filter(pc.is_in(found["version"], pa.array(sorted(keys), KEY))).select(_SCHEMA.names))
        rows = pa.concat_tables(theirs)
        places = pc.index_in(rows["input"], mine["input_key"].combine_chunks())
        here = places.is_valid()
        places = places.filter(here)
        differs = pc.not_equal(rows["split"].filter(here), mine["split"].cast(pa.int64()).take(places))
        return len(places.unique()), len(places.filter(differs).unique())

    def _rest(self, others: Mapping[str, Task]) -> pa.Table:
        """Rows of the versions that the index does not hold whole; it holds them from now on."""
        known = self._table.counts("version") if self._table is not None else {}
        missing = {v: task for v, task in others.items() if known.get(self.key(v), 0) < task.info.inputs}
        rows = _rows(missing)
        if self._table is not None and missing:
            self._table.append(rows)
        return rows


def _rows(tasks: Mapping[str, Task]) -> pa.Table:
    parts = [_rows_of(version, task) for version, task in tasks.items()]
    return pa.concat_tables([_SCHEMA.empty_table(), *parts])


def _rows_of(version: str, task: Task) -> pa.Table:
    inputs = task.inputs
    versions = pa.array([InputIndex.key(version)] * inputs.num_rows, KEY)
    columns = [versions, inputs["input_key"].combine_chunks(), inputs["split"].cast(pa.int64()).combine_chunks()]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)
