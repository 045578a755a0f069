"""Writing a task: its examples, spooled and sorted, become the two tables that `inscl.memory.task.Task` reads."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inscl.data.example import SPLITS, Example, dump_chat, example_key, input_key, instruction_key, said
from inscl.data.split import TRAIN, UNSET, Keys, Shares, assign_sides, distinct_keys
from inscl.errors import DataError
from inscl.memory.encoder import Encoded
from inscl.memory.task import BATCH, OWN_TAGS, TagsBy, Task, TaskInfo, estimate_tokens
from inscl.memory.trouble import explained

if TYPE_CHECKING:
    from inscl.tags import Tagger

_SPILL = 16 * BATCH  # rows kept in memory before they go to a temporary file
_SPOOLED = pa.schema([("input", pa.string()), ("outputs", pa.list_(pa.string())), ("messages", pa.string())])


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
        If there is no example.
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
        kept = _first_of_each(arrays.keys)
        form = "chat" if arrays.chat.any() else "plain"  # one chat makes all rows chats where they are trained
        duplicates = len(arrays.keys) - old - int((kept >= old).sum())
        columns = _columns(arrays, kept, [text.key for text in texts], old, recipe, base)
        del arrays, kept  # with ten million rows that is a gigabyte
        table, tags = _instruction_table(texts, columns, recipe)
        stream = pa.RecordBatchReader.from_batches(
            _example_schema(recipe.compression), _example_batches(columns, rows, recipe.compression)
        )
        with explained(f"Task '{name}' cannot be written"):
            lance.write_dataset(table, f"{folder}/instructions.lance", storage_options=recipe.storage)
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
    before = task.tagged()  # sees first that the files are what was written
    table = lance.dataset(f"{task.folder}/instructions.lance", storage_options=task.storage).to_table()
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
    with explained(f"Task '{task.info.name}' cannot be written"):
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


@dataclass(slots=True)
class _Text:
    """A distinct instruction while rows arrive: of texts that differ in white space, the smallest represents it."""

    key: bytes
    text: str
    tags: set[str] | None = None  # None until a row brings some


class _Spool:
    """Takes rows one by one; keeps their keys in memory and their texts in memory or, beyond _SPILL, in a file."""

    def __init__(self, temporary: Path) -> None:
        self._file = str(temporary / "spool.lance")
        self._spilled = False
        self._numbers: dict[str, int] = {}  # raw instruction -> number
        self._by_key: dict[bytes, int] = {}
        self._texts: list[_Text] = []
        self._done: list[tuple[object, ...]] = []
        self._batches: list[pa.RecordBatch] = []
        self._count = 0
        self._clear()

    def __len__(self) -> int:
        return self._count

    def append(self, example: Example) -> None:
        number = self._number(example.instruction)
        if example.tags:
            text = self._texts[number]
            text.tags = text.tags or set()
            text.tags.update(example.tags)
        if example.messages is None:
            chat = None
            length = estimate_tokens(example.instruction + example.input + example.outputs[0])
        else:
            chat = dump_chat(example.messages, example.tools)
            length = sum(estimate_tokens(said(m)) for m in example.messages)
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
            rows = pa.Table.from_batches(self._batches, _SPOOLED)
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
                self._texts.append(_Text(key, text))
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
            [pa.array(c, t) for c, t in zip((inputs, outputs, chats), _SPOOLED.types, strict=True)], _SPOOLED
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
        if len(self._batches) * BATCH >= _SPILL:
            self._spill()

    def _spill(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches, _SPOOLED)
            with explained("The folder for temporary files"):
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
    own = [(text.tags or set()) | set(recipe.own_tags.get(text.key, ())) for text in texts]
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
    return _compressed(pa.schema([*computed, *_SPOOLED]), compression)


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
            _stored(columns.keys[at]),
            pa.array(columns.sides[at]),
            pa.array(columns.instruction[at]),
            _stored(columns.inputs[at]),
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
    distinct = [len(distinct_keys(columns.inputs[columns.sides == s])[0]) for s in sides]
    inputs = len(distinct_keys(columns.inputs)[0])
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


def _stored(keys: Keys) -> pa.Array:
    """Keys as they are stored: 16 bytes each."""
    raw = pa.py_buffer(keys.astype(">u8").tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(keys), [None, raw])
