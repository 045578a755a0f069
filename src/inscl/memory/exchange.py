"""A memory as plain files that any program reads, and a memory from such files, of which nothing is trusted.

    memory.json                        what is said of each task, and the log of stages
    tasks/<key>/examples.parquet       instruction, input, outputs, messages (JSON), split
    tasks/<key>/instructions.parquet   text, tags, tagger, cut, embedding

They hold the tasks as they are now: no earlier versions, nothing of a removed task, no caches, no paths. Whoever reads
them makes every task again as `add` does, with the tags and embeddings that came, and compares what comes out with what
is said of it: hashes, counts and sides.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from pydantic import BaseModel, ConfigDict, Field

from inscl.data.example import SPLITS, Example, dump_chat, instruction_key, key_of, load_chat
from inscl.data.readers.fields import Fields, UnusableError
from inscl.data.readers.files import read_records
from inscl.data.readers.forms import FIELDS, Reading, convert
from inscl.data.readers.report import PartReport, ReadReport
from inscl.data.readers.turns import read_tools, read_turns
from inscl.data.split import Shares
from inscl.errors import DataError, InsclError, first_line
from inscl.files import whole_file
from inscl.memory.catalogue import Commit
from inscl.memory.encoder import Encoded
from inscl.memory.stage_log import REMOVED
from inscl.memory.store import Store
from inscl.memory.task import BATCH, TagsBy, Task, TaskInfo, check_name
from inscl.memory.task_tables import Recipe, write_task

EXAMPLES = "examples.parquet"
_INSTRUCTIONS, _ABOUT = "instructions.parquet", "memory.json"
_FORMAT = 1
_ROW = pa.schema(
    [
        ("instruction", pa.string()),
        ("input", pa.string()),
        ("outputs", pa.list_(pa.string())),
        ("messages", pa.string()),
        ("split", pa.string()),
    ]
)
# What is made again must be what is said of it; the other facts are of the data that the task was once read from.
_COMPARED = (
    "content", "tags", "embeddings", "form", "instructions", "rows", "inputs", "both_sides", "cut", "dimension",
    "taggers",
)  # fmt: skip
_MOST_BYTES = 2**30  # of a row
_NEARLY = 0.01  # by which the length of an embedding in half precision may differ from 1

_Hex = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


def folder_of(task: str) -> str:
    """Name of a task's folder: a hash of its name, which is a stranger's text.

    >>> len(folder_of("../support"))
    22
    """
    return f"tasks/{key_of('task', task).hex()[:16]}"


# ---------------------------------------------------------------- to files


def write_plain(store: Store, folder: Path) -> list[TaskInfo]:
    """Write a memory's tasks and log into an empty folder; the caller holds the memory with others."""
    stages = store.stages.read()  # before the tasks: of a task that is added meanwhile nothing is in it
    tasks = [store.task(commit) for commit in store.state().live.values()]
    names = {task.info.name for task in tasks}
    for task in tasks:
        target = folder / folder_of(task.info.name)
        target.mkdir(parents=True)
        _write_examples(task, target / EXAMPLES)
        _write_instructions(task, target / _INSTRUCTIONS)
    logged = [_Stage.model_validate(stage).only(names).model_dump(exclude_unset=True) for stage in stages]
    about = {"inscl_memory": _FORMAT, "tasks": [json.loads(task.info.to_json()) for task in tasks], "stages": logged}
    with whole_file(folder / _ABOUT) as file:
        json.dump(about, file, ensure_ascii=False, indent=1, sort_keys=True)
    return [task.info for task in tasks]


def _write_examples(task: Task, path: Path) -> None:
    with parquet.ParquetWriter(path, _ROW, compression="zstd") as file:
        rows = task.examples(range(sum(task.info.rows.values())))
        while part := [_plain(row) for _, row in zip(range(BATCH), rows, strict=False)]:
            file.write_table(pa.Table.from_pylist(part, _ROW))


def _plain(row: Example) -> dict[str, Any]:
    chat = None if row.messages is None else dump_chat(row.messages, row.tools)
    return {
        "instruction": row.instruction,
        "input": row.input,
        "outputs": row.outputs,
        "messages": chat,
        "split": row.split,
    }


def _write_instructions(task: Task, path: Path) -> None:
    table = task.instruction_columns(["text", "tags", "tagger", "cut", "embedding"])
    parquet.write_table(table.replace_schema_metadata(None), path, compression="zstd", row_group_size=BATCH)


# ---------------------------------------------------------------- from files


def read_plain(store: Store, folder: Path) -> list[TaskInfo]:
    """Make a new memory of what `write_plain` wrote, or somebody who says so.

    Raises
    ------
    DataError
        If the files are not what is said of them, or cannot be used.
    """
    with _explained(_ABOUT):
        about = _About.model_validate_json((folder / _ABOUT).read_bytes())
    store.create()
    commits = [_made(store, folder, info) for info in about.tasks]
    if len({commit.name for commit in commits}) < len(commits):
        raise DataError(f"{folder / _ABOUT} names a task twice. Ask whoever made it to push it again.")
    store.commit(*commits, since=store.state())
    for stage in about.stages:
        store.stages.append(stage.only({info.name for info in about.tasks}).model_dump(exclude_unset=True))
    return about.tasks


def _made(store: Store, folder: Path, said: TaskInfo) -> Commit:
    """A version of a task, made again and found to be what is said of it."""
    check_name(said.name)
    identifier = store.versions.begin()
    source = folder / folder_of(said.name)
    with _explained(f"The task '{said.name}'"):
        known = _read_instructions(source / _INSTRUCTIONS)
        recipe = Recipe(encode=known.encode, encoder=said.encoder, tagger=_NoTagger(said.tagger), known_tags=known.tags)
        made = write_task(said.name, _read_examples(source / EXAMPLES), store.versions.uri(identifier), recipe).info
        differing = [part for part in _COMPARED if getattr(made, part) != getattr(said, part)]
        if differing:
            raise ValueError(f"not what is said of it: {', '.join(differing)}")
        Shares(**said.shares)
    info = replace(said, tokens=made.tokens)
    return Commit("add", said.name, identifier, info=info.to_json(), files=store.versions.checksums(identifier))


def _read_examples(path: Path) -> Iterator[Example]:
    for number, row in _rows(path, _ROW.names):
        messages, tools = (None, None) if row["messages"] is None else _chat(row["messages"])
        example = Example(row["instruction"], row["input"], tuple(row["outputs"]), messages, None, row["split"], tools)
        if example.split not in SPLITS:
            raise ValueError(f"row {number} is on no side")
        yield convert(example, FIELDS, Reading())


def _chat(text: str) -> Any:
    """A conversation that a reader of chats takes as it is."""
    messages, tools = load_chat(text)
    taken = read_turns(messages, "messages", set()), read_tools(Fields({"tools": tools}, set()))
    if dump_chat(*taken) != text:
        raise ValueError("a conversation that no reader would give")
    return messages, tools


@dataclass(frozen=True)
class _Known:
    """Tags and embeddings that came with the instructions, by instruction key."""

    tags: dict[bytes, TagsBy]
    embeddings: dict[bytes, tuple[list[float], bool]]

    def encode(self, texts: Any) -> Encoded:
        """The embeddings that came, which must be of length 1."""
        found = [self.embeddings[instruction_key(text)] for text in texts]
        vectors = np.array([vector for vector, _ in found], np.float16)
        lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
        if vectors.ndim != 2 or not (abs(lengths - 1) < _NEARLY).all():  # NaN is refused too
            raise ValueError("embeddings that are no unit vectors")
        return Encoded(vectors, np.array([cut for _, cut in found]))


def _read_instructions(path: Path) -> _Known:
    known = _Known({}, {})
    for _, row in _rows(path, ["text", "tags", "tagger", "cut", "embedding"]):
        key = instruction_key(row["text"])
        tags = tuple(row["tags"])
        if not all(isinstance(tag, str) for tag in (*tags, row["tagger"])):
            raise ValueError("tags that are no texts")
        known.tags[key] = tags, row["tagger"]
        known.embeddings[key] = row["embedding"], bool(row["cut"])
    return known


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    told = PartReport(path.name, ReadReport(), skip_bad=False, limit=_MOST_BYTES)
    for number, row in read_records(path, "parquet", columns, told):
        if row.keys() != set(columns):
            raise ValueError(f"wanted the columns {', '.join(columns)}")
        yield number, row


@dataclass(frozen=True)
class _NoTagger:
    """Who made the tags; asked for none, since all came."""

    identity: str

    def __call__(self, instructions: list[str]) -> list[list[str]]:
        raise ValueError(f"{len(instructions)} instructions without tags")


class _Logged(BaseModel):
    """What the log says of a task; of what else stands there nothing is taken, such as where a model lies."""

    model_config = ConfigDict(strict=True)

    name: str
    count: _Count = 0
    rows: list[_Hex] = []
    carried: _Finite = 0.0
    losses: dict[_Hex, _Finite] = {}
    score: _Finite = 0.0
    exact_match: _Finite = 0.0
    n: _Count = 0


class _Stage(BaseModel):
    """A stage of the log."""

    model_config = ConfigDict(strict=True)

    name: str
    stage: _Count = 0
    strategy: str = ""
    seed: _Count = 0
    budget: dict[str, str | int | float | bool] = {}
    replayed: _Count = 0
    rows: _Count = 0
    scorer: str = ""
    fingerprint: str = ""
    identity: str = ""
    tasks: list[_Logged] = []

    def only(self, names: set[str]) -> "_Stage":
        """The stage without what names or rows of other tasks are in it."""
        tasks = [task if task.name in names else _Logged(name=REMOVED, count=task.count) for task in self.tasks]
        return self.model_copy(update={"name": self.name if self.name in names else REMOVED, "tasks": tasks})


class _About(BaseModel):
    """What `memory.json` says."""

    model_config = ConfigDict(strict=True, extra="forbid")

    inscl_memory: Literal[1]
    tasks: list[TaskInfo]
    stages: list[_Stage]


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Files of strangers that are anything else than what was wanted, in one line."""
    try:
        yield
    except (
        InsclError,
        UnusableError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OSError,
        RecursionError,
    ) as error:
        raise DataError(
            f"{what} of the shared memory cannot be used ({first_line(error)}). Pull it again, or ask whoever pushed "
            "it to push it again."
        ) from error
