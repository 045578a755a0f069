"""The map of a plan's instructions: a mark each, and what would move where from the task that one points at."""

from inscl.report.figures.draw import WIDTH, Drawing, Scale, fit, style_of
from inscl.report.figures.figure import Figure, Table
from inscl.report.instruction_map import InstructionMap, MappedInstruction, MappedTask

_HEIGHT, _MARGIN = 460.0, 16.0
_SMALL, _LARGE = 3.0, 4.4  # of a mark


def map_figure(found: InstructionMap | None) -> Figure | None:
    """Every instruction at its place: crosses for the new task, full where rows of an earlier one are replayed."""
    if found is None:
        return None
    drawn = Drawing()
    drawn.cross(16, 14, "own")
    drawn.text(26, 18, f"new: {fit(found.new.name, 280)}")
    top = drawn.legend([task.name for task in found.earlier], 36) + _MARGIN
    across, down = _scales(found, top)
    for k, task in enumerate(found.earlier):
        drawn.group("moving", _task(k, task, found.new, across, down))
    for instruction in found.new.instructions:
        _mark(drawn, f"{found.new.name}, new: {instruction.rows} rows", instruction, across, down)
    return Figure.of(drawn, "map", _finding(found), (WIDTH, top + _HEIGHT + _MARGIN), _table(found))


def _scales(found: InstructionMap, top: float) -> tuple[Scale, Scale]:
    """One unit is as long across as down, so that what looks far is far."""
    places = [(i.x, i.y) for task in (found.new, *found.earlier) for i in task.instructions]
    (left, right), (low, high) = ((min(ends), max(ends)) for ends in zip(*places, strict=True))
    unit = max((right - left) / (WIDTH - 2 * _MARGIN), (high - low) / _HEIGHT) or 1.0
    wide, tall = unit * (WIDTH - 2 * _MARGIN), unit * _HEIGHT
    x, y = (left + right - wide) / 2, (low + high - tall) / 2
    return Scale(x, x + wide, _MARGIN, WIDTH - _MARGIN), Scale(y, y + tall, top + _HEIGHT, top)


def _task(k: int, task: MappedTask, new: MappedTask, across: Scale, down: Scale) -> Drawing:
    part = Drawing()
    for move in task.moves:
        start, end = task.instructions[move.start], new.instructions[move.end]
        part.line(across(start.x), down(start.y), across(end.x), down(end.y), f"whisker moved {style_of(k)}")
    for instruction in sorted(task.instructions, key=lambda i: i.chosen):
        about = f"{task.name}: {instruction.chosen} of {instruction.rows} rows replayed"
        _mark(part, about, instruction, across, down, k)
    return part


def _mark(
    drawn: Drawing, about: str, instruction: MappedInstruction, across: Scale, down: Scale, k: int | None = None
) -> None:
    part, x, y = Drawing(), across(instruction.x), down(instruction.y)
    if k is None:
        part.rect(x - _LARGE, y - _LARGE, 2 * _LARGE, 2 * _LARGE, "under")  # to point at
        part.cross(x, y, "own")
    elif instruction.chosen:
        part.symbol(k, x, y, f"{style_of(k)} cut", _LARGE)
    else:
        part.symbol(k, x, y, f"line thin {style_of(k)}", _SMALL)
    drawn.mark(f"{about}: {fit(instruction.text, 600)}", part)


def _finding(found: InstructionMap) -> str:
    left_out = f" {found.left_out} tasks are not drawn." if found.left_out else ""
    return (
        f"Instructions of ‘{found.new.name}’ and of {len(found.earlier)} earlier tasks, near where they mean much "
        f"the same; crosses are new, full marks replayed. The two dimensions hold {100 * found.spread:.0f} % of the "
        f"spread. Point at an earlier task to see which new instructions its own would move to.{left_out}"
    )


def _table(found: InstructionMap) -> Table:
    return Table(
        head=("task", "distance", "instructions drawn", "of", "with replayed rows", "moves most to"),
        rows=[_row(task, found.new) for task in (found.new, *found.earlier)],
    )


def _row(task: MappedTask, new: MappedTask) -> tuple[str, ...]:
    most = max(task.moves, key=lambda move: move.share, default=None)
    return (
        task.name,
        "" if task.distance is None else f"{task.distance:.4f}",
        str(len(task.instructions)),
        str(task.all_instructions),
        str(sum(i.chosen > 0 for i in task.instructions)),
        "" if most is None else fit(new.instructions[most.end].text, 600),
    )
