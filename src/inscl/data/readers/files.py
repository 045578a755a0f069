"""From a file to its numbered records: JSON lines, JSON documents, CSV and Parquet, plain or compressed.

What a file is compressed with is told by its first bytes, what it holds by its ending or, without a known
one, by its first bytes. Everything is streamed, and no file may become much larger than it looks.
"""

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from inscl.data.readers.bounds import most_bytes, too_large
from inscl.data.readers.forms import Numbered
from inscl.data.readers.json_files import holds_lines, json_document, json_lines
from inscl.data.readers.report import PartReport
from inscl.data.readers.tables import csv_rows, parquet_rows
from inscl.errors import DataError, InsclError

LINE_LIMIT = 64 * 2**20  # bytes of a record, if nothing else is asked for

CONTAINERS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv",
}  # fmt: skip
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BUFFER = 2**20


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
    with readable(path), _open_bytes(path, LINE_LIMIT) as stream:
        head = stream.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    return "json" if head[:1] in (b"{", b"[") else None


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the operating system or a decoder says about a file into one clear line."""
    try:
        yield
    except InsclError:
        raise
    except (OSError, pa.ArrowException, MemoryError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}. Check that the file is whole and of that type.") from error


def read_records(path: Path, container: str, wanted: Collection[str], told: PartReport) -> Iterator[Numbered]:
    """The numbered records of a file; of tables only the columns in `wanted`, where any of them is there."""
    with readable(path):
        if container == "parquet":
            yield from parquet_rows(path, wanted, told)
            return
        _check_expansion(path, told.limit)
        with _open_bytes(path, told.limit) as stream:
            lines = container == "jsonl" or (container == "json" and holds_lines(stream, told))
        with _open_bytes(path, told.limit) as stream:
            if container == "csv":
                yield from csv_rows(stream, wanted, told)
            elif lines:
                yield from json_lines(stream, told)
            else:
                yield from json_document(stream, told)


def _check_expansion(path: Path, limit: int) -> None:
    """Refuse a file that holds too much before a record of it is looked at, which would take far longer."""
    if codec := _codec(path):
        with _Decompressed(path, codec, limit) as stream:
            while stream.readinto(bytearray(_BUFFER)):
                pass


def _open_bytes(path: Path, limit: int) -> BinaryIO:
    """The decompressed bytes of a file, buffered; reading on where it is damaged or cut raises OSError."""
    if codec := _codec(path):
        return io.BufferedReader(_Decompressed(path, codec, limit), _BUFFER)
    return path.open("rb", _BUFFER)


def _codec(path: Path) -> str | None:
    """What a file is compressed with."""
    with path.open("rb") as file:
        magic = file.read(4)
    return next((codec for sign, codec in _COMPRESSED.items() if magic.startswith(sign)), None)


class _Decompressed(io.RawIOBase):
    """The bytes of a compressed file, as many as one may expect of it."""

    def __init__(self, path: Path, codec: str, limit: int) -> None:
        self._stream: Any = pa.input_stream(str(path), compression=codec)
        self._path, self._left = path, most_bytes(path, limit)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._stream.readinto(buffer))
        self._left -= count
        if self._left < 0:
            raise too_large(self._path)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
