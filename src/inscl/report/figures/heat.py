"""Heat maps: every model on every task, and how far tasks lie apart."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from inscl.core.stats import Estimate
from inscl.report.facts import Facts, StreamFacts
from inscl.report.figures.draw import LABEL_WIDTH, RAMP, WIDTH, Drawing, Scale, fit, width_of
from inscl.report.figures.figure import Figure, Table
from inscl.report.words import spread

_CELL, _MOST_CELL = 28.0, 64.0  # height of a cell, and its width at most


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One model of a score matrix."""

    short: str
    long: str
    scores: Mapping[str, Estimate]
    own: str = ""  # the task it has just learnt
    apart: bool = False  # a gap above it


def score_figures(facts: Facts, first: str = "") -> list[Figure]:
    """Score matrices: of each line and order the mean over its seeds, and each stream; those of `first` lead."""
    groups: dict[tuple[str, str], list[StreamFacts]] = {}
    for stream in sorted(facts.streams, key=lambda stream: stream.line != first):
        groups.setdefault((stream.line, stream.order), []).append(stream)
    several_orders = len({order for _, order in groups}) > 1
    found: list[Figure] = []
    for (line, order), streams in groups.items():
        where = f"{line}, order {order}" if several_orders else line
        found += _of_group(where, streams, len(found))
    return found


def _of_group(where: str, streams: Sequence[StreamFacts], number: int) -> list[Figure]:
    """The mean of several streams, and each of them."""
    means = [_score_figure(number, f"{where}: mean of {len(streams)} streams", streams)] if len(streams) > 1 else []
    number += len(means)
    singles = [
        _score_figure(number + i, f"{where}, {_stream_name(stream, streams)}", [stream])
        for i, stream in enumerate(streams)
    ]
    return means + [replace(single, filed=len(streams) == 1) for single in singles]


def _stream_name(stream: StreamFacts, among: Sequence[StreamFacts]) -> str:
    alike = sum(other.seed == stream.seed for other in among) > 1
    return f"seed {stream.seed} ({stream.run})" if alike else f"seed {stream.seed}"


def _score_figure(number: int, choice: str, streams: Sequence[StreamFacts]) -> Figure:
    tasks, rows = streams[0].tasks, list(_rows(streams))
    last = [row for row in rows if row.own][-1].scores
    weakest = min((task for task in tasks if task in last), key=lambda task: last[task].mean, default=tasks[0])
    finding = (
        f"Scores in points of {choice}: a row per stage, a column per task. After the last stage shown, the mean over "
        f"the tasks learnt is {fmean(s.mean for s in last.values()):.0f} and the lowest is ‘{weakest}’ with "
        f"{last[weakest].mean:.0f}."
    )
    drawn, size = _draw_scores(tasks, rows)
    table = [(row.long, *[_points(row.scores.get(task)) for task in tasks]) for row in rows]
    return Figure.of(
        drawn, f"scores-{number + 1:02d}", finding, size, Table(head=("model", *tasks), rows=table), choice
    )


def _rows(streams: Sequence[StreamFacts]) -> Iterable[_Row]:
    """The untrained model, the stages, and the experts."""
    tasks = streams[0].tasks
    if streams[0].untrained:
        yield _Row(short="untrained", long="untrained model", scores=_plain([s.untrained for s in streams]))
    for stage in range(1, max(len(s.scores) for s in streams) + 1):
        task = tasks[stage - 1]
        scored = [s.scores[stage - 1] for s in streams if len(s.scores) >= stage]
        apart = stage == 1
        long = f"after stage {stage} ({task})"
        yield _Row(short=f"{stage}  {task}", long=long, scores=_mean(scored), own=task, apart=apart)
    if streams[0].experts:
        scores = _plain([s.experts for s in streams])
        yield _Row(short="experts", long="the task's expert", scores=scores, apart=True)


def _plain(values: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    return {task: Estimate(mean=fmean(v[task] for v in values if task in v)) for task in values[0]}


def _mean(values: Sequence[Mapping[str, Estimate]]) -> Mapping[str, Estimate]:
    """Means over streams; of one stream with their intervals over its rows."""
    if len(values) == 1:
        return values[0]
    return {task: Estimate(mean=fmean(v[task].mean for v in values if task in v)) for task in values[0]}


def _points(score: Estimate | None) -> str:
    """A score as a cell of a table."""
    if score is None:
        return ""
    return f"{score.mean:.1f}" + (f" ({said})" if (said := spread(score, digits=0)) else "")


def _draw_scores(tasks: Sequence[str], rows: Sequence[_Row]) -> tuple[Drawing, tuple[float, float]]:
    drawn = Drawing()
    cell = _cell_width(len(tasks))
    y = _column_names(drawn, tasks, LABEL_WIDTH, cell)
    for row in rows:
        y += 6 if row.apart else 0
        drawn.text(LABEL_WIDTH - 8, y + 19, fit(row.short, LABEL_WIDTH - 12), "end" if row.own else "end faint")
        for j, task in enumerate(tasks):
            if task in row.scores:
                _score_cell(drawn, LABEL_WIDTH + j * cell, y, cell, row, task)
        y += 30
    _ramp_legend(drawn, LABEL_WIDTH, y + 12, "0", "100 points", "outlined: the task just learnt")
    return drawn, (_map_width(cell, tasks), y + 34)


def _score_cell(drawn: Drawing, x: float, y: float, width: float, row: _Row, task: str) -> None:
    score = row.scores[task]
    about = f"{row.long}: {task}: {_points(score)}" + (f", {score.n} rows" if score.over == "test rows" else "")
    _cell(drawn, (x, y, width), score.mean / 10, f"{score.mean:.0f}", about, own=task == row.own)


def distance_figure(facts: Facts) -> Figure | None:
    """Wasserstein distance of each new task (row) to each earlier one (column)."""
    found = facts.replay.distances
    if not found:
        return None
    tasks = [task for task in facts.tasks if any(task in (d.task, d.earlier) for d in found)]
    known = {pair: d.distance for d in found for pair in ((d.earlier, d.task), (d.task, d.earlier))}
    drawn, size = _draw_distances(tasks, known)
    near, far = (pick(found, key=lambda d: d.distance) for pick in (min, max))
    finding = (
        f"Wasserstein distances between tasks lie between {near.distance:.2f} (‘{near.task}’ and ‘{near.earlier}’) and "
        f"{far.distance:.2f} (‘{far.task}’ and ‘{far.earlier}’)."
    )
    rows = [(d.task, d.earlier, f"{d.distance:.4f}") for d in found]
    return Figure.of(drawn, "distances", finding, size, Table(head=("new task", "earlier task", "distance"), rows=rows))


def _draw_distances(
    tasks: Sequence[str], known: Mapping[tuple[str, str], float]
) -> tuple[Drawing, tuple[float, float]]:
    drawn, cell = Drawing(), _cell_width(len(tasks))
    low, high = min(known.values()), max(known.values())
    shade = Scale(low, high, 0, 10)
    text: Callable[[float], str] = "{:.2f}".format if cell >= 34 else lambda value: f"{value:.2f}".lstrip("0")
    y = _column_names(drawn, tasks, LABEL_WIDTH, cell)
    for new in tasks:
        drawn.text(LABEL_WIDTH - 8, y + 19, fit(new, LABEL_WIDTH - 12), "end")
        for j, earlier in enumerate(tasks):
            if (value := known.get((new, earlier))) is not None:
                about = f"{new} and {earlier}: {value:.3f}"
                _cell(drawn, (LABEL_WIDTH + j * cell, y, cell), shade(value), text(value), about)
        y += 28
    _ramp_legend(drawn, LABEL_WIDTH, y + 12, f"nearest {low:.2f}", f"{high:.2f} furthest")
    return drawn, (_map_width(cell, tasks), y + 34)


# ---------------------------------------------------------------- what both share


def _cell(
    drawn: Drawing, place: tuple[float, float, float], shade: float, text: str, about: str, *, own: bool = False
) -> None:
    """A cell of a heat map; its place is left, top and width, `shade` from 0 to 10."""
    part, style = Drawing(), f"h{min(len(RAMP) - 1, max(0, int(shade)))}"
    x, y, width = place
    part.rect(x + 1, y + 1, width - 2, _CELL - 2, f"{style} own" if own else style, 3)
    part.text(x + width / 2, y + _CELL / 2 + 4, text, f"{style} mid small")
    drawn.mark(about, part)


def _cell_width(columns: int) -> float:
    return min(_MOST_CELL, (WIDTH - LABEL_WIDTH - 70) / columns)


def _map_width(cell: float, names: Sequence[str]) -> float:
    """Width of a heat map: its columns, the end of the last turned name, and at least its legend."""
    return min(WIDTH, max(LABEL_WIDTH + cell * len(names) + 0.8 * min(130.0, width_of(names[-1])), 590.0))


def _column_names(drawn: Drawing, names: Sequence[str], left: float, cell: float) -> float:
    """Names over the columns, turned where they do not fit; the height that they take."""
    room = cell - 4
    if all(width_of(name) <= room for name in names):
        for j, name in enumerate(names):
            drawn.text(left + (j + 0.5) * cell, 16, name, "mid")
        return 26
    shown = [fit(name, 130) for name in names]
    height = 0.62 * max(map(width_of, shown)) + 16
    for j, name in enumerate(shown):
        drawn.text(left + (j + 0.5) * cell - 2, height - 6, name, turn=-38)
    return height


def _ramp_legend(drawn: Drawing, x: float, y: float, low: str, high: str, note: str = "") -> None:
    drawn.text(x - 8, y + 10, low, "end small faint")
    for i in range(len(RAMP)):
        drawn.rect(x + 14 * i, y, 14, 12, f"h{i}")
    drawn.text(x + 14 * len(RAMP) + 8, y + 10, high, "small faint")
    if note:
        drawn.text(x + 14 * len(RAMP) + 24 + width_of(high, 11), y + 10, note, "small faint")
