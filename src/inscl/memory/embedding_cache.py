"""The embedding cache of a memory: one Lance table per encoder, keyed by the hash of the text. It holds no text."""

import logging
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inscl.data.example import key_of
from inscl.memory.encoder import Encoded, Encoder, encode_in_chunks, identity_of

log = logging.getLogger(__name__)


def text_key(text: str) -> bytes:
    """Key of a text in the cache: of exactly this text, since encoders see case and white space."""
    return key_of("text", text)


def cache_name(encoder: str) -> str:
    """Name of the table that holds an encoder's embeddings."""
    return blake2b(encoder.encode(), digest_size=8).hexdigest() + ".lance"


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
        try:
            table = self._open()
            if not keys or table is None:
                return
            stored = table.to_table(columns=["key"])["key"]
            places = pc.index_in(pa.array(keys, pa.binary(16)), stored.combine_chunks()).drop_null()
            if len(places):
                self._remember(table.take(places.to_pylist()))
        except (OSError, ValueError) as error:  # out of reach or damaged: what it holds can be computed again
            log.warning("the embedding cache could not be read (%s)", str(error).splitlines()[0])

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
        if self._table is None:
            return
        try:
            append(table, self._table, self._storage)
        except (OSError, ValueError) as error:  # a read-only or full disk loses speed, not results
            log.warning("the embedding cache could not be written (%s)", str(error).splitlines()[0])

    def _remember(self, table: pa.Table) -> None:
        width = table["vector"].type.list_size
        flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        for key, cut, vector in zip(table["key"].to_pylist(), table["cut"].to_pylist(), flat, strict=True):
            self._known[key] = (vector, cut)

    def _open(self) -> Any:
        return None if self._table is None else open_table(self._table, self._storage)


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


def keep_only(keys: Collection[bytes], uri: str, storage: dict[str, str] | None) -> None:
    """Rewrite a cache table with some keys alone and delete what it held before; the caller holds the memory alone."""
    table = open_table(uri, storage)
    if table is None:
        return
    rows = table.to_table()
    mask = pc.is_in(rows["key"], pa.array(sorted(keys), pa.binary(16)))
    rewrite(rows.filter(mask), uri, storage)


def rewrite(table: pa.Table, uri: str, storage: dict[str, str] | None) -> None:
    """Replace a table's rows and delete every earlier version; the caller holds the memory alone."""
    from datetime import timedelta

    written = lance.write_dataset(table, uri, mode="overwrite", storage_options=storage)
    written.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
