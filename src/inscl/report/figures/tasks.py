"""A row per task or strategy: how far tasks fell, and how their answers were forgotten."""

from collections.abc import Iterable, Mapping, Sequence

from inscl.report.facts import Facts, LineFacts, TaskFacts
from inscl.report.figures.draw import LABEL_WIDTH, WIDTH, Drawing, Scale, fit, style_of
from inscl.report.figures.figure import Figure, Table, estimate_cells, estimate_text
from inscl.report.forgotten import COUNTS, KindFacts
from inscl.report.words import minus

_STEP = 13.0  # from one line's mark to the next
_KINDS = {
    "related": "related: a wrong answer to the instruction",
    "unrelated": "unrelated: no answer to it any more",
    "not_judged": "not judged",
}


def change_figure(facts: Facts) -> Figure | None:
    """Change of each task's score since it was learnt, a mark per line with its interval."""
    lines = [line for line in facts.lines if line.tasks]
    if not lines:
        return None
    found = _by_task(facts.tasks, lines)
    scale = _change_scale(found)
    drawn = Drawing()
    y = top = drawn.legend([line.label for line in lines]) + 8
    height = _STEP * len(lines) + 12
    bottom = top + height * len(found)
    drawn.across(scale, top, bottom, "change since the task was learnt, points")
    for task, by_line in found.items():
        _changes(drawn, y, task, [(line, by_line.get(line.label)) for line in lines], scale)
        y += height
        drawn.line(LABEL_WIDTH, y, WIDTH - 20, y, "grid")
    return Figure.of(
        drawn,
        "forgetting",
        _worst(lines),
        (WIDTH, bottom + 44),
        Table(head=_CHANGE, rows=_change_rows(lines, found)),
    )


_CHANGE = ("task", "strategy", "when learnt", "now", "change", "95 % interval", "streams")
_Found = Mapping[str, Mapping[str, TaskFacts]]  # task -> label of a line -> what became of it there


def _by_task(tasks: Iterable[str], lines: Sequence[LineFacts]) -> _Found:
    """What became of each task that some line has."""
    found = {task: {line.label: of for line in lines for of in line.tasks if of.task == task} for task in tasks}
    return {task: by_line for task, by_line in found.items() if by_line}


def _change_scale(found: _Found) -> Scale:
    means = [task.change.mean for by_line in found.values() for task in by_line.values()]
    return Scale(max(-102.0, min(means) - 12), min(102.0, max(*means, 0.0) + 12), LABEL_WIDTH, WIDTH - 20)


def _changes(
    drawn: Drawing, y: float, task: str, marks: Sequence[tuple[LineFacts, TaskFacts | None]], scale: Scale
) -> None:
    """The marks of one task, one under the other."""
    drawn.text(LABEL_WIDTH - 10, y + (_STEP * len(marks) + 12) / 2 + 4, fit(task, LABEL_WIDTH - 14), "end")
    for k, (line, fact) in enumerate(marks):
        if fact is None:
            continue
        place, part = y + 6 + _STEP * (k + 0.5), Drawing()
        if ends := fact.change.shown:
            part.line(scale(ends[0]), place, scale(ends[1]), place, f"whisker {style_of(k)}")
        part.symbol(k, scale(fact.change.mean), place, style_of(k))
        about = f"{task}, {line.label}: {fact.learnt:.1f} when learnt, {fact.now:.1f} now, change"
        drawn.mark(f"{about} {estimate_text(fact.change)}", part)


def _worst(lines: Sequence[LineFacts]) -> str:
    worst = [(line.label, min(line.tasks, key=lambda task: task.change.mean)) for line in lines]
    told = "; ".join(f"{label} {minus(task.change.mean)} on ‘{task.task}’" for label, task in worst)
    return f"Largest loss since a task was learnt: {told}."


def _change_rows(lines: Sequence[LineFacts], found: _Found) -> list[tuple[str, ...]]:
    return [
        (task, line.label, f"{t.learnt:.1f}", f"{t.now:.1f}", *estimate_cells(t.change, sign=True))
        for task, by_line in found.items()
        for line in lines
        if (t := by_line.get(line.label))
    ]


# ---------------------------------------------------------------- kinds of forgetting


def kinds_figure(facts: Facts) -> Figure | None:
    """Of the rows that each line once answered well, the share it forgot, by kind."""
    totals = _totals(facts)
    if not totals:
        return None
    shown = [kind for kind in _KINDS if kind != "not_judged" or any(total[kind] for total in totals.values())]
    scale = Scale(0, max(map(_share_lost, totals.values())) or 1.0, LABEL_WIDTH, WIDTH - 150)
    drawn = Drawing()
    y = top = drawn.legend([_KINDS[kind] for kind in shown]) + 8
    drawn.across(scale, top, top + 30 * len(totals), "forgotten, % of the rows once answered well", most=6)
    for label, total in totals.items():
        _kinds(drawn, y, label, total, shown, scale)
        y += 30
    return Figure.of(drawn, "kinds", _most_lost(totals), (WIDTH, y + 44), _kinds_table(facts.forgotten.kinds))


def _kinds(drawn: Drawing, y: float, label: str, total: Mapping[str, int], shown: Sequence[str], scale: Scale) -> None:
    """The bar of one line, a piece for each kind."""
    drawn.text(LABEL_WIDTH - 10, y + 19, fit(label, LABEL_WIDTH - 14), "end")
    x = LABEL_WIDTH
    for k, kind in enumerate(shown):
        part = Drawing()
        wide = scale(100 * total[kind] / max(total["ever_right"], 1)) - LABEL_WIDTH
        part.rect(x, y + 4, wide, 22, f"{style_of(k)} cut")
        drawn.mark(f"{label}: {total[kind]} of {total['ever_right']} rows {kind.replace('_', ' ')}", part)
        x += wide
    drawn.text(x + 8, y + 19, f"{_lost(total)} of {total['ever_right']} rows", "small faint")


def _totals(facts: Facts) -> dict[str, dict[str, int]]:
    """The counts of each line that has any, over its tasks."""
    found = {line.label: [fact for fact in facts.forgotten.kinds if fact.line == line.label] for line in facts.lines}
    return {
        label: {name: sum(getattr(fact, name) for fact in of_line) for name in COUNTS}
        for label, of_line in found.items()
        if of_line
    }


def _lost(total: Mapping[str, int]) -> int:
    return sum(total[kind] for kind in _KINDS)


def _share_lost(total: Mapping[str, int]) -> float:
    return 100 * _lost(total) / max(total["ever_right"], 1)


def _most_lost(totals: Mapping[str, Mapping[str, int]]) -> str:
    told = "; ".join(
        f"{label} {_lost(total)} of {total['ever_right']}, {total['unrelated']} of them unrelated"
        for label, total in totals.items()
    )
    return f"Forgotten of the rows once answered well: {told}."


def _kinds_table(kinds: Sequence[KindFacts]) -> Table:
    rows = [(f.line, f.task, *[str(n) for n in (f.ever_right, f.related, f.unrelated, f.not_judged)]) for f in kinds]
    return Table(head=("strategy", "task", "once answered well", "related", "unrelated", "not judged"), rows=rows)
