"""A shared folder: a card, the files of what is shared under the name of its kind, and a list of them.

    README.md     what it is, for people
    inscl.json    what it is, for inscl: its kind, its files with sizes and checksums, versions
    <kind>/…      the files

The list is what counts. What is in a folder beside it is not looked at, and what the list says of a file is checked
before anybody reads it.
"""

import shutil
from functools import partial
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inscl.errors import DataError, InsclError
from inscl.files import whole_file

Kind = Literal["memory", "plan", "run", "stage"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LIST, CARD = "inscl.json", "README.md"
_FORMAT = 1
MOST_BYTES = 64 * 2**20  # of the list
_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid")

# No part begins with a dot: neither `..`, nor a hidden file.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$", max_length=500)]


class File(BaseModel):
    """What is said of a file."""

    model_config = _STRICT

    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    blake2b: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]

    @classmethod
    def of(cls, path: Path) -> "File":
        """A file as it lies there."""
        with path.open("rb") as file:
            digest = file_digest(file, partial(blake2b, digest_size=16))
        return cls(bytes=path.stat().st_size, blake2b=digest.hexdigest())


class Bundle(BaseModel):
    """The list of a shared folder."""

    model_config = _STRICT

    inscl_shared: Annotated[int, Field(ge=1)] = _FORMAT
    kind: Kind
    versions: dict[str, str]
    files: dict[_Name, File]

    @classmethod
    def of(cls, folder: Path, kind: Kind, versions: dict[str, str]) -> "Bundle":
        """The list of what lies in a folder under the name of its kind."""
        paths = sorted(path for path in (folder / kind).rglob("*") if path.is_file())
        return cls(
            kind=kind, versions=versions, files={path.relative_to(folder).as_posix(): File.of(path) for path in paths}
        )

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files.values())

    def write(self, folder: Path) -> None:
        """Write the list beside the files."""
        with whole_file(folder / LIST) as file:
            file.write(self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path, where: str) -> "Bundle":
        """The list in a folder.

        Raises
        ------
        InsclError
            If there is none, or none that this release reads. `where` is what the user calls the folder.
        """
        path = folder / LIST
        if path.is_symlink() or not path.is_file():
            raise InsclError(
                f"'{where}' holds nothing that inscl shared: there is no {LIST}. Name what `inscl push` wrote."
            )
        if path.stat().st_size > MOST_BYTES:
            raise InsclError(f"{LIST} of '{where}' has more than {MOST_BYTES:,} bytes. Ask whoever pushed it.")
        try:
            return cls._checked(path.read_bytes(), where)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            what = ".".join(map(str, problem["loc"])) or "it"
            raise InsclError(
                f"{LIST} of '{where}' is not what `inscl push` writes ({what[:100]}: {problem['msg'][:100]}). Ask "
                "whoever pushed it to push it again."
            ) from error

    @classmethod
    def _checked(cls, raw: bytes, where: str) -> "Bundle":
        written = _Head.model_validate_json(raw).inscl_shared
        if written > _FORMAT:
            raise InsclError(f"'{where}' has format {written}; this release reads up to {_FORMAT}. Upgrade inscl.")
        found = cls.model_validate_json(raw)
        for name in found.files:
            if not name.startswith(f"{found.kind}/"):
                raise InsclError(
                    f"{LIST} of '{where}' names {name}, which is no file of a {found.kind}. Pull nothing of it."
                )
        return found

    def take(self, source: Path, target: Path, where: str) -> None:
        """Copy the files that are listed into an empty folder, and see that they are what is said of them.

        Raises
        ------
        DataError
            If one is missing, is a link or lies behind one, or is not what is said of it.
        """
        root = source.resolve()
        for name, said in self.files.items():
            path = source / name
            if not path.is_file() or path.resolve() != root / name:
                raise DataError(
                    f"{name} of '{where}' is missing, or is a link. Ask whoever pushed it to push it again."
                )
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.stat().st_size == said.bytes:
                shutil.copyfile(path, copy, follow_symlinks=False)
            if not copy.is_file() or File.of(copy) != said:
                raise DataError(f"{name} of '{where}' is not what was pushed. Pull it again, or have it pushed again.")


class _Head(BaseModel):
    """What tells a list from other files."""

    inscl_shared: Annotated[int, Field(strict=True, ge=1)]
