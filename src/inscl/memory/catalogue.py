"""The catalogue of a memory: one row per commit; the fold of its rows is what the memory holds."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from inscl.errors import DamageError
from inscl.memory.ledger import Page
from inscl.memory.trouble import REPAIR

_FORMAT = 1  # raised when an older release could no longer read what a newer one writes
CATALOGUE = pa.schema(
    [
        ("op", pa.string()),  # "add", "append", "retag" or "remove"
        ("name", pa.string()),
        ("id", pa.string()),  # folder under tasks/
        ("base", pa.string()),  # of an append or other tags: the version that it came from
        ("keep_old", pa.bool_()),
        ("info", pa.string()),  # TaskInfo as JSON
        ("files", pa.string()),  # {path in the folder: checksum} as JSON
        ("digest", pa.string()),  # of all the above
    ],
    metadata={"inscl_format": str(_FORMAT)},
)


@dataclass(frozen=True)
class Commit:
    """One row of the catalogue."""

    op: str
    name: str
    id: str = ""
    base: str = ""
    keep_old: bool = False
    info: str = ""
    files: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Commit":
        """The commit that a row stands for."""
        return cls(**{key: value for key, value in row.items() if key in cls.__dataclass_fields__})

    def row(self) -> dict[str, Any]:
        fields = asdict(self)
        digest = blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=16).hexdigest()
        return {**fields, "digest": digest}


@dataclass(frozen=True)
class State:
    """The fold of the catalogue."""

    live: dict[str, Commit] = field(default_factory=dict)  # by task, in the order of their first adding
    old: tuple[Commit, ...] = ()  # replaced versions that were to be kept
    dead: tuple[Commit, ...] = ()  # rows that no longer stand for anything
    version: int = 0  # of the table
    commits: int = 0  # since the catalogue was last rewritten in one piece

    @property
    def named(self) -> set[str]:
        return {commit.id for commit in (*self.live.values(), *self.old)}

    def condensed(self) -> list[Commit]:
        """The shortest catalogue that folds to this state."""
        return [
            replace(commit, op="add", base="", keep_old=True)
            for name, current in self.live.items()
            for commit in (*(kept for kept in self.old if kept.name == name), current)
        ]


def fold(page: Page) -> State:
    """Replay the catalogue's rows."""
    live: dict[str, Commit] = {}
    old: list[Commit] = []
    dead: list[Commit] = []
    for row in page.rows:
        commit = Commit.of(row)
        if commit.row() != row:
            raise DamageError(f"A row of the memory's catalogue is damaged. {REPAIR}")
        before = live.get(commit.name)
        if commit.base and (before is None or before.id != commit.base):
            dead.append(commit)  # another writer was faster; this one tries again
            continue
        if before is not None:
            (old if commit.keep_old else dead).append(before)
        if commit.op == "remove":
            live.pop(commit.name, None)
            dead += [commit, *(kept for kept in old if kept.name == commit.name)]
            old = [kept for kept in old if kept.name != commit.name]
        else:
            live[commit.name] = commit
    return State(live, tuple(old), tuple(dead), page.version, page.pieces)
