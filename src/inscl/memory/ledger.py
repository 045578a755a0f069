"""A table to which many append and that only one rewrites, and beside it a *head* that says how far it has come.

Lance finds a table's newest version by listing its manifests: where the newest is lost, it reads the one before as if
nothing had happened. The head is written after each commit and says which version there was and what it held. A table
that is behind its head, or differs from it, has been damaged, and nobody may decide by it what is to be deleted. A head
that is behind its table is the mark of a killed or slower writer, and does no harm.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

import lance
import pyarrow as pa
from lance.commit import CommitConflictError

from inscl.errors import DamageError, MemoryStateError
from inscl.memory.place import Place
from inscl.memory.trouble import REPAIR, explained

_PAUSES = (0.01, 0.05, 0.2)  # seconds until a ledger that cannot be read is read again: it may just be rewritten

LedgerRow = dict[str, Any]


class _ConflictError(MemoryStateError):
    """Somebody else has committed in the meantime."""


@dataclass(frozen=True)
class Page:
    """What a ledger holds at one moment."""

    rows: list[LedgerRow]
    version: int  # of the table; 0 where there is none
    pieces: int  # commits since it was last rewritten

    @property
    def digest(self) -> str:
        return digest_of(self.rows)


class Ledger:
    """An append-only table of a memory.

    Parameters
    ----------
    place : Place
    name : str
        Its name without ``.lance``.
    schema : pyarrow.Schema
    summary : callable, optional
        What the head is to say of the rows beyond their digest, as JSON.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        schema: pa.Schema,
        summary: Callable[[Page], object] = lambda page: None,
    ) -> None:
        self.name, self.schema = f"{name}.lance", schema
        self._place, self._summary = place, summary
        self._head_name = f"{name}.head"
        self._uri = f"{place.uri}/{name}.lance"
        self._page: Page | None = None

    def read(self) -> Page | None:
        """What the ledger holds now, checked against its head; None where nothing was ever written.

        Raises
        ------
        DamageError
            If it cannot be read, or is not what its head says.
        MemoryStateError
            If it was written by a newer release.
        """
        for pause in _PAUSES:
            with suppress(DamageError):
                return self._read()
            time.sleep(pause)
        return self._read()

    def append(self, rows: Sequence[LedgerRow], version: int) -> None:
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
            If the ledger has been rewritten since, or cannot be written.
        """
        with self._changing():
            if version == 0:
                self._create()
                version = 1
            try:
                self._commit(lance.LanceOperation.Append(self._fragments(rows)), version)
            except (OSError, ValueError) as error:
                if not _overtaken(error):
                    raise
                raise MemoryStateError(
                    f"This command stood still for so long that others changed the memory at '{self._place.path}' "
                    "without waiting for it; nothing of it was kept. Run it again."
                ) from error
        self.note()

    def fence(self) -> None:
        """Let nobody commit whose work began before now; the caller holds the memory alone."""
        while page := self.read():
            with suppress(_ConflictError):  # somebody did, just now: read what it was
                self.rewrite(page.rows, page.version)
                return

    def rewrite(self, rows: Sequence[LedgerRow], version: int) -> None:
        """Replace all rows and delete earlier versions; the caller holds the memory alone.

        Raises
        ------
        _ConflictError
            If somebody has committed since `version`.
        """
        with self._changing():
            operation = lance.LanceOperation.Overwrite(self.schema, self._fragments(rows))
            try:
                written = self._commit(operation, version, max_retries=0)
            except CommitConflictError as error:
                raise _ConflictError(f"Another command changes the memory at '{self._place.path}' too.") from error
            self._clean(written)
        self.note()

    def note(self) -> None:
        """Write the head anew, from what the table holds."""
        page = self._newest()
        if page is not None:
            head = {"version": page.version, "rows": len(page.rows), "digest": page.digest}
            self._place.write(self._head_name, sealed({**head, "summary": self._summary(page)}))

    def head(self) -> LedgerRow | None:
        """What the head says; None where there is none: nothing was written yet, or by an earlier release."""
        raw = self._place.read(self._head_name)
        if raw is None:
            return None
        head = unsealed(raw)
        if head is None:
            raise self._damaged("its head is not what was written")
        return head

    def rest(self) -> tuple[list[LedgerRow], int]:
        """Rows of a damaged table that Lance still reads, and how many there were by the head."""
        try:
            head = self.head()
        except DamageError:
            head = None
        try:
            page = self._newest()
        except DamageError:
            page = None
        return (page.rows if page else [], head["rows"] if head else 0)

    def restart(self, rows: Sequence[LedgerRow], aside: str) -> None:
        """Move a damaged table to `aside` and begin anew with some rows; the caller holds the memory alone.

        The head stays until the rows are there: whoever is killed before that can begin again with what it says.
        """
        self._place.move(self.name, aside)
        self._page = None
        with self._changing():
            self._create()
        self.rewrite(rows, 1)

    def _read(self) -> Page | None:
        head = self.head()  # before the table: a head is never ahead of a table that is read later
        page = self._newest()
        if head is None:
            return page
        if page is None:
            raise self._damaged(f"it is gone, and was at version {head['version']}")
        if page.version < head["version"]:
            raise self._damaged(f"it is at version {page.version}, and was at version {head['version']}")
        if page.version == head["version"] and page.digest != head["digest"]:
            raise self._damaged(f"version {page.version} is not what was written")
        return page

    def _newest(self) -> Page | None:
        """What Lance reads, unchecked."""
        with explained(f"{self.name} of the memory at '{self._place.path}'"):
            table = self._open()
            if table is None:
                return None
            self._refuse_newer(table)
            if self._page is None or self._page.version != table.version:
                self._page = Page(table.to_table().to_pylist(), table.version, len(table.get_fragments()))
            return self._page

    def _open(self) -> Any:
        try:
            return lance.dataset(self._uri, storage_options=self._place.storage)
        except ValueError as error:
            if "not found" in str(error).lower():
                return None
            raise

    def _refuse_newer(self, table: Any) -> None:
        written = int((table.schema.metadata or {}).get(b"inscl_format", b"0"))
        known = int((self.schema.metadata or {}).get(b"inscl_format", b"0"))
        if written > known:
            raise MemoryStateError(
                f"The memory was written by a newer inscl (format {written}; this release reads up to {known}). "
                "Upgrade with `pip install -U inscl`."
            )

    def _changing(self) -> Any:
        return explained(f"The memory at '{self._place.path}' cannot be changed")

    def _create(self) -> None:
        """Make an empty table, unless another writer is faster.

        `lance.write_dataset(mode="create")` will not do: of two that come at once, the later one overwrites the
        earlier one's rows. A commit that says that it has read version 0 fails instead.
        """
        try:
            self._commit(lance.LanceOperation.Overwrite(self.schema, []), 0, max_retries=0)
        except (OSError, ValueError):
            if self._open() is None:
                raise

    def _commit(self, operation: Any, version: int, **options: Any) -> Any:
        return lance.LanceDataset.commit(
            self._uri, operation, read_version=version, storage_options=self._place.storage, **options
        )

    def _clean(self, table: Any) -> None:
        """Delete all files but the newest version's. `cleanup_old_versions` would stop at the first damaged one."""
        kept = {f"data/{file.path}" for fragment in table.get_fragments() for file in fragment.data_files()}
        names = (f"{table.version}.manifest", f"{2**64 - 1 - table.version}.manifest", "latest_version_hint.json")
        kept |= {f"_versions/{name}" for name in names}
        for name in self._place.files(self.name):
            if name not in kept and not name.startswith(f"_transactions/{table.version - 1}-"):
                self._place.delete(f"{self.name}/{name}")

    def _fragments(self, rows: Sequence[LedgerRow]) -> Any:
        if not rows:
            return []
        table = pa.Table.from_pylist(list(rows), self.schema)
        return lance.fragment.write_fragments(table, self._uri, schema=self.schema, storage_options=self._place.storage)

    def _damaged(self, how: str) -> DamageError:
        return DamageError(f"{self.name} of the memory at '{self._place.path}' is damaged ({how}). {REPAIR}")


def digest_of(value: object) -> str:
    """Checksum of a value that JSON can hold."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def sealed(value: object) -> bytes:
    """A value as a line of JSON, and its checksum as another."""
    return f"{json.dumps(value, sort_keys=True)}\n{digest_of(value)}\n".encode()


def unsealed(raw: bytes) -> LedgerRow | None:
    """What `sealed` was given; None if a byte of it has changed."""
    try:
        value = json.loads(raw.partition(b"\n")[0])
    except ValueError:
        return None
    return cast(LedgerRow, value) if sealed(value) == raw else None


def _overtaken(error: Exception) -> bool:
    """Whether a commit failed since the table was rewritten after the version it was based on."""
    said = str(error)
    return "incompatible" in said.lower() or ("_versions/" in said and "not found" in said.lower())
