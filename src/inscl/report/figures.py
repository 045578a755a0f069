"""The figures, each drawn once from the facts: for the page, and as SVG and PNG files.

A figure carries its finding in words and the table of its numbers, for readers who do not see it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from markupsafe import Markup

from inscl.core.stats import Estimate
from inscl.report.draw import RAMP, SERIES, Drawing, apart, fit, light_rules, ticks, width_of
from inscl.report.facts import Facts, LineFacts, Score, StreamFacts
from inscl.report.forgotten import COUNTS, KindFacts
from inscl.report.plan import PlanFacts
from inscl.report.replayed import BudgetFacts, InsInfoFacts
from inscl.report.verdict import minus

WIDTH = 760
LABELS = 150  # room for the names of tasks
Cells = list[tuple[str, ...]]


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


def _figure(
    drawn: Drawing,
    name: str,
    finding: str,
    size: tuple[float, float],
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    choice: str = "",
) -> Figure:
    return Figure(
        name=name,
        choice=choice,
        finding=finding,
        svg=Markup(drawn),  # every text in it was escaped when it was drawn
        width=size[0],
        height=size[1],
        head=tuple(head),
        rows=tuple(tuple(row) for row in rows),
    )


# ---------------------------------------------------------------- heat maps


def score_figures(facts: Facts, first: str = "") -> list[Figure]:
    """Score matrices: of each line and order the mean over its seeds, and each stream; those of `first` lead."""
    groups: dict[tuple[str, str], list[StreamFacts]] = {}
    for stream in sorted(facts.streams, key=lambda stream: stream.line != first):
        groups.setdefault((stream.line, stream.order), []).append(stream)
    found: list[Figure] = []
    several_orders = len({order for _, order in groups}) > 1
    for (line, order), streams in groups.items():
        where = f"{line}, order {order}" if several_orders else line
        if len(streams) > 1:
            found.append(_score_figure(len(found), f"{where}: mean of {len(streams)} streams", streams))
        singles = [
            _score_figure(len(found) + i, f"{where}, {_stream_name(s, streams)}", [s]) for i, s in enumerate(streams)
        ]
        found += [replace(single, filed=len(streams) == 1) for single in singles]
    return found


def _stream_name(stream: StreamFacts, among: Sequence[StreamFacts]) -> str:
    alike = sum(other.seed == stream.seed for other in among) > 1
    return f"seed {stream.seed} ({stream.run})" if alike else f"seed {stream.seed}"


def _score_figure(number: int, choice: str, streams: Sequence[StreamFacts]) -> Figure:
    tasks = streams[0].tasks
    rows: list[tuple[str, str, Mapping[str, Score]]] = []  # short label, long label, scores
    if streams[0].untrained:
        rows.append(("untrained", "untrained model", _mean_points([s.untrained for s in streams])))
    for stage in range(1, max(len(s.scores) for s in streams) + 1):
        scored = [s.scores[stage - 1] for s in streams if len(s.scores) >= stage]
        rows.append((f"{stage}  {tasks[stage - 1]}", f"after stage {stage} ({tasks[stage - 1]})", _mean_scores(scored)))
    if streams[0].experts:
        rows.append(("experts", "the task's expert", _mean_points([s.experts for s in streams])))
    last = rows[-2 if streams[0].experts else -1][2]
    weakest = min((task for task in tasks if task in last), key=lambda task: last[task].value, default=tasks[0])
    finding = (
        f"Scores in points of {choice}: a row per stage, a column per task. After the last stage shown, the mean over "
        f"the tasks learnt is {fmean(s.value for s in last.values()):.0f} and the lowest is ‘{weakest}’ with "
        f"{last[weakest].value:.0f}."
    )
    drawn = Drawing()
    cell = min(64.0, (WIDTH - LABELS - 70) / len(tasks))
    top = _column_names(drawn, tasks, LABELS, cell)
    y = top
    for short, long, scores in rows:
        if short == "experts" or rows.index((short, long, scores)) == (1 if streams[0].untrained else 0):
            y += 6
        drawn.text(LABELS - 8, y + 19, fit(short, LABELS - 12), "end faint" if short[0].isalpha() else "end")
        for j, task in enumerate(tasks):
            if task in scores:
                own = short.startswith(f"{j + 1} ")
                _cell(drawn, LABELS + j * cell, y, cell, 28, scores[task], f"{long}: {task}", own=own)
        y += 30
    _ramp_legend(drawn, LABELS, y + 12, "0", "100 points", "outlined: the task just learnt")
    table = [(long, *[_points(scores.get(task)) for task in tasks]) for _, long, scores in rows]
    size = (_map_width(cell, tasks), y + 34)
    return _figure(drawn, f"scores-{number + 1:02d}", finding, size, ("model", *tasks), table, choice)


def _cell(
    drawn: Drawing, x: float, y: float, width: float, height: float, score: Score, about: str, *, own: bool = False
) -> None:
    part = Drawing()
    shade = f"h{min(9, max(0, int(score.value / 10)))}"
    part.rect(x + 1, y + 1, width - 2, height - 2, f"{shade} own" if own else shade, 3)
    part.text(x + width / 2, y + height / 2 + 4, f"{score.value:.0f}", f"{shade} mid small")
    drawn.mark(f"{about}: {_points(score)}" + (f", {score.n} rows" if score.n else ""), part)


def _mean_points(values: Sequence[Mapping[str, float]]) -> dict[str, Score]:
    return {task: Score(value=fmean(v[task] for v in values if task in v)) for task in values[0]}


def _mean_scores(values: Sequence[Mapping[str, Score]]) -> Mapping[str, Score]:
    if len(values) == 1:
        return values[0]
    return {task: Score(value=fmean(v[task].value for v in values if task in v)) for task in values[0]}


def _points(score: Score | None) -> str:
    if score is None:
        return ""
    spread = "" if score.low is None or score.high is None else f" ({score.low:.0f}–{score.high:.0f})"
    return f"{score.value:.1f}{spread}"


def distance_figure(facts: Facts) -> Figure | None:
    """Wasserstein distance of each new task (row) to each earlier one (column)."""
    found = facts.replay.distances
    if not found:
        return None
    tasks = [task for task in facts.tasks if any(task in (d.task, d.earlier) for d in found)]
    known = {pair: d.distance for d in found for pair in ((d.earlier, d.task), (d.task, d.earlier))}
    low, high = min(known.values()), max(known.values())
    drawn = Drawing()
    cell = min(64.0, (WIDTH - LABELS - 70) / len(tasks))
    y = _column_names(drawn, tasks, LABELS, cell)
    for new in tasks:
        drawn.text(LABELS - 8, y + 19, fit(new, LABELS - 12), "end")
        for j, earlier in enumerate(tasks):
            value = known.get((new, earlier))
            if value is None:
                continue
            shade = f"h{min(9, int(10 * (value - low) / (high - low or 1)))}"
            part = Drawing()
            part.rect(LABELS + j * cell + 1, y + 1, cell - 2, 26, shade, 3)
            text = f"{value:.2f}" if cell >= 34 else f"{value:.2f}".lstrip("0")
            part.text(LABELS + (j + 0.5) * cell, y + 18, text, f"{shade} mid small")
            drawn.mark(f"{new} and {earlier}: {value:.3f}", part)
        y += 28
    _ramp_legend(drawn, LABELS, y + 12, f"nearest {low:.2f}", f"{high:.2f} furthest")
    near, far = (pick(found, key=lambda d: d.distance) for pick in (min, max))
    finding = (
        f"Wasserstein distances between tasks lie between {low:.2f} (‘{near.task}’ and ‘{near.earlier}’) and "
        f"{high:.2f} (‘{far.task}’ and ‘{far.earlier}’)."
    )
    table = [(d.task, d.earlier, f"{d.distance:.4f}") for d in found]
    size = (_map_width(cell, tasks), y + 34)
    return _figure(drawn, "distances", finding, size, ("new task", "earlier task", "distance"), table)


def _map_width(cell: float, names: Sequence[str]) -> float:
    """Width of a heat map: its columns, the end of the last turned name, and at least its legend."""
    return min(float(WIDTH), max(LABELS + cell * len(names) + 0.8 * min(130.0, width_of(names[-1])), 590.0))


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


# ---------------------------------------------------------------- lines over the stages


def gain_figure(facts: Facts) -> Figure | None:
    """Relative Gain after each stage, a line per strategy with its band, and the upper bounds."""
    lines = [line for line in facts.lines if line.gains]
    if not lines:
        return None
    stages = sorted({stage for line in lines for stage in line.gains})
    values = [found.mean for line in lines for found in line.gains.values()] + [100.0]
    values += [joint.gain.mean for joint in facts.joint]
    low, high = max(0.0, 10 * ((min(values) - 6) // 10)), max(values) + 6
    names = [fit(line.label, 180) for line in lines]
    left, right, top, height = 52.0, WIDTH - 24 - max(90.0, *map(width_of, names)), 14.0, 330.0

    def at(stage: float, gain: float) -> tuple[float, float]:
        span = max(stages[-1] - stages[0], 1)
        return left + 14 + (right - left - 28) * (stage - stages[0]) / span, top + height * (high - gain) / (high - low)

    drawn = Drawing()
    for tick in ticks(low, high):
        y = at(stages[0], tick)[1]
        drawn.line(left, y, right, y, "grid")
        drawn.text(left - 8, y + 4, f"{tick:g}", "end small faint")
    for stage in stages:
        drawn.text(at(stage, low)[0], top + height + 18, str(stage), "mid small faint")
    drawn.text((left + right) / 2, top + height + 38, "stage: number of tasks learnt", "mid small faint")
    drawn.text(14, top + height / 2, "Relative Gain, %", "mid small faint", turn=-90)
    bounds = [("experts: 100", 100.0), *((f"joint: {j.gain.mean:.1f}", j.gain.mean) for j in facts.joint)]
    for _, gain in bounds:
        drawn.line(left, at(stages[0], gain)[1], right, at(stages[0], gain)[1], "bound")
    bands = Drawing()
    for k, line in enumerate(lines):
        _band(bands, line, at, k % SERIES)
    drawn.clipped("clip-gain", left, top, right - left, height, bands)
    ends = [line.gains[max(line.gains)].mean for line in lines] + [gain for _, gain in bounds]
    places = apart([at(stages[0], gain)[1] for gain in ends], 17, top + 4, top + height)
    for (name, _), y in zip(bounds, places[len(lines) :], strict=True):
        drawn.line(right + 4, y, right + 16, y, "bound")
        drawn.text(right + 20, y + 4, name, "faint")
    for k, (line, y, name) in enumerate(zip(lines, places, names, strict=False)):
        style = f"s{k % SERIES}"
        drawn.path([at(stage, found.mean) for stage, found in line.gains.items()], f"line {style}")
        for stage, found in line.gains.items():
            part = Drawing()
            part.symbol(k, *at(stage, found.mean), style)
            drawn.mark(f"{line.label}, stage {stage}: {_estimate(found)}", part)
        drawn.symbol(k, right + 10, y, style)
        drawn.text(right + 20, y + 4, name)
    last = {line.label: line.gains[max(line.gains)] for line in lines}
    finding = "Relative Gain after the last stage: " + "; ".join(
        f"{label} {_estimate(found)}" for label, found in last.items()
    )
    table = [(line.label, str(stage), *_columns(found)) for line in lines for stage, found in line.gains.items()]
    head = ("strategy", "stage", "Relative Gain, %", "95 % interval", "streams")
    return _figure(drawn, "relative-gain", finding + ".", (WIDTH, top + height + 48), head, table)


def _band(drawn: Drawing, line: LineFacts, at: object, k: int) -> None:
    """The interval over the streams, where there are enough of them."""
    known = [(stage, *ends) for stage, found in line.gains.items() if (ends := found.shown)]
    if len(known) > 1 and callable(at):
        upper = [at(stage, high) for stage, _, high in known]
        lower = [at(stage, low) for stage, low, _ in reversed(known)]
        drawn.path(upper + lower, f"band s{k}", closed=True)


def _estimate(found: Estimate) -> str:
    ends = found.shown
    return minus(found.mean) + (f" ({minus(ends[0])} to {minus(ends[1])})" if ends else "")


def _columns(found: Estimate, *, sign: bool = False) -> tuple[str, str, str]:
    """Mean, interval and streams, as cells of a table."""
    spread = "" if found.low is None or found.high is None else f"{minus(found.low)} to {minus(found.high)}"
    return minus(found.mean, sign=sign), spread, str(found.n)


# ---------------------------------------------------------------- a row per task


def change_figure(facts: Facts) -> Figure | None:
    """Change of each task's score since it was learnt, a mark per line with its interval."""
    lines = [line for line in facts.lines if line.tasks]
    if not lines:
        return None
    tasks = [task for task in facts.tasks if any(t.task == task for line in lines for t in line.tasks)]
    found = {(line.label, t.task): t for line in lines for t in line.tasks}
    means = [t.change.mean for t in found.values()]
    low, high = max(-102.0, min(means) - 12), min(102.0, max(*means, 0.0) + 12)
    left, right, step = float(LABELS), WIDTH - 20.0, 13.0

    def at(value: float) -> float:
        return left + (right - left) * (min(max(value, low), high) - low) / (high - low)

    drawn = Drawing()
    y = top = _legend(drawn, [line.label for line in lines]) + 8
    row = step * len(lines) + 12
    bottom = top + row * len(tasks)
    for tick in ticks(low, high, 8):
        drawn.line(at(tick), top, at(tick), bottom, "axis" if tick == 0 else "grid")
        drawn.text(at(tick), bottom + 16, minus(tick, 0), "mid small faint")
    drawn.text((left + right) / 2, bottom + 34, "change since the task was learnt, points", "mid small faint")
    for task in tasks:
        drawn.text(left - 10, y + row / 2 + 4, fit(task, left - 14), "end")
        for k, line in enumerate(lines):
            fact = found.get((line.label, task))
            if fact is None:
                continue
            place, style = y + 6 + step * (k + 0.5), f"s{k % SERIES}"
            part = Drawing()
            if ends := fact.change.shown:
                part.line(at(ends[0]), place, at(ends[1]), place, f"whisker {style}")
            part.symbol(k, at(fact.change.mean), place, style)
            about = f"{task}, {line.label}: {fact.learnt:.1f} when learnt, {fact.now:.1f} now, change"
            drawn.mark(f"{about} {_estimate(fact.change)}", part)
        y += row
        drawn.line(left, y, right, y, "grid")
    worst = {line.label: min(line.tasks, key=lambda t: t.change.mean) for line in lines}
    finding = "Largest loss since a task was learnt: " + "; ".join(
        f"{label} {minus(t.change.mean)} on ‘{t.task}’" for label, t in worst.items()
    )
    table = [
        (task, line.label, f"{t.learnt:.1f}", f"{t.now:.1f}", *_columns(t.change, sign=True))
        for task in tasks
        for line in lines
        if (t := found.get((line.label, task)))
    ]
    head = ("task", "strategy", "when learnt", "now", "change", "95 % interval", "streams")
    return _figure(drawn, "forgetting", finding + ".", (WIDTH, bottom + 44), head, table)


def _legend(drawn: Drawing, names: Sequence[str], y: float = 14) -> float:
    """Markers and names, as many to a row as fit; where it ends."""
    x = 12.0
    for k, name in enumerate(names):
        shown = fit(name, 320)
        if x + 26 + width_of(shown) > WIDTH and x > 12:
            x, y = 12.0, y + 20
        drawn.symbol(k, x + 4, y, f"s{k % SERIES}")
        drawn.text(x + 14, y + 4, shown)
        x += 36 + width_of(shown)
    return y + 12


# ---------------------------------------------------------------- replay


def budget_figures(facts: Facts, first: str = "") -> list[Figure]:
    """Rows replayed at each stage, stacked by the earlier task they come from; those of the line `first` lead."""
    budgets = sorted(facts.replay.budgets, key=lambda budget: budget.line != first)
    several = len({budget.order for budget in budgets}) > 1
    return [_budget_figure(i, budget, several) for i, budget in enumerate(budgets)]


def _budget_figure(number: int, budget: BudgetFacts, several_orders: bool) -> Figure:
    earlier = [task for task in budget.tasks if any(stage.counts.get(task) for stage in budget.stages)]
    most = max(sum(stage.counts.values()) for stage in budget.stages)
    shown = [fit(task, 140) for task in earlier]
    left, right, top, height = 52.0, WIDTH - 26 - max(map(width_of, shown)), 12.0, 260.0
    wide = (right - left) / len(budget.stages)

    def at(count: float) -> float:
        return top + height * (1 - count / most)

    drawn = Drawing()
    for tick in ticks(0, most, 5):
        drawn.line(left, at(tick), right, at(tick), "grid")
        drawn.text(left - 8, at(tick) + 4, f"{tick:g}", "end small faint")
    middles = [0.0] * len(earlier)
    for i, stage in enumerate(budget.stages):
        below = 0
        for j, task in enumerate(earlier):
            count = stage.counts.get(task, 0)
            if not count:
                continue
            part = Drawing()
            part.rect(
                left + i * wide, at(below + count), wide, at(below) - at(below + count), f"{_layer(j, earlier)} cut"
            )
            drawn.mark(f"stage {stage.stage} ({stage.task}): {count} rows of {task}", part)
            middles[j] = at(below + count / 2)
            below += count
        drawn.text(left + (i + 0.5) * wide, top + height + 18, str(stage.stage), "mid small faint")
    places = apart(middles, 15, top + 4, top + height)
    for j, (name, y) in enumerate(zip(shown, places, strict=True)):
        drawn.rect(right + 6, y - 5, 10, 10, f"{_layer(j, earlier)} cut")
        drawn.text(right + 20, y + 4, name)
    drawn.text((left + right) / 2, top + height + 38, "stage", "mid small faint")
    drawn.text(14, top + height / 2, "rows replayed", "mid small faint", turn=-90)
    last = budget.stages[-1]
    largest = max(last.counts, key=lambda task: last.counts[task])
    order = f", order {budget.order}" if several_orders else ""
    choice = f"{budget.line}{order}, seed {budget.seed}"
    finding = (
        f"Rows replayed at each stage by {choice}. At stage {last.stage}, {sum(last.counts.values())} rows beside "
        f"{last.new_rows} new ones; most of ‘{largest}’ ({last.counts[largest]})."
    )
    table = [
        (str(stage.stage), stage.task, str(stage.new_rows), *[str(stage.counts.get(task, "")) for task in earlier])
        for stage in budget.stages
    ]
    head = ("stage", "new task", "new rows", *earlier)
    size = (WIDTH, top + height + 48)
    return _figure(drawn, f"budget-{number + 1:02d}", finding, size, head, table, choice)


def _layer(j: int, among: Sequence[str]) -> str:
    """The shade of a layer: the task learnt first is the darkest."""
    return f"h{9 - round(8 * j / max(1, len(among) - 1))}"


def insinfo_figures(facts: Facts) -> list[Figure]:
    """InsInfo of the instructions that were chosen and of the rest."""
    return [insinfo_figure(i, info) for i, info in enumerate(facts.replay.insinfo)]


def insinfo_figure(number: int, info: InsInfoFacts) -> Figure:
    """A dot per instruction of the earlier tasks: full where rows of it are replayed, larger for more."""
    tasks = list(dict.fromkeys(i.task for i in info.instructions))
    most, many = max(i.insinfo for i in info.instructions) or 1.0, max(i.chosen for i in info.instructions) or 1
    left, right, top, row = float(LABELS), WIDTH - 24.0, 34.0, 34.0
    bottom = top + row * len(tasks)
    drawn = Drawing()
    for tick in ticks(0, most, 8):
        x = left + (right - left) * tick / (1.03 * most)
        drawn.line(x, top, x, bottom, "grid")
        drawn.text(x, bottom + 16, f"{tick:g}", "mid small faint")
    drawn.circle(left + 6, 14, 5, "s0")
    drawn.text(left + 18, 18, "replayed; larger: more rows")
    if any(not i.chosen for i in info.instructions):
        drawn.circle(left + 208, 14, 4, "hollow")
        drawn.text(left + 220, 18, "not replayed")
    for t, task in enumerate(tasks):
        y = top + row * (t + 0.5)
        drawn.text(left - 10, y + 4, fit(task, left - 14), "end")
        drawn.line(left, y, right, y, "grid")
        seen: dict[int, int] = {}
        for i in sorted((i for i in info.instructions if i.task == task), key=lambda i: i.chosen):
            x = left + (right - left) * i.insinfo / (1.03 * most)
            turn = seen[round(x / 8)] = seen.get(round(x / 8), 0) + 1
            part = Drawing()
            radius = 4 + 3 * (i.chosen / many) ** 0.5 if i.chosen else 4
            part.circle(x, y + (0, 7, -7)[(turn - 1) % 3], radius, "s0 cut" if i.chosen else "hollow")
            of = "" if i.available is None else f" of {i.available}"
            drawn.mark(f"{task}: InsInfo {i.insinfo:.1f}, {i.chosen}{of} rows: {fit(i.text, 600)}", part)
    drawn.text((left + right) / 2, bottom + 34, "InsInfo", "mid small faint")
    chosen = [i.insinfo for i in info.instructions if i.chosen]
    rest = [i.insinfo for i in info.instructions if not i.chosen]
    against = f" against {fmean(rest):.1f} of the {len(rest)} left out" if rest else ""
    finding = (
        f"{info.line}, stage {info.stage}: mean InsInfo is {fmean(chosen) if chosen else 0:.1f} of the {len(chosen)} "
        f"instructions replayed{against}."
    )
    table = [
        (i.task, f"{i.insinfo:.2f}", str(i.chosen), "" if i.available is None else str(i.available), fit(i.text, 1200))
        for i in sorted(info.instructions, key=lambda i: (tasks.index(i.task), -i.insinfo))
    ]
    head = ("task", "InsInfo", "replayed", "rows there are", "instruction")
    return _figure(drawn, f"insinfo-{number + 1:02d}", finding, (WIDTH, bottom + 44), head, table, info.line)


# ---------------------------------------------------------------- kinds of forgetting

KINDS = {
    "related": "related: a wrong answer to the instruction",
    "unrelated": "unrelated: no answer to it any more",
    "not_judged": "not judged",
}


def kinds_figure(facts: Facts) -> Figure | None:
    """Of the rows that each line once answered well, the share it forgot, by kind."""
    kinds = facts.forgotten.kinds
    if not kinds:
        return None
    lines = [line.label for line in facts.lines if any(fact.line == line.label for fact in kinds)]
    totals = {line: _total([fact for fact in kinds if fact.line == line]) for line in lines}
    shown = [kind for kind in KINDS if kind != "not_judged" or any(total[kind] for total in totals.values())]
    most = max(100 * sum(t[kind] for kind in KINDS) / max(t["ever_right"], 1) for t in totals.values()) or 1.0
    left, right = float(LABELS), WIDTH - 150.0
    scale = (right - left) / most
    drawn = Drawing()
    y = top = _legend(drawn, [KINDS[kind] for kind in shown]) + 8
    bottom = top + 30 * len(lines)
    for tick in ticks(0, most, 6):
        drawn.line(left + tick * scale, top, left + tick * scale, bottom, "grid")
        drawn.text(left + tick * scale, bottom + 16, f"{tick:g}", "mid small faint")
    drawn.text((left + right) / 2, bottom + 34, "forgotten, % of the rows once answered well", "mid small faint")
    for label, total in totals.items():
        drawn.text(left - 10, y + 19, fit(label, left - 14), "end")
        x = left
        for k, kind in enumerate(shown):
            wide = scale * 100 * total[kind] / max(total["ever_right"], 1)
            part = Drawing()
            part.rect(x, y + 4, wide, 22, f"s{k} cut")
            drawn.mark(f"{label}: {total[kind]} of {total['ever_right']} rows {kind.replace('_', ' ')}", part)
            x += wide
        lost = sum(total[kind] for kind in KINDS)
        drawn.text(x + 8, y + 19, f"{lost} of {total['ever_right']} rows", "small faint")
        y += 30
    finding = "Forgotten of the rows once answered well: " + "; ".join(
        f"{label} {sum(t[kind] for kind in KINDS)} of {t['ever_right']}, {t['unrelated']} of them unrelated"
        for label, t in totals.items()
    )
    table = [(f.line, f.task, *[str(n) for n in (f.ever_right, f.related, f.unrelated, f.not_judged)]) for f in kinds]
    head = ("strategy", "task", "once answered well", "related", "unrelated", "not judged")
    return _figure(drawn, "kinds", finding + ".", (WIDTH, bottom + 44), head, table)


def _total(facts: Sequence[KindFacts]) -> dict[str, int]:
    return {name: sum(getattr(fact, name) for fact in facts) for name in COUNTS}


# ---------------------------------------------------------------- one plan


def share_figure(plan: PlanFacts) -> Figure | None:
    """Rows replayed of each earlier task, with its distance and share."""
    if not plan.tasks:
        return None
    most = max(task.count for task in plan.tasks) or 1
    left, right, top, row = float(LABELS), WIDTH - 250.0, 10.0, 30.0
    drawn = Drawing()
    y = top
    for task in plan.tasks:
        drawn.text(left - 10, y + 18, fit(task.name, left - 14), "end")
        part = Drawing()
        wide = (right - left) * task.count / most
        part.rect(left, y + 4, max(wide, 1), 20, "s0", 3)
        far = "" if task.distance is None else f"distance {task.distance:.3f}, "
        about = f"{task.count} of {task.available} rows"
        drawn.mark(f"{task.name}: {far}{task.share:.1f} % of the budget, {about}", part)
        drawn.text(left + wide + 8, y + 18, f"{about} · {far}{task.share:.1f} %", "small faint")
        y += row
    first = max(plan.tasks, key=lambda task: task.count)
    finding = f"Rows replayed of each earlier task; most of ‘{first.name}’: {first.count} of {first.available}."
    table = [
        (
            task.name,
            "" if task.distance is None else f"{task.distance:.4f}",
            f"{task.share:.1f}",
            *[f"{n:,}" for n in (task.count, task.available, task.tokens)],
            f"{len(task.listed)} of {task.all_instructions}",
        )
        for task in plan.tasks
    ]
    head = ("task", "distance", "share, %", "rows", "of", "tokens ≈", "instructions")
    return _figure(drawn, "shares", finding, (WIDTH, y + 10), head, table)
