"""inscl plan | mix"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inscl.cli.app import (
    CategoriesOption,
    DevOption,
    EncoderOption,
    FieldOption,
    FormatOption,
    JsonOption,
    MaxMibOption,
    MemoryOption,
    PreferredOption,
    QuietOption,
    SkipBadOption,
    SplitOption,
    TagsOption,
    TestOption,
    app,
    as_source,
    category_files,
    open_memory,
    print_json,
    print_table,
    remark,
    say,
    shorten,
    table_of,
    tell_read,
)
from inscl.errors import PlanError

if TYPE_CHECKING:
    from inscl.replay.budget import Budget
    from inscl.replay.plan import Plan

BudgetOption = Annotated[
    str | None, typer.Option("--budget", help="Examples to replay in all: 200, or 5% of the new rows. [default: 20%]")
]
PerTaskOption = Annotated[str | None, typer.Option("--budget-per-task", help="The same for each earlier task.")]
TokensOption = Annotated[int | None, typer.Option("--budget-tokens", help="Tokens to replay in all (estimated).")]
StrategyOption = Annotated[
    str,
    typer.Option(
        "--strategy",
        help="none, random, inscl, inscl-mean, inscl-density, dynamic, insinfo, proportional, prototype-data, "
        "prototype-instruction, diverse-instruction, rotate, steady, inscl-rotate, rgd or surprise; parts "
        "follow with +, as in inscl+carry.",
    ),
]
InsInfoOption = Annotated[str, typer.Option("--insinfo", help="InsInfo: paper, mean or density (docs/tags.md).")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of every draw.")]


@app.command(epilog="Example: inscl plan billing invoices.jsonl --budget 200 --out plan.json")
def plan(
    name: Annotated[str, typer.Argument(help="Name of the new task.")],
    data: Annotated[
        list[str] | None, typer.Argument(help="Its data; without, those remembered under the name.")
    ] = None,
    budget: BudgetOption = None,
    budget_per_task: PerTaskOption = None,
    budget_tokens: TokensOption = None,
    strategy: StrategyOption = "inscl",
    seed: SeedOption = 0,
    weights: Annotated[
        str, typer.Option("--weights", help="Of instructions in a task: frequency or uniform.")
    ] = "frequency",
    insinfo: InsInfoOption = "paper",
    categories: CategoriesOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the plan to this file.")] = None,
    against: Annotated[Path | None, typer.Option("--compare", help="Say how the plan differs from this one.")] = None,
    instructions: Annotated[int, typer.Option("--instructions", help="Chosen instructions to list per task.")] = 0,
    format: FormatOption = None,
    instruction_field: FieldOption = None,
    skip_bad: SkipBadOption = False,
    preferred: PreferredOption = False,
    max_mib: MaxMibOption = None,
    tags: TagsOption = None,
    dev: DevOption = None,
    test: TestOption = None,
    split: SplitOption = "70/10/20",
    memory: MemoryOption = "memory",
    encoder: EncoderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Show what would be replayed for a new task, why, and what it costs. Nothing is trained or changed."""
    from inscl.data.split import Shares
    from inscl.replay.plan import Plan, compare
    from inscl.replay.planner import plan as make_plan
    from inscl.tags import read_tags

    source: Any = as_source(data) if data else None
    if data and categories is not None:
        source = category_files(data, categories, name)
    reading: dict[str, Any] = {
        "format": format,
        "instruction_field": instruction_field,
        "skip_bad": skip_bad,
        "preferred": preferred,
        "max_mib": max_mib,
        "dev": dev,
        "test": test,
    }
    replay = make_plan(
        open_memory(memory, encoder, quiet).existing(),
        name,
        source,
        budget=parse_budget(budget, budget_per_task, budget_tokens),
        strategy=strategy,
        seed=seed,
        weights=weights,
        insinfo=insinfo,
        tags=None if tags is None else read_tags(tags),
        shares=Shares.parse(split),
        **{key: value for key, value in reading.items() if value},
    )
    made = replay.plan
    if replay.report is not None and not quiet:
        tell_read(replay.report)
    if out is not None:
        made.write(out)
    if json:
        print_json(made.to_dict())
    else:
        print_plan(made, instructions)
        if out is not None and not quiet:
            remark(f"plan written to {out}; `inscl mix {out} --out mixture.jsonl` makes the mixture")
    if against is not None:
        lines = compare(Plan.read(against), made)
        for line in lines:
            remark(line)
        return 1 if lines else 0
    return 0


@app.command(epilog="Example: inscl mix plan.json --format axolotl --out mixture.jsonl")
def mix(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="File that `inscl plan --out` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, JSON lines; settings and manifest go beside it.")],
    data: Annotated[list[str] | None, typer.Option("--data", help="The new task's data, if they have moved.")] = None,
    format: Annotated[
        str, typer.Option("--format", help="trl, axolotl, llamafactory, messages, or inscl (parts kept apart).")
    ] = "trl",
    model: Annotated[
        str | None, typer.Option("--model", help="The model you train; llamafactory needs its end-of-text token.")
    ] = None,
    replay_only: Annotated[bool, typer.Option("--replay-only", help="Only the replayed rows.")] = False,
    memory: MemoryOption = "memory",
    encoder: EncoderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the mixture of a plan: the new task's training rows and the replayed ones, never a held-out row."""
    from inscl.export import special_tokens, write_file
    from inscl.replay.mixing import replayed_rows
    from inscl.replay.plan import Plan
    from inscl.replay.planner import resume

    made = Plan.read(plan_file)
    kept = open_memory(memory, encoder, quiet).existing()
    if replay_only:
        with kept.reading():
            rows = replayed_rows(made, kept)
    else:
        rows = resume(made, kept, as_source(data) if data else None).rows()
    tokens = special_tokens(model) if model and format == "llamafactory" else None
    written = write_file(rows, out, format, plan=made, tokens=tokens)
    if json:
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
    if quiet:
        return
    for name in [*written.files][1:]:
        remark(f"how to use it: {out.with_name(name)}")
    if outside := [part for part in made.training if part != "late"]:
        remark(f"the strategy asks of the training what no file holds: {', '.join(outside)}; `inscl learn` does it")
    if written.unweighted:
        remark(f"{written.unweighted:,} rows have a weight, which --format {format} cannot hold: all count alike")


def parse_budget(total: str | None, per_task: str | None, tokens: int | None) -> "Budget | None":
    """The budget of the three options, of which at most one may be given; None where none is."""
    from inscl.replay.budget import Budget

    given = [option for option in (total, per_task, tokens) if option is not None]
    if len(given) > 1:
        raise PlanError("Give only one of --budget, --budget-per-task and --budget-tokens.")
    if tokens is not None:
        return Budget(tokens, "tokens", per_task=False)
    if total is not None:
        return Budget.parse(total)
    return None if per_task is None else Budget.parse(per_task, per_task=True)


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
            task.name,
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
        print_table(table_of(columns, rows))
    else:
        say("There is no earlier task: nothing to replay.\n")
    for task in made.tasks if instructions else ():
        listed = sorted(task.instructions, key=lambda i: (-i.count, -(i.insinfo or 0), i.key))[:instructions]
        cells = [
            (
                i.count,
                "" if i.insinfo is None else f"{i.insinfo:.2f}",
                shorten(i.text, 60),
                ", ".join(i.tags or ()),
            )
            for i in listed
        ]
        heads = [("rows", "right"), ("InsInfo", "right"), ("instruction", "left"), ("tags", "left")]
        print_table(table_of(heads, cells, title=task.name))
    say(
        f"Mixture: {new.rows:,} new + {made.count:,} replayed = {new.rows + made.count:,} examples, "
        f"about {new.tokens + made.tokens:,} tokens an epoch ({made.tokens:,} of them replayed)"
    )
    for note in made.notes:
        say(f"note: {note}")
