"""What was kept against what it cost: a mark per strategy and budget, and the line of those that nothing beats."""

from collections.abc import Sequence
from dataclasses import dataclass

from inscl.core.stats import Estimate
from inscl.report.facts import Facts
from inscl.report.figures.draw import WIDTH, Drawing, Scale, style_of
from inscl.report.figures.figure import Figure, Table, estimate_cells, estimate_text

_LEFT, _RIGHT, _HEIGHT = 52.0, WIDTH - 20, 260.0
_MORE = 1.02  # times the tokens of the cheapest: below that, costs are the same


@dataclass(frozen=True)
class _Point:
    """A strategy with its budget: thousands of tokens of training, and what it kept."""

    label: str
    tokens: float
    gain: Estimate

    @property
    def told(self) -> str:
        return f"{self.label}: {estimate_text(self.gain)} for {self.tokens:,.1f} thousand tokens"


def frontier_figure(facts: Facts) -> Figure | None:
    """Relative Gain after the last stage over the tokens of training; None where all cost about the same."""
    points = _points(facts)
    if not points:
        return None
    drawn = Drawing()
    top = drawn.legend([point.label for point in points]) + 14
    tokens, gain = _scales(points, top)
    drawn.across(tokens, top, top + _HEIGHT, "tokens of training over all stages, thousands")
    drawn.upwards(gain, _LEFT, _RIGHT, "Relative Gain, last stage, %")
    best = _unbeaten(points)
    drawn.path([(tokens(point.tokens), gain(point.gain.mean)) for point in best], "bound")
    for k, point in enumerate(points):
        _mark(drawn, k, point, tokens, gain)
    rows = [(point.label, f"{1000 * point.tokens:,.0f}", *estimate_cells(point.gain)) for point in points]
    table = Table(head=("strategy", "tokens", "Relative Gain, %", "95 % interval", "streams"), rows=rows)
    finding = f"Kept most for as many tokens: {'; '.join(point.told for point in best)}."
    return Figure.of(drawn, "frontier", finding, (WIDTH, top + _HEIGHT + 48), table)


def _points(facts: Facts) -> list[_Point]:
    """The finished strategies; none where all cost about the same."""
    points = [
        _Point(line.label, line.tokens / 1000, line.gain_final)
        for line in facts.lines
        if line.tokens and line.gain_final
    ]
    costs = [point.tokens for point in points]
    return points if points and max(costs) >= _MORE * min(costs) else []


def _scales(points: Sequence[_Point], top: float) -> tuple[Scale, Scale]:
    """Tokens from left to right, Relative Gain upwards, with room for the intervals."""
    cost = [point.tokens for point in points]
    ends = [end for point in points for end in (point.gain.mean, *(point.gain.shown or ()))]
    room = 0.06 * (max(cost) - min(cost))
    across = Scale(min(cost) - room, max(cost) + room, _LEFT, _RIGHT)
    return across, Scale(max(0.0, min(ends) - 6), max(ends) + 6, top + _HEIGHT, top)


def _unbeaten(points: Sequence[_Point]) -> list[_Point]:
    """Those that keep more than everything as cheap or cheaper, the cheapest first."""
    best: list[_Point] = []
    for point in sorted(points, key=lambda point: (point.tokens, -point.gain.mean)):
        if not best or point.gain.mean > best[-1].gain.mean:
            best.append(point)
    return best


def _mark(drawn: Drawing, k: int, point: _Point, tokens: Scale, gain: Scale) -> None:
    part, x = Drawing(), tokens(point.tokens)
    if ends := point.gain.shown:
        part.line(x, gain(ends[0]), x, gain(ends[1]), f"whisker {style_of(k)}")
    part.symbol(k, x, gain(point.gain.mean), style_of(k))
    drawn.mark(point.told, part)
