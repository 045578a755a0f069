"""The embedding cache of a memory: one table per encoder, keyed by the hash of the text."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inscl.data.example import key_of
from inscl.engine import Engine, Local
from inscl.memory.cache_table import KEY, CacheTable, matrix
from inscl.memory.encoder import Encoded, Encoder, encode, identity_of, in_chunks

_KNOWN = 2**17  # embeddings held in memory that the table holds, too
_AT_ONCE = 2**16  # texts that are prepared at once


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
    engine : Engine, optional
        Who encodes; default this process.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: str | None = None,
        *,
        storage: dict[str, str] | None = None,
        track: Callable[[Sequence[int]], Iterable[int]] = lambda steps: steps,
        engine: Engine | None = None,
    ) -> None:
        self.identity = identity_of(encoder)
        self._encode, self._track, self._engine = partial(encode, encoder), track, engine or Local()
        self._table = self._before = None
        if folder is not None:
            name = f"{folder}/{_hashed(self.identity)}"
            self._table = CacheTable("the embedding cache", f"{name}-checked.lance", storage)
            # Without checksums, from an earlier release: what is found there moves into the other table.
            self._before = CacheTable("the embedding cache", f"{name}.lance", storage)
        self._known: dict[bytes, tuple[npt.NDArray[np.float16], bool]] = {}

    @staticmethod
    def key(text: str) -> bytes:
        """Key of a text in the cache: of exactly this text, since encoders see case and white space."""
        return key_of("text", text)

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Embeddings of the texts, encoding only those not known yet."""
        keys = [self.key(text) for text in texts]
        if self._table is not None and len(self._known) > _KNOWN:
            self._known.clear()
        self._look_up([key for key in keys if key not in self._known])
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            self._add(list(missing.values()))
        if not keys:
            return Encoded(np.zeros((0, 0), np.float16), np.zeros(0, bool))
        found = [self._known[key] for key in keys]
        return Encoded(np.stack([vector for vector, _ in found]), np.array([cut for _, cut in found]))

    def vectors(self, texts: list[str]) -> npt.NDArray[np.float16]:
        """The embeddings alone."""
        return self(texts).vectors

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode what is not known yet, for later."""
        for start in range(0, len(texts), _AT_ONCE):
            self(texts[start : start + _AT_ONCE])

    def _add(self, texts: Sequence[str]) -> None:
        """Encode texts, keeping each chunk as soon as it is done."""
        chunks = in_chunks(texts)
        done = self._engine.map(self._encode, chunks)
        for i in self._track(range(len(chunks))):
            self._keep(chunks[i], next(done))

    def _look_up(self, keys: list[bytes]) -> None:
        for table in (self._table, self._before):
            missing = [key for key in keys if key not in self._known]
            found = table.find(key=missing) if table is not None and missing else None
            if found is not None:
                self._remember(found)
                if table is self._before:
                    self._write(found)

    def _keep(self, texts: Sequence[str], encoded: Encoded) -> None:
        flat = pa.array(encoded.vectors.reshape(-1))
        table = pa.table(
            {
                "key": pa.array([self.key(text) for text in texts], KEY),
                "cut": encoded.cut,
                "vector": pa.FixedSizeListArray.from_arrays(flat, encoded.vectors.shape[1]),
            }
        )
        self._remember(table)
        self._write(table)

    def _write(self, table: pa.Table) -> None:
        if self._table is not None:
            self._table.append(table.select(["key", "cut", "vector"]))

    def _remember(self, table: pa.Table) -> None:
        columns = table["key"].to_pylist(), table["cut"].to_pylist(), matrix(table["vector"])
        for key, cut, vector in zip(*columns, strict=True):
            self._known[key] = (vector, cut)
