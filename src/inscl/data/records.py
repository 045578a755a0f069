"""The rows of a mixture as the records that TRL, chats and inscl itself take."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from inscl.data.chat_form import to_messages
from inscl.data.example import Message
from inscl.data.mixture import MixtureRow, to_record
from inscl.data.template import render
from inscl.errors import require

Record = dict[str, Any]


def is_chat(rows: Iterable[MixtureRow]) -> bool:
    """Whether a mixture is in chat form: if any of its rows is, all become so."""
    return any(row.example.messages is not None for row in rows)


@dataclass(frozen=True)
class Shape:
    """What the rows of a mixture hold, and settings must know."""

    chat: bool
    tools: bool = False  # tools are defined beside conversations
    marked: bool = False  # some turns are not to be trained


def shape_of(rows: Sequence[MixtureRow]) -> Shape:
    """The shape of a mixture."""
    turns = (turn for row in rows for turn in row.example.messages or ())
    marked = any(not turn.get("train", True) for turn in turns)
    return Shape(is_chat(rows), any(row.example.tools for row in rows), marked)


def trl_records(rows: Sequence[MixtureRow]) -> Iterator[Record]:
    """Rows as `SFTTrainer` takes them: prompt and completion, as text or, in chats, as messages with their tools."""
    chat = is_chat(rows)
    for row in rows:
        yield {**(_split_chat(row) if chat else render(row.example)._asdict()), **origin(row)}


def message_records(rows: Sequence[MixtureRow]) -> Iterator[Record]:
    """Rows as conversations, whatever their form, in OpenAI's own words."""
    for row in rows:
        tools = {"tools": [dict(tool) for tool in row.example.tools]} if row.example.tools else {}
        yield {"messages": openai_messages(row, ("weight", 0)), **tools, **origin(row)}


def inscl_records(rows: Sequence[MixtureRow]) -> Iterator[Record]:
    """Rows with their parts kept apart, as `inscl` itself trains on them."""
    return map(to_record, rows)


def to_dataset(rows: Sequence[MixtureRow]) -> Any:
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
    datasets: Any = require("datasets", extra="datasets", purpose="A mixture as a dataset")
    records = list(trl_records(rows))
    beside = any(len(turn) > 2 for row in rows for turn in row.example.messages or ()) or shape_of(rows).tools
    if not beside:
        return datasets.Dataset.from_list(records)
    turns = datasets.List(datasets.Json())  # as columns of Arrow, all calls would have the arguments of all others
    kinds = {"prompt": turns, "completion": turns, "tools": datasets.Value("string"), "task": datasets.Value("string")}
    features = datasets.Features({**kinds, "replayed": datasets.Value("bool")})
    return datasets.Dataset.from_list([{"tools": None, **record} for record in records], features=features)


def _messages_of(row: MixtureRow) -> list[Record]:
    """The row as a conversation, as chat templates take it."""
    return [_bare(message) for message in to_messages(row.example)]


def openai_messages(row: MixtureRow, untrained: tuple[str, object]) -> list[Record]:
    """The row as a conversation in which arguments of calls are text, and turns not to train carry a mark."""
    name, value = untrained
    return [
        {**_bare(turn), **_calls_as_json(turn), **({} if turn.get("train", True) else {name: value})}
        for turn in to_messages(row.example)
    ]


def tools_as_json(row: MixtureRow) -> Record:
    """The tools of a row as one text, which tables hold without mixing the tools of all rows."""
    return {"tools": json.dumps(list(row.example.tools), ensure_ascii=False)} if row.example.tools else {}


def _bare(message: Message) -> Record:
    return {name: value for name, value in message.items() if name != "train"}


def _calls_as_json(message: Message) -> Record:
    if "tool_calls" not in message:
        return {}
    return {
        "tool_calls": [{**call, "function": _arguments_as_json(call["function"])} for call in message["tool_calls"]]
    }


def _arguments_as_json(function: Message) -> Record:
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**function, "arguments": text}


def origin(row: MixtureRow) -> Record:
    """Where the row comes from; trainers leave these columns out."""
    return {"task": row.task, "replayed": row.replayed}


def _split_chat(row: MixtureRow) -> Record:
    messages = _messages_of(row)
    return {"prompt": messages[:-1], "completion": messages[-1:], **tools_as_json(row)}
