"""A figure as a value, with the table of its numbers, and estimates as the table's cells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from markupsafe import Markup

from inscl.core.stats import Estimate
from inscl.report.figures.draw import Drawing, rules
from inscl.report.words import minus, spread


@dataclass(frozen=True, kw_only=True)
class Table:
    """The numbers of a figure."""

    head: Sequence[str]
    rows: Iterable[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing, what it shows in words, and its numbers.

    Attributes
    ----------
    name : str
        Of its file.
    choice : str
        What it is called beside other figures of the same kind.
    finding : str
        What a reader should see in it.
    svg : Markup
        The elements inside the ``svg`` element.
    width, height : float
    head, rows
        The table of its numbers.
    filed : bool
        Whether it is also written as a file; a stream that has others beside it is in the page alone.
    """

    name: str
    choice: str
    finding: str
    svg: Markup
    width: float
    height: float
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    filed: bool = True

    @classmethod
    def of(
        cls, drawn: Drawing, name: str, finding: str, size: tuple[float, float], numbers: Table, choice: str = ""
    ) -> Self:
        """A figure from its drawing and its table."""
        return cls(
            name=name,
            choice=choice,
            finding=finding,
            svg=Markup(drawn),  # every text in it was escaped when it was drawn
            width=size[0],
            height=size[1],
            head=tuple(numbers.head),
            rows=tuple(tuple(row) for row in numbers.rows),
        )

    def file(self) -> str:
        """The SVG as a file of its own, in the light colours."""
        size = f'width="{self.width:g}" height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}"'
        style = f"<style>svg.fig text{{font-family:'DejaVu Sans',Arial,sans-serif}}{rules(light=True)}</style>"
        about = Markup("<desc>{}</desc>").format(self.finding)
        paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
        return f'<svg xmlns="http://www.w3.org/2000/svg" class="fig" {size}>{about}{style}{paper}{self.svg}</svg>\n'


def estimate_text(found: Estimate) -> str:
    """A mean, with its interval where there is enough for one."""
    ends = found.shown
    return minus(found.mean) + (f" ({minus(ends[0])} to {minus(ends[1])})" if ends else "")


def estimate_cells(found: Estimate, *, sign: bool = False) -> tuple[str, str, str]:
    """Mean, interval and streams, as cells of a table."""
    return minus(found.mean, sign=sign), spread(found), str(found.n if found.over == "streams" else 1)
