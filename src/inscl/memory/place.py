"""Where a memory lies: a folder, or a prefix of an object store. Names are relative to it, with slashes."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs

from inscl.errors import DataError
from inscl.memory.trouble import first_line

PARTIAL = ".partial"  # end of a file's name until it is whole


@dataclass(frozen=True)
class Place:
    """A memory's files.

    Attributes
    ----------
    path : str
        As the user named it.
    fs, root
        The same for pyarrow.
    uri : str
        The same for Lance, which wants a URI for a store and a plain path for a folder.
    storage : dict, optional
        Lance's options for an object store.
    """

    path: str
    fs: pyarrow.fs.FileSystem
    root: str
    uri: str
    storage: dict[str, str] | None

    @classmethod
    def of(cls, path: str, storage: dict[str, str] | None = None) -> "Place":
        """The place that a user's path or URI names.

        Raises
        ------
        DataError
            If the URI has options, or names no store that can be reached.
        """
        fs, root = _resolve(path)
        return cls(path, fs, root, path.rstrip("/") if "://" in path else root, storage)

    @property
    def local(self) -> bool:
        return bool(isinstance(self.fs, pyarrow.fs.LocalFileSystem))

    def listing(self, folder: str = "") -> list[Any]:
        """What lies directly in a folder; nothing where there is none."""
        where = f"{self.root}/{folder}".rstrip("/")
        return list(self.fs.get_file_info(pyarrow.fs.FileSelector(where, allow_not_found=True)))

    def files(self, folder: str) -> Iterator[str]:
        """Names of all files under a folder, relative to it."""
        where = f"{self.root}/{folder}"
        for info in self.fs.get_file_info(pyarrow.fs.FileSelector(where, recursive=True, allow_not_found=True)):
            if info.type == pyarrow.fs.FileType.File:
                yield info.path.removeprefix(f"{where}/")

    def has_file(self, name: str) -> bool:
        return bool(self.fs.get_file_info(f"{self.root}/{name}").type == pyarrow.fs.FileType.File)

    def read(self, name: str) -> bytes | None:
        """A small file's bytes; None where there is none."""
        if not self.has_file(name):
            return None
        with self.fs.open_input_stream(f"{self.root}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes = b"") -> None:
        """Write a small file, which appears whole or not at all; of several writers the last one wins."""
        path = f"{self.root}/{name}"
        self.fs.create_dir(path.rpartition("/")[0], recursive=True)
        written = f"{path}.{uuid4().hex}{PARTIAL}" if self.local else path  # an object appears whole by itself
        with self.fs.open_output_stream(written) as stream:
            stream.write(content)
        if self.local:
            self.fs.move(written, path)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.has_file(name):
            self.fs.delete_file(f"{self.root}/{name}")

    def delete_folder(self, name: str) -> None:
        """Delete a folder with all that is in it, if it is there."""
        if self.fs.get_file_info(f"{self.root}/{name}").type != pyarrow.fs.FileType.NotFound:
            self.fs.delete_dir(f"{self.root}/{name}")

    def copy_folder(self, source: str, target: str) -> None:
        """Copy a folder's files."""
        for name in self.files(source):
            place = f"{self.root}/{target}/{name}"
            self.fs.create_dir(place.rpartition("/")[0], recursive=True)
            self.fs.copy_file(f"{self.root}/{source}/{name}", place)

    def move_folder(self, source: str, target: str) -> None:
        """Move a folder; on a store, which has no folders, its files one by one."""
        if self.local:
            self.fs.create_dir(f"{self.root}/{target}".rpartition("/")[0], recursive=True)
            self.fs.move(f"{self.root}/{source}", f"{self.root}/{target}")
            return
        self.copy_folder(source, target)
        self.delete_folder(source)

    def checksums(self, folder: str) -> dict[str, str]:
        """Checksum of each file under a folder, by its name."""
        return {name: self._checksum(f"{folder}/{name}") for name in self.files(folder)}

    def _checksum(self, name: str) -> str:
        digest = blake2b(digest_size=16)
        with self.fs.open_input_stream(f"{self.root}/{name}") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


def _resolve(path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" not in path:
        return pyarrow.fs.LocalFileSystem(), str(Path(path).absolute())
    if "?" in path:
        raise DataError(
            f"The memory '{path}' has options after '?', which Lance does not read. Leave them out and set "
            "AWS_ENDPOINT_URL and AWS_ALLOW_HTTP in the environment (see docs/object-stores.md)."
        )
    try:
        fs, root = pyarrow.fs.FileSystem.from_uri(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"The memory '{path}' cannot be reached ({first_line(error)}).") from error
    return fs, root.rstrip("/")
