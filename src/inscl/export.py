"""Mixtures for trainers: a `datasets.Dataset`, and the files that trainers read."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from inscl.errors import InsclError
from inscl.mixture import MixtureRow, to_record
from inscl.template import render, to_messages
from inscl.whole_file import whole_file

Record = dict[str, Any]


def is_chat(rows: Iterable[MixtureRow]) -> bool:
    """Whether a mixture is in chat form: if any of its rows is, all become so."""
    return any(row.example.messages is not None for row in rows)


def trl_records(rows: Sequence[MixtureRow]) -> list[Record]:
    """Rows as `SFTTrainer` takes them: prompt and completion, as text or, in chats, as messages."""
    chat = is_chat(rows)
    return [{**_prompt_completion(row, chat), "task": row.task, "replayed": row.replayed} for row in rows]


def _prompt_completion(row: MixtureRow, chat: bool) -> Record:
    if not chat:
        return render(row.example)._asdict()
    messages = [dict(message) for message in to_messages(row.example)]
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def message_records(rows: Sequence[MixtureRow]) -> list[Record]:
    """Rows as conversations, whatever their form."""
    return [
        {"messages": [dict(m) for m in to_messages(row.example)], "task": row.task, "replayed": row.replayed}
        for row in rows
    ]


def inscl_records(rows: Sequence[MixtureRow]) -> list[Record]:
    """Rows with their parts kept apart, as `inscl` itself trains on them."""
    return [to_record(row) for row in rows]


FORMATS: Mapping[str, Callable[[Sequence[MixtureRow]], list[Record]]] = {
    "trl": trl_records,
    "messages": message_records,
    "inscl": inscl_records,
}


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
    from datasets import Dataset

    return Dataset.from_list(trl_records(rows))


@dataclass(frozen=True)
class Written:
    """A mixture file that was written."""

    path: Path
    rows: int
    replayed: int
    checksum: str  # BLAKE2b of the file's bytes


def write_file(rows: Sequence[MixtureRow], path: str | Path, format: str = "trl") -> Written:
    """Write a mixture as JSON lines for a trainer; the file appears whole or not at all.

    Raises
    ------
    InsclError
        For an unknown format, or if the file cannot be written.
    """
    if format not in FORMATS:
        raise InsclError(f"There is no format '{format}'; wanted one of {', '.join(FORMATS)}.")
    path = Path(path)
    digest = blake2b(digest_size=16)
    try:
        with whole_file(path, "wb") as file:
            for record in FORMATS[format](rows):
                line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
                digest.update(line)
                file.write(line)
    except OSError as error:
        raise InsclError(f"The mixture cannot be written to '{path}' ({error.strerror}). Name another file.") from error
    return Written(path, len(rows), sum(row.replayed for row in rows), digest.hexdigest())
