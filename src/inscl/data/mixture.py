"""The mixture a stage trains on, as a file: one example a line, with the task it comes from."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inscl.data.example import Example, Message, Tool, dump_chat, load_chat
from inscl.errors import DataError
from inscl.files import whole_file


@dataclass(frozen=True, slots=True)
class MixtureRow:
    """One training example of a mixture.

    Attributes
    ----------
    task : str
        The task it comes from.
    example : Example
        What is trained; the first of its outputs, or all assistant turns of its messages.
    replayed : bool
        Whether it comes from the memory and not from the new task.
    weight : float
        Factor of its loss; 1 is the paper's.
    after : float
        Share of the training that is over when the row is first seen; 0 is the paper's.
    soft : float
        Share of its target that is the distribution of the model that the stage starts from; 0 is the paper's.
    """

    task: str
    example: Example
    replayed: bool = False
    weight: float = 1.0
    after: float = 0.0
    soft: float = 0.0

    @property
    def origin(self) -> dict[str, object]:
        """Where the row comes from; trainers leave these columns out."""
        return {"task": self.task, "replayed": self.replayed}

    def record(self) -> dict[str, object]:
        """The row as the JSON object of its line."""
        example = self.example
        record: dict[str, object] = {
            **self.origin,
            "instruction": example.instruction,
            "input": example.input,
            "outputs": list(example.outputs),
        }
        if example.messages is not None:
            record["messages"] = [dict(message) for message in example.messages]
        if example.tools:
            record["tools"] = [dict(tool) for tool in example.tools]
        if self.weight != 1.0:
            record["weight"] = self.weight
        if self.after:
            record["after"] = self.after
        if self.soft:
            record["soft"] = self.soft
        return record


def in_time(after: Sequence[float]) -> list[int]:
    """The places of a sequence in the order of time, where each waits until a share of the time is over.

    Place ``p`` of ``n`` stands at time ``p / n``; one that waits for a share ``a`` at ``a + (1 - a) p / n``.

    >>> in_time([0, 0, 0, 0]), in_time([0.5, 0, 0, 0])
    ([0, 1, 2, 3], [1, 0, 2, 3])
    """
    n = len(after)
    return sorted(range(n), key=lambda place: after[place] + (1 - after[place]) * place / n)


def write_mixture(path: Path, rows: Iterable[MixtureRow]) -> None:
    """Write a mixture as JSON lines; the file appears whole or not at all."""
    with whole_file(path) as file:
        for row in rows:
            file.write(json.dumps(row.record(), ensure_ascii=False) + "\n")


def read_mixture(path: Path) -> list[MixtureRow]:
    """Read a mixture that `write_mixture` wrote.

    Raises
    ------
    DataError
        If the file is missing or empty, or a line is not a row; the message names the line.
    """
    try:
        rows = list(_rows(path))
    except FileNotFoundError as error:
        raise DataError(f"The mixture {path} does not exist. Make it with `inscl mix`.") from error
    if not rows:
        raise DataError(f"The mixture {path} is empty; a stage needs at least one row.")
    return rows


def _rows(path: Path) -> Iterator[MixtureRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield _from_record(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number}: not a row of a mixture ({error}); wanted a JSON object with "
                    "task, replayed, instruction, input and outputs."
                ) from error


def _from_record(record: dict[str, Any]) -> MixtureRow:
    weight = float(record.get("weight", 1.0))
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight must be finite and at least 0, got {weight}")
    after = float(record.get("after", 0.0))
    if not 0 <= after < 1:
        raise ValueError(f"after must be at least 0 and below 1, got {after}")
    soft = float(record.get("soft", 0.0))
    if not 0 <= soft <= 1:
        raise ValueError(f"soft must be at least 0 and at most 1, got {soft}")
    if not record["outputs"]:
        raise ValueError("it has no output")
    messages, tools = _chat(record)
    return MixtureRow(
        task=str(record["task"]),
        replayed=bool(record["replayed"]),
        weight=weight,
        after=after,
        soft=soft,
        example=Example(
            instruction=str(record["instruction"]),
            input=str(record["input"]),
            outputs=tuple(str(output) for output in record["outputs"]),
            messages=messages,
            tools=tools,
        ),
    )


def _chat(record: dict[str, Any]) -> tuple[tuple[Message, ...] | None, tuple[Tool, ...] | None]:
    """The messages and tools of a row, in the one order that `dump_chat` gives them."""
    if record.get("messages") is None:
        return None, None
    return load_chat(dump_chat(record["messages"], record.get("tools")))
