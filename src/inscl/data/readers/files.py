"""From a file to its numbered records: JSON lines, JSON documents, CSV and Parquet, plain or compressed.

What a file is compressed with is told by its first bytes, what it holds by its ending or, without a known
one, by its first bytes. Everything but a JSON document is streamed.
"""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from inscl.data.readers.forms import CHAT, Numbered
from inscl.errors import DataError

LINE_LIMIT = 64 * 2**20  # bytes; a longer line is an error, and is never held in memory
BATCH = 1024  # rows of a table turned into Python at once

# (number, reason, cause): raises, or counts the record as dropped and returns.
Bad = Callable[[int, str, Exception | None], None]

CONTAINERS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BUFFER = 2**20
_JSON_CELLS = ("outputs", "references", *CHAT)  # columns of a CSV file that may hold a JSON list


def container_by_name(path: Path) -> str | None:
    """What the ending of a file says: "jsonl", "json", "parquet", "csv" or None.

    >>> container_by_name(Path("latest/answers.JSONL.gz"))
    'jsonl'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    return CONTAINERS.get(suffixes[-1]) if suffixes else None


def container_by_content(path: Path) -> str | None:
    """What the first bytes of a file say."""
    with readable(path), open_bytes(path) as stream:
        head = stream.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    return "json" if head[:1] in (b"{", b"[") else None


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the operating system or a decoder says about a file into one clear line."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"{path} cannot be read: {reason}. Check that the file is whole and of that type.") from error


def open_bytes(path: Path) -> BinaryIO:
    """The decompressed bytes of a file, buffered; reading on where it is damaged or cut raises OSError."""
    with path.open("rb") as file:
        magic = file.read(4)
    for sign, codec in _COMPRESSED.items():
        if magic.startswith(sign):
            return io.BufferedReader(pa.input_stream(str(path), compression=codec), _BUFFER)
    return path.open("rb", _BUFFER)


def read_records(path: Path, container: str, wanted: Collection[str], bad: Bad) -> Iterator[Numbered]:
    """The numbered records of a file; of tables only the columns in `wanted`, where any of them is there."""
    with readable(path):
        if container == "parquet":
            yield from _parquet(path, wanted, bad)
        elif container == "csv":
            with open_bytes(path) as stream:
                yield from _csv(stream, bad)
        elif container == "jsonl" or _holds_lines(path):
            with open_bytes(path) as stream:
                yield from _json_lines(stream, bad)
        else:
            with open_bytes(path) as stream:
                yield from _json_document(stream, path)


def _lines(stream: BinaryIO, bad: Bad) -> Iterator[tuple[int, str]]:
    """Numbered lines, split at "\\n" alone and decoded strictly."""
    number = 0
    while line := stream.readline(LINE_LIMIT + 1):
        number += 1
        if len(line) > LINE_LIMIT and not line.endswith(b"\n"):
            del line
            bad(number, f"line longer than {LINE_LIMIT // 2**20} MiB", None)
            _skip_line(stream)
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            bad(number, "not UTF-8", error)
            continue
        yield number, text


def _skip_line(stream: BinaryIO) -> None:
    while (piece := stream.readline(_BUFFER)) and not piece.endswith(b"\n"):
        pass


def _json_lines(stream: BinaryIO, bad: Bad) -> Iterator[Numbered]:
    decode = json.JSONDecoder().decode
    for number, text in _lines(stream, bad):
        try:
            record = decode(text)
        except (ValueError, RecursionError) as error:
            if not text or text.isspace():
                continue
            bad(number, "not JSON", error)
            continue
        yield number, record


def _holds_lines(path: Path) -> bool:
    """Whether the first line of a .json file is an object of its own."""
    with open_bytes(path) as stream:
        while line := stream.readline(LINE_LIMIT):
            line = line.removeprefix(b"\xef\xbb\xbf").strip()
            if line:
                try:
                    return isinstance(json.loads(line), dict)
                except (ValueError, RecursionError):
                    return False
    return True  # an empty file


def _json_document(stream: BinaryIO, path: Path) -> Iterator[Numbered]:
    try:
        document = json.loads(stream.read().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not JSON ({error.msg}). Mend the file; if each line is a record, "
            "read it with format 'jsonl' (--format jsonl)."
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON that can be read ({error}).") from error
    yield from enumerate(document if isinstance(document, list) else [document], start=1)


def _csv(stream: BinaryIO, bad: Bad) -> Iterator[Numbered]:
    last = 0  # number of the last line the CSV reader has taken

    def lines() -> Iterator[str]:
        nonlocal last
        for number, text in _lines(stream, bad):
            last = number
            yield text

    # The limit of a cell belongs to the process; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), LINE_LIMIT))
    rows = csv.reader(lines(), strict=True)
    header: list[str] | None = None
    while True:
        first = last + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            bad(first, "not CSV", error)
            continue
        if row is None:
            return
        if not row:
            continue
        if header is None:
            header = row
        elif len(row) != len(header):
            bad(first, "not as many cells as the header", None)
        else:
            yield first, _csv_record(dict(zip(header, row, strict=True)))


def _csv_record(record: dict[str, Any]) -> dict[str, Any]:
    """In some columns a cell may hold a list of texts or turns, as JSON."""
    for name in _JSON_CELLS:
        cell = record.get(name)
        if cell and cell.startswith("["):
            try:
                items = json.loads(cell)
            except (ValueError, RecursionError):
                continue
            if all(isinstance(item, (str, dict)) for item in items):
                record[name] = items
    return record


def _parquet(path: Path, wanted: Collection[str], bad: Bad) -> Iterator[Numbered]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name in wanted] or None
        yield from table_records(file.iter_batches(batch_size=BATCH, columns=columns), bad)


def table_records(batches: Iterator[Any], bad: Bad) -> Iterator[Numbered]:
    """The numbered rows of Arrow batches or tables, as dictionaries."""
    number = 0
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:  # Arrow does not check its texts; find the row that holds the bad one
            rows = _rows_one_by_one(batch, number, bad)
        for row in rows:
            number += 1
            if row is not None:
                yield number, row


def _rows_one_by_one(batch: Any, number: int, bad: Bad) -> Iterator[dict[str, Any] | None]:
    for index in range(batch.num_rows):
        try:
            row = batch.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            bad(number + index + 1, "not UTF-8", error)
            row = None
        yield row
