"""inscl plan | mix"""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import DataOptions, EncodingOptions, OutputOptions, ReplayOptions, WorkingOptions
from inscl.cli.printing import print_json, print_table, remark, say, shorten

if TYPE_CHECKING:
    from inscl.data.mixture import MixtureRow
    from inscl.export.files import Written
    from inscl.memory.memory import Memory
    from inscl.replay.plan import Plan, TaskPlan


@command("inscl plan billing invoices.jsonl --budget 200 --out plan.json")
def plan(
    name: Annotated[str, typer.Argument(help="Name of the new task.")],
    data: Annotated[
        list[str] | None, typer.Argument(help="Its data; without, those remembered under the name.")
    ] = None,
    *,
    replay: ReplayOptions,
    insinfo: Annotated[
        str, typer.Option("--insinfo", help="InsInfo: paper, mean or density (docs/tags.md).")
    ] = "paper",
    out: Annotated[Path | None, typer.Option("--out", help="Write the plan to this file.")] = None,
    against: Annotated[Path | None, typer.Option("--against", help="Say how the plan differs from this one.")] = None,
    instructions: Annotated[int, typer.Option("--instructions", help="Chosen instructions to list per task.")] = 0,
    reading: DataOptions,
    memory: WorkingOptions,
    output: OutputOptions,
) -> int:
    """Show what would be replayed for a new task, why, and what it costs. Nothing is trained or changed."""
    from inscl.replay.plan import Plan, compare
    from inscl.replay.planner import plan as make_plan

    kept = memory.open(quiet=output.quiet).existing()
    source = reading.source(data, name) if data else None
    found = make_plan(kept, name, source, insinfo=insinfo, **replay.arguments(), **reading.arguments())
    made = found.plan
    output.read(found.report)
    if out is not None:
        made.write(out)
    if output.json:
        print_json(made.to_dict())
    else:
        print_plan(made, instructions)
        if out is not None:
            output.remark(f"plan written to {out}; `inscl mix {out} --out mixture.jsonl` makes the mixture")
    lines = [] if against is None else compare(Plan.read(against), made)
    for line in lines:
        remark(line)
    return 1 if lines else 0


_SMALL_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # in the command for TRL where none is named


@command("inscl mix plan.json --format axolotl --out mixture.jsonl")
def mix(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="File that `inscl plan --out` wrote.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write, JSON lines; settings and manifest go beside it.")],
    data: Annotated[list[str] | None, typer.Option("--data", help="The new task's data, if they have moved.")] = None,
    format: Annotated[
        str, typer.Option("--format", help="trl, axolotl, llamafactory, messages, or inscl (parts kept apart).")
    ] = "trl",
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model you train; llamafactory needs its end-of-text token, trl names it."),
    ] = None,
    replay_only: Annotated[bool, typer.Option("--replay-only", help="Only the replayed rows.")] = False,
    memory: EncodingOptions,
    output: OutputOptions,
) -> None:
    """Write the mixture of a plan: the new task's training rows and the replayed ones, never a held-out row."""
    from inscl.export import SpecialTokens, write_file
    from inscl.replay.plan import Plan

    made = Plan.read(plan_file)
    rows = _rows(made, memory.open(quiet=output.quiet).existing(), data, replay_only=replay_only)
    tokens = SpecialTokens.of(model) if model and format == "llamafactory" else None
    written = write_file(rows, out, format, plan=made, tokens=tokens)
    if output.json:
        print_json(
            {
                "file": str(out),
                "rows": written.rows,
                "replayed": written.replayed,
                "sha256": dict(written.files),
                "manifest": str(written.manifest),
            }
        )
    else:
        say(f"{written.rows:,} rows, {written.replayed:,} of them replayed, written to {out}")
    for line in _how_to_use(written, made, out, format, model):
        output.remark(line)


def _rows(made: "Plan", kept: "Memory", data: list[str] | None, *, replay_only: bool) -> "list[MixtureRow]":
    from inscl.replay.mixing import mixture_rows
    from inscl.replay.planner import resume

    if replay_only:
        return mixture_rows(made, kept, None)
    return resume(made, kept, data[0] if data and len(data) == 1 else data).rows()


def _how_to_use(written: "Written", made: "Plan", out: Path, format: str, model: str | None) -> Iterator[str]:
    """What lies beside the mixture, and what it cannot hold; for TRL the command that trains with it."""
    for name in [*written.files][1:]:
        yield f"how to use it: {out.with_name(name)}"
        if format == "trl":
            words = ["trl", "sft", "--config", str(out.with_name(name)), "--model_name_or_path", model or _SMALL_MODEL]
            yield f"train: {shlex.join([*words, '--output_dir', f'{out.stem}-model'])}"
    if outside := [part for part in made.training if part != "late"]:
        parts = ", ".join(outside)
        yield f"the strategy asks of the training what no file holds: {parts}; `inscl learn` does it"
    if written.unweighted:
        yield f"{written.unweighted:,} rows have a weight, which --format {format} cannot hold: all count alike"


def print_plan(made: "Plan", instructions: int = 0) -> None:
    """A plan as a table a person understands."""
    new = made.new
    say(f"Stage {made.stage}: learn '{made.name}' with strategy '{made.strategy}', seed {made.seed}")
    plain = made.budget.amount == made.total and not made.budget.per_task
    resolved = "" if plain else f" = {made.total:,} {made.budget.unit}"
    say(f"Budget: {made.budget.describe(new.rows)}{resolved}\n")
    columns = [
        ("task", "left"),
        ("distance", "right"),
        ("share", "right"),
        ("replayed", "right"),
        ("of", "right"),
        ("tokens ≈", "right"),
        ("instructions", "right"),
    ]
    rows = [
        (
            f"{task.name} (general)" if task.general else task.name,
            "" if task.distance is None else f"{task.distance:.4f}",
            f"{100 * task.share:.1f} %",
            f"{task.count:,}",
            f"{task.available:,}",
            f"{task.tokens:,}",
            f"{len(task.instructions)} of {task.all_instructions}",
        )
        for task in made.tasks
    ]
    if rows:
        print_table(columns, rows)
    else:
        say("There is no earlier task: nothing to replay.\n")
    for task in made.tasks if instructions else ():
        _print_chosen(task, instructions)
    say(
        f"Mixture: {new.rows:,} new + {made.count:,} replayed = {new.rows + made.count:,} examples, "
        f"about {new.tokens + made.tokens:,} tokens an epoch ({made.tokens:,} of them replayed)"
    )
    for note in made.notes:
        say(f"note: {note}")


def _print_chosen(task: "TaskPlan", instructions: int) -> None:
    """The instructions of a task of which most rows are replayed."""
    listed = sorted(task.instructions, key=lambda i: (-i.count, -(i.insinfo or 0), i.key))[:instructions]
    heads = [("rows", "right"), ("InsInfo", "right"), ("instruction", "left"), ("tags", "left")]
    cells = [
        (i.count, "" if i.insinfo is None else f"{i.insinfo:.2f}", shorten(i.text, 60), ", ".join(i.tags or ()))
        for i in listed
    ]
    print_table(heads, cells, title=task.name)
