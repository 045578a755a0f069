"""A task as two Arrow tables: its distinct instructions, and its examples grouped by instruction.

Both are in an order that follows from the content alone (side of the split, then instruction key, then example
key), so equal content gives equal tables however it arrived, and a draw from an instruction is a `take` of rows.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inscl.encoder import Embeddings, Encoded
from inscl.errors import DataError
from inscl.example import (
    SPLITS,
    Example,
    Split,
    dump_messages,
    example_key,
    input_key,
    instruction_key,
)
from inscl.split import TRAIN, UNSET, Keys, Shares, assign_sides

if TYPE_CHECKING:
    from inscl.tags import Tagger

BATCH = 8192  # rows handed to Arrow at once
SPILL = 16 * BATCH  # rows kept in memory before they go to a temporary file
SMALL = 100_000  # rows of a task whose keys are read once instead of at every draw
FEW_TEST_ROWS = 30
OWN_TAGS = "yours"

TagsBy = tuple[tuple[str, ...], str]  # tags of an instruction, and who made them

SPOOLED = pa.schema([("input", pa.string()), ("outputs", pa.list_(pa.string())), ("messages", pa.string())])


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

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

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

    @cached_property
    def instructions(self) -> Instructions:
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

    def _open(self, table: str) -> Any:
        return lance.dataset(f"{self.folder}/{table}.lance", storage_options=self.storage)

    def tagged(self) -> list[TagsBy]:
        """Tags of each instruction with who made them."""
        table = self._open("instructions").to_table(columns=["tags", "tagger"])
        return [(tuple(row["tags"]), row["tagger"]) for row in table.to_pylist()]

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
            for row in self._examples.take(part, columns=columns).to_pylist():
                messages = row["messages"]
                yield Example(
                    instruction=texts[row["instruction"]],
                    input=row["input"],
                    outputs=tuple(row["outputs"]),
                    messages=None if messages is None else tuple(json.loads(messages)),
                    split=SPLITS[row["split"]],
                )

    def columns(self, names: list[str]) -> pa.Table:
        """Stored columns (key, input_key, split, tokens, …) of all rows."""
        return self._examples.to_table(columns=names)

    def marks(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """Columns `key` and `tokens` of some rows, by row number."""
        if sum(self.info.rows.values()) > SMALL:
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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How rows become a task: who encodes, who tags, how rows are split, how tables are stored."""

    encode: Callable[[Sequence[str]], Encoded]
    encoder: str  # its identity
    tagger: "Tagger"
    own_tags: Mapping[bytes, Sequence[str]] = field(default_factory=dict)  # by instruction key
    known_tags: Mapping[bytes, TagsBy] = field(default_factory=dict)  # made earlier, and kept
    shares: Shares = field(default_factory=Shares)
    storage: dict[str, str] | None = None  # Lance's options for an object store
    compression: str | None = None  # "none" keeps texts readable in the files' bytes


def write_task(name: str, examples: Iterable[Example], folder: str, recipe: Recipe, base: Task | None = None) -> Task:
    """Write a task's tables into an empty folder.

    Memory stays bounded: about 450 bytes an example and the distinct instructions; the rest goes through a temporary
    file.

    Parameters
    ----------
    name : str
    examples : iterable of Example
        Read once.
    folder : str
        Local path or object-store URI without a trailing slash.
    recipe : Recipe
    base : Task, optional
        A task to append to: its rows come first and keep their sides.

    Raises
    ------
    DataError
        If there is no example, or plain and chat examples are mixed.
    """
    with tempfile.TemporaryDirectory(prefix="inscl-") as temporary:
        spool = _Spool(Path(temporary))
        for row in base.examples(range(sum(base.info.rows.values()))) if base else ():
            spool.append(row)
        old = len(spool)
        for row in examples:
            spool.append(row)
        if len(spool) == 0:
            raise DataError(f"Task '{name}' has no example to keep. Check the data, or the reasons above.")
        arrays, rows, texts = spool.finish()
        if arrays.chat.any() and not arrays.chat.all():
            raise DataError(
                f"Task '{name}' mixes chat rows ({int(arrays.chat.sum())}) with plain ones. Add them as two tasks."
            )
        kept = _first_of_each(arrays.keys)
        form = "chat" if arrays.chat[0] else "plain"
        duplicates = len(arrays.keys) - old - int((kept >= old).sum())
        columns = _columns(arrays, kept, [text.key for text in texts], old, recipe, base)
        del arrays, kept  # with ten million rows that is a gigabyte
        table, tags = _instruction_table(texts, columns, recipe)
        lance.write_dataset(table, f"{folder}/instructions.lance", storage_options=recipe.storage)
        stream = pa.RecordBatchReader.from_batches(
            _example_schema(recipe.compression), _example_batches(columns, rows, recipe.compression)
        )
        lance.write_dataset(stream, f"{folder}/examples.lance", storage_options=recipe.storage)
    info = _describe(name, columns, table, tags, form, duplicates, recipe)
    return Task(info, folder, recipe.storage)


def write_tags(task: Task, tagged: Mapping[bytes, TagsBy], tagger: str, folder: str) -> Task | None:
    """Write a task's instructions into another folder with other tags; its examples are not touched.

    Parameters
    ----------
    task : Task
    tagged : mapping
        Tags and who made them, by instruction key. Tags that the user brought stay.
    tagger : str
        Identity of the tagger that was asked.
    folder : str
        Where `instructions.lance` is written.

    Returns
    -------
    Task or None
        The task as it will be in `folder`; None if nothing changes, and then nothing is written.
    """
    table = lance.dataset(f"{task.folder}/instructions.lance", storage_options=task.storage).to_table()
    before = task.tagged()
    after = [
        old if old[1] == OWN_TAGS else tagged.get(key, old)
        for key, old in zip(task.instructions.keys, before, strict=True)
    ]
    after = [(tuple(sorted(set(tags))), by) for tags, by in after]
    if after == before:
        return None
    tags, taggers = [list(tags) for tags, _ in after], [by for _, by in after]
    for name, values in (("tags", tags), ("tagger", taggers)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    lance.write_dataset(table, f"{folder}/instructions.lance", storage_options=task.storage)
    info = replace(
        task.info,
        tags=_tags_hash([tags for tags, _ in after]),
        tagger=tagger,
        taggers=_counted(taggers),
        retagged=tagger,
    )
    return Task(info, folder, task.storage)


@dataclass(frozen=True)
class _Arrays:
    """What is kept in memory of every row, in order of arrival."""

    keys: Keys  # (n, 2) example
    inputs: Keys  # (n, 2)
    instruction: npt.NDArray[np.int32]  # (n,) number in order of first appearance
    asked: npt.NDArray[np.int8]  # (n,) side or UNSET
    tokens: npt.NDArray[np.int32]  # (n,)
    chat: npt.NDArray[np.bool_]  # (n,)


@dataclass
class _Text:
    """A distinct instruction while rows arrive: of texts that differ in white space, the smallest represents it."""

    key: bytes
    text: str
    tags: set[str]


class _Spool:
    """Takes rows one by one; keeps their keys in memory and their texts in memory or, beyond SPILL, in a file."""

    def __init__(self, temporary: Path) -> None:
        self._file = str(temporary / "spool.lance")
        self._spilled = False
        self._numbers: dict[str, int] = {}  # raw instruction -> number
        self._by_key: dict[bytes, int] = {}
        self._texts: list[_Text] = []
        self._done: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []
        self._count = 0
        self._clear()

    def __len__(self) -> int:
        return self._count

    def append(self, example: Example) -> None:
        number = self._number(example.instruction)
        if example.tags is not None:
            self._texts[number].tags.update(example.tags)
        if example.messages is None:
            chat = None
            length = estimate_tokens(example.instruction + example.input + example.outputs[0])
        else:
            chat = dump_messages(example.messages)
            length = sum(estimate_tokens(m["content"]) for m in example.messages)
        self._keys.append(example_key(example))
        self._inputs.append(input_key(example))
        self._instruction.append(number)
        self._asked.append(UNSET if example.split is None else SPLITS.index(example.split))
        self._tokens.append(length)
        self._rows.append((example.input, list(example.outputs), chat))
        self._count += 1
        if len(self._rows) == BATCH:
            self._flush()

    def finish(self) -> tuple[_Arrays, Any, list[_Text]]:
        self._flush()
        if self._spilled:
            self._spill()
            rows: Any = lance.dataset(self._file)
        else:
            rows = pa.Table.from_batches(self._batches, SPOOLED)
        keys, inputs, instruction, asked, tokens, chat = (
            np.concatenate(parts) for parts in zip(*self._done, strict=True)
        )
        return _Arrays(keys, inputs, instruction, asked, tokens, chat), rows, self._texts

    def _number(self, text: str) -> int:
        number = self._numbers.get(text)
        if number is None:
            key = instruction_key(text)
            number = self._by_key.setdefault(key, len(self._texts))
            if number == len(self._texts):
                self._texts.append(_Text(key, text, set()))
            self._texts[number].text = min(self._texts[number].text, text)
            self._numbers[text] = number
        return number

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._inputs: list[bytes] = []
        self._instruction: list[int] = []
        self._asked: list[int] = []
        self._tokens: list[int] = []
        self._rows: list[tuple[str, list[str], str | None]] = []

    def _flush(self) -> None:
        if not self._rows:
            return
        inputs, outputs, chats = zip(*self._rows, strict=True)
        batch = pa.record_batch(
            [pa.array(c, t) for c, t in zip((inputs, outputs, chats), SPOOLED.types, strict=True)], SPOOLED
        )
        self._done.append(
            (
                _as_keys(self._keys),
                _as_keys(self._inputs),
                np.array(self._instruction, np.int32),
                np.array(self._asked, np.int8),
                np.array(self._tokens, np.int32),
                np.array([chat is not None for chat in chats]),
            )
        )
        self._batches.append(batch)
        self._clear()
        if len(self._batches) * BATCH >= SPILL:
            self._spill()

    def _spill(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches, SPOOLED)
            lance.write_dataset(table, self._file, mode="append" if self._spilled else "create")
        self._batches, self._spilled = [], True


@dataclass(frozen=True)
class _Columns:
    """Computed columns of the kept rows, in the order in which they are stored."""

    keys: Keys
    inputs: Keys
    sides: npt.NDArray[np.int8]
    instruction: npt.NDArray[np.int32]  # rank of its key
    tokens: npt.NDArray[np.int32]
    spooled: npt.NDArray[np.int64]  # where the row lies in the spool
    moved: dict[str, int]
    given: frozenset[int]


def _columns(
    arrays: _Arrays, kept: npt.NDArray[np.int64], keys: list[bytes], old: int, recipe: Recipe, base: Task | None
) -> _Columns:
    asked_now = set(np.unique(arrays.asked[old:]).tolist()) - {UNSET, TRAIN}
    given = frozenset(base.info.given if base else ()) | frozenset(int(side) for side in asked_now)
    assignment = assign_sides(
        arrays.inputs[kept],
        arrays.asked[kept],
        shares=recipe.shares,
        given=given,
        moved=base.info.moved if base else None,
    )
    rank = np.empty(len(keys), np.int32)
    rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys), dtype=np.int32)
    instruction = rank[arrays.instruction[kept]]
    high, low = arrays.keys[kept].T
    order = np.lexsort((low, high, instruction, assignment.sides))
    spooled = kept[order]
    return _Columns(
        keys=arrays.keys[spooled],
        inputs=arrays.inputs[spooled],
        sides=assignment.sides[order],
        instruction=instruction[order],
        tokens=arrays.tokens[spooled],
        spooled=spooled,
        moved=assignment.moved,
        given=given,
    )


def _instruction_table(texts: list[_Text], columns: _Columns, recipe: Recipe) -> tuple[pa.Table, list[tuple[str, ...]]]:
    texts = sorted(texts, key=lambda text: text.key)
    tags, taggers = _tags_of(texts, recipe)
    encoded = recipe.encode([text.text for text in texts])
    n, dimension = encoded.vectors.shape
    counts = [
        np.bincount(columns.instruction[columns.sides == side], minlength=n).astype(np.int32)
        for side in range(len(SPLITS))
    ]
    table = pa.table(
        {
            "key": pa.array([text.key for text in texts], pa.binary(16)),
            "text": [text.text for text in texts],
            **{str(side): column for side, column in zip(SPLITS, counts, strict=True)},
            "tags": pa.array([list(t) for t in tags], pa.list_(pa.string())),
            "tagger": taggers,
            "cut": encoded.cut,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(encoded.vectors.reshape(-1)), dimension),
        }
    )
    return table.cast(_compressed(table.schema, recipe.compression)), tags


def _tags_of(texts: list[_Text], recipe: Recipe) -> tuple[list[tuple[str, ...]], list[str]]:
    """Tags of each instruction and who made them: the user's own first, then what is known, then the tagger."""
    known = recipe.known_tags
    own = [text.tags | set(recipe.own_tags.get(text.key, ())) for text in texts]
    asked = [text for text, tags in zip(texts, own, strict=True) if not tags and text.key not in known]
    made = dict(zip((t.key for t in asked), recipe.tagger([t.text for t in asked]), strict=True)) if asked else {}
    tags: list[tuple[str, ...]] = []
    taggers: list[str] = []
    for text, mine in zip(texts, own, strict=True):
        if mine:
            chosen, by = sorted(mine), OWN_TAGS
        elif text.key in known:
            chosen, by = list(known[text.key][0]), known[text.key][1]
        else:
            chosen, by = sorted(set(made[text.key])), recipe.tagger.identity
        tags.append(tuple(chosen))
        taggers.append(by)
    return tags, taggers


def _example_schema(compression: str | None) -> pa.Schema:
    computed = [
        ("key", pa.binary(16)),
        ("split", pa.int8()),
        ("instruction", pa.int32()),
        ("input_key", pa.binary(16)),
        ("tokens", pa.int32()),
    ]
    return _compressed(pa.schema([*computed, *SPOOLED]), compression)


def _compressed(schema: pa.Schema, compression: str | None) -> pa.Schema:
    if compression is None:
        return schema
    metadata = {"lance-encoding:compression": compression}
    return pa.schema([part.with_metadata(metadata) for part in schema])


def _example_batches(columns: _Columns, rows: Any, compression: str | None) -> Iterator[pa.RecordBatch]:
    schema = _example_schema(compression)
    for start in range(0, len(columns.spooled), BATCH):
        at = slice(start, start + BATCH)
        texts = rows.take(columns.spooled[at]).combine_chunks().to_batches()[0]
        computed = [
            pa.array(as_bytes(columns.keys[at]), pa.binary(16)),
            pa.array(columns.sides[at]),
            pa.array(columns.instruction[at]),
            pa.array(as_bytes(columns.inputs[at]), pa.binary(16)),
            pa.array(columns.tokens[at]),
        ]
        yield pa.record_batch([*computed, *texts.columns], schema)


def _describe(
    name: str,
    columns: _Columns,
    table: pa.Table,
    tags: list[tuple[str, ...]],
    form: str,
    duplicates: int,
    recipe: Recipe,
) -> TaskInfo:
    sides = range(len(SPLITS))
    digest = blake2b(digest_size=16)
    for part in (columns.keys, columns.sides, columns.instruction):
        digest.update(np.ascontiguousarray(part).tobytes())
    vectors = table["embedding"].combine_chunks()
    distinct = [len(np.unique(columns.inputs[columns.sides == s], axis=0)) for s in sides]
    inputs = len(np.unique(columns.inputs, axis=0))
    return TaskInfo(
        name=name,
        content=digest.hexdigest(),
        tags=_tags_hash(tags),
        embeddings=blake2b(vectors.flatten().to_numpy(zero_copy_only=False).tobytes(), digest_size=16).hexdigest(),
        form=form,
        instructions=table.num_rows,
        rows={side: int((columns.sides == s).sum()) for s, side in enumerate(SPLITS)},
        tokens={side: int(columns.tokens[columns.sides == s].sum()) for s, side in enumerate(SPLITS)},
        inputs=inputs,
        duplicates=duplicates,
        moved=columns.moved,
        given=sorted(columns.given),
        both_sides=sum(distinct) - inputs,
        cut=int(np.sum(table["cut"].to_numpy())),
        encoder=recipe.encoder,
        tagger=recipe.tagger.identity,
        dimension=vectors.type.list_size,
        shares=asdict(recipe.shares),
        taggers=_counted(table["tagger"].to_pylist()),
    )


def _tags_hash(tags: Sequence[tuple[str, ...]]) -> str:
    return blake2b(json.dumps(tags).encode(), digest_size=16).hexdigest()


def _counted(taggers: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(taggers).items()))


def _first_of_each(keys: Keys) -> npt.NDArray[np.int64]:
    """Numbers of the rows that are no exact duplicate of an earlier one, ascending."""
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
    fresh = np.r_[True, (keys[order][1:] != keys[order][:-1]).any(axis=1)]
    return np.sort(order[fresh])


def _as_keys(keys: list[bytes]) -> Keys:
    return np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2).astype(np.uint64)


def as_bytes(keys: Keys) -> list[bytes]:
    """Keys as they are stored: 16 bytes each."""
    raw = keys.astype(">u8").tobytes()
    return [raw[i : i + 16] for i in range(0, len(raw), 16)]
