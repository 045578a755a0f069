"""A table to which many append and that only one rewrites, and beside it a *head* that says how far it has come.

Lance finds a table's newest version by listing its manifests: where the newest is lost, it reads the one before as if
nothing had happened. The head is written after each commit and says which version there was and what it held. A table
that is behind its head, or differs from it, has been damaged, and nobody may decide by it what is to be deleted. A head
that is behind its table is the mark of a killed or slower writer, and does no harm.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import lance
import pyarrow as pa
from lance.commit import CommitConflictError

from inscl.errors import MemoryStateError
from inscl.memory.place import Place
from inscl.memory.trouble import REPAIR, first_line


@dataclass(frozen=True)
class Page:
    """What a ledger holds at one moment."""

    rows: list[dict[str, Any]]
    version: int  # of the table; 0 where there is none
    pieces: int  # commits since it was last rewritten

    @property
    def digest(self) -> str:
        text = json.dumps(self.rows, ensure_ascii=False, sort_keys=True)
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Ledger:
    """An append-only table of a memory.

    Parameters
    ----------
    place : Place
    name : str
        Its name without ``.lance``.
    schema : pyarrow.Schema
    """

    def __init__(self, place: Place, name: str, schema: pa.Schema) -> None:
        self._place, self._name, self._schema = place, name, schema
        self._uri = f"{place.uri}/{name}.lance"
        self._page: Page | None = None

    def read(self) -> Page | None:
        """What the ledger holds now, checked against its head; None where nothing was ever written.

        Raises
        ------
        MemoryStateError
            If it was written by a newer release, cannot be read, or is not what its head says.
        """
        head = self._head()  # before the table: a head is never ahead of a table read later
        table = self._open()
        if table is None:
            if head is not None:
                raise self._damaged(f"it is gone, and was at version {head['version']}")
            return None
        self._refuse_newer(table)
        if self._page is None or self._page.version != table.version:
            self._page = self._page_of(table)
        if head is not None:
            self._compare(self._page, head)
        return self._page

    def append(self, rows: Sequence[dict[str, Any]], version: int) -> None:
        """Append rows in one commit; safe with other appenders at the same time.

        Parameters
        ----------
        rows : sequence of dict
        version : int
            Version that the caller read when its work began. Whoever rewrites the ledger shuts out all that began
            earlier: a process that was asleep while its lock went stale cannot commit.

        Raises
        ------
        MemoryStateError
            If the ledger has been rewritten since.
        """
        if version == 0:
            self._create()
            version = 1
        try:
            lance.LanceDataset.commit(
                self._uri,
                lance.LanceOperation.Append(self._fragments(rows)),
                read_version=version,
                storage_options=self._place.storage,
            )
        except (OSError, ValueError) as error:
            if not _overtaken(error):
                raise
            raise MemoryStateError(
                f"This command stood still for so long that others changed the memory at '{self._place.path}' without "
                "waiting for it; nothing of it was kept. Run it again."
            ) from error
        self.note()

    def fence(self) -> None:
        """Let nobody commit whose work began before now; the caller holds the memory alone."""
        while page := self.read():
            with suppress(CommitConflictError):  # somebody did, just now: read what it was
                self.rewrite(page.rows, page.version)
                return

    def rewrite(self, rows: Sequence[dict[str, Any]], version: int) -> None:
        """Replace all rows and delete earlier versions; the caller holds the memory alone.

        Raises
        ------
        CommitConflictError
            If somebody has committed since `version`.
        """
        written = lance.LanceDataset.commit(
            self._uri,
            lance.LanceOperation.Overwrite(self._schema, self._fragments(rows)),
            read_version=version,
            storage_options=self._place.storage,
            max_retries=0,
        )
        written.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
        self.note()

    def note(self) -> None:
        """Write the head anew, from what the table holds."""
        table = self._open()
        if table is not None:
            self._page = page = self._page_of(table)
            head = {"version": page.version, "rows": len(page.rows), "digest": page.digest}
            self._place.write(f"{self._name}.head", _sealed(head))

    def _create(self) -> None:
        """Make an empty table, unless another writer is faster.

        `lance.write_dataset(mode="create")` will not do: of two that come at once, the later one overwrites the
        earlier one's rows. A commit that says that it has read version 0 fails instead.
        """
        empty = lance.LanceOperation.Overwrite(self._schema, [])
        try:
            lance.LanceDataset.commit(
                self._uri, empty, read_version=0, storage_options=self._place.storage, max_retries=0
            )
        except (OSError, ValueError):
            if self._open() is None:
                raise

    def _fragments(self, rows: Sequence[dict[str, Any]]) -> Any:
        table = pa.Table.from_pylist(list(rows), self._schema)
        if not rows:
            return []
        return lance.fragment.write_fragments(
            table, self._uri, schema=self._schema, storage_options=self._place.storage
        )

    def _open(self) -> Any:
        try:
            return lance.dataset(self._uri, storage_options=self._place.storage)
        except ValueError as error:
            if "not found" in str(error).lower():
                return None
            raise self._damaged(first_line(error)) from error
        except OSError as error:
            raise MemoryStateError(
                f"{self._name}.lance of the memory at '{self._place.path}' cannot be read ({first_line(error)})."
                f" {REPAIR}"
            ) from error

    def _page_of(self, table: Any) -> Page:
        try:
            rows = table.to_table().to_pylist()
        except (OSError, ValueError) as error:
            raise self._damaged(first_line(error)) from error
        return Page(rows, table.version, len(table.get_fragments()))

    def _refuse_newer(self, table: Any) -> None:
        written = int((table.schema.metadata or {}).get(b"inscl_format", b"0"))
        known = int((self._schema.metadata or {}).get(b"inscl_format", b"0"))
        if written > known:
            raise MemoryStateError(
                f"The memory was written by a newer inscl (format {written}; this release reads up to {known}). "
                "Upgrade with `pip install -U inscl`."
            )

    def _head(self) -> dict[str, Any] | None:
        raw = self._place.read(f"{self._name}.head")
        if raw is None:
            return None  # written by an earlier release, or nothing was written yet
        head = _unsealed(raw)
        if head is None:
            raise self._damaged("its head is")
        return head

    def _compare(self, page: Page, head: dict[str, Any]) -> None:
        if page.version < head["version"]:
            raise self._damaged(f"it is at version {page.version}, and was at version {head['version']}")
        if page.version == head["version"] and page.digest != head["digest"]:
            raise self._damaged(f"version {page.version} is not what was written")

    def _damaged(self, how: str) -> MemoryStateError:
        return MemoryStateError(
            f"{self._name}.lance of the memory at '{self._place.path}' is damaged ({how}). {REPAIR}"
        )


def _sealed(head: dict[str, Any]) -> bytes:
    body = json.dumps(head, sort_keys=True).encode()
    return body + b"\n" + blake2b(body, digest_size=16).hexdigest().encode() + b"\n"


def _unsealed(raw: bytes) -> dict[str, Any] | None:
    body, _, rest = raw.partition(b"\n")
    if rest != blake2b(body, digest_size=16).hexdigest().encode() + b"\n":
        return None
    head: dict[str, Any] = json.loads(body)
    return head


def _overtaken(error: Exception) -> bool:
    """Whether a commit failed since the table was rewritten after the version it was based on."""
    said = str(error)
    return "incompatible" in said.lower() or ("_versions/" in said and "not found" in said.lower())
