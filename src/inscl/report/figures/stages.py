"""Lines over the stages: what each strategy keeps, with its band, between the upper bounds."""

from collections.abc import Sequence
from dataclasses import dataclass

from inscl.report.facts import Facts, LineFacts
from inscl.report.figures.draw import WIDTH, Drawing, Scale, apart, fit, style_of, width_of
from inscl.report.figures.figure import Figure, Table, estimate_cells, estimate_text

TOP, HEIGHT, LEFT = 14.0, 330.0, 52.0
_Bound = tuple[str, float]  # its name, and its Relative Gain


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """Where a stage and a gain are drawn."""

    stages: Sequence[int]
    x: Scale
    y: Scale

    def at(self, stage: float, gain: float) -> tuple[float, float]:
        """The place of a point."""
        return self.x(stage), self.y(gain)

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x.end + 14


def gain_figure(facts: Facts) -> Figure | None:
    """Relative Gain after each stage, a line per strategy with its band, and the upper bounds."""
    lines = [line for line in facts.lines if line.gains]
    if not lines:
        return None
    bounds: list[_Bound] = [("experts: 100", 100.0), *((f"joint: {j.gain.mean:.1f}", j.gain.mean) for j in facts.joint)]
    drawn, plane = Drawing(), _plane(lines, bounds)
    _axes(drawn, plane, bounds)
    bands = Drawing()
    for k, line in enumerate(lines):
        _band(bands, line, plane, style_of(k))
    drawn.clipped("clip-gain", LEFT, TOP, plane.right - LEFT, HEIGHT, bands)
    for k, line in enumerate(lines):
        _line(drawn, k, line, plane)
    _names(drawn, lines, bounds, plane)
    last = [f"{line.label} {estimate_text(line.gains[max(line.gains)])}" for line in lines]
    rows = [(line.label, str(stage), *estimate_cells(found)) for line in lines for stage, found in line.gains.items()]
    table = Table(head=("strategy", "stage", "Relative Gain, %", "95 % interval", "streams"), rows=rows)
    finding = f"Relative Gain after the last stage: {'; '.join(last)}."
    return Figure.of(drawn, "relative-gain", finding, (WIDTH, TOP + HEIGHT + 48), table)


def _plane(lines: Sequence[LineFacts], bounds: Sequence[_Bound]) -> _Plane:
    stages = sorted({stage for line in lines for stage in line.gains})
    values = [found.mean for line in lines for found in line.gains.values()] + [gain for _, gain in bounds]
    low, high = max(0.0, 10 * ((min(values) - 6) // 10)), max(values) + 6
    right = WIDTH - 24 - max(90.0, *(width_of(_short(line)) for line in lines))
    x = Scale(stages[0], max(stages[-1], stages[0] + 1), LEFT + 14, right - 14)
    return _Plane(stages=stages, x=x, y=Scale(low, high, TOP + HEIGHT, TOP, clipped=True))


def _short(line: LineFacts) -> str:
    return fit(line.label, 180)


def _axes(drawn: Drawing, plane: _Plane, bounds: Sequence[_Bound]) -> None:
    drawn.upwards(plane.y, LEFT, plane.right, "Relative Gain, %")
    for stage in plane.stages:
        drawn.text(plane.x(stage), TOP + HEIGHT + 18, str(stage), "mid small faint")
    drawn.text((LEFT + plane.right) / 2, TOP + HEIGHT + 38, "stage: number of tasks learnt", "mid small faint")
    for _, gain in bounds:
        drawn.line(LEFT, plane.y(gain), plane.right, plane.y(gain), "bound")


def _band(drawn: Drawing, line: LineFacts, plane: _Plane, style: str) -> None:
    """The interval over the streams, where there are enough of them; it is cut at the edge of the plane."""
    known = [(stage, *ends) for stage, found in line.gains.items() if (ends := found.shown)]
    if len(known) > 1:
        upper = [plane.at(stage, high) for stage, _, high in known]
        lower = [plane.at(stage, low) for stage, low, _ in reversed(known)]
        drawn.path(upper + lower, f"band {style}", closed=True)


def _line(drawn: Drawing, k: int, line: LineFacts, plane: _Plane) -> None:
    drawn.path([plane.at(stage, found.mean) for stage, found in line.gains.items()], f"line {style_of(k)}")
    for stage, found in line.gains.items():
        part = Drawing()
        part.symbol(k, *plane.at(stage, found.mean), style_of(k))
        drawn.mark(f"{line.label}, stage {stage}: {estimate_text(found)}", part)


def _names(drawn: Drawing, lines: Sequence[LineFacts], bounds: Sequence[_Bound], plane: _Plane) -> None:
    """Names at the ends of lines and bounds, moved apart where they would touch."""
    ends = [line.gains[max(line.gains)].mean for line in lines] + [gain for _, gain in bounds]
    places = apart([plane.y(gain) for gain in ends], 17, TOP + 4, TOP + HEIGHT)
    for (name, _), y in zip(bounds, places[len(lines) :], strict=True):
        drawn.line(plane.right + 4, y, plane.right + 16, y, "bound")
        drawn.text(plane.right + 20, y + 4, name, "faint")
    for k, (line, y) in enumerate(zip(lines, places, strict=False)):
        drawn.symbol(k, plane.right + 10, y, style_of(k))
        drawn.text(plane.right + 20, y + 4, _short(line))
