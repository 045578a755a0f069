"""JSON lines and JSON documents as numbered records, in bounded memory."""

import codecs
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

from inscl.data.readers.blocks import next_block
from inscl.data.readers.forms import COLUMNS, Numbered, detect_form, is_bare
from inscl.data.readers.report import PartReport
from inscl.errors import DataError

_CHUNK = 2**20
_SINGLE = 100  # lines looked at one by one before many are at once; no fewer than those that tell a form
_SPACE = re.compile(r"[ \t\r\n]*")
_CUT = 12  # characters before the end of a text within which it may have been cut inside a literal or an escape


def lines_of(stream: BinaryIO, told: PartReport, number: int = 0) -> Iterator[tuple[int, str]]:
    """Numbered lines after the first `number`, split at "\\n" alone and decoded strictly."""
    while line := stream.readline(told.limit + 1):
        number += 1
        if len(line) > told.limit and not line.endswith(b"\n"):
            del line
            told.bad(number, f"line longer than {told.limit // 2**20} MiB")
            _skip_line(stream)
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            told.bad(number, "not UTF-8", error)
            continue
        yield number, text


def json_lines(stream: BinaryIO, told: PartReport) -> Iterator[Numbered]:
    """One record a line, blank lines left out; where blocks are welcome and it begins plainly, also plain `Block`s."""
    lines, singly = _Lines(stream, told), _SINGLE
    begins_plain = None if told.blocks and _few_values(_CHUNK, told.limit) else False
    while not lines.ended:
        records = plain = 0
        for number, record in _single_lines(lines.take(singly), told):
            records += 1
            plain += begins_plain is not False and is_bare(record)
            yield number, record
        if begins_plain is None:
            begins_plain = records == plain > 0
        singly = _SINGLE if begins_plain else sys.maxsize
        while begins_plain and plain == records:
            block, singly = next_block(stream, COLUMNS)
            if block is None:
                break
            yield lines.last + 1, block
            lines.last += len(block)


class _Lines:
    """Numbered lines of a stream, some of which others may take."""

    def __init__(self, stream: BinaryIO, told: PartReport) -> None:
        self._stream, self._told = stream, told
        self.last, self.ended = 0, False

    def take(self, count: int) -> Iterator[tuple[int, str]]:
        for number, text in islice(lines_of(self._stream, self._told, self.last), count):
            self.last = number
            count -= 1
            yield number, text
        self.ended = count > 0


def _single_lines(lines: Iterable[tuple[int, str]], told: PartReport) -> Iterator[Numbered]:
    decode = _decoder(told).decode
    for number, text in lines:
        if _too_many_values(text, told.limit):
            told.bad(number, "line of too many values (--max-mib raises the bound)")
            continue
        try:
            record = decode(text)
        except (ValueError, RecursionError) as error:
            if not text or text.isspace():
                continue
            told.bad(number, "not JSON", error)
            continue
        yield number, record


def holds_lines(stream: BinaryIO, told: PartReport) -> bool:
    """Whether the first line of a JSON file is an object of its own, and not one that holds the records."""
    while line := stream.readline(told.limit):
        line = line.removeprefix(b"\xef\xbb\xbf").strip()
        if line:
            text = line.decode("utf-8", "replace")
            if not text.startswith("{") or _too_many_values(text, told.limit):
                return False
            try:
                record = json.loads(text)
            except (ValueError, RecursionError):
                return False
            return _records_in(record) is None
    return True  # an empty file


def json_document(stream: BinaryIO, told: PartReport) -> Iterator[Numbered]:
    """The records of an array, as they are reached; an object is one record, or holds a list of them."""
    text = _Text(stream, told)
    first = text.next_sign()
    if first != "[":
        value = text.value()
        text.end()
        yield from enumerate(_unwrapped(value, told), start=1)
        return
    text.at += 1
    number, sign = 0, text.next_sign()
    while sign != "]":
        number += 1
        yield number, text.value()
        sign = text.next_sign()
        if sign not in (",", "]"):
            text.fail("Expecting ',' delimiter")
        text.at += sign == ","
        sign = "" if sign == "," else sign
    text.at += 1
    text.end()


class _Text:
    """The text of a stream, decoded as it is needed; only what is not yet used is held."""

    def __init__(self, stream: BinaryIO, told: PartReport) -> None:
        self._stream, self._told = stream, told
        self._decode: Callable[..., str] = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._json = _decoder(told)
        self._text, self._line, self._complete = "", 1, False
        self.at = 0

    def next_sign(self) -> str:
        """The next character that is not white space, which is not passed; '' at the end."""
        while True:
            self.at = _after_space(self._text, self.at)
            if self.at < len(self._text) or not self._more():
                return self._text[self.at : self.at + 1]

    def value(self) -> Any:
        """The JSON value that begins at the next sign."""
        self.next_sign()
        while True:
            if _too_many_values(self._text, self._told.limit):
                raise DataError(f"{self._here()}: a record of too many values. Raise the bound (--max-mib).")
            try:
                found, end = self._json.raw_decode(self._text, self.at)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self._text) - _CUT or error.msg.startswith("Unterminated string")
                if not cut or not self._more():
                    self.at = error.pos
                    self.fail(error.msg, error)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{self._told.name}: not JSON that can be read ({error}).") from error
            else:
                if end < len(self._text) or not self._more():
                    self.at = end
                    return found

    def end(self) -> None:
        """Stop unless nothing follows."""
        if self.next_sign():
            self.fail("Extra data")

    def fail(self, reason: str, cause: Exception | None = None) -> None:
        raise DataError(
            f"{self._here()}: not JSON ({reason}). Mend the file; if each line is a record, "
            "read it with format 'jsonl' (--format jsonl)."
        ) from cause

    def _here(self) -> str:
        line = self._line + self._text.count("\n", 0, self.at)
        return f"{self._told.name}:{line}"

    def _more(self) -> bool:
        """Take more text, as much as is held already, so that a long record is not decoded again and again."""
        if self._complete:
            return False
        held = self._text[self.at :]
        if len(held) > self._told.limit:
            raise DataError(
                f"{self._here()}: a record longer than {self._told.limit // 2**20} MiB. Mend the file, or raise the "
                "bound (--max-mib)."
            )
        self._line += self._text.count("\n", 0, self.at)
        data = self._stream.read(max(_CHUNK, len(held)))
        self._complete = not data
        try:
            self._text, self.at = held + self._decode(data, self._complete), 0
        except UnicodeDecodeError as error:
            line = self._line + held.count("\n") + error.object[: error.start].count(b"\n")
            raise DataError(f"{self._told.name}:{line}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error
        return True


def _after_space(text: str, at: int) -> int:
    """The place of the next character that is not white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _decoder(told: PartReport) -> json.JSONDecoder:
    """A decoder that tells of keys that an object holds twice; the last one counts."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            names = [name for name, _ in items]
            told.report.ignore(f"{name} (repeated key)" for name in found if names.count(name) > 1)
        return found

    return json.JSONDecoder(object_pairs_hook=pairs)


def _unwrapped(value: Any, told: PartReport) -> list[Any]:
    records = _records_in(value)
    if records is None:
        return [value]
    told.unread.update(f"{name} (beside the records)" for name, other in value.items() if other is not records)
    return records


def _records_in(value: object) -> list[Any] | None:
    """The one list of objects that an object of no form of its own holds, as in ``{"data": [...]}``."""
    if not isinstance(value, dict) or detect_form(value) is not None:
        return None
    lists = [part for part in value.values() if isinstance(part, list) and part and isinstance(part[0], dict)]
    return lists[0] if len(lists) == 1 else None


def _skip_line(stream: BinaryIO) -> None:
    while (piece := stream.readline(_CHUNK)) and not piece.endswith(b"\n"):
        pass


def _few_values(length: int, limit: int) -> bool:
    """Whether so long a JSON record holds few enough values, each of which takes far more memory than its text."""
    return length <= max(2**15, limit // 32)


def _too_many_values(text: str, limit: int) -> bool:
    """Whether a text of JSON may hold too many values; of short ones nobody asks."""
    if _few_values(len(text), limit):
        return False
    return not _few_values(sum(text.count(sign) for sign in ",[{"), limit)
