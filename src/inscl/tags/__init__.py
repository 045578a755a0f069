"""Intention tags of instructions: what a tagger is, and reading the tags that users bring."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from inscl.data.example import instruction_key
from inscl.engine import Engine
from inscl.errors import DataError, short

_PIECE = 2048  # instructions


class Tagger(Protocol):
    """Anything that gives raw tags to instructions, each independently of the others.

    `identity` names library, version and settings: two taggers of one identity give the same tags. It stands in
    plans and keys what is remembered.
    """

    @property
    def identity(self) -> str: ...

    def __call__(self, instructions: list[str], /) -> list[list[str]]: ...


def tags_of(tagger: Tagger, instructions: Sequence[str], engine: Engine) -> list[list[str]]:
    """Raw tags of many instructions, some thousand at a time."""
    pieces = [list(instructions[start : start + _PIECE]) for start in range(0, len(instructions), _PIECE)]
    return [tags for made in engine.map(tagger, pieces) for tags in made]


def read_tags(path: str | Path) -> dict[bytes, tuple[str, ...]]:
    """Read users' own tags, by instruction.

    Parameters
    ----------
    path : path
        JSON Lines with one ``{"instruction": text, "tags": [text, …]}`` a line (other fields are ignored), or one
        JSON object that maps each instruction to its tags. UTF-8.

    Returns
    -------
    dict of bytes to tuple of str
        Raw tags in the order of the file, by `inscl.data.example.instruction_key`.

    Raises
    ------
    DataError
        If the file cannot be read, a line is not such an object, or one instruction has two sets of tags.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read tags from '{path}' as UTF-8 text: {error}.") from error
    found: dict[bytes, tuple[str, ...]] = {}
    for where, instruction, tags in _records(text, path):
        if not isinstance(instruction, str) or not instruction.strip():
            raise DataError(f"{where}: `instruction` must be a text that is not blank, got {_shown(instruction)}.")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise DataError(f"{where}: `tags` must be a list of texts, got {_shown(tags)}.")
        key = instruction_key(instruction)
        if set(found.setdefault(key, tuple(tags))) != set(tags):
            raise DataError(f"{where}: instruction {_shown(instruction)} has other tags earlier on; keep one set.")
    if not found:
        raise DataError(f'\'{path}\' holds no tags; wanted lines like {{"instruction": "…", "tags": ["…"]}}.')
    return found


def _records(text: str, path: Path) -> Iterator[tuple[str, object, object]]:
    """Where, instruction and tags of each record, as they stand in the file."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None  # more than one line of JSON Lines, or broken: the lines will tell
    if isinstance(whole, dict) and not {"instruction", "tags"} <= whole.keys():
        yield from ((f"'{path}'", instruction, tags) for instruction, tags in whole.items())
        return
    # Not `splitlines`: it also breaks at characters that JSON allows inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"'{path}', line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON ({error}); wanted an object a line, or one whole object.") from error
        if not isinstance(record, dict) or not {"instruction", "tags"} <= record.keys():
            raise DataError(f"{where}: wanted an object with `instruction` and `tags`, got {_shown(record)}.")
        yield where, record["instruction"], record["tags"]


def _shown(value: object) -> str:
    return short(json.dumps(value, ensure_ascii=False), 60)
