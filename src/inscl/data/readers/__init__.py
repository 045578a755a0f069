"""Read instruction data of any common form as a stream of `Example`.

`report` counts what was kept, dropped and ignored; `forms` knows the forms of a record, with `turns` for conversations
and `preference` for data of another kind; `files` the kinds of files and `sources` what else can hold data. Formats
are described in docs/formats.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

from inscl.data.example import SPLITS, Example, Split
from inscl.data.readers import files
from inscl.data.readers.blocks import Block
from inscl.data.readers.bounds import MOST_MIB
from inscl.data.readers.fields import UnusableError
from inscl.data.readers.files import CONTAINERS, LINE_LIMIT
from inscl.data.readers.forms import (
    COLUMNS,
    FIELDS,
    FORMS,
    Numbered,
    Reading,
    convert,
    detect_form,
    expand_tasks,
    form_of,
    is_conversation,
    reads_bare,
    system_message,
)
from inscl.data.readers.report import Dropped, PartReport, ReadReport, ignored_columns
from inscl.data.readers.sources import HEAD, Source, find_sources, task_files
from inscl.errors import DataError

__all__ = [
    "FORMATS",
    "LINE_LIMIT",
    "Block",
    "Dropped",
    "Examples",
    "ReadReport",
    "ignored_columns",
    "read_examples",
    "task_files",
]

FORMATS = (*dict.fromkeys(CONTAINERS.values()), *FORMS, "datasets")


class Examples(Iterator[Example]):
    """A stream of examples, of which many plain ones may be taken at once."""

    def __init__(self, stream: Iterator[Example | Block]) -> None:
        self._stream = stream
        self._singly = chain.from_iterable(row.examples() if isinstance(row, Block) else (row,) for row in stream)

    def __iter__(self) -> Iterator[Example]:
        return self._singly

    def __next__(self) -> Example:
        return next(self._singly)

    def in_blocks(self) -> Iterator[Example | Block]:
        """What is left of the stream, plain rows as columns wherever the data come so."""
        return self._stream


def read_examples(
    data: object,
    *,
    format: str | None = None,
    instruction_field: str | None = None,
    skip_bad: bool = False,
    preferred: bool = False,
    max_mib: int | None = None,
    report: ReadReport | None = None,
    split: Split | None = None,
) -> Examples:
    """Read instruction data as a stream of examples, in bounded memory.

    Records that parse but cannot be used are dropped and counted in `report` with their reason and place.

    Parameters
    ----------
    data : path, list of paths, dataset, iterable of records, or str
        A file or folder (or several); a `datasets.Dataset` or `DatasetDict`; dictionaries or examples; or the
        id of a dataset on the Hub, where no such path exists.
    format : str, optional
        One of `FORMATS`. "jsonl", "json", "parquet", "csv" and "datasets" say what the file is, the others
        what its records are; the half that is not said is detected.
    instruction_field : str, optional
        The field that holds the instruction. In chat data "system" and "user" mean the turn of that role,
        any other name a field beside the conversation.
    skip_bad : bool
        Count a line that does not parse as dropped, instead of stopping.
    preferred : bool
        Take the preferred answers of preference data (chosen and rejected, or labelled), which are refused otherwise.
    max_mib : int, optional
        Most MiB of one record, 64 by default. A compressed file may hold 100 times its size, and four times this.
    report : ReadReport, optional
        Filled while the stream is consumed.
    split : "train", "dev" or "test", optional
        The side of every example, over what records and datasets say.

    Returns
    -------
    Examples
        An iterator of `Example`.

    Raises
    ------
    DataError
        At once: an unknown format, no such file, a folder without data. From the stream: a form that cannot
        be told, a line that does not parse, a damaged file, and at the end nothing to keep.

    Examples
    --------
    >>> records = [{"instruction": "Add.", "input": "2 + 2", "output": "4"}, {"instruction": "Add."}]
    >>> report = ReadReport()
    >>> [(e.instruction, e.input, e.outputs) for e in read_examples(records, report=report)]
    [('Add.', '2 + 2', ('4',))]
    >>> report.drops
    'kept 1 of 2: 1 × no output (records:2)'
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"Unknown format '{format}'. Known: {', '.join(FORMATS)}.")
    if split is not None and split not in SPLITS:
        raise DataError(f"Unknown split '{split}'. Known: {', '.join(SPLITS)}.")
    report = ReadReport() if report is None else report
    wanted = COLUMNS if instruction_field is None else COLUMNS | {instruction_field}
    parts = find_sources(data, format, wanted, report.skipped_files)
    if max_mib is not None and not 1 <= max_mib <= MOST_MIB:
        raise DataError(
            f"The most MiB of a record is {max_mib}; wanted a whole number of at least 1, at most {MOST_MIB}."
        )
    limit = files.LINE_LIMIT if max_mib is None else max_mib * 2**20
    reading = Reading(instruction_field=instruction_field, split=split, preferred=preferred)
    form = format if format in FORMS else None
    return Examples(_stream(parts, form, reading, PartReport("", report, skip_bad, limit)))


def _stream(parts: list[Source], form: str | None, reading: Reading, said: PartReport) -> Iterator[Example | Block]:
    names: dict[str, None] = {}
    settled = False  # whether we know if there are several system messages
    kept, report = 0, said.report
    for part in parts:
        told, before = replace(said, name=part.name, unread=set()), kept
        ignored: set[str] = set()
        part_form, records = _open(part, form, reading, told)
        part_reading = replace(reading, split=reading.split or part.split)
        for number, record in records:
            if isinstance(record, Block):
                report.rows += len(record)
                for name, rows in record.ignored.items():
                    report.ignore([name], rows)
                kept += len(record)
                yield replace(record, split=part_reading.split)
                continue
            report.rows += 1
            if not settled and is_conversation(record):
                settled = True
                reading = replace(reading, several_systems=_several_systems(parts, form, reading, said))
                part_reading = replace(part_reading, several_systems=reading.several_systems)
            own = part_form if form is not None else form_of(record, part_form, reading.instruction_field)
            if own not in names:
                names[part.container if own == FIELDS else own] = None
                report.form = ", ".join(names)
            try:
                example = convert(record, own, part_reading, ignored)
            except UnusableError as reason:
                ignored.clear()
                report.drop(str(reason), f"{part.name}:{number}")
                continue
            if ignored:
                report.ignore(sorted(ignored))
                ignored.clear()
            kept += 1
            yield example
        report.ignore(sorted(told.unread), kept - before)
    if not kept:
        raise _nothing(parts, report)


def _open(part: Source, form: str | None, reading: Reading, told: PartReport) -> tuple[str, Iterable[Numbered]]:
    """The form of a part, told by its first records where it is not given, and all its records."""
    records = part.records(replace(told, blocks=reads_bare(form, reading)))
    if form is None:
        head = list(islice(records, HEAD))
        form = _form_of(part, head, reading.instruction_field)
        records = chain(head, records)
    return form, expand_tasks(records, told.unread) if form == "superni" else records


def _form_of(part: Source, head: list[Numbered], instruction_field: str | None) -> str:
    forms = (detect_form(record, instruction_field) for _, record in head)
    form = next((form for form in forms if form is not None), None)
    if form is not None or not head:
        return form or FIELDS
    fields: dict[object, None] = {}
    for _, record in head:
        fields.update(dict.fromkeys(record if isinstance(record, dict) else [f"({type(record).__name__})"]))
    raise DataError(
        f"Cannot tell the format of {part.name}: its records have {', '.join(map(repr, list(fields)[:10]))}. "
        "Wanted: instruction and output; prompt and completion; messages; conversations; or Definition and "
        "Instances. Rename the fields, or name the one that holds the instruction (--instruction-field)."
    )


def _several_systems(parts: list[Source], form: str | None, reading: Reading, said: PartReport) -> bool:
    """Whether the chat data hold two distinct system messages; reads no further than the second."""
    seen = set()
    for part in parts:
        _, records = _open(part, form, reading, replace(said, name=part.name, report=ReadReport(), unread=set()))
        for _, record in records:
            system = system_message(record)
            if system is not None:
                seen.add(system)
                if len(seen) > 1:
                    return True
    return False


def _nothing(parts: list[Source], report: ReadReport) -> DataError:
    names = ", ".join(part.name for part in parts[:3]) + (", …" if len(parts) > 3 else "")
    if not report.rows:
        return DataError(f"{names or 'The data'}: no records. Check that this is the right file.")
    return DataError(f"{names}: nothing to keep ({report.drops}).")
