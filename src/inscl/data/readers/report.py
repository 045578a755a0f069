"""What happened to the records that were read: how many were kept, and why the others were not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError

from inscl.errors import DataError

_MOST_NAMES = 12  # ignored columns that the one line names
_PLACES = 5  # places remembered per reason


@dataclass
class Dropped:
    """How many records fell to one reason, and where the first of them stand.

    Attributes
    ----------
    count : int
        Number of records.
    places : list of str
        The first few, as "file:line". In CSV the line is the row's first; in JSON documents, Parquet,
        datasets and Python lists the number counts records from 1.
    """

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str | None) -> None:
        self.count += 1
        if place is not None and len(self.places) < _PLACES:
            self.places.append(place)


@dataclass
class ReadReport:
    """The counts of one reading, filled while the stream of examples is consumed.

    Attributes
    ----------
    rows : int
        Records seen so far, unreadable ones that were skipped included.
    dropped : dict of str to Dropped
        Per reason, the records that were not kept.
    form : str
        Name of the detected (or given) format; several are joined by ", ".
    skipped_files : Dropped
        Files of a folder that were left alone because their ending is unknown.
    ignored : dict of str to int
        Columns (and parts of turns) that hold something and are not used, with the number of rows.
    """

    rows: int = 0
    dropped: dict[str, Dropped] = field(default_factory=dict)
    form: str = ""
    skipped_files: Dropped = field(default_factory=Dropped)
    ignored: dict[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Records that became examples and that nobody has dropped since."""
        return self.rows - sum(dropped.count for dropped in self.dropped.values())

    @property
    def drops(self) -> str:
        """How many records were kept and dropped, and why, in one line.

        Examples
        --------
        >>> report = ReadReport(rows=1000)
        >>> for line in (3, 8):
        ...     report.drop("blank output", f"a.jsonl:{line}")
        >>> report.drop("duplicate")
        >>> report.drops
        'kept 997 of 1,000: 2 × blank output (a.jsonl:3, 8), 1 × duplicate'
        """
        line = f"kept {self.kept:,} of {self.rows:,}"
        if self.dropped:
            reasons = [f"{d.count:,} × {reason}{_list(d)}" for reason, d in self.dropped.items()]
            line += ": " + ", ".join(reasons)
        if skipped := self.skipped_files.count:
            line += f"; {skipped:,} × file of unknown type{_list(self.skipped_files)}"
        return line

    @property
    def unused(self) -> str:
        """The columns that are not used in one line, those of all rows first; '' where there are none.

        >>> ReadReport(rows=3, ignored={"note": 1, "id": 3, "source": 3}).unused
        'ignored columns: id, source (all rows), note (1 row)'
        """
        return ignored_columns(self.ignored, self.kept)

    def drop(self, reason: str, place: str | None = None) -> None:
        """Count one of the `rows` as dropped; whoever removes rows later (duplicates, say) counts too."""
        self.dropped.setdefault(reason, Dropped()).add(place)

    def ignore(self, names: Iterable[str], rows: int = 1) -> None:
        """Count columns that are not used."""
        for name in names:
            self.ignored[name] = self.ignored.get(name, 0) + rows


@dataclass(frozen=True)
class PartReport:
    """What a reader of one file tells while it reads, and how large a record may be.

    Attributes
    ----------
    name : str
        Of the file.
    report : ReadReport
    skip_bad : bool
        Whether what does not parse is counted as dropped, and does not stop the reading.
    limit : int
        Most bytes of a record.
    blocks : bool
        Whether plain rows may come many at a time.
    unread : set of str
        Takes the columns of a table that are not even read.
    """

    name: str
    report: ReadReport
    skip_bad: bool
    limit: int
    blocks: bool = False
    unread: set[str] = field(default_factory=set)

    def bad(self, number: int, reason: str, cause: Exception | None = None) -> None:
        """Stop at a record that does not parse, or count it.

        Raises
        ------
        DataError
            Unless bad records are skipped.
        """
        if self.skip_bad:
            self.report.rows += 1
            self.report.drop(reason, f"{self.name}:{number}")
            return
        detail = f" ({cause.msg} at column {cause.colno})" if isinstance(cause, JSONDecodeError) else ""
        detail = f" ({cause})" if cause is not None and not detail else detail
        raise DataError(
            f"{self.name}:{number}: {reason}{detail}. Mend it, or skip what does not parse (--skip-bad)."
        ) from cause


def ignored_columns(ignored: Mapping[str, int], kept: int) -> str:
    """The columns that are not used in one line, from the rows in which each holds something, and all rows kept."""
    if not ignored:
        return ""
    everywhere = [name for name, rows in ignored.items() if rows >= kept]
    named = [", ".join(everywhere[:_MOST_NAMES]) + " (all rows)"] if everywhere else []
    others = [(name, rows) for name, rows in ignored.items() if rows < kept]
    named += [f"{name} ({rows:,} row{'s' if rows > 1 else ''})" for name, rows in others[:_MOST_NAMES]]
    more = max(0, len(everywhere) - _MOST_NAMES) + max(0, len(others) - _MOST_NAMES)
    return "ignored columns: " + ", ".join(named) + (f" and {more:,} more" if more else "")


def _list(dropped: Dropped) -> str:
    """The places in brackets; a file is named once for the lines that follow each other in it."""
    if not dropped.places:
        return ""
    shown, last = [], None
    for place in dropped.places:
        file, _, number = place.rpartition(":")
        shown.append(number if file and file == last else place)
        last = file
    more = ", …" if dropped.count > len(shown) else ""
    return f" ({', '.join(shown)}{more})"
