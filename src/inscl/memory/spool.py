"""Rows that arrive one by one on their way to a task: their keys in memory, their texts in temporary files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inscl.data.example import SPLITS, Example, Split, dump_chat, instruction_key, plain_keys, said
from inscl.data.readers import Block
from inscl.data.split import UNSET, Keys, distinct_keys
from inscl.memory.row_file import RowFile
from inscl.memory.task import BATCH, estimate_tokens

ROW_TEXTS = pa.schema([("input", pa.string()), ("outputs", pa.list_(pa.string())), ("messages", pa.string())])
_INSTRUCTIONS = pa.schema([("text", pa.string()), ("tags", pa.list_(pa.string()))])
_RECENT = 2**16  # instructions that are not written down again


@dataclass(frozen=True)
class Instruction:
    """A distinct instruction: of texts that differ in white space, the smallest represents it."""

    key: bytes
    text: str
    tags: tuple[str, ...]  # that its rows brought


@dataclass(frozen=True)
class Arrays:
    """What is kept in memory of every row, in order of arrival."""

    keys: Keys  # (n, 2) example
    inputs: Keys  # (n, 2)
    instruction: npt.NDArray[np.int32]  # (n,) number of its instruction, by ascending key
    asked: npt.NDArray[np.int8]  # (n,) side or UNSET
    tokens: npt.NDArray[np.int32]  # (n,)
    chat: npt.NDArray[np.bool_]  # (n,)


class Spool:
    """Takes the rows of a task.

    Parameters
    ----------
    folder : Path
        An empty folder; whoever made it deletes it.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = RowFile(ROW_TEXTS, folder / "rows")
        self._instructions = RowFile(_INSTRUCTIONS, folder / "instructions")
        self._recent: dict[object, bytes] = {}  # key by text, or by text and tags
        self._fresh: list[tuple[bytes, str, list[str]]] = []
        self._fresh_keys: list[Keys] = []
        self._done: list[tuple[npt.NDArray[np.generic], ...]] = []
        self._count = 0
        self._clear()

    def __len__(self) -> int:
        return self._count

    def append(self, row: Example | Block) -> None:
        """Take a row, or many plain ones."""
        if isinstance(row, Block):
            self._flush()
            self._append_block(row)
            return
        if row.messages is None:
            chat = None
            length = estimate_tokens(row.instruction + row.input + row.outputs[0])
        else:
            chat = dump_chat(row.messages, row.tools)
            length = sum(estimate_tokens(said(m)) for m in row.messages)
        self._keys.append(row.key)
        self._inputs.append(row.input_key)
        self._asked_for.append(self._instruction(row.instruction, row.tags))
        self._asked.append(_side(row.split))
        self._tokens.append(length)
        self._texts.append((row.input, row.outputs, chat))
        self._count += 1
        if len(self._texts) == BATCH:
            self._flush()

    def _append_block(self, block: Block) -> None:
        n = len(block)
        texts = block.instructions.to_pylist()
        keys, inputs = plain_keys(texts, block.inputs.to_pylist(), block.outputs.to_pylist())
        asked_for = as_keys([self._instruction(text, None) for text in texts])
        self._flush()  # of instructions
        outputs = pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), block.outputs)
        self._rows.append([block.inputs, outputs, pa.nulls(n, pa.string())])
        lengths = [pc.binary_length(texts).to_numpy() for texts in (block.instructions, block.inputs, block.outputs)]
        asked = np.full(n, _side(block.split), np.int8)
        tokens = ((np.sum(lengths, axis=0) + 3) // 4).astype(np.int32)
        self._done.append((as_keys(keys), as_keys(inputs), asked_for, asked, tokens, np.zeros(n, bool)))
        self._count += n

    def finish(self) -> Arrays:
        """What is known of all rows; no more can be taken."""
        self._flush()
        keys, inputs, asked_for, asked, tokens, chat = (np.concatenate(part) for part in zip(*self._done, strict=True))
        self._done.clear()
        _, instruction = distinct_keys(asked_for)
        return Arrays(keys, inputs, instruction.astype(np.int32), asked, tokens, chat)

    def texts(self, order: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """Texts of rows by number, in batches of `BATCH`; once."""
        return self._rows.read(order)

    def instructions(self) -> Iterator[Instruction]:
        """The distinct instructions, by ascending key; once."""
        keys = np.concatenate(self._fresh_keys)
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        found = (
            (bytes(key), text, tags)
            for at, batch in zip(range(0, len(order), BATCH), self._instructions.read(order), strict=True)
            for key, text, tags in zip(
                as_column(keys[order[at : at + BATCH]]).to_pylist(),
                *map(pa.Array.to_pylist, batch.columns),
                strict=True,
            )
        )
        for key, same in groupby(found, key=lambda one: one[0]):
            _, texts, tags = zip(*same, strict=True)
            yield Instruction(key, min(texts), tuple(sorted({tag for of_one in tags for tag in of_one})))

    def _instruction(self, text: str, tags: tuple[str, ...] | None) -> bytes:
        """Key of an instruction, which is written down unless it was lately."""
        asked = (text, tags) if tags else text
        key = self._recent.get(asked)
        if key is None:
            if len(self._recent) == _RECENT:
                self._recent.clear()
            key = self._recent[asked] = instruction_key(text)
            self._fresh.append((key, text, list(tags or ())))
        return key

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._inputs: list[bytes] = []
        self._asked_for: list[bytes] = []
        self._asked: list[int] = []
        self._tokens: list[int] = []
        self._texts: list[tuple[str, tuple[str, ...], str | None]] = []

    def _flush(self) -> None:
        if self._fresh:
            keys, *columns = zip(*self._fresh, strict=True)
            self._fresh_keys.append(as_keys(keys))
            self._instructions.append([pa.array(c, t) for c, t in zip(columns, _INSTRUCTIONS.types, strict=True)])
            self._fresh = []
        if not self._texts:
            return
        columns = list(zip(*self._texts, strict=True))
        self._rows.append([pa.array(c, t) for c, t in zip(columns, ROW_TEXTS.types, strict=True)])
        self._done.append(
            (
                as_keys(self._keys),
                as_keys(self._inputs),
                as_keys(self._asked_for),
                np.array(self._asked, np.int8),
                np.array(self._tokens, np.int32),
                np.array([chat is not None for chat in columns[2]]),
            )
        )
        self._clear()


def _side(split: Split | None) -> int:
    return UNSET if split is None else SPLITS.index(split)


def as_keys(keys: Sequence[bytes]) -> Keys:
    """Keys as halves."""
    return np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2).astype(np.uint64)


def as_column(keys: Keys) -> pa.Array:
    """Keys as they are stored: 16 bytes each."""
    raw = pa.py_buffer(keys.astype(">u8").tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(keys), [None, raw])
