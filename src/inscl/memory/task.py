"""A task as two Arrow tables: its distinct instructions, and its examples grouped by instruction.

Both are in an order that follows from the content alone (side of the split, then instruction key, then example
key), so equal content gives equal tables however it arrived, and a draw from an instruction is a `take` of rows.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inscl.data.example import SPLITS, Example, Split, load_chat
from inscl.errors import DataError
from inscl.memory.encoder import Embeddings
from inscl.memory.trouble import explained

BATCH = 8192  # rows handed to Arrow at once
_SMALL = 100_000  # rows of a task whose keys are read once instead of at every draw
FEW_TEST_ROWS = 30
OWN_TAGS = "yours"

TagsBy = tuple[tuple[str, ...], str]  # tags of an instruction, and who made them


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What a memory says of a task without opening its tables."""

    name: str
    content: str  # hash of the examples and their sides
    tags: str  # hash of the instructions' tags
    embeddings: str  # hash of the instruction embeddings
    form: str  # "plain" or "chat"
    instructions: int
    rows: dict[str, int]  # per side
    tokens: dict[str, int]  # estimated, per side
    inputs: int  # distinct
    duplicates: int
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> records
    ignored: dict[str, int] = field(default_factory=dict)  # columns that are not used -> rows; empty in old memories
    moved: dict[str, int] = field(default_factory=dict)  # inputs moved to an empty side
    given: list[int] = field(default_factory=list)  # held-out sides that the user supplied
    both_sides: int = 0  # inputs that stand on two sides because the user put them there
    cut: int = 0  # instructions longer than the encoder reads
    encoder: str
    tagger: str
    dimension: int
    shares: dict[str, float] = field(default_factory=dict)
    taggers: dict[str, int] = field(default_factory=dict)  # who made the tags -> instructions; empty in old memories
    retagged: str = ""  # the tagger that was asked for last, by `Memory.retag`
    general: bool = False  # replayed for what the model could do before, and not a task that it learnt

    def to_json(self) -> str:
        plain = asdict(self)
        if not self.general:
            del plain["general"]  # earlier releases read memories without it
        return json.dumps(plain, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "TaskInfo":
        info = cls(**json.loads(text))
        # JSON is written with sorted keys; the sides have an order of their own.
        sides = [{str(side): counts[side] for side in SPLITS} for counts in (info.rows, info.tokens)]
        return replace(info, rows=sides[0], tokens=sides[1])


@dataclass(frozen=True)
class Instructions:
    """Distinct instructions of a task, by ascending key."""

    keys: list[bytes]
    texts: list[str]
    counts: npt.NDArray[np.int64]  # (n, 3) examples on each side
    tags: list[tuple[str, ...]]  # as the tagger or the user gave them
    embeddings: Embeddings  # (n, d)


@dataclass(frozen=True)
class Task:
    """A task that lies in a folder as `instructions.lance` and `examples.lance`."""

    info: TaskInfo
    folder: str
    storage: dict[str, str] | None = None
    check: Callable[[str], None] = lambda table: None  # sees that a table's files are what was written

    @cached_property
    def instructions(self) -> Instructions:
        with self._told():
            table = self._open("instructions").to_table()
        flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return Instructions(
            keys=table["key"].to_pylist(),
            texts=table["text"].to_pylist(),
            counts=np.stack([table[side].to_numpy() for side in SPLITS], axis=1).astype(np.int64),
            tags=[tuple(tags) for tags in table["tags"].to_pylist()],
            embeddings=flat.reshape(table.num_rows, -1),
        )

    @cached_property
    def _examples(self) -> Any:
        return self._open("examples")

    def _told(self) -> AbstractContextManager[None]:
        return explained(f"Task '{self.info.name}'")

    def _open(self, table: str) -> Any:
        self.check(table)
        return lance.dataset(f"{self.folder}/{table}.lance", storage_options=self.storage)

    def tagged(self) -> list[TagsBy]:
        """Tags of each instruction with who made them."""
        table = self.instruction_columns(["tags", "tagger"])
        return [(tuple(row["tags"]), row["tagger"]) for row in table.to_pylist()]

    def distinct_tags(self) -> set[str]:
        """All tags of its instructions, which are read a part at a time."""
        found: set[str] = set()
        with self._told():
            for batch in self._open("instructions").to_batches(columns=["tags"]):
                found.update(batch["tags"].flatten().unique().to_pylist())
        return found

    def side(self, side: Split) -> range:
        """Row numbers of a side; the training rows are 0, 1, …, grouped by instruction."""
        start = sum(self.info.rows[before] for before in SPLITS[: SPLITS.index(side)])
        return range(start, start + self.info.rows[side])

    def examples(self, rows: Sequence[int] | range) -> Iterator[Example]:
        """Read examples by row number, in the order asked for."""
        texts = self.instructions.texts
        columns = ["instruction", "input", "outputs", "messages", "split"]
        for start in range(0, len(rows), BATCH):
            part = list(rows[start : start + BATCH])
            with self._told():
                taken = self._examples.take(part, columns=columns).to_pylist()
            for row in taken:
                messages, tools = (None, None) if row["messages"] is None else load_chat(row["messages"])
                yield Example(
                    instruction=texts[row["instruction"]],
                    input=row["input"],
                    outputs=tuple(row["outputs"]),
                    messages=messages,
                    split=SPLITS[row["split"]],
                    tools=tools,
                )

    def instruction_columns(self, names: list[str]) -> pa.Table:
        """Stored columns (text, tags, tagger, embedding, …) of all instructions."""
        with self._told():
            return self._open("instructions").to_table(columns=names)

    def sample(self, side: Split, limit: int | None = None) -> list[Example]:
        """Rows of a side, the first `limit` in the order of their keys.

        Keys are hashes of the content, so the beginning is a sample that no order of a file, and no seed, decides.
        """
        keys = self.columns(["key"])["key"].to_pylist()
        chosen = sorted(self.side(side), key=lambda place: keys[place])[:limit]
        return [replace(row, split=None) for row in self.examples(chosen)]

    def columns(self, names: list[str]) -> pa.Table:
        """Stored columns (key, input_key, split, tokens, …) of all rows."""
        with self._told():
            return self._examples.to_table(columns=names)

    def marks(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """Columns `key` and `tokens` of some rows, by row number."""
        if sum(self.info.rows.values()) > _SMALL:
            with self._told():
                return self._examples.take(rows.tolist(), columns=["key", "tokens"])
        return self._marks.take(rows)

    @cached_property
    def inputs(self) -> pa.Table:
        """Columns `input_key` and `split` of the distinct inputs, in one chunk."""
        table = self.columns(["input_key", "split"]).group_by("input_key", use_threads=False)
        return table.aggregate([("split", "max")]).rename_columns(["input_key", "split"]).combine_chunks()

    @cached_property
    def _marks(self) -> pa.Table:
        return self.columns(["key", "tokens"]).combine_chunks()


def estimate_tokens(text: str) -> int:
    """Tokens of a text, roughly: a quarter of its UTF-8 bytes, rounded up.

    No tokenizer is loaded for a plan. ``docs/formats.md`` says how far off this is on real data.

    >>> estimate_tokens("Put the words in order.")
    6
    """
    return (len(text.encode("utf-8", "replace")) + 3) // 4


def check_name(name: str) -> str:
    """Return a task's name if it is one that can be shown and typed; a name is never used as a path.

    Raises
    ------
    DataError
        Unless it has 1-200 printable characters, is not blank, and has no control or bidirectional characters and
        no ``.`` or ``..`` between slashes.
    """
    import unicodedata

    bidirectional = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    bad = ""
    if not 1 <= len(name) <= 200:
        bad = f"has {len(name)} characters"
    elif not name.strip():
        bad = "is blank"
    elif any(unicodedata.category(c) in {"Cc", "Cs", "Cn", "Co", "Zl", "Zp"} or c in bidirectional for c in name):
        bad = "has control or bidirectional characters"
    elif {".", ".."} & set(name.replace("\\", "/").split("/")):
        bad = "has '.' or '..' between slashes"
    if bad:
        raise DataError(f"The task name {name[:60]!r} {bad}; wanted 1-200 printable characters. Choose another name.")
    return name
