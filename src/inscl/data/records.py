"""The rows of a mixture as the records that TRL's trainer takes."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inscl.data.chat_form import to_messages
from inscl.data.example import Message
from inscl.data.mixture import MixtureRow
from inscl.data.template import render
from inscl.errors import require

if TYPE_CHECKING:
    from datasets import Dataset

Record = dict[str, object]


@dataclass(frozen=True)
class Shape:
    """What the rows of a mixture hold, and settings must know."""

    chat: bool
    tools: bool = False  # tools are defined beside conversations
    marked: bool = False  # some turns are not to be trained

    @classmethod
    def of(cls, rows: Sequence[MixtureRow]) -> "Shape":
        """The shape of a mixture: if any of its rows is a chat, all become so."""
        turns = (turn for row in rows for turn in row.example.messages or ())
        marked = any(not turn.get("train", True) for turn in turns)
        chat = any(row.example.messages is not None for row in rows)
        return cls(chat, any(row.example.tools for row in rows), marked)


def trl_records(rows: Sequence[MixtureRow]) -> Iterator[Record]:
    """Rows as `SFTTrainer` takes them: prompt and completion, as text or, in chats, as messages with their tools."""
    chat = Shape.of(rows).chat
    for row in rows:
        yield {**(_split_chat(row) if chat else render(row.example)._asdict()), **row.origin}


def to_dataset(rows: Sequence[MixtureRow]) -> "Dataset":
    """The mixture as a `datasets.Dataset` that `trl.SFTTrainer` takes as it is.

    Parameters
    ----------
    rows : sequence of MixtureRow

    Returns
    -------
    datasets.Dataset
        Columns ``prompt`` and ``completion`` (text by the plain template, or lists of messages when any row is a
        chat), ``task`` and ``replayed``; ``tools`` as JSON where there are any.
    """
    datasets = require("datasets", extra="datasets", purpose="A mixture as a dataset")
    records = list(trl_records(rows))
    beside = any(len(turn) > 2 for row in rows for turn in row.example.messages or ()) or Shape.of(rows).tools
    if not beside:
        return datasets.Dataset.from_list(records)
    turns = datasets.List(datasets.Json())  # as columns of Arrow, all calls would have the arguments of all others
    kinds = {"prompt": turns, "completion": turns, "tools": datasets.Value("string"), "task": datasets.Value("string")}
    features = datasets.Features({**kinds, "replayed": datasets.Value("bool")})
    return datasets.Dataset.from_list([{"tools": None, **record} for record in records], features=features)


def _messages_of(row: MixtureRow) -> list[Record]:
    """The row as a conversation, as chat templates take it."""
    return [_bare(message) for message in to_messages(row.example)]


def tools_as_json(row: MixtureRow) -> Record:
    """The tools of a row as one text, which tables hold without mixing the tools of all rows."""
    return {"tools": json.dumps(list(row.example.tools), ensure_ascii=False)} if row.example.tools else {}


def _bare(message: Message) -> Record:
    return {name: value for name, value in message.items() if name != "train"}


def _split_chat(row: MixtureRow) -> Record:
    messages = _messages_of(row)
    return {"prompt": messages[:-1], "completion": messages[-1:], **tools_as_json(row)}
