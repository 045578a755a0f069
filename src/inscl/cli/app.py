"""What all commands share: the application, options, and how things are printed."""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.table import Column, Table

    from inscl.data.readers import ReadReport
    from inscl.memory.memory import Memory

# The order of `inscl --help`; a test finds a command that stands in no section.
SECTIONS = {
    "Try it": ("demo",),
    "The memory": ("add", "tag", "tags", "tasks", "show", "remove", "verify"),
    "One stage": ("plan", "mix", "learn", "evaluate", "check"),
    "Experiments": ("run", "watch", "forgetting", "report"),
    "Trouble": ("doctor",),
}
PIPE_WIDTH = 400  # characters of a table's line where no terminal bounds it


class Sections(TyperGroup):
    """The commands in the order in which they are used, under headings."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for names in SECTIONS.values() for name in names if name in self.commands]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        width = max(len(name) for name in names)
        for heading, part in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(n.ljust(width), _first_sentence(self.commands[n].help or "")) for n in part if n in names]
                )


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


app = typer.Typer(
    name="inscl",
    cls=Sections,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Keep fine-tuning one language model on new instruction data without losing what it already does.\n\n"
    "Example: inscl add support tickets.jsonl",
)


def complete_task(ctx: typer.Context, incomplete: str) -> list[str]:
    """Remembered tasks that begin so, for a shell's completion.

    A shell puts what it is given on the command line as it stands. Names are strangers' text, so those with a
    character that a shell could act on (a space, a quote, `$`) are left out.
    """
    try:
        names = [info.name for info in open_memory(ctx.params.get("memory") or "memory", quiet=True).tasks()]
    except Exception:  # a shell that completes has no place for a message
        return []
    return [name for name in names if name.startswith(incomplete) and re.fullmatch(r"\w[\w./@+,-]*", name)]


def _complete_format(incomplete: str) -> list[str]:
    from inscl.data.readers import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


def _known_format(name: str | None) -> str | None:
    from inscl.errors import DataError
    from inscl.suggest import suggest

    if name is not None:
        from inscl.data.readers import FORMATS

        if name not in FORMATS:
            raise DataError(
                f"There is no format '{name}' to read; wanted one of {', '.join(FORMATS)}.{suggest(name, FORMATS)}"
            )
    return name


MemoryOption = Annotated[
    str, typer.Option("--memory", envvar="INSCL_MEMORY", help="Folder or object-store URI of the memory.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.")]
EncoderOption = Annotated[
    str | None, typer.Option("--encoder", envvar="INSCL_ENCODER", help="Sentence encoder: Hub id or folder.")
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Format of DATA (jsonl, alpaca, messages, sharegpt, superni, …); else detected.",
        callback=_known_format,
        autocompletion=_complete_format,
    ),
]
FieldOption = Annotated[
    str | None, typer.Option("--instruction-field", help="Field (in chats: system or user) that is the instruction.")
]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Skip and count lines that do not parse.")]
PreferredOption = Annotated[
    bool, typer.Option("--preferred", help="Take the preferred answers of preference data, which is refused otherwise.")
]
MaxMibOption = Annotated[
    int | None,
    typer.Option("--max-mib", min=1, help="Most MiB of one record, and what a file may expand to. [default: 64]"),
]
TagsOption = Annotated[str | None, typer.Option("--tags", help="File with your own tags: instruction → tags.")]
DevOption = Annotated[str | None, typer.Option("--dev", help="File of rows to choose by, instead of a hashed share.")]
TestOption = Annotated[str | None, typer.Option("--test", help="File of rows to report on, instead of a hashed share.")]
SplitOption = Annotated[str, typer.Option("--split", help="Shares train/dev/test of the hashed split, in percent.")]

CategoriesOption = Annotated[
    str | None,
    typer.Option("--categories", help="Category map of a Super-NaturalInstructions checkout; NAME is a category."),
]


def _version(asked: bool) -> None:
    if asked:
        from inscl import __version__

        say(f"inscl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""


def open_memory(path: str, encoder: str | None = None, quiet: bool = False) -> "Memory":
    """The memory at `path`, with progress and notices on standard error."""
    from inscl.memory.encoder import SentenceEncoder
    from inscl.memory.memory import Memory

    def track(steps: Sequence[int]) -> Iterable[int]:
        if quiet or len(steps) < 2 or not sys.stderr.isatty():
            return steps
        from rich.console import Console
        from rich.progress import track as bar

        return bar(steps, description="encoding", console=Console(stderr=True), transient=True)

    return Memory(
        path,
        encoder=SentenceEncoder(encoder) if encoder else None,
        notice=(lambda message: None) if quiet else remark,
        track=track,
    )


def say(text: str) -> None:
    """A result on standard output; with `remark`, `print_json` and `print_table` the only way out of a command."""
    print(printable(text))


def remark(message: str) -> None:
    """A line on standard error."""
    print(printable(message), file=sys.stderr)


def tell_read(report: "ReadReport") -> None:
    """What was kept of some data and what was not, on standard error."""
    from inscl.data.readers import describe_drops, describe_ignored

    remark(describe_drops(report))
    if ignored := describe_ignored(report):
        remark(ignored)


def print_json(value: Any) -> None:
    """A value as JSON on standard output, in which characters that could steer a terminal are escaped."""
    lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
    print("\n".join(line if line.isprintable() else "".join(map(_escaped, line)) for line in lines))


def _escaped(sign: str) -> str:
    """A character of JSON, as an escape where it could steer a terminal."""
    if sign.isprintable():
        return sign
    return json.dumps(sign)[1:-1] if sign != "\x7f" else "\\u007f"


def print_table(table: "Table") -> None:
    """A Rich table on standard output; where it is too wide, several under each other that begin with the same names.

    Lines are folded for a terminal only, so that a pipe can be searched. `NO_COLOR` takes bold headings away, too.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    terminal = False if os.environ.get("NO_COLOR") else None  # None: whatever standard output is
    console = Console(soft_wrap=False, width=width, force_terminal=terminal)
    for part in _parts(table, console.width):
        console.print(part)


def _parts(table: "Table", width: int) -> list["Table"]:
    """The table, or tables of its first columns, which are names, beside as many others as fit each time."""
    widths = [_width(column) + 3 for column in table.columns]
    if sum(widths) < width:
        return [table]
    names = max(1, next((i for i, column in enumerate(table.columns) if column.justify == "right"), 1))
    most = max(12, width // (3 * names))
    room = width - sum(min(wide, most) for wide in widths[:names]) - 2
    widths = [wide if column.no_wrap else min(wide, most) for wide, column in zip(widths, table.columns, strict=True)]
    groups: list[list[int]] = [[]]
    for i in range(names, len(widths)):
        if groups[-1] and sum(widths[j] for j in [*groups[-1], i]) > room:
            groups.append([])
        groups[-1].append(i)
    return [_columns(table, [*range(names), *group], names, most) for group in groups]


def _width(column: "Column") -> int:
    from rich.cells import cell_len

    return max(cell_len(str(text)) for text in [column.header, *column.cells])


def _columns(table: "Table", chosen: Sequence[int], names: int, most: int) -> "Table":
    """Some columns of a table; `names` of them keep their room, as far as it is at most `most`."""
    from rich.table import Table

    part = Table(box=table.box, title=table.title, title_justify="left")
    for i in chosen:
        column = table.columns[i]
        kept = min(most - 3, _width(column)) if i < names else column.min_width
        part.add_column(column.header, justify=column.justify, overflow="fold", no_wrap=column.no_wrap, min_width=kept)
    for row in zip(*(list(table.columns[i].cells) for i in chosen), strict=True):
        part.add_row(*row)
    return part


def table_of(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]], title: str | None = None) -> "Table":
    """A table of strangers' text: nothing in a cell is taken for markup or a terminal command.

    Parameters
    ----------
    columns : sequence of (heading, "left" or "right")
    rows : iterable of sequences
    title : str, optional
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=None if title is None else Text(printable(title)), title_justify="left")
    for heading, justify in columns:
        number = justify == "right"
        table.add_column(
            heading, justify="right" if number else "left", overflow="fold", no_wrap=number, min_width=len(heading)
        )
    for row in rows:
        table.add_row(*[Text(printable(str(cell))) for cell in row])
    return table


def printable(text: str) -> str:
    """Text without characters that could steer a terminal.

    >>> printable("a\\x1b[31mb")
    'a\\ufffd[31mb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def shorten(text: str, width: int) -> str:
    """One line of at most `width` characters.

    >>> shorten("a long  sentence", 8)
    'a long …'
    """
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def as_source(data: list[str]) -> str | list[str]:
    """One path or Hub id, or several paths."""
    return data[0] if len(data) == 1 else data


def category_files(data: list[str], categories: str, name: str) -> list[str]:
    """The files of one category of a Super-NaturalInstructions checkout."""
    from inscl.data.superni import superni_files
    from inscl.errors import DataError
    from inscl.suggest import suggest

    found = superni_files(data[0], categories)
    if name not in found:
        hint = suggest(name, found) or f" It has {', '.join(found)}."
        raise DataError(f"The category map '{categories}' has no category '{name}'.{hint}")
    return [str(file) for file in found[name]]
