"""A few lines of SVG: marks that say what they are, text that fits, axes, and the colours of page and files.

Colours are classes. In the page they follow the reader's scheme; a file carries the light ones. The eight colours of
lines are Okabe and Ito's, darkened until each has a contrast of 3:1 against white; no line is told by its colour alone.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import escape

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


def rules(colour: str) -> str:
    """The style of all marks; `colour` is a template such as ``var(--{})``."""
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
    ]
    for i in range(SERIES):
        c = colour.format(f"s{i}")
        dash = f"stroke-dasharray:{_DASHES[i].replace(' ', ',')}" if _DASHES[i] else ""
        lines.append(f"svg.fig .s{i}{{fill:{c};stroke:{c}}}svg.fig .line.s{i}{{fill:none;{dash}}}")
        lines.append(f"svg.fig .whisker.s{i}{{fill:none}}")
    for i in range(len(RAMP)):
        turned = f"svg.fig text.h{i}{{fill:{paper if RAMP[i][2] else ink}}}"
        lines.append(f"svg.fig .h{i}{{fill:{colour.format(f'h{i}')}}}{turned}")
    return "".join(lines)


def variables() -> str:
    """The colours as custom properties, light and dark."""
    pairs = {**_COLOURS, **{f"h{i}": (light, dark) for i, (light, dark, _) in enumerate(RAMP)}}
    return "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in pairs.items())


def light_rules() -> str:
    """The style of a file that stands alone."""
    found = rules("<{}>")
    for name, (light, _) in _COLOURS.items():
        found = found.replace(f"<{name}>", light)
    for i, (light, _, _) in enumerate(RAMP):
        found = found.replace(f"<h{i}>", light)
    return found


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

    def mark(self, about: str, drawn: "Drawing") -> None:
        """Elements that belong together, and what they say."""
        self.parts.append(f'<g class="m"><title>{escape(about)}</title>{"".join(drawn.parts)}</g>')

    def clipped(self, name: str, x: float, y: float, width: float, height: float, drawn: "Drawing") -> None:
        """Elements of which only what lies in a box is seen; `name` is unique in the page."""
        box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        clip = f'<clipPath id="{name}">{box}</clipPath>'
        self.parts.append(f'{clip}<g clip-path="url(#{name})">{"".join(drawn.parts)}</g>')

    def __str__(self) -> str:
        return "".join(self.parts)


def width_of(text: str, size: float = 12) -> float:
    """About how wide a text is drawn."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return size * (0.6 * (len(text) - wide) + wide)


def fit(text: str, width: float, size: float = 12) -> str:
    """A text cut to a width, in one line.

    >>> fit("a rather long name", 70)
    'a rather…'
    """
    text = " ".join(text.split())
    if width_of(text, size) <= width:
        return text
    while text and width_of(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two values.

    >>> ticks(0, 37), ticks(-12, 104)
    ([0.0, 10.0, 20.0, 30.0], [0.0, 20.0, 40.0, 60.0, 80.0, 100.0])
    """
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / most))
    step *= next(k for k in (1, 2, 5, 10) if span / (step * k) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


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
