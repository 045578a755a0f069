"""The embedding cache of a memory: one Lance table per encoder, keyed by the hash of the text. It holds no text.

Each row has a checksum, and one that does not hold is as good as absent: its text is encoded again.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b, shake_256
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inscl.data.example import key_of
from inscl.errors import MemoryStateError
from inscl.memory.encoder import Encoded, Encoder, encode_in_chunks, identity_of
from inscl.memory.trouble import told

log = logging.getLogger(__name__)


def text_key(text: str) -> bytes:
    """Key of a text in the cache: of exactly this text, since encoders see case and white space."""
    return key_of("text", text)


def cache_name(encoder: str) -> str:
    """Name of the table that holds an encoder's embeddings."""
    return f"{_hashed(encoder)}-checked.lance"


def _hashed(encoder: str) -> str:
    return blake2b(encoder.encode(), digest_size=8).hexdigest()


class CachedEncoder:
    """An encoder that never sees a text twice, in this run or a later one.

    Parameters
    ----------
    encoder : Encoder
    folder : str, optional
        Folder or URI that holds the tables; None keeps embeddings in this process only.
    storage : dict, optional
        Lance's options for an object store.
    track : callable, optional
        Wraps the steps of a long encoding to show progress.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: str | None = None,
        *,
        storage: dict[str, str] | None = None,
        track: Callable[[Sequence[int]], Any] = lambda steps: steps,
    ) -> None:
        self.identity = identity_of(encoder)
        self._encoder, self._storage, self._track = encoder, storage, track
        self._table = None if folder is None else f"{folder}/{cache_name(self.identity)}"
        # Without checksums, from an earlier release: what is found there moves into the other table.
        self._before = None if folder is None else f"{folder}/{_hashed(self.identity)}.lance"
        self._known: dict[bytes, tuple[npt.NDArray[np.float16], bool]] = {}

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Embeddings of the texts, encoding only those not known yet."""
        keys = [text_key(text) for text in texts]
        self._look_up([key for key in keys if key not in self._known])
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            encode_in_chunks(self._encoder, list(missing.values()), self._keep, self._track)
        if not keys:
            return Encoded(np.zeros((0, 0), np.float16), np.zeros(0, bool))
        found = [self._known[key] for key in keys]
        return Encoded(np.stack([vector for vector, _ in found]), np.array([cut for _, cut in found]))

    def vectors(self, texts: list[str]) -> npt.NDArray[np.float16]:
        """The embeddings alone."""
        return self(texts).vectors

    def _look_up(self, keys: list[bytes]) -> None:
        for uri in (self._table, self._before):
            try:
                found = self._read(uri, [key for key in keys if key not in self._known])
            except MemoryStateError as error:  # out of reach or damaged: what it holds can be computed again
                log.warning("the embedding cache could not be read (%s)", error)
                continue
            if found is not None:
                self._remember(found)
                if uri == self._before:
                    self._write(found)

    def _read(self, uri: str | None, keys: list[bytes]) -> pa.Table | None:
        """Rows of some keys whose checksums hold."""
        if uri is None or not keys:
            return None
        with told("the embedding cache"):
            table = open_table(uri, self._storage)
            if table is None:
                return None
            stored = table.to_table(columns=["key"])["key"]
            places = np.flatnonzero(pc.is_in(stored, pa.array(keys, pa.binary(16))).to_numpy())
            rows = table.take(places.tolist()) if len(places) else None
            return None if rows is None else _that_hold(rows)

    def _keep(self, texts: Sequence[str], encoded: Encoded) -> None:
        flat = pa.array(encoded.vectors.reshape(-1))
        table = pa.table(
            {
                "key": pa.array([text_key(text) for text in texts], pa.binary(16)),
                "cut": encoded.cut,
                "vector": pa.FixedSizeListArray.from_arrays(flat, encoded.vectors.shape[1]),
            }
        )
        self._remember(table)
        self._write(table)

    def _write(self, table: pa.Table) -> None:
        if self._table is None:
            return
        try:
            with told("the embedding cache"):
                append(_checked(table), self._table, self._storage)
        except MemoryStateError as error:  # a read-only or full disk loses speed, not results
            log.warning("the embedding cache could not be written (%s)", error)

    def _remember(self, table: pa.Table) -> None:
        width = table["vector"].type.list_size
        flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        for key, cut, vector in zip(table["key"].to_pylist(), table["cut"].to_pylist(), flat, strict=True):
            self._known[key] = (vector, cut)


def _checked(table: pa.Table) -> pa.Table:
    """The table with its rows' checksums."""
    return table.select(["key", "cut", "vector"]).append_column("check", pa.array(_checks(table)))


def _that_hold(table: pa.Table) -> pa.Table:
    """Rows whose checksums hold; without the column, as earlier releases wrote them, all."""
    if "check" not in table.column_names:
        return table
    holds = table["check"].to_numpy() == _checks(table)
    if not holds.all():
        log.warning("%d damaged rows of the embedding cache are computed again", int((~holds).sum()))
    return table.filter(pa.array(holds))


def _checks(table: pa.Table) -> npt.NDArray[np.uint64]:
    """Checksum of each row's key, mark and vector: their 16-bit words, weighted and added modulo 2^64.

    The weights are odd, so a change of one word always shows, and any other almost surely.
    """
    width = table["vector"].type.list_size
    vectors = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    keys = np.frombuffer(b"".join(table["key"].to_pylist()), np.uint16).reshape(-1, 8)
    cut = table["cut"].to_numpy().astype(np.uint16)[:, None]
    words = np.hstack([keys, cut, np.ascontiguousarray(vectors).view(np.uint16)])
    weights = np.frombuffer(shake_256(b"inscl").digest(8 * words.shape[1]), np.uint64) | np.uint64(1)
    sums: npt.NDArray[np.uint64] = np.einsum("ij,j->i", words, weights, dtype=np.uint64, casting="unsafe")
    return sums


def damage_of(uri: str, storage: dict[str, str] | None) -> str:
    """What is wrong with a cache table, in a sentence; empty if nothing is."""
    try:
        with told("cannot be read"):
            table = open_table(uri, storage)
            rows = None if table is None else table.to_table()
            damaged = 0 if rows is None else rows.num_rows - _that_hold(rows).num_rows
    except MemoryStateError as error:
        return str(error)
    return f"{damaged} rows changed; they are computed again when needed" if damaged else ""


def open_table(uri: str, storage: dict[str, str] | None) -> Any:
    """A Lance dataset, or None where there is none yet."""
    try:
        return lance.dataset(uri, storage_options=storage)
    except ValueError as error:
        if "not found" in str(error).lower():
            return None
        raise


def append(table: pa.Table, uri: str, storage: dict[str, str] | None) -> None:
    """Append rows in one commit, creating the table if need be; safe with other writers at the same time."""
    if open_table(uri, storage) is None:
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
        if open_table(uri, storage) is None:
            raise


def keep_only(keys: Collection[bytes] | None, uri: str, storage: dict[str, str] | None) -> None:
    """Rewrite a cache table with some keys alone (None: all) and delete what it held before.

    The caller holds the memory alone. Rows whose checksums do not hold are dropped.

    Raises
    ------
    DamageError
        If the table cannot be read.
    """
    with told("the embedding cache"):
        table = open_table(uri, storage)
        if table is None:
            return
        rows = _that_hold(table.to_table())
        if keys is not None:
            rows = rows.filter(pc.is_in(rows["key"], pa.array(sorted(keys), pa.binary(16))))
        _rewrite(rows, uri, storage)


def _rewrite(table: pa.Table, uri: str, storage: dict[str, str] | None) -> None:
    """Replace a table's rows and delete every earlier version; the caller holds the memory alone."""
    from datetime import timedelta

    written = lance.write_dataset(table, uri, mode="overwrite", storage_options=storage)
    written.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
