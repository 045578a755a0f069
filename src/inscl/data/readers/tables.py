"""CSV, Parquet and Arrow tables as numbered records."""

import codecs
import csv
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from inscl.data.readers.bounds import most_bytes, too_large
from inscl.data.readers.forms import Numbered
from inscl.data.readers.json_files import lines_of
from inscl.data.readers.report import PartReport

ROWS_AT_ONCE = 1024  # rows of a table turned into Python at once

_AT_ONCE = 2  # records of the largest size that may be in memory at once

_JSON_CELLS = ("outputs", "references")  # columns of a CSV file that may hold a JSON list of texts
_DELIMITERS = ",;\t|"


def csv_rows(stream: BinaryIO, wanted: Collection[str], told: PartReport) -> Iterator[Numbered]:
    """The rows of a CSV file; the first one names the columns, and tells what separates them."""
    last = 0  # number of the last line the CSV reader has taken
    numbered = lines_of(_as_utf8(stream), told)

    def lines() -> Iterator[str]:
        nonlocal last
        for number, text in numbered:
            last = number
            yield text

    first = next(((number, text) for number, text in numbered if text.strip()), None)
    if first is None:
        return
    # The limit of a cell belongs to the process; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), told.limit))
    text = lines()
    rows = csv.reader(_chain(first[1], text), delimiter=_delimiter(first[1], wanted), strict=True)
    header: list[str] | None = None
    last = first[0] - 1
    while True:
        begins = last + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            told.bad(begins, "not CSV", error)
            continue
        if row is None:
            return
        last = max(last, first[0])
        if not row:
            continue
        if header is None:
            header = row
            told.unread.update(f"{name} (repeated column)" for name in row if row.count(name) > 1)
        elif len(row) != len(header):
            told.bad(begins, "not as many cells as the header")
        else:
            yield begins, _csv_record(dict(zip(header, row, strict=True)))


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(header: str, wanted: Collection[str]) -> str:
    """What separates the columns: that which gives the most names we know, else the most columns."""

    def found(sign: str) -> tuple[int, int]:
        names = [name.strip().strip('"') for name in header.split(sign)]
        return sum(name in wanted for name in names), len(names)

    return max(_DELIMITERS, key=found)


def _as_utf8(stream: BinaryIO) -> BinaryIO:
    """The same text as UTF-8, where its first bytes tell that it is UTF-16."""
    head = stream.peek(64)[:64] if isinstance(stream, io.BufferedReader) else b""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif len(head) >= 4 and not any(head[1::2]):
        encoding = "utf-16-le"
    elif len(head) >= 4 and not any(head[0::2]):
        encoding = "utf-16-be"
    else:
        return stream
    return io.BufferedReader(_Recoded(stream, encoding))


class _Recoded(io.RawIOBase):
    """A stream of another encoding as UTF-8; what cannot be decoded comes out as bytes that are no UTF-8 either."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream, self._decoder = stream, codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._stream.read(2**16)
            self._ready = self._decoder.decode(data, not data).encode("utf-8", "surrogatepass")
            if not data and not self._ready:
                return 0
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _csv_record(record: dict[str, Any]) -> dict[str, Any]:
    """In some columns a cell may hold a list of texts, as JSON."""
    for name in _JSON_CELLS:
        cell = record.get(name)
        if cell and cell.startswith("["):
            try:
                items = json.loads(cell)
            except (ValueError, RecursionError):
                continue
            if all(isinstance(item, str) for item in items):
                record[name] = items
    return record


def parquet_rows(path: Path, wanted: Collection[str], told: PartReport) -> Iterator[Numbered]:
    """The rows of a Parquet file, as many at once as memory holds."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if file.metadata.num_rows * len(names) > most_bytes(path, told.limit):  # each value takes a byte at least
            raise too_large(path)
        _begin_groups(file)
        columns = [name for name in names if name in wanted] or None
        told.unread.update(set(names) - set(columns or names))
        told.unread.update(f"{name} (repeated column)" for name in names if names.count(name) > 1)
        batches = file.iter_batches(batch_size=_rows_at_once(file.metadata, told.limit), columns=columns)
        yield from table_records(_bounded(batches, path, told.limit), told)


def _begin_groups(file: Any) -> None:
    """Let a reader begin each group of rows, which tells of damage; its bare metadata would end the process."""
    for group in range(file.num_row_groups):
        next(file.iter_batches(batch_size=1, row_groups=[group]), None)


def _rows_at_once(metadata: Any, limit: int) -> int:
    """Rows whose texts fit into memory, even where a dictionary hides how long they are."""
    largest = 1
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        largest = max(largest, sum(_longest(group.column(i), group.num_rows) for i in range(group.num_columns)))
    return max(1, min(ROWS_AT_ONCE, _AT_ONCE * limit // largest))


def _longest(column: Any, rows: int) -> int:
    """Bytes that one value may have, as far as the metadata tell: of a dictionary, all that is in it."""
    whole, packed = column.total_uncompressed_size, max(1, column.total_compressed_size)
    start = column.dictionary_page_offset
    if not column.has_dictionary_page or start is None:
        return int(whole // max(1, rows))
    return int((column.data_page_offset - start) * max(1.0, whole / packed))


def _bounded(batches: Iterator[Any], path: Path, limit: int) -> Iterator[Any]:
    """The batches of a file, as long as they are no more than one may expect of it."""
    left = most_bytes(path, limit)
    for batch in batches:
        batch = _without_dictionaries(batch)
        left -= batch.nbytes + batch.num_rows * batch.num_columns
        if left < 0:
            raise too_large(path)
        yield batch


def _without_dictionaries(batch: Any) -> Any:
    """A batch in which each row has its own text, as Python will."""
    for i, kind in enumerate(batch.schema.types):
        if pa.types.is_dictionary(kind):
            batch = batch.set_column(i, batch.schema.field(i).with_type(kind.value_type), batch[i].dictionary_decode())
    return batch


def table_records(batches: Iterator[Any], told: PartReport) -> Iterator[Numbered]:
    """The numbered rows of Arrow batches or tables, as dictionaries."""
    number = 0
    for batch in batches:
        nested = [field.name for field in batch.schema if pa.types.is_nested(field.type)]
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:  # Arrow does not check its texts; find the row that holds the bad one
            rows = _rows_one_by_one(batch, number, told)
        for row in rows:
            number += 1
            if row is not None:
                yield number, {**row, **{name: _without_nulls(row[name]) for name in nested}} if nested else row


def _without_nulls(value: object) -> Any:
    """A nested value without the fields that a table adds to all objects of a column because one of them has it."""
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def _rows_one_by_one(batch: Any, number: int, told: PartReport) -> Iterator[dict[str, Any] | None]:
    for index in range(batch.num_rows):
        try:
            row = batch.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            told.bad(number + index + 1, "not UTF-8", error)
            row = None
        yield row
