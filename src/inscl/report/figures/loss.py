"""The loss of training over its steps."""

from inscl.report.figures.draw import WIDTH, Drawing, Scale, style_of
from inscl.report.figures.figure import Figure, Table
from inscl.report.stage import StageFacts

_LEFT, _TOP, _HEIGHT, _MARKS = 52.0, 12.0, 180.0, 60


def loss_figure(facts: StageFacts) -> Figure | None:
    """Loss at each step of the stage's training; None where there are fewer than two."""
    losses = facts.losses
    if len(losses) < 2:
        return None
    steps, loss = Scale(1, len(losses), _LEFT, WIDTH - 20), Scale(0, max(losses), _TOP + _HEIGHT, _TOP)
    drawn = Drawing()
    drawn.across(steps, _TOP, _TOP + _HEIGHT, "step")
    drawn.upwards(loss, _LEFT, WIDTH - 20, "loss", most=4)
    drawn.path([(steps(step), loss(value)) for step, value in enumerate(losses, start=1)], f"line {style_of(0)}")
    every = -(-len(losses) // _MARKS)
    for step in range(1, len(losses) + 1, every):
        part = Drawing()
        part.symbol(0, steps(step), loss(losses[step - 1]), style_of(0), 2.6)
        drawn.mark(f"step {step}: loss {losses[step - 1]:.3f}", part)
    finding = f"Loss of training: {losses[0]:.3f} at the first of {len(losses)} steps, {losses[-1]:.3f} at the last."
    table = Table(head=("step", "loss"), rows=[(str(i), f"{value:.4f}") for i, value in enumerate(losses, start=1)])
    return Figure.of(drawn, "loss", finding, (WIDTH, _TOP + _HEIGHT + 48), table)
