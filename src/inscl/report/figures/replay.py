"""What was replayed: how budgets were shared out, and the InsInfo of what was chosen and what was not."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from inscl.report.facts import Facts
from inscl.report.figures.draw import LABEL_WIDTH, WIDTH, Drawing, Scale, apart, fit, width_of
from inscl.report.figures.figure import Figure, Table
from inscl.report.plan import PlanFacts, PlanTask
from inscl.report.replayed import BudgetFacts, InsInfoFacts, InstructionFacts, StageBudget

LEFT, TOP, HEIGHT = 52.0, 12.0, 260.0  # of the stacked bars
_ROW = 34.0  # of the InsInfo figure: height of a task's dots


def budget_figures(facts: Facts, first: str = "") -> list[Figure]:
    """Rows replayed at each stage, stacked by the earlier task they come from; those of the line `first` lead."""
    budgets = sorted(facts.replay.budgets, key=lambda budget: budget.line != first)
    several = len({budget.order for budget in budgets}) > 1
    return [_budget_figure(i, budget, several) for i, budget in enumerate(budgets)]


def _budget_figure(number: int, budget: BudgetFacts, several_orders: bool) -> Figure:
    earlier = [task for task in budget.tasks if any(stage.counts.get(task) for stage in budget.stages)]
    most = max(sum(stage.counts.values()) for stage in budget.stages)
    names = [fit(task, 140) for task in earlier]
    right = WIDTH - 26 - max(map(width_of, names))
    wide, scale = (right - LEFT) / len(budget.stages), Scale(0, most, TOP + HEIGHT, TOP)
    drawn = Drawing()
    drawn.upwards(scale, LEFT, right, "rows replayed", most=5)
    for i, stage in enumerate(budget.stages):
        _stack(drawn, LEFT + i * wide, wide, stage, earlier, scale)
        drawn.text(LEFT + (i + 0.5) * wide, TOP + HEIGHT + 18, str(stage.stage), "mid small faint")
    drawn.text((LEFT + right) / 2, TOP + HEIGHT + 38, "stage", "mid small faint")
    _layer_names(drawn, right, budget, earlier, names, scale)
    choice = f"{budget.line}{f', order {budget.order}' if several_orders else ''}, seed {budget.seed}"
    rows = [
        (str(stage.stage), stage.task, str(stage.new_rows), *[str(stage.counts.get(task, "")) for task in earlier])
        for stage in budget.stages
    ]
    table = Table(head=("stage", "new task", "new rows", *earlier), rows=rows)
    size = (WIDTH, TOP + HEIGHT + 48)
    return Figure.of(drawn, f"budget-{number + 1:02d}", _shared_out(choice, budget.stages[-1]), size, table, choice)


def _shared_out(choice: str, last: StageBudget) -> str:
    largest = max(last.counts, key=lambda task: last.counts[task])
    return (
        f"Rows replayed at each stage by {choice}. At stage {last.stage}, {sum(last.counts.values())} rows beside "
        f"{last.new_rows} new ones; most of ‘{largest}’ ({last.counts[largest]})."
    )


def _layers(stage: StageBudget, earlier: Sequence[str]) -> Iterator[tuple[int, str, int, int]]:
    """Number, task, and the rows below and at the top of each layer that there is."""
    below = 0
    for j, task in enumerate(earlier):
        if count := stage.counts.get(task, 0):
            yield j, task, below, below + count
            below += count


def _stack(drawn: Drawing, x: float, wide: float, stage: StageBudget, earlier: Sequence[str], scale: Scale) -> None:
    for j, task, below, above in _layers(stage, earlier):
        part = Drawing()
        part.rect(x, scale(above), wide, scale(below) - scale(above), f"{_layer(j, earlier)} cut")
        drawn.mark(f"stage {stage.stage} ({stage.task}): {above - below} rows of {task}", part)


def _layer_names(
    drawn: Drawing, right: float, budget: BudgetFacts, earlier: Sequence[str], names: Sequence[str], scale: Scale
) -> None:
    """Each layer's name beside where it was drawn last."""
    middles = [0.0] * len(earlier)
    for stage in budget.stages:
        for j, _, below, above in _layers(stage, earlier):
            middles[j] = scale((below + above) / 2)
    for j, (name, y) in enumerate(zip(names, apart(middles, 15, TOP + 4, TOP + HEIGHT), strict=True)):
        drawn.rect(right + 6, y - 5, 10, 10, f"{_layer(j, earlier)} cut")
        drawn.text(right + 20, y + 4, name)


def _layer(j: int, among: Sequence[str]) -> str:
    """The shade of a layer: the task learnt first is the darkest."""
    return f"h{9 - round(8 * j / max(1, len(among) - 1))}"


# ---------------------------------------------------------------- InsInfo


def insinfo_figures(infos: Sequence[InsInfoFacts]) -> list[Figure]:
    """InsInfo of the instructions that were chosen and of the rest."""
    return [_insinfo_figure(i, info) for i, info in enumerate(infos)]


def _insinfo_figure(number: int, info: InsInfoFacts) -> Figure:
    """A dot per instruction of the earlier tasks: full where rows of it are replayed, larger for more."""
    tasks = list(dict.fromkeys(i.task for i in info.instructions))
    most = max(i.insinfo for i in info.instructions) or 1.0
    scale, top = Scale(0, 1.03 * most, LABEL_WIDTH, WIDTH - 24), 34.0
    bottom = top + _ROW * len(tasks)
    drawn = Drawing()
    drawn.across(scale, top, bottom, "InsInfo")
    _dots_legend(drawn, rest=any(not i.chosen for i in info.instructions))
    for t, task in enumerate(tasks):
        y = top + _ROW * (t + 0.5)
        drawn.text(LABEL_WIDTH - 10, y + 4, fit(task, LABEL_WIDTH - 14), "end")
        drawn.line(LABEL_WIDTH, y, WIDTH - 24, y, "grid")
        _dots(drawn, y, info.instructions, task, scale)
    table = Table(
        head=("task", "InsInfo", "replayed", "rows there are", "instruction"),
        rows=[
            (i.task, f"{i.insinfo:.2f}", str(i.chosen), _known(i.available), fit(i.text, 1200))
            for i in sorted(info.instructions, key=lambda i: (tasks.index(i.task), -i.insinfo))
        ],
    )
    return Figure.of(drawn, f"insinfo-{number + 1:02d}", _chosen(info), (WIDTH, bottom + 44), table, info.line)


def _dots_legend(drawn: Drawing, *, rest: bool) -> None:
    drawn.circle(LABEL_WIDTH + 6, 14, 5, "s0")
    drawn.text(LABEL_WIDTH + 18, 18, "replayed; larger: more rows")
    if rest:
        drawn.circle(LABEL_WIDTH + 208, 14, 4, "hollow")
        drawn.text(LABEL_WIDTH + 220, 18, "not replayed")


def _dots(drawn: Drawing, y: float, among: Sequence[InstructionFacts], task: str, scale: Scale) -> None:
    """The instructions of one task; those that would lie on each other are moved up and down."""
    many = max(i.chosen for i in among) or 1
    seen: dict[int, int] = {}
    for i in sorted((i for i in among if i.task == task), key=lambda i: i.chosen):
        x = scale(i.insinfo)
        turn = seen[round(x / 8)] = seen.get(round(x / 8), 0) + 1
        part = Drawing()
        radius = 4 + 3 * (i.chosen / many) ** 0.5 if i.chosen else 4
        part.circle(x, y + (0, 7, -7)[(turn - 1) % 3], radius, "s0 cut" if i.chosen else "hollow")
        of = "" if i.available is None else f" of {i.available}"
        drawn.mark(f"{task}: InsInfo {i.insinfo:.1f}, {i.chosen}{of} rows: {fit(i.text, 600)}", part)


def _chosen(info: InsInfoFacts) -> str:
    chosen = [i.insinfo for i in info.instructions if i.chosen]
    rest = [i.insinfo for i in info.instructions if not i.chosen]
    against = f" against {fmean(rest):.1f} of the {len(rest)} left out" if rest else ""
    return (
        f"{info.line}, stage {info.stage}: mean InsInfo is {fmean(chosen) if chosen else 0:.1f} of the {len(chosen)} "
        f"instructions replayed{against}."
    )


def _known(number: int | None) -> str:
    return "" if number is None else str(number)


# ---------------------------------------------------------------- one plan


def share_figure(plan: PlanFacts) -> Figure | None:
    """Rows replayed of each earlier task, with its distance and share."""
    if not plan.tasks:
        return None
    scale = Scale(0, max(task.count for task in plan.tasks) or 1, LABEL_WIDTH, WIDTH - 250)
    drawn, y = Drawing(), 10.0
    for task in plan.tasks:
        _share(drawn, y, task, scale)
        y += 30
    first = max(plan.tasks, key=lambda task: task.count)
    finding = f"Rows replayed of each earlier task; most of ‘{first.name}’: {first.count} of {first.available}."
    rows = [
        (
            task.name,
            "" if task.distance is None else f"{task.distance:.4f}",
            f"{task.share:.1f}",
            *[f"{n:,}" for n in (task.count, task.available, task.tokens)],
            f"{len(task.listed)} of {task.all_instructions}",
        )
        for task in plan.tasks
    ]
    table = Table(head=("task", "distance", "share, %", "rows", "of", "tokens ≈", "instructions"), rows=rows)
    return Figure.of(drawn, "shares", finding, (WIDTH, y + 10), table)


def _share(drawn: Drawing, y: float, task: PlanTask, scale: Scale) -> None:
    far = "" if task.distance is None else f"distance {task.distance:.3f}, "
    about = f"{task.count} of {task.available} rows"
    end, part = scale(task.count), Drawing()
    drawn.text(LABEL_WIDTH - 10, y + 18, fit(task.name, LABEL_WIDTH - 14), "end")
    part.rect(LABEL_WIDTH, y + 4, max(end - LABEL_WIDTH, 1), 20, "s0", 3)
    drawn.mark(f"{task.name}: {far}{task.share:.1f} % of the budget, {about}", part)
    drawn.text(end + 8, y + 18, f"{about} · {far}{task.share:.1f} %", "small faint")
