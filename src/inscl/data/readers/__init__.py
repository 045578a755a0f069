"""Read instruction data of any common form as a stream of `Example`.

`report` counts what was kept and dropped, `forms` knows the forms of a record, `files` the kinds of files and
`sources` what else can hold data. Formats are described in docs/formats.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from json import JSONDecodeError
from typing import Any

from inscl.data.example import SPLITS, Example, Split
from inscl.data.readers.files import CONTAINERS, LINE_LIMIT, Bad
from inscl.data.readers.forms import (
    CHAT_FORMS,
    COLUMNS,
    FIELDS,
    FORMS,
    Numbered,
    Reading,
    UnusableError,
    convert,
    detect_form,
    expand_tasks,
    is_chat,
    system_message,
)
from inscl.data.readers.report import Dropped, ReadReport, describe_drops
from inscl.data.readers.sources import HEAD, Part, find_parts, task_files
from inscl.errors import DataError

__all__ = ["FORMATS", "LINE_LIMIT", "Dropped", "ReadReport", "describe_drops", "read_examples", "task_files"]

FORMATS = (*dict.fromkeys(CONTAINERS.values()), *FORMS, "datasets")


def read_examples(
    data: Any,
    *,
    format: str | None = None,
    instruction_field: str | None = None,
    skip_bad: bool = False,
    report: ReadReport | None = None,
    split: Split | None = None,
) -> Iterator[Example]:
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
    report : ReadReport, optional
        Filled while the stream is consumed.
    split : "train", "dev" or "test", optional
        The side of every example, over what records and datasets say.

    Returns
    -------
    iterator of Example

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
    >>> describe_drops(report)
    'kept 1 of 2: 1 × no output (records:2)'
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"Unknown format '{format}'. Known: {', '.join(FORMATS)}.")
    if split is not None and split not in SPLITS:
        raise DataError(f"Unknown split '{split}'. Known: {', '.join(SPLITS)}.")
    report = ReadReport() if report is None else report
    wanted = COLUMNS if instruction_field is None else COLUMNS | {instruction_field}
    parts = find_parts(data, format, wanted, report.skipped_files)
    reading = Reading(instruction_field=instruction_field, split=split)
    return _stream(parts, format if format in FORMS else None, reading, skip_bad, report)


def _stream(
    parts: list[Part], form: str | None, reading: Reading, skip_bad: bool, report: ReadReport
) -> Iterator[Example]:
    names: dict[str, None] = {}
    settled = False  # whether we know if there are several system messages
    kept = False
    for part in parts:
        part_form, records = _open(part, form, reading, _bad_records(part, report, skip_bad))
        names[part.container if part_form == FIELDS else part_form] = None
        report.form = ", ".join(names)
        part_reading = replace(reading, split=reading.split or part.split)
        for number, record in records:
            report.rows += 1
            if not settled and part_form in CHAT_FORMS and is_chat(record):
                settled = True
                reading = replace(reading, several_systems=_several_systems(parts, form, reading, skip_bad))
                part_reading = replace(part_reading, several_systems=reading.several_systems)
            try:
                example = convert(record, part_form, part_reading)
            except UnusableError as reason:
                report.drop(str(reason), f"{part.name}:{number}")
                continue
            kept = True
            yield example
    if not kept:
        raise _nothing(parts, report)


def _open(part: Part, form: str | None, reading: Reading, bad: Bad) -> tuple[str, Iterable[Numbered]]:
    """The form of a part, told by its first records where it is not given, and all its records."""
    records = part.records(bad)
    if form is None:
        head = list(islice(records, HEAD))
        form = _form_of(part, head, reading.instruction_field)
        records = chain(head, records)
    return form, expand_tasks(records) if form == "superni" else records


def _form_of(part: Part, head: list[Numbered], instruction_field: str | None) -> str:
    forms = (detect_form(record, instruction_field) for _, record in head)
    form = next((form for form in forms if form is not None), None)
    if form is not None or not head:
        return form or FIELDS
    fields: dict[Any, None] = {}
    for _, record in head:
        fields.update(dict.fromkeys(record if isinstance(record, dict) else [f"({type(record).__name__})"]))
    raise DataError(
        f"Cannot tell the format of {part.name}: its records have {', '.join(map(repr, list(fields)[:10]))}. "
        "Wanted: instruction and output; prompt and completion; messages; conversations; or Definition and "
        "Instances. Rename the fields, or name the one that holds the instruction (--instruction-field)."
    )


def _several_systems(parts: list[Part], form: str | None, reading: Reading, skip_bad: bool) -> bool:
    """Whether the chat data hold two distinct system messages; reads no further than the second."""
    seen = set()
    for part in parts:
        part_form, records = _open(part, form, reading, _bad_records(part, ReadReport(), skip_bad))
        for _, record in records if part_form in CHAT_FORMS else ():
            system = system_message(record)
            if system is not None:
                seen.add(system)
                if len(seen) > 1:
                    return True
    return False


def _bad_records(part: Part, report: ReadReport, skip_bad: bool) -> Bad:
    """What to do with a record that does not parse: stop, or count it."""

    def bad(number: int, reason: str, cause: Exception | None) -> None:
        if skip_bad:
            report.rows += 1
            report.drop(reason, f"{part.name}:{number}")
            return
        detail = f" ({cause.msg} at column {cause.colno})" if isinstance(cause, JSONDecodeError) else ""
        detail = f" ({cause})" if cause is not None and not detail else detail
        raise DataError(
            f"{part.name}:{number}: {reason}{detail}. Mend it, or skip what does not parse (--skip-bad)."
        ) from cause

    return bad


def _nothing(parts: list[Part], report: ReadReport) -> DataError:
    names = ", ".join(part.name for part in parts[:3]) + (", …" if len(parts) > 3 else "")
    if not report.rows:
        return DataError(f"{names or 'The data'}: no records. Check that this is the right file.")
    return DataError(f"{names}: nothing to keep ({describe_drops(report)}).")
