"""Where a memory lies: a folder, or a prefix of an object store. Names are relative to it, with slashes."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs

from inscl.errors import DamageError, DataError, first_line
from inscl.files import PARTIAL, whole_file
from inscl.memory.trouble import explained


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

    def listing(self, folder: str = "") -> list[str]:
        """Names of what lies directly in a folder, sorted; nothing where there is none."""
        where = f"{self.root}/{folder}".rstrip("/")
        with self._told():
            found = found_in(self.fs, where)
        return sorted(info.base_name for info in found)

    def files(self, folder: str) -> list[str]:
        """Names of all files under a folder, relative to it, sorted."""
        where = f"{self.root}/{folder}"
        with self._told():
            found = found_in(self.fs, where, recursive=True)
        files = [info.path for info in found if info.type == pyarrow.fs.FileType.File]
        return sorted(path.removeprefix(f"{where}/") for path in files)

    def has(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        with self._told():
            return bool(self.fs.get_file_info(f"{self.root}/{name}").type != pyarrow.fs.FileType.NotFound)

    def read(self, name: str) -> bytes | None:
        """A small file's bytes; None where there is none."""
        try:
            with self._told(), self.fs.open_input_stream(f"{self.root}/{name}") as stream:
                return bytes(stream.read())
        except DamageError:
            if self.has(name):
                raise
            return None

    def write(self, name: str, content: bytes = b"") -> None:
        """Write a small file, which appears whole or not at all; of several writers the last one wins."""
        path = f"{self.root}/{name}"
        with self._told():
            self.fs.create_dir(path.rpartition("/")[0], recursive=True)
            if not self.local:  # an object appears whole by itself
                with self.fs.open_output_stream(path) as stream:
                    stream.write(content)
                return
            with whole_file(Path(path), "wb", Path(f"{path}.{uuid4().hex}{PARTIAL}")) as file:
                file.write(content)

    def make_folder(self, name: str) -> None:
        with self._told():
            self.fs.create_dir(f"{self.root}/{name}", recursive=True)

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with all that is in it, if it is there."""
        path = f"{self.root}/{name}"
        with self._told():
            kind = self.fs.get_file_info(path).type
            if kind == pyarrow.fs.FileType.Directory:
                self.fs.delete_dir(path)
            elif kind == pyarrow.fs.FileType.File:
                self.fs.delete_file(path)

    def copy_folder(self, source: str, target: str) -> None:
        """Copy a folder's files."""
        for name in self.files(source):
            place = f"{self.root}/{target}/{name}"
            with self._told():
                self.fs.create_dir(place.rpartition("/")[0], recursive=True)
                self.fs.copy_file(f"{self.root}/{source}/{name}", place)

    def move(self, source: str, target: str) -> None:
        """Move a file or folder, if it is there; on a store, which has no folders, its files one by one."""
        if not self.has(source):
            return
        if self.local:
            with self._told():
                self.fs.create_dir(f"{self.root}/{target}".rpartition("/")[0], recursive=True)
                self.fs.move(f"{self.root}/{source}", f"{self.root}/{target}")
            return
        self.copy_folder(source, target)
        self.delete(source)

    def checksum(self, name: str) -> str:
        """Checksum of a file's bytes.

        Raises
        ------
        DamageError
            If it cannot be read.
        """
        digest = blake2b(digest_size=16)
        with self._told(name), self.fs.open_input_stream(f"{self.root}/{name}") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def checksums(self, folder: str) -> dict[str, str]:
        """Checksum of each file under a folder, by its name."""
        return {name: self.checksum(f"{folder}/{name}") for name in self.files(folder)}

    def changes(self, folder: str, expected: Mapping[str, str]) -> dict[str, str]:
        """What has happened to a folder's files ("is missing", "changed", "is not its own"), by name."""
        there = set(self.files(folder))
        found = dict.fromkeys(sorted(there - expected.keys()), "is not its own")
        for name in sorted(expected):
            if name not in there:
                found[name] = "is missing"
            elif self.checksum(f"{folder}/{name}") != expected[name]:
                found[name] = "changed"
        return found

    def _told(self, name: str = "") -> AbstractContextManager[None]:
        return explained(f"{name} of the memory at '{self.path}'" if name else f"The memory at '{self.path}'")


def found_in(fs: pyarrow.fs.FileSystem, folder: str, *, recursive: bool = False) -> list[pyarrow.fs.FileInfo]:
    """What lies in a folder, nothing where there is none."""
    wanted = pyarrow.fs.FileSelector(folder, recursive=recursive, allow_not_found=True)
    try:
        found: list[pyarrow.fs.FileInfo] = fs.get_file_info(wanted)
    except FileNotFoundError:  # Arrow lists first and asks then whether the folder is there: it was made in between
        found = fs.get_file_info(wanted)
    return found


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
