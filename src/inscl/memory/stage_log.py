"""What was replayed at each finished stage, oldest first."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa

from inscl.errors import DamageError, MemoryStateError
from inscl.memory.ledger import Ledger, LedgerRow, digest_of
from inscl.memory.place import Place
from inscl.memory.trouble import REPAIR

REMOVED = "(removed)"  # what is left of a removed task's name
_PIECES = 16  # commits after which the log is put together: each is two files more that every reader opens
_SCHEMA = pa.schema([("record", pa.string())])  # JSON, with its own checksum as `digest`


class StageLog:
    """The log of a memory's stages: JSON objects with the `name` of a task and `tasks`, what was replayed."""

    def __init__(self, place: Place) -> None:
        self._ledger = Ledger(place, "stages", _SCHEMA)

    def read(self) -> list[dict[str, Any]]:
        """All stages.

        Raises
        ------
        DamageError
            If the log is not what was written.
        """
        page = self._ledger.read()
        return [] if page is None else [_record(row) for row in page.rows]

    def append(self, stage: Mapping[str, object]) -> None:
        """Log a finished stage."""
        page = self._ledger.read()
        self._ledger.append([_row(stage)], page.version if page else 0)

    def forget(self, removed: set[str]) -> None:
        """Take names and rows of removed tasks out of the log; the caller holds the memory alone."""
        page = self._ledger.read()
        if page is not None and removed:
            self._ledger.rewrite([_row(_without(removed, _record(row))) for row in page.rows], page.version)

    def tidy(self) -> None:
        """Put a log of many commits together; one that is damaged or grows just now stays as it is."""
        with suppress(MemoryStateError):  # DamageError too; `verify` tells
            page = self._ledger.read()
            if page is not None and page.pieces > _PIECES:
                self._ledger.rewrite(page.rows, page.version)

    def salvage(self, aside: str) -> tuple[int, int]:
        """Begin anew with the stages that are whole, of a log that is not; how many were kept, and were there."""
        rows, known = self._ledger.rest()
        whole = [row for row in rows if _is_whole(row)]
        self._ledger.restart(whole, aside)
        return len(whole), max(known, len(rows))


def _row(stage: Mapping[str, object]) -> LedgerRow:
    plain = json.loads(json.dumps(dict(stage)))
    return {"record": json.dumps({**plain, "digest": digest_of(plain)}, ensure_ascii=False, sort_keys=True)}


def _record(row: LedgerRow) -> dict[str, Any]:
    try:
        record: dict[str, object] = json.loads(row["record"])
        digest = record.pop("digest", None)  # earlier releases wrote none
    except (ValueError, AttributeError, TypeError):
        raise DamageError(f"A row of the log of stages is damaged. {REPAIR}") from None
    if digest not in (None, digest_of(record)):
        raise DamageError(f"A row of the log of stages is damaged. {REPAIR}")
    return record


def _is_whole(row: LedgerRow) -> bool:
    try:
        return bool(_record(row))
    except DamageError:
        return False


def _without(removed: set[str], stage: dict[str, Any]) -> dict[str, Any]:
    """A logged stage in which removed tasks have no name and no rows any more."""
    replayed = [
        {"name": REMOVED, "count": task.get("count", 0)} if task["name"] in removed else task
        for task in stage.get("tasks", [])
    ]
    name = REMOVED if stage["name"] in removed else stage["name"]
    return {**stage, "name": name, "tasks": replayed}
