"""How commands print: results on standard output, remarks on standard error, strangers' text as text."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Column, Table

    from inscl.core.stats import Estimate

_PIPE_WIDTH = 400  # characters of a table's line where no terminal bounds it


def say(text: str) -> None:
    """A result on standard output; with `remark`, `print_json` and `print_table` the only way out of a command."""
    print(printable(text))


def remark(message: str) -> None:
    """A line on standard error."""
    print(printable(message), file=sys.stderr)


def print_json(value: object) -> None:
    """A value as JSON on standard output, in which characters that could steer a terminal are escaped."""
    lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
    print("\n".join(line if line.isprintable() else "".join(map(_escaped, line)) for line in lines))


def _escaped(sign: str) -> str:
    """A character of JSON, as an escape where it could steer a terminal."""
    if sign.isprintable():
        return sign
    return json.dumps(sign)[1:-1] if sign != "\x7f" else "\\u007f"


def print_table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table on standard output; where it is too wide, several under each other that begin with the same names.

    Nothing in a cell, which may be a stranger's text, is taken for markup or a terminal command. Lines are folded for a
    terminal only, so that a pipe can be searched. `NO_COLOR` takes bold headings away, too.

    Parameters
    ----------
    columns : sequence of (heading, "left" or "right")
    rows : iterable of sequences
    title : str, optional
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    terminal = False if os.environ.get("NO_COLOR") else None  # None: whatever standard output is
    console = Console(soft_wrap=False, width=width, force_terminal=terminal)
    for part in _parts(_table(columns, rows, title), console.width):
        console.print(part)


def score_cells(found: "Estimate") -> tuple[str, str]:
    """A score and its interval, in points.

    >>> from inscl.core.stats import Estimate
    >>> score_cells(Estimate(mean=0.5, low=0.25, high=0.75))
    ('50.0', '25.0 … 75.0')
    """
    ends = found.ends
    return f"{100 * found.mean:.1f}", f"{100 * ends[0]:.1f} … {100 * ends[1]:.1f}" if ends else ""


def _parts(table: "Table", width: int) -> list["Table"]:
    """The table, or tables of its first columns, which are names, beside as many others as fit each time."""
    widths = [_width(column) + 3 for column in table.columns]
    if sum(widths) < width:
        return [table]
    names = max(1, next((i for i, column in enumerate(table.columns) if column.justify == "right"), 1))
    most = max(12, width // (3 * names))
    room = width - sum(min(wide, most) for wide in widths[:names]) - 2
    widths = [wide if column.no_wrap else min(wide, most) for wide, column in zip(widths, table.columns, strict=True)]
    return [_columns(table, [*range(names), *group], names, most) for group in _groups(widths, names, room)]


def _groups(widths: Sequence[int], first: int, room: int) -> list[list[int]]:
    """The columns from `first` on, as many to a group as fit in the room, at least one."""
    groups: list[list[int]] = [[]]
    for i in range(first, len(widths)):
        if groups[-1] and sum(widths[j] for j in [*groups[-1], i]) > room:
            groups.append([])
        groups[-1].append(i)
    return groups


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


def _table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[object]], title: str | None) -> "Table":
    """A table of which every text is shown as it is."""
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
