"""Writing a task: its examples, spooled and sorted, become the two tables that `inscl.memory.task.Task` reads."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inscl.data.example import SPLITS, Example
from inscl.data.readers import Block
from inscl.data.split import TRAIN, UNSET, Keys, Shares, assign_sides, distinct_keys
from inscl.engine import Engine, Local
from inscl.errors import DataError
from inscl.memory.encoder import Encoded
from inscl.memory.spool import ROW_TEXTS, Arrays, Instruction, Spool, as_column
from inscl.memory.task import OWN_TAGS, TagsBy, Task, TaskInfo
from inscl.memory.trouble import explained
from inscl.tags import tags_of

if TYPE_CHECKING:
    from inscl.tags import Tagger

_AT_ONCE = 2**16  # instructions that are tagged, encoded and written at once


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How rows become a task: who encodes, who tags, how rows are split, how tables are stored."""

    encode: Callable[[Sequence[str]], Encoded]
    encoder: str  # its identity
    tagger: "Tagger"
    engine: Engine = field(default_factory=Local)  # on which it tags
    own_tags: Mapping[bytes, Sequence[str]] = field(default_factory=dict)  # by instruction key
    known_tags: Mapping[bytes, TagsBy] = field(default_factory=dict)  # made earlier, and kept
    shares: Shares = field(default_factory=Shares)
    storage: dict[str, str] | None = None  # Lance's options for an object store
    compression: str | None = None  # "none" keeps texts readable in the files' bytes


def write_task(
    name: str, examples: Iterable[Example | Block], folder: str, recipe: Recipe, base: Task | None = None
) -> Task:
    """Write a task's tables into an empty folder.

    Memory stays bounded: about 450 bytes an example, whatever the number of instructions; the rest goes through
    temporary files.

    Parameters
    ----------
    name : str
    examples : iterable of Example, or of blocks of them
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
        spool = Spool(Path(temporary))
        for row in base.examples(range(sum(base.info.rows.values()))) if base else ():
            spool.append(row)
        old = len(spool)
        for rows in examples:
            spool.append(rows)
        if len(spool) == 0:
            raise DataError(f"Task '{name}' has no example to keep. Check the data, or the reasons above.")
        arrays = spool.finish()
        kept = _first_of_each(arrays.keys)
        form = "chat" if arrays.chat.any() else "plain"  # one chat makes all rows chats where they are trained
        duplicates = len(arrays.keys) - old - int((kept >= old).sum())
        columns = _columns(arrays, kept, old, recipe, base)
        del arrays, kept  # with ten million rows that is a gigabyte
        cannot = f"Task '{name}' cannot be written"
        written = _write_instructions(spool.instructions(), columns, folder, recipe, cannot)
        schema = _example_schema(recipe.compression)
        batches = _example_batches(columns, spool.texts(columns.spooled), schema)
        with explained(cannot):
            stream = pa.RecordBatchReader.from_batches(schema, batches)
            lance.write_dataset(stream, f"{folder}/examples.lance", storage_options=recipe.storage)
    info = _describe(name, columns, written, form, duplicates, recipe)
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
        taggers=dict(sorted(Counter(taggers).items())),
        retagged=tagger,
    )
    return Task(info, folder, task.storage)


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


def _columns(arrays: Arrays, kept: npt.NDArray[np.int64], old: int, recipe: Recipe, base: Task | None) -> _Columns:
    asked_now = set(np.unique(arrays.asked[old:]).tolist()) - {UNSET, TRAIN}
    given = frozenset(base.info.given if base else ()) | frozenset(int(side) for side in asked_now)
    assignment = assign_sides(
        arrays.inputs[kept],
        arrays.asked[kept],
        shares=recipe.shares,
        given=given,
        moved=base.info.moved if base else None,
    )
    instruction = arrays.instruction[kept]
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


class _Written:
    """What is said of the instructions while they are written."""

    def __init__(self) -> None:
        self._tags, self._embeddings = blake2b(digest_size=16), blake2b(digest_size=16)
        self.taggers: Counter[str] = Counter()
        self.count = self.cut = self.dimension = 0

    def add(self, tagged: Sequence[TagsBy], encoded: Encoded) -> None:
        listed = json.dumps([tags for tags, _ in tagged])[1:-1]
        self._tags.update(f"{', ' if self.count else '['}{listed}".encode())
        self._embeddings.update(encoded.vectors.tobytes())
        self.taggers.update(by for _, by in tagged)
        self.count += len(tagged)
        self.cut += int(encoded.cut.sum())
        self.dimension = encoded.vectors.shape[1]

    @property
    def tags(self) -> str:
        """As `_tags_hash` of all."""
        whole = self._tags.copy()
        whole.update(b"]")
        return whole.hexdigest()

    @property
    def embeddings(self) -> str:
        return self._embeddings.hexdigest()


def _write_instructions(
    instructions: Iterator[Instruction], columns: _Columns, folder: str, recipe: Recipe, cannot: str
) -> _Written:
    """Tag, encode and write the instructions, `_AT_ONCE` at a time."""
    uri, written = f"{folder}/instructions.lance", _Written()
    n = int(columns.instruction.max()) + 1
    counts = {
        str(side): np.bincount(columns.instruction[columns.sides == s], minlength=n).astype(np.int32)
        for s, side in enumerate(SPLITS)
    }
    while part := list(islice(instructions, _AT_ONCE)):
        tagged, encoded = _tags_of(part, recipe), recipe.encode([one.text for one in part])
        here = slice(written.count, written.count + len(part))
        table = pa.table(
            {
                "key": pa.array([one.key for one in part], pa.binary(16)),
                "text": [one.text for one in part],
                **{side: column[here] for side, column in counts.items()},
                "tags": pa.array([list(tags) for tags, _ in tagged], pa.list_(pa.string())),
                "tagger": [by for _, by in tagged],
                "cut": encoded.cut,
                "embedding": pa.FixedSizeListArray.from_arrays(
                    pa.array(encoded.vectors.reshape(-1)), encoded.vectors.shape[1]
                ),
            }
        )
        table = table.cast(_compressed(table.schema, recipe.compression))
        mode = "append" if written.count else "create"
        with explained(cannot):
            lance.write_dataset(table, uri, mode=mode, storage_options=recipe.storage)
        written.add(tagged, encoded)
    return written


def _tags_of(instructions: Sequence[Instruction], recipe: Recipe) -> list[TagsBy]:
    """Tags of each instruction and who made them: the user's own first, then what is known, then the tagger."""
    known = dict(recipe.known_tags)
    for one in instructions:
        if mine := {*one.tags, *recipe.own_tags.get(one.key, ())}:
            known[one.key] = tuple(sorted(mine)), OWN_TAGS
    asked = [one for one in instructions if one.key not in known]
    made = tags_of(recipe.tagger, [one.text for one in asked], recipe.engine)
    for one, tags in zip(asked, made, strict=True):
        known[one.key] = tuple(sorted(set(tags))), recipe.tagger.identity
    return [known[one.key] for one in instructions]


def _example_schema(compression: str | None) -> pa.Schema:
    computed = [
        ("key", pa.binary(16)),
        ("split", pa.int8()),
        ("instruction", pa.int32()),
        ("input_key", pa.binary(16)),
        ("tokens", pa.int32()),
    ]
    return _compressed(pa.schema([*computed, *ROW_TEXTS]), compression)


def _compressed(schema: pa.Schema, compression: str | None) -> pa.Schema:
    if compression is None:
        return schema
    metadata = {"lance-encoding:compression": compression}
    return pa.schema([part.with_metadata(metadata) for part in schema])


def _example_batches(columns: _Columns, rows: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    start = 0
    for texts in rows:
        at = slice(start, start + texts.num_rows)
        start = at.stop
        computed = [
            as_column(columns.keys[at]),
            pa.array(columns.sides[at]),
            pa.array(columns.instruction[at]),
            as_column(columns.inputs[at]),
            pa.array(columns.tokens[at]),
        ]
        yield pa.record_batch([*computed, *texts.columns], schema)


def _describe(
    name: str,
    columns: _Columns,
    written: _Written,
    form: str,
    duplicates: int,
    recipe: Recipe,
) -> TaskInfo:
    sides = range(len(SPLITS))
    digest = blake2b(digest_size=16)
    for part in (columns.keys, columns.sides, columns.instruction):
        digest.update(np.ascontiguousarray(part).tobytes())
    distinct = [len(distinct_keys(columns.inputs[columns.sides == s])[0]) for s in sides]
    inputs = len(distinct_keys(columns.inputs)[0])
    return TaskInfo(
        name=name,
        content=digest.hexdigest(),
        tags=written.tags,
        embeddings=written.embeddings,
        form=form,
        instructions=written.count,
        rows={side: int((columns.sides == s).sum()) for s, side in enumerate(SPLITS)},
        tokens={side: int(columns.tokens[columns.sides == s].sum()) for s, side in enumerate(SPLITS)},
        inputs=inputs,
        duplicates=duplicates,
        moved=columns.moved,
        given=sorted(columns.given),
        both_sides=sum(distinct) - inputs,
        cut=written.cut,
        encoder=recipe.encoder,
        tagger=recipe.tagger.identity,
        dimension=written.dimension,
        shares=asdict(recipe.shares),
        taggers=dict(sorted(written.taggers.items())),
    )


def _tags_hash(tags: Sequence[tuple[str, ...]]) -> str:
    return blake2b(json.dumps(tags).encode(), digest_size=16).hexdigest()


def _first_of_each(keys: Keys) -> npt.NDArray[np.int64]:
    """Numbers of the rows that are no exact duplicate of an earlier one, ascending."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # which is stable
    fresh = np.r_[True, (keys[order][1:] != keys[order][:-1]).any(axis=1)]
    return np.sort(order[fresh])
