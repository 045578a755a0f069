"""Where shared things lie: a folder, or a dataset of the Hub."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from inscl.errors import InsclError
from inscl.sharing.bundle import CARD, LIST, Bundle


class Place(Protocol):
    """A folder or a dataset of the Hub."""

    name: str

    def work(self) -> AbstractContextManager[Path]:
        """An empty folder in which to make what is put; gone at the end."""

    def put(self, folder: Path) -> str:
        """Make the place what a folder holds: card, list and files; where it is then found."""

    def get(self, folder: Path) -> Bundle:
        """Copy what the place holds into an empty folder, each file checked."""


class Folder:
    """A folder of this machine.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.name = str(path)

    @contextmanager
    def work(self) -> Iterator[Path]:
        """A folder beside this one."""
        self._refuse_strangers()
        with beside(self._path) as work:
            (work / "new").mkdir()
            yield work / "new"

    def put(self, folder: Path) -> str:
        """Let a folder from `work` take the place of this one, in which nothing but an earlier push may be."""
        self._refuse_strangers()
        old = folder.parent / "old"  # gone with the rest of the work, once the new one is in its place
        if self._path.exists():
            self._path.replace(old)
        try:
            folder.replace(self._path)
        except BaseException:
            if old.exists():
                old.replace(self._path)
            raise
        return self.name

    def get(self, folder: Path) -> Bundle:
        """Copy what is listed, each file checked."""
        if not self._path.is_dir():
            raise InsclError(
                f"There is no folder '{self.name}'. Name one that `inscl push` wrote, or hf://datasets/OWNER/NAME."
            )
        bundle = Bundle.read(self._path, self.name)
        bundle.take(self._path, folder, self.name)
        return bundle

    def _refuse_strangers(self) -> None:
        there = sorted(path.name for path in self._path.iterdir()) if self._path.is_dir() else []
        if not there and not self._path.exists():
            return
        ours = {LIST, CARD, Bundle.read(self._path, self.name).kind} if LIST in there else set()
        if self._path.is_symlink() or not self._path.is_dir() or set(there) - ours:
            what = next((name for name in there if name not in ours), "no folder")
            raise InsclError(f"'{self.name}' holds what is none of inscl's ({what}). Name a new or empty folder.")


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A folder to work in, on the same disk as `path`; gone at the end."""
    parent = path.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".partial", dir=parent) as work:
        yield Path(work)
