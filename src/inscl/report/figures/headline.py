"""The headline: each task's score from the stage that learnt it to the last, a panel per strategy; kept or lost."""

from collections.abc import Sequence
from dataclasses import dataclass

from inscl.report.facts import Facts, StreamFacts
from inscl.report.figures.draw import WIDTH, Drawing, Scale, fit, style_of
from inscl.report.figures.figure import Figure, Table
from inscl.report.stage import StageFacts

_KEPT = 0.8  # of the score when it was learnt
_COLUMNS, _LEFT, _GAP, _HEIGHT, _TITLE = 3, 52.0, 18.0, 140.0, 42.0
_NAMES = (f"kept: at least {100 * _KEPT:.0f} % of the score when learnt", "lost")


@dataclass(frozen=True)
class _Course:
    """What became of a task: its scores, in points, from the stage that learnt it on."""

    task: str
    learnt_at: int
    scores: Sequence[float]

    @property
    def ends_at(self) -> int:
        return self.learnt_at + len(self.scores) - 1

    @property
    def lost(self) -> bool:
        return self.scores[-1] < _KEPT * self.scores[0]

    def told(self, line: str) -> str:
        end = "lost" if self.lost else "kept"
        return f"{self.task}, {line}: {self.scores[0]:.0f} when learnt, {self.scores[-1]:.0f} at the end: {end}"


@dataclass(frozen=True)
class _Panel:
    """A strategy in the stream that all panels show."""

    line: str
    courses: Sequence[_Course]  # of the tasks learnt before the last stage

    @property
    def kept(self) -> int:
        return sum(not course.lost for course in self.courses)


def headline_figure(facts: Facts) -> Figure | None:
    """Each earlier task's score over the stages, under every strategy, in the first stream that has ended."""
    ended = [stream for stream in facts.streams if stream.finished and len(stream.tasks) > 1]
    if not ended:
        return None
    place = (ended[0].order, ended[0].seed)
    of_line = {stream.line: stream for stream in reversed(ended) if (stream.order, stream.seed) == place}
    panels = [_panel(of_line[line.label]) for line in facts.lines if line.label in of_line]
    finding = f"Earlier tasks after the last stage (order {place[0]}, seed {place[1]}): " + "; ".join(
        f"{panel.line} kept {panel.kept} of {len(panel.courses)}" for panel in panels
    )
    return _figure("headline", f"{finding}.", panels)


def trend_figure(facts: StageFacts) -> Figure | None:
    """Each earlier task's score over the stages that led to this one; None where there was nothing earlier."""
    began: dict[str, int] = {}
    for at, month in enumerate(facts.months, start=1):
        for task in month.scores:
            began.setdefault(task, at)
    last = facts.months[-1].scores
    courses = [
        _Course(task, at, [month.scores[task] for month in facts.months[at - 1 :] if task in month.scores])
        for task, at in began.items()
        if task in last and at < len(facts.months)
    ]
    if not courses:
        return None
    panel = _Panel(" → ".join(month.name for month in facts.months), courses)
    finding = f"Earlier tasks after ‘{facts.name}’: {panel.kept} of {len(courses)} kept."
    return _figure("trend", finding, [panel])


def _figure(name: str, finding: str, panels: Sequence[_Panel]) -> Figure:
    drawn, columns = Drawing(), 2 if len(panels) == 4 else min(len(panels), _COLUMNS)
    top = drawn.legend(_NAMES) + 4
    for start in range(0, len(panels), columns):
        _row(drawn, panels[start : start + columns], top, (WIDTH - _LEFT - _GAP * (columns - 1)) / columns - _GAP / 2)
        top += _TITLE + _HEIGHT + 40
    return Figure.of(drawn, name, finding, (WIDTH, top - 4), _table(panels))


def _panel(stream: StreamFacts) -> _Panel:
    courses = [
        _Course(task, at, [scores[task].mean for scores in stream.scores[at - 1 :]])
        for at, task in enumerate(stream.tasks[:-1], start=1)
    ]
    return _Panel(stream.line, courses)


def _row(drawn: Drawing, panels: Sequence[_Panel], top: float, width: float) -> None:
    """Panels beside each other, with one axis of scores."""
    bottom = top + _TITLE + _HEIGHT
    y = Scale(0, 100, bottom, top + _TITLE)
    for k, panel in enumerate(panels):
        left = _LEFT + k * (width + _GAP)
        stages = Scale(1, max(course.ends_at for course in panel.courses), left + 8, left + width - 8)
        drawn.text(left, top + 14, fit(panel.line, width), "bold")
        drawn.text(left, top + 30, f"{panel.kept} of {len(panel.courses)} kept", "faint")
        if k == 0:
            drawn.upwards(y, _LEFT, _LEFT + width, "score", most=4)
        else:
            for _, place in y.ticks(4):
                drawn.line(left, place, left + width, place, "grid")
        for course in sorted(panel.courses, key=lambda course: course.lost):
            _course(drawn, panel, course, stages, y)
        drawn.text(left + width / 2, bottom + 18, "stage", "mid small faint")
        for stage in (stages.low, stages.high):
            drawn.text(stages(stage), bottom + 18, f"{stage:.0f}", "mid small faint")


def _course(drawn: Drawing, panel: _Panel, course: _Course, stages: Scale, y: Scale) -> None:
    k, part = int(course.lost), Drawing()
    points = [(stages(stage), y(score)) for stage, score in enumerate(course.scores, start=course.learnt_at)]
    part.path(points, f"line {style_of(k)}")
    part.symbol(k, *points[-1], style_of(k))
    drawn.mark(course.told(panel.line), part)


def _table(panels: Sequence[_Panel]) -> Table:
    rows = [
        (panel.line, course.task, str(course.learnt_at), f"{course.scores[0]:.1f}", f"{course.scores[-1]:.1f}")
        for panel in panels
        for course in panel.courses
    ]
    return Table(head=("strategy", "task", "learnt at stage", "score then", "score at the end"), rows=rows)
