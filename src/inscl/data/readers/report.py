"""What happened to the records that were read: how many were kept, and why the others were not."""

from dataclasses import dataclass, field

PLACES = 5  # places remembered per reason


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
        if place is not None and len(self.places) < PLACES:
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
    """

    rows: int = 0
    dropped: dict[str, Dropped] = field(default_factory=dict)
    form: str = ""
    skipped_files: Dropped = field(default_factory=Dropped)

    @property
    def kept(self) -> int:
        """Records that became examples and that nobody has dropped since."""
        return self.rows - sum(dropped.count for dropped in self.dropped.values())

    def drop(self, reason: str, place: str | None = None) -> None:
        """Count one of the `rows` as dropped; whoever removes rows later (duplicates, say) counts too."""
        self.dropped.setdefault(reason, Dropped()).add(place)


def describe_drops(report: ReadReport) -> str:
    """The report in one line.

    Examples
    --------
    >>> report = ReadReport(rows=1000)
    >>> for line in (3, 8):
    ...     report.drop("blank output", f"a.jsonl:{line}")
    >>> report.drop("duplicate")
    >>> describe_drops(report)
    'kept 997 of 1,000: 2 × blank output (a.jsonl:3, 8), 1 × duplicate'
    """
    line = f"kept {report.kept:,} of {report.rows:,}"
    if report.dropped:
        reasons = [f"{d.count:,} × {reason}{_list(d)}" for reason, d in report.dropped.items()]
        line += ": " + ", ".join(reasons)
    if skipped := report.skipped_files.count:
        line += f"; {skipped:,} × file of unknown type{_list(report.skipped_files)}"
    return line


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
