"""Tables of what can be computed again, keyed by hashes: they hold no text, and several writers may append at once.

Each row has a checksum, and one that does not hold is as good as absent. A table that cannot be read or written costs
time and no results.
"""

import logging
from collections.abc import Collection, Iterable
from hashlib import shake_256

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inscl.errors import MemoryStateError
from inscl.memory.trouble import explained

_log = logging.getLogger(__name__)

KEY = pa.binary(16)
_CHECK = "check"
_PIECES = 16  # of a table, which each writer makes longer by one
_OWNERS = {"key", "first", "second", "version"}  # columns with what a row is of: a text, two tasks, a task's version


class CacheTable:
    """One table.

    Parameters
    ----------
    what : str
        What it is called in a warning.
    uri : str
        Where Lance finds it.
    storage : dict, optional
        Lance's options for an object store.
    """

    def __init__(self, what: str, uri: str, storage: dict[str, str] | None = None) -> None:
        self._what, self._uri, self._storage = what, uri, storage

    def find(self, **keys: Collection[bytes]) -> pa.Table | None:
        """Rows that are whole and whose columns hold one of the keys asked for; None if there is none."""
        try:
            with explained(self._what):
                return self._found(keys)
        except MemoryStateError as error:  # out of reach or damaged: what it holds can be computed again
            _log.warning("%s could not be read (%s)", self._what, error)
            return None

    def counts(self, column: str) -> dict[bytes, int]:
        """How many rows hold each key; nothing where the table cannot be read."""
        try:
            with explained(self._what):
                table = _open_table(self._uri, self._storage)
                stored = [] if table is None else pc.value_counts(table.to_table(columns=[column])[column])
                return {entry["values"].as_py(): entry["counts"].as_py() for entry in stored}
        except MemoryStateError as error:
            _log.warning("%s could not be read (%s)", self._what, error)
            return {}

    def append(self, table: pa.Table) -> None:
        """Add rows, in one commit."""
        try:
            with explained(self._what):
                _append(table.append_column(_CHECK, pa.array(_checks(table))), self._uri, self._storage)
        except MemoryStateError as error:  # a read-only or full disk loses speed, not results
            _log.warning("%s could not be written (%s)", self._what, error)

    def damage(self) -> str:
        """What is wrong with it, in a sentence; empty if nothing is."""
        try:
            with explained("cannot be read"):
                table = _open_table(self._uri, self._storage)
                rows = None if table is None else table.to_table()
                damaged = 0 if rows is None else rows.num_rows - _that_hold(rows).num_rows
        except MemoryStateError as error:
            return str(error)
        return f"{damaged} rows changed; they are computed again when needed" if damaged else ""

    def keep_only(self, keys: Collection[bytes] | None) -> None:
        """Rewrite it with the rows whose owners are all among some (None: all) and delete what it held before.

        The caller holds the memory alone. Rows whose checksums do not hold are dropped.

        Raises
        ------
        DamageError
            If the table cannot be read.
        """
        with explained(self._what):
            table = _open_table(self._uri, self._storage)
            if table is None:
                return
            rows = _that_hold(table.to_table())
            if keys is not None:
                for column in _OWNERS & set(rows.column_names):
                    rows = rows.filter(pa.array(_among(rows[column], keys)))
            _clean(lance.write_dataset(rows, self._uri, mode="overwrite", storage_options=self._storage))

    def tidy(self) -> None:
        """Put many small pieces together and delete what was before; the caller holds the memory alone."""
        with explained(self._what):
            table = _open_table(self._uri, self._storage)
            if table is not None and len(table.get_fragments()) > _PIECES:
                table.optimize.compact_files()
                _clean(table)

    def _found(self, keys: dict[str, Collection[bytes]]) -> pa.Table | None:
        table = _open_table(self._uri, self._storage)
        if table is None:
            return None
        stored = table.to_table(columns=list(keys))
        here = np.logical_and.reduce([_among(stored[column], wanted) for column, wanted in keys.items()])
        places = np.flatnonzero(here).tolist()
        return _that_hold(table.take(places)) if places else None


def _checks(table: pa.Table) -> npt.NDArray[np.uint64]:
    """Checksum of each row: the 16-bit words of its columns, weighted and added modulo 2^64.

    The weights are odd, so a change of one word always shows, and any other almost surely.
    """
    if table.num_rows == 0:  # which cannot be given a shape
        return np.zeros(0, np.uint64)
    words = np.hstack([_words(column.combine_chunks()) for column in table.columns])
    weights = np.frombuffer(shake_256(b"inscl").digest(8 * words.shape[1]), np.uint64) | np.uint64(1)
    sums: npt.NDArray[np.uint64] = np.einsum("ij,j->i", words, weights, dtype=np.uint64, casting="unsafe")
    return sums


def matrix(column: pa.ChunkedArray) -> npt.NDArray[np.float16]:
    """A column of lists of one length, (n, length)."""
    flat: npt.NDArray[np.float16] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, column.type.list_size)


def _open_table(uri: str, storage: dict[str, str] | None) -> lance.LanceDataset | None:
    """A Lance dataset, or None where there is none yet."""
    try:
        return lance.dataset(uri, storage_options=storage)
    except ValueError as error:
        if "not found" in str(error).lower():
            return None
        raise


def _append(table: pa.Table, uri: str, storage: dict[str, str] | None) -> None:
    """Append rows in one commit, creating the table if need be; safe with other writers at the same time."""
    if _open_table(uri, storage) is None:
        _create(table.schema, uri, storage)
    lance.write_dataset(table, uri, mode="append", storage_options=storage)


def _create(schema: pa.Schema, uri: str, storage: dict[str, str] | None) -> None:
    """Make an empty table, unless another writer is faster.

    `lance.write_dataset(mode="create")` will not do: of two that come at once, the later one overwrites the earlier
    one's rows. A commit that says that it has read version 0 fails instead.
    """
    empty = lance.LanceOperation.Overwrite(schema, [])
    try:
        lance.LanceDataset.commit(uri, empty, read_version=0, storage_options=storage, max_retries=0)
    except (OSError, ValueError):
        if _open_table(uri, storage) is None:
            raise


def _clean(table: lance.LanceDataset) -> None:
    """Delete every earlier version; the caller holds the memory alone."""
    from datetime import timedelta

    table.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)


def _among(column: pa.ChunkedArray, keys: Iterable[bytes]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = pc.is_in(column, pa.array(sorted(keys), KEY)).to_numpy()
    return found


def _that_hold(table: pa.Table) -> pa.Table:
    """Rows whose checksums hold; without the column, as earlier releases wrote them, all."""
    if _CHECK not in table.column_names:
        return table
    holds = table[_CHECK].to_numpy() == _checks(table.drop_columns([_CHECK]))
    if not holds.all():
        _log.warning("%d damaged rows of a cache are computed again", int((~holds).sum()))
    return table.filter(pa.array(holds))


def _words(column: pa.Array) -> npt.NDArray[np.uint16]:
    """The 16-bit words of each row of a column: a key, a list of float16, a mark or a number of 64 bits."""
    words: npt.NDArray[np.uint16]
    if column.type == KEY:
        words = np.frombuffer(column.buffers()[1], np.uint16).reshape(-1, 8)
        return words[column.offset : column.offset + len(column)]
    if pa.types.is_fixed_size_list(column.type):
        return np.ascontiguousarray(matrix(pa.chunked_array([column]))).view(np.uint16)
    values = column.to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(column.type):
        return np.asarray(values, np.uint16)[:, None]
    words = np.ascontiguousarray(values).view(np.uint16).reshape(-1, values.itemsize // 2)
    return words
