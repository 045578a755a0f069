"""Many lines of JSON at once: rows of an instruction, an input and an output, as columns and at the parser's speed.

Whatever is not that plain is left to the readers of single lines, so that it makes no difference which of them read.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from inscl.data.example import Example, Split
from inscl.data.readers.fields import is_empty

_SCHEMA = pa.schema([(name, pa.string()) for name in ("instruction", "input", "output")])


@dataclass(frozen=True)
class Block:
    """Rows without chats, tags or sides of their own, nothing of them blank but the input.

    Attributes
    ----------
    instructions, inputs, outputs : pyarrow.StringArray, shape (n,)
    ignored : dict of str to int
        Columns that hold something and are not used, with the number of rows.
    split : "train", "dev" or "test", optional
        The side that the caller chose for all of them.
    """

    instructions: pa.Array
    inputs: pa.Array
    outputs: pa.Array
    ignored: dict[str, int]
    split: Split | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def examples(self) -> Iterator[Example]:
        """The rows one by one."""
        columns = (self.instructions, self.inputs, self.outputs)
        for instruction, body, output in zip(*map(pa.Array.to_pylist, columns), strict=True):
            yield Example(instruction, body, (output,), split=self.split)


def next_block(stream: BinaryIO, columns: frozenset[str]) -> tuple[Block | None, int]:
    """Take the lines that are ready in a stream, if they are plain.

    Parameters
    ----------
    stream : binary stream
    columns : set of str
        What other columns are read: where there is one, the lines are not plain.

    Returns
    -------
    Block or None
        None if something about the lines asks for a closer look; then nothing was taken.
    int
        How many lines were looked at, at least 1.
    """
    if not isinstance(stream, io.BufferedReader):
        return None, 1
    ready = stream.peek()
    data = ready[: ready.rfind(b"\n") + 1]
    lines = data.count(b"\n")
    block = _block(data, lines, columns) if lines else None
    if block is not None:
        stream.read(len(data))
    return block, max(1, lines)


def _block(data: bytes, lines: int, columns: frozenset[str]) -> Block | None:
    # The parser takes an object over several lines, and several in one. Within an object "{" never follows "}".
    if not (data.startswith(b"{") and data.endswith(b"}\n") and data.count(b"}\n{") == lines - 1):
        return None
    try:
        table = pa.json.read_json(
            pa.BufferReader(data),
            pa.json.ReadOptions(use_threads=False, block_size=len(data)),
            pa.json.ParseOptions(explicit_schema=_SCHEMA),
        )
        if not data.isascii():
            data.decode()
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if table.num_rows != lines or not columns.isdisjoint(table.column_names[len(_SCHEMA) :]):
        return None
    instructions, inputs, outputs = (table[name].combine_chunks() for name in _SCHEMA.names)
    ignored = {name: _told(table[name]) for name in sorted(table.column_names[len(_SCHEMA) :])}
    told = {name: count for name, count in ignored.items() if count}
    unclear = None in ignored.values() or any(texts.null_count for texts in (instructions, inputs, outputs))
    if unclear or _any_blank(instructions) or _any_blank(outputs):
        return None
    return Block(instructions, inputs, outputs, told)


def _any_blank(texts: pa.Array) -> bool:
    return bool(pc.any(pc.or_(pc.equal(texts, ""), pc.utf8_is_space(texts))).as_py())


def _told(column: pa.ChunkedArray) -> int | None:
    """How many rows of a column hold something; None where single lines may read otherwise."""
    if pa.types.is_string(column.type):
        return sum(not is_empty(text) for text in column.to_pylist())
    if pa.types.is_nested(column.type) or (
        pa.types.is_floating(column.type) and not np.isfinite(column.drop_null().to_numpy()).all()
    ):
        return None
    return int(len(column) - column.null_count)
