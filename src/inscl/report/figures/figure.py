"""A figure as a value, and what all kinds of figures share: scales and legends."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from inscl.report.figures.draw import SERIES, Drawing, fit, light_rules, ticks, width_of
from inscl.report.figures.table import Table
from inscl.report.words import minus

WIDTH = 760.0
LABEL_WIDTH = 150.0  # room for the names of tasks


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

    def file(self) -> str:
        """The SVG as a file of its own, in the light colours."""
        size = f'width="{self.width:g}" height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}"'
        style = f"<style>svg.fig text{{font-family:'DejaVu Sans',Arial,sans-serif}}{light_rules()}</style>"
        about = Markup("<desc>{}</desc>").format(self.finding)
        paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
        return f'<svg xmlns="http://www.w3.org/2000/svg" class="fig" {size}>{about}{style}{paper}{self.svg}</svg>\n'


def figure(
    drawn: Drawing, name: str, finding: str, size: tuple[float, float], numbers: Table, choice: str = ""
) -> Figure:
    """A figure from its drawing and its table."""
    return Figure(
        name=name,
        choice=choice,
        finding=finding,
        svg=Markup(drawn),  # every text in it was escaped when it was drawn
        width=size[0],
        height=size[1],
        head=tuple(numbers.head),
        rows=tuple(tuple(row) for row in numbers.rows),
    )


@dataclass(frozen=True)
class Scale:
    """From numbers to places in a drawing; what lies outside is drawn at the edge, unless the drawing is clipped.

    >>> across = Scale(0, 10, 100, 200)
    >>> across(5), across(99)
    (150.0, 200.0)
    """

    low: float
    high: float
    start: float
    end: float
    clipped: bool = False

    def __call__(self, value: float) -> float:
        inside = value if self.clipped else min(max(value, self.low), self.high)
        return self.start + (self.end - self.start) * (inside - self.low) / ((self.high - self.low) or 1.0)

    def ticks(self, most: int = 6) -> list[tuple[float, float]]:
        """Round numbers and their places."""
        return [(tick, self(tick)) for tick in ticks(self.low, self.high, most)]


def across(drawn: Drawing, scale: Scale, top: float, bottom: float, about: str, most: int = 8) -> None:
    """A grid over a scale that runs from left to right, with its numbers and its name below."""
    for tick, x in scale.ticks(most):
        drawn.line(x, top, x, bottom, "axis" if tick == 0 and scale.low < 0 else "grid")
        drawn.text(x, bottom + 16, minus(tick, 0) if scale.low < 0 else f"{tick:g}", "mid small faint")
    drawn.text((scale.start + scale.end) / 2, bottom + 34, about, "mid small faint")


def upwards(drawn: Drawing, scale: Scale, left: float, right: float, about: str, most: int = 6) -> None:
    """A grid over a scale that runs from the bottom to the top, with its numbers and its name to the left."""
    for tick, y in scale.ticks(most):
        drawn.line(left, y, right, y, "grid")
        drawn.text(left - 8, y + 4, f"{tick:g}", "end small faint")
    drawn.text(14, (scale.start + scale.end) / 2, about, "mid small faint", turn=-90)


def legend(drawn: Drawing, names: Sequence[str], y: float = 14) -> float:
    """Markers and names, as many to a row as fit; where it ends."""
    x = 12.0
    for k, name in enumerate(names):
        shown = fit(name, 320)
        if x + 26 + width_of(shown) > WIDTH and x > 12:
            x, y = 12.0, y + 20
        drawn.symbol(k, x + 4, y, style_of(k))
        drawn.text(x + 14, y + 4, shown)
        x += 36 + width_of(shown)
    return y + 12


def style_of(k: int) -> str:
    """Colour and dashes of the k-th line."""
    return f"s{k % SERIES}"
