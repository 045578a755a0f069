"""The rows of a mixture as the records that TRL, chats and inscl itself take."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from inscl.data.chat_form import to_messages
from inscl.data.mixture import MixtureRow, to_record
from inscl.data.template import render
from inscl.errors import require

Record = dict[str, Any]


def is_chat(rows: Iterable[MixtureRow]) -> bool:
    """Whether a mixture is in chat form: if any of its rows is, all become so."""
    return any(row.example.messages is not None for row in rows)


def trl_records(rows: Sequence[MixtureRow]) -> Iterator[Record]:
    """Rows as `SFTTrainer` takes them: prompt and completion, as text or, in chats, as messages."""
    chat = is_chat(rows)
    for row in rows:
        yield {**(_split_chat(row) if chat else render(row.example)._asdict()), **origin(row)}


def message_records(rows: Sequence[MixtureRow]) -> Iterator[Record]:
    """Rows as conversations, whatever their form."""
    for row in rows:
        yield {"messages": messages_of(row), **origin(row)}


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
        chat), ``task`` and ``replayed``.
    """
    datasets: Any = require("datasets", extra="datasets", purpose="A mixture as a dataset")
    return datasets.Dataset.from_list(list(trl_records(rows)))


def messages_of(row: MixtureRow) -> list[Record]:
    """The row as a conversation."""
    return [dict(message) for message in to_messages(row.example)]


def origin(row: MixtureRow) -> Record:
    """Where the row comes from; trainers leave these columns out."""
    return {"task": row.task, "replayed": row.replayed}


def _split_chat(row: MixtureRow) -> Record:
    messages = messages_of(row)
    return {"prompt": messages[:-1], "completion": messages[-1:]}
