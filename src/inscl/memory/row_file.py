"""Rows written one after another and read back in another order, in bounded memory."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inscl.memory.task import BATCH
from inscl.memory.trouble import explained

_HELD = 32 * 2**20  # bytes of rows held in memory at once
_MOST_PARTS = 100  # files that are written side by side


class RowFile:
    """Rows of texts, or of lists of texts: in memory while they are few, else in files of a folder.

    To read them in another order, they are dealt out to as many files as it takes for each to fit into memory, each
    with the rows of one stretch of that order.

    Parameters
    ----------
    schema : pyarrow.Schema
    folder : Path
        An empty folder; whoever made it deletes it.
    """

    def __init__(self, schema: pa.Schema, folder: Path) -> None:
        self._schema, self._folder = schema, folder
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._sizes: list[npt.NDArray[np.int64]] = []
        self._writer: Any = None

    def append(self, columns: list[pa.Array]) -> None:
        """Add rows, given by their columns."""
        batch = pa.record_batch(columns, self._schema)
        sizes = sum(map(_sizes, batch.columns), np.zeros(batch.num_rows, np.int64))
        self._sizes.append(sizes)
        self._held.append(batch)
        self._held_bytes += int(sizes.sum())
        if self._held_bytes > _HELD:
            self._spill()

    def read(self, order: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """Rows by their numbers, each at most once, in batches of `BATCH`; nothing can be added or read afterwards."""
        if self._writer is None:
            return _taken(self._held, self._schema, order)
        self._spill()
        self._writer.close()
        sizes = np.concatenate(self._sizes)
        ends = _ends(sizes[order], max(_HELD, int(sizes.sum()) // _MOST_PARTS))
        part_of = np.full(len(sizes), len(ends), np.int16)  # a part without a file, if nobody asks for the row
        part_of[order] = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        with explained("The folder for temporary files"):
            self._deal(part_of, len(ends))
        return self._parts(np.split(order, ends[:-1]))

    def _parts(self, orders: list[npt.NDArray[np.int64]]) -> Iterator[pa.RecordBatch]:
        for number, wanted in enumerate(orders):
            ranks = np.empty(len(wanted), np.int64)  # among the rows of the file, which are in order of arrival
            ranks[np.argsort(wanted)] = np.arange(len(wanted))
            with explained("The folder for temporary files"):
                with pa.OSFile(str(self._part(number))) as file, pa.ipc.open_stream(file) as stream:
                    batches = list(stream)
                self._part(number).unlink()
            yield from _taken(batches, self._schema, ranks)

    def _spill(self) -> None:
        with explained("The folder for temporary files"):
            if self._writer is None:
                self._folder.mkdir(exist_ok=True)
                self._writer = pa.ipc.new_stream(str(self._folder / "rows"), self._schema)
            for batch in self._held:
                self._writer.write_batch(batch)
        self._held, self._held_bytes = [], 0

    def _deal(self, part_of: npt.NDArray[np.int16], parts: int) -> None:
        """Write each row to the file of its part, in order of arrival."""
        rows, start = self._folder / "rows", 0
        with ExitStack() as stack:
            writers = [pa.ipc.new_stream(str(self._part(number)), self._schema) for number in range(parts)]
            for writer in writers:
                stack.enter_context(writer)
            for batch in stack.enter_context(pa.ipc.open_stream(stack.enter_context(pa.OSFile(str(rows))))):
                mine = part_of[start : start + batch.num_rows]
                dealt = batch.take(pa.array(np.argsort(mine, kind="stable")))
                ends = np.cumsum(np.bincount(mine, minlength=parts)[:parts])
                for writer, begin, end in zip(writers, [0, *ends], ends, strict=False):
                    if begin < end:
                        writer.write_batch(dealt.slice(begin, end - begin))
                start += batch.num_rows
        rows.unlink()

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number}"


def _taken(batches: list[pa.RecordBatch], schema: pa.Schema, order: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(batches, schema).combine_chunks()
    del batches[:]  # the copy is enough
    for start in range(0, len(order), BATCH):
        yield table.take(pa.array(order[start : start + BATCH])).combine_chunks().to_batches()[0]


def _ends(sizes: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Where to end each stretch of rows, so that it is about `most` bytes long, or one row."""
    whole = np.cumsum(sizes)
    cuts = np.searchsorted(whole, np.arange(most, whole[-1], most), side="right")
    return np.unique(np.r_[cuts[cuts > 0], len(sizes)])


def _sizes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each row of a column of texts or of lists of texts."""
    if pa.types.is_list(column.type):
        texts = np.cumsum(np.r_[0, _sizes(column.flatten())])
        offsets = column.offsets.to_numpy()
        return np.asarray(8 + np.diff(texts[offsets - offsets[0]]))
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    return np.asarray(8 + np.diff(offsets.astype(np.int64)))
