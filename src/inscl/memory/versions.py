"""The folders of a memory's task versions, each written once and never changed.

tasks/<id>/          instructions.lance and examples.lance of one version of one task
writing/<id>         stands here from before the folder is there until its version is committed
records/<id>.json    the version's row of the catalogue, so that a lost catalogue can be made again
aside/               what no row of the catalogue named, for an unknown reason: kept, and read by nobody
"""

import json
import re
from collections.abc import Callable
from uuid import uuid4

from inscl.errors import DamageError, MemoryStateError
from inscl.memory.catalogue import Commit, State
from inscl.memory.ledger import sealed, unsealed
from inscl.memory.place import Place
from inscl.memory.trouble import REPAIR


class Versions:
    """Task versions of a memory, by id.

    Parameters
    ----------
    place : Place
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._checked: set[tuple[str, str]] = set()

    def uri(self, identifier: str) -> str:
        """Where Lance finds a version's tables."""
        return f"{self._place.uri}/tasks/{identifier}"

    def begin(self) -> str:
        """Id of a version that is about to be written; until it is `finish`ed, any other command may delete it."""
        identifier = uuid4().hex
        self._place.write(f"writing/{identifier}")
        return identifier

    def record(self, commit: Commit) -> None:
        """Write down what a version is, before it is committed."""
        self._place.write(f"records/{commit.id}.json", sealed(commit.row()))

    def finish(self, identifier: str) -> None:
        """A version has been committed."""
        self._place.delete(f"writing/{identifier}")

    def discard(self, identifier: str) -> None:
        """Delete a version."""
        for name in (f"tasks/{identifier}", f"records/{identifier}.json", f"writing/{identifier}"):
            self._place.delete(name)

    def put_aside(self, identifier: str) -> None:
        """Keep a version without counting on it."""
        self._place.move(f"tasks/{identifier}", f"aside/{identifier}")
        self._place.move(f"records/{identifier}.json", f"aside/{identifier}.json")
        self._place.delete(f"writing/{identifier}")

    def all(self) -> set[str]:
        """Versions that have a folder; names that are not ours are left alone."""
        return {name for name in self._place.listing("tasks") if re.fullmatch(r"[0-9a-f]{32}", name)}

    def unknown(self, state: State) -> set[str]:
        """Versions that are neither part of a memory, nor known to be dead or unfinished."""
        folders = self.all()  # before the marks: a version is marked from before it is there until it is committed
        unfinished = set(self._place.listing("writing"))
        return folders - unfinished - state.named - {commit.id for commit in state.dead}

    def clear(self, state: State, notice: Callable[[str], None]) -> None:
        """Delete versions that are dead or unfinished, put the unknown aside; the caller holds the memory alone."""
        unknown = self.unknown(state)
        for identifier in sorted(self.all() - state.named - unknown):
            self.discard(identifier)
        for identifier in sorted(unknown):
            notice(f"tasks/{identifier} is named by no row of the catalogue: moved to aside/")
            self.put_aside(identifier)
        for identifier in self._place.listing("writing"):
            self.finish(identifier)
        for name in set(self._place.listing("records")) - {f"{identifier}.json" for identifier in state.named}:
            self._place.delete(f"records/{name}")

    def tidy(self, state: State) -> bool:
        """Whether there is nothing to `clear`."""
        return self.all() == state.named and not self._place.listing("writing")

    def recorded(self, name: str) -> Commit | None:
        """What was written down in a file; None if it is not there or not whole."""
        row = unsealed(self._place.read(name) or b"")
        if row is None:
            return None
        commit = Commit.of(row)
        return commit if commit.row() == row else None

    def records(self) -> list[Commit]:
        """All versions that were written down and are whole."""
        found = [self.recorded(f"records/{identifier}.json") for identifier in sorted(self.all())]
        return [commit for commit in found if commit is not None]

    def aside(self) -> dict[str, str]:
        """What was put aside, with the name of its task where that is known."""
        names = self._place.listing("aside")
        found = {name: self.recorded(f"aside/{name}.json") for name in names if not name.endswith(".json")}
        return {name: commit.name if commit else "" for name, commit in found.items()}

    def forget_aside(self, removed: set[str]) -> int:
        """Delete what was put aside of removed tasks; how many things of unknown tasks are left."""
        aside = self.aside()
        for identifier, name in aside.items():
            if name in removed:
                self._place.delete(f"aside/{identifier}")
                self._place.delete(f"aside/{identifier}.json")
        return sum(not name for name in aside.values()) if removed else 0

    def changes(self, commit: Commit) -> dict[str, str]:
        """What has happened to a version's files."""
        return self._place.changes(f"tasks/{commit.id}", json.loads(commit.files))

    def checksums(self, identifier: str) -> str:
        """A version's files with their checksums, as its row of the catalogue keeps them."""
        return json.dumps(self._place.checksums(f"tasks/{identifier}"), sort_keys=True)

    def check(self, commit: Commit, table: str) -> None:
        """See that the files of one of a version's tables are what was written, once in this process.

        Raises
        ------
        DamageError
            If they are not.
        """
        if (commit.id, table) in self._checked:
            return
        for name, expected in json.loads(commit.files).items():
            if name.startswith(f"{table}.lance/") and self.is_read(name):
                self._check(commit, name, expected)
        self._checked.add((commit.id, table))

    def _check(self, commit: Commit, name: str, expected: str) -> None:
        path = f"tasks/{commit.id}/{name}"
        task = f"Task '{commit.name}' of the memory at '{self._place.path}'"
        if not self._place.has(f"tasks/{commit.id}"):
            raise MemoryStateError(f"{task} is gone, maybe removed by another command meanwhile. Run this one again.")
        if not self._place.has(path):
            raise DamageError(f"{task}: {name} is missing. {REPAIR}")
        if self._place.checksum(path) != expected:
            raise DamageError(f"{task}: {name} has changed. {REPAIR}")

    def copy_examples(self, source: str, target: str) -> None:
        """Give a version the examples of another."""
        self._place.copy_folder(f"tasks/{source}/examples.lance", f"tasks/{target}/examples.lance")

    @staticmethod
    def is_read(name: str) -> bool:
        """Whether a table is read by a file; Lance keeps two kinds beside it that say nothing new."""
        return "/_transactions/" not in name and not name.endswith("latest_version_hint.json")
