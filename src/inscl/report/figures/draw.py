"""A few lines of SVG: marks that say what they are, text that fits, scales, axes, and the colours of page and files.

Colours are classes. In the page they follow the reader's scheme; a file carries the light ones. The eight colours of
lines are Okabe and Ito's, darkened until each has a contrast of 3:1 against white; no line is told by its colour alone.
"""

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from markupsafe import escape

from inscl.report.words import minus

WIDTH = 760.0
LABEL_WIDTH = 150.0  # room for the names of tasks
_COLOURS = {  # name -> light, dark
    "paper": ("#ffffff", "#14181d"),
    "ink": ("#1c2530", "#e6eaee"),
    "faint": ("#566373", "#9fabb8"),
    "rule": ("#d5dbe1", "#343d47"),
    "s0": ("#0072b2", "#5db7ee"),
    "s1": ("#c75400", "#ff9b57"),
    "s2": ("#00805c", "#4fd0a5"),
    "s3": ("#a8497f", "#eb9cca"),
    "s4": ("#8a6d00", "#e8cc4f"),
    "s5": ("#5b4bb0", "#b3a6f5"),
    "s6": ("#59636e", "#c3ccd4"),
    "s7": ("#2585a8", "#8ed8f0"),
}
RAMP = (  # light, dark, and whether the text on it is turned over
    ("#f2f6fa", "#1b222a", False),
    ("#dfeaf4", "#1d2c3a", False),
    ("#c8dcee", "#1e374c", False),
    ("#abcbe6", "#1f435f", False),
    ("#87b5da", "#205173", False),
    ("#609cca", "#256188", False),
    ("#3273a8", "#4c8cbb", True),
    ("#22669c", "#5f9fcb", True),
    ("#114c7f", "#8dc0e3", True),
    ("#08335f", "#c2e0f5", True),
)
SERIES = 8
_DASHES = ("", "7 4", "2 4", "9 3 2 3", "12 4", "4 2", "1 3", "7 3 2 3 2 3")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'DejaVu Sans', Arial, sans-serif"


def rules(*, light: bool = False) -> str:
    """The style of all marks: in the reader's scheme, by the properties of `variables`, or in the light colours."""
    colour = "<{}>" if light else "var(--{})"
    ink, faint, rule, paper = (colour.format(name) for name in ("ink", "faint", "rule", "paper"))
    lines = [
        f"svg.fig text{{fill:{ink};font-size:12px}}",
        f"svg.fig .faint{{fill:{faint}}}svg.fig .small{{font-size:11px}}svg.fig .end{{text-anchor:end}}",
        "svg.fig .mid{text-anchor:middle}svg.fig .bold{font-weight:600}",
        f"svg.fig .grid{{stroke:{rule};stroke-width:1;fill:none}}",
        f"svg.fig .axis{{stroke:{faint};stroke-width:1;fill:none}}",
        f"svg.fig .bound{{stroke:{ink};stroke-width:1.2;stroke-dasharray:3 3;fill:none}}",
        f"svg.fig .own{{stroke:{ink};stroke-width:1.6}}",
        f"svg.fig .cut{{stroke:{paper};stroke-width:1}}",
        f"svg.fig .hollow{{fill:{paper};stroke:{faint};stroke-width:1.3}}",
        "svg.fig .line{fill:none;stroke-width:2.2;stroke-linejoin:round}svg.fig .band{opacity:.16;stroke:none}",
        "svg.fig .whisker{stroke-width:1.6;fill:none}",
        "svg.fig .under{opacity:0}svg.fig .moved{visibility:hidden;pointer-events:none;stroke-width:1.2;opacity:.7}",
        "svg.fig .moving:is(:hover,:has(.on)) .moved{visibility:visible}",
    ]
    for i in range(SERIES):
        c = colour.format(f"s{i}")
        dash = f"stroke-dasharray:{_DASHES[i].replace(' ', ',')}" if _DASHES[i] else ""
        lines.append(f"svg.fig .s{i}{{fill:{c};stroke:{c}}}svg.fig .line.s{i}{{fill:none;{dash}}}")
        lines.append(f"svg.fig .whisker.s{i}{{fill:none}}")
    for i in range(len(RAMP)):
        turned = f"svg.fig text.h{i}{{fill:{paper if RAMP[i][2] else ink}}}"
        lines.append(f"svg.fig .h{i}{{fill:{colour.format(f'h{i}')}}}{turned}")
    lines.append("svg.fig .line.thin{stroke-width:1.1;stroke-dasharray:none;pointer-events:all}")
    return _lit("".join(lines)) if light else "".join(lines)


def _lit(style: str) -> str:
    """A style with the light colours in the place of their names."""
    for name, (light, _) in _COLOURS.items():
        style = style.replace(f"<{name}>", light)
    for i, (light, _, _) in enumerate(RAMP):
        style = style.replace(f"<h{i}>", light)
    return style


def variables() -> str:
    """The colours as custom properties, light and dark."""
    pairs = {**_COLOURS, **{f"h{i}": (light, dark) for i, (light, dark, _) in enumerate(RAMP)}}
    return "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in pairs.items())


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
        return [(tick, self(tick)) for tick in _ticks(self.low, self.high, most)]


def style_of(k: int) -> str:
    """Colour and dashes of the k-th line."""
    return f"s{k % SERIES}"


@dataclass
class Drawing:
    """SVG elements in the order they are painted."""

    parts: list[str] = field(default_factory=list)

    def rect(self, x: float, y: float, width: float, height: float, style: str, radius: float = 0) -> None:
        round_ = f' rx="{radius:g}"' if radius else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{round_} class="{style}"/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>')

    def path(self, points: Iterable[tuple[float, float]], style: str, *, closed: bool = False) -> None:
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("Z" if closed else "")
        self.parts.append(f'<path d="{d}" class="{style}"/>')

    def text(self, x: float, y: float, text: str, style: str = "", turn: float = 0) -> None:
        turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
        named = f' class="{style}"' if style else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}"{named}{turned}>{escape(text)}</text>')

    def circle(self, x: float, y: float, radius: float, style: str) -> None:
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{style}"/>')

    def symbol(self, k: int, x: float, y: float, style: str, r: float = 4.2) -> None:
        """The marker of the k-th line: a shape of its own."""
        corners = (0, 4, 3, 4, 3, 5, 6, 5)[k % SERIES]
        if not corners:
            self.circle(x, y, r, style)
            return
        start = (0, math.pi / 4, -math.pi / 2, 0, math.pi / 2, -math.pi / 2, 0, math.pi / 2)[k % SERIES]
        angles = [start + 2 * math.pi * i / corners for i in range(corners)]
        self.path([(x + 1.25 * r * math.cos(a), y + 1.25 * r * math.sin(a)) for a in angles], style, closed=True)

    def cross(self, x: float, y: float, style: str, r: float = 4.2) -> None:
        """A marker that is told from all symbols."""
        self.line(x - r, y - r, x + r, y + r, style)
        self.line(x - r, y + r, x + r, y - r, style)

    def mark(self, about: str, drawn: "Drawing") -> None:
        """Elements that belong together, and what they say."""
        self.parts.append(f'<g class="m"><title>{escape(about)}</title>{"".join(drawn.parts)}</g>')

    def group(self, style: str, drawn: "Drawing") -> None:
        """Elements that a style speaks of together."""
        self.parts.append(f'<g class="{style}">{"".join(drawn.parts)}</g>')

    def clipped(self, name: str, x: float, y: float, width: float, height: float, drawn: "Drawing") -> None:
        """Elements of which only what lies in a box is seen; `name` is unique in the page."""
        box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        clip = f'<clipPath id="{name}">{box}</clipPath>'
        self.parts.append(f'{clip}<g clip-path="url(#{name})">{"".join(drawn.parts)}</g>')

    def across(self, scale: Scale, top: float, bottom: float, about: str, most: int = 8) -> None:
        """A grid over a scale that runs from left to right, with its numbers and its name below."""
        for tick, x in scale.ticks(most):
            self.line(x, top, x, bottom, "axis" if tick == 0 and scale.low < 0 else "grid")
            self.text(x, bottom + 16, minus(tick, 0) if scale.low < 0 else f"{tick:g}", "mid small faint")
        self.text((scale.start + scale.end) / 2, bottom + 34, about, "mid small faint")

    def upwards(self, scale: Scale, left: float, right: float, about: str, most: int = 6) -> None:
        """A grid over a scale that runs from the bottom to the top, with its numbers and its name to the left."""
        for tick, y in scale.ticks(most):
            self.line(left, y, right, y, "grid")
            self.text(left - 8, y + 4, f"{tick:g}", "end small faint")
        self.text(14, (scale.start + scale.end) / 2, about, "mid small faint", turn=-90)

    def legend(self, names: Sequence[str], y: float = 14) -> float:
        """Markers and names, as many to a row as fit; where it ends."""
        x = 12.0
        for k, name in enumerate(names):
            shown = fit(name, 320)
            if x + 26 + width_of(shown) > WIDTH and x > 12:
                x, y = 12.0, y + 20
            self.symbol(k, x + 4, y, style_of(k))
            self.text(x + 14, y + 4, shown)
            x += 36 + width_of(shown)
        return y + 12

    def __str__(self) -> str:
        return "".join(self.parts)


def width_of(text: str, size: float = 12) -> float:
    """About how wide a text is drawn."""
    return sum(map(_width_of_one, text)) * size


def _width_of_one(character: str) -> float:
    return 1.0 if unicodedata.east_asian_width(character) in "WF" else 0.6


def fit(text: str, width: float, size: float = 12) -> str:
    """A text cut to a width, in one line.

    >>> fit("a rather long name", 70)
    'a rather…'
    """
    text = " ".join(text.split())
    ends = [size * end for end in accumulate(map(_width_of_one, text))]
    if not ends or ends[-1] <= width:
        return text
    return text[: bisect_right(ends, width - width_of("…", size))].rstrip() + "…"


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved as little as needed so that neighbours are `gap` apart, within bounds where they fit.

    >>> apart([10, 12, 40], gap=8, low=0, high=50)
    [10, 18, 40]
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [0.0] * len(places)
    at = -math.inf
    for i in order:
        at = moved[i] = max(places[i], at + gap, low)
    at = math.inf
    for i in reversed(order):
        at = moved[i] = min(moved[i], at - gap, high)
    return moved


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two values.

    >>> _ticks(0, 37), _ticks(-12, 104)
    ([0.0, 10.0, 20.0, 30.0], [0.0, 20.0, 40.0, 60.0, 80.0, 100.0])
    """
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / most))
    step *= next(k for k in (1, 2, 5, 10) if span / (step * k) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]
