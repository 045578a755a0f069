"""Questions for tags as a file in OpenAI's Batch format, and the file of answers that comes back."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inscl.errors import DataError
from inscl.files import whole_file
from inscl.llm.client import Asker, reply_in
from inscl.llm.replies import Reply
from inscl.tags.model import Tagged, Tagging
from inscl.tags.prompt import tag_question

if TYPE_CHECKING:
    from inscl.tags import Tagger


def write_batch(path: Path, instructions: Mapping[bytes, str], asker: Asker) -> int:
    """Write a request for each instruction, and return their number; `custom_id` is the instruction's key."""
    with whole_file(path) as file:
        for key, text in instructions.items():
            body = asker.body(tag_question(text))
            request = {"custom_id": key.hex(), "method": "POST", "url": "/v1/chat/completions", "body": body}
            print(json.dumps(request, ensure_ascii=False), file=file)
    return len(instructions)


def read_batch(path: Path, instructions: Mapping[bytes, str], model: str, fallback: "Tagger") -> Tagging:
    """Tags from a file of answers, of the instructions that it mentions.

    Parameters
    ----------
    path : Path
        JSON Lines as the Batch API returns them: output or error file, in any order.
    instructions : mapping
        Texts by key: those that were asked about. Other lines are counted and left out.
    model : str
        Who answered.
    fallback : Tagger
        Tags the instructions whose answer cannot be used, marked as such.

    Raises
    ------
    DataError
        If the file cannot be read, or answers none of the instructions.
    """
    replies: dict[bytes, Reply] = {}
    skipped: Counter[str] = Counter()
    for line in _lines(path):
        try:
            record = json.loads(line)
            key = bytes.fromhex(record["custom_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            skipped["not an answer of a batch"] += 1
            continue
        if key not in instructions:
            skipped["about another instruction, or one that is tagged already"] += 1
            continue
        replies[key] = _reply(record)
    if not replies:
        why = "; ".join(f"{count} {reason}" for reason, count in skipped.items()) or "it is empty"
        raise DataError(f"'{path}' answers none of the {len(instructions)} instructions to be tagged ({why}).")
    tagged = {key: Tagged.from_reply(reply, model, instructions[key], fallback) for key, reply in replies.items()}
    tokens_in, tokens_out = (sum(getattr(r, side) for r in replies.values()) for side in ("tokens_in", "tokens_out"))
    return Tagging(tagged, len(replies), tokens_in, tokens_out, dict(skipped))


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise DataError(f"Cannot read the answers in '{path}': {error.strerror}.") from error


def _reply(record: Mapping[str, object]) -> Reply:
    """The answer of a line, or why it has none; never an error, whatever stands there."""
    response = record.get("response")
    response = response if isinstance(response, dict) else {}
    body = response.get("body")
    body = body if isinstance(body, dict) else {}
    if response.get("status_code") == 200:
        return reply_in(body)
    error = record.get("error") or body.get("error")
    code = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
    return Reply("", f"the batch failed with {code or response.get('status_code') or 'no reason given'}")
