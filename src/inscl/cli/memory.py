"""inscl add | tasks | show | remove | verify"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import DataOptions, MemoryOptions, OutputOptions, TaskArgument, WorkingOptions
from inscl.cli.printing import print_json, print_table, say, shorten

if TYPE_CHECKING:
    from inscl.memory.task import Task, TaskInfo


@command("inscl add support tickets.jsonl")
def add(
    name: Annotated[str, typer.Argument(help="Name of the task.")],
    data: Annotated[
        list[str], typer.Argument(help="Files, a folder, a Super-NaturalInstructions checkout or a Hub id.")
    ],
    *,
    append: Annotated[bool, typer.Option("--append", help="Add rows instead of replacing the task.")] = False,
    general: Annotated[
        bool,
        typer.Option("--general", help="Replay it for what the model could do before; it is never scored as a task."),
    ] = False,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Keep the replaced version.")] = False,
    reading: DataOptions,
    memory: WorkingOptions,
    output: OutputOptions,
) -> None:
    """Remember a task: read its data, split it, tag and encode its instructions."""
    source, arguments = reading.source(data, name), reading.arguments()
    done = memory.open(quiet=output.quiet).add(
        name, source, append=append, general=general, keep_old=keep_old, **arguments
    )
    info = done.info
    output.read(done.report)
    if info.duplicates:
        output.remark(f"{info.duplicates:,} exact duplicates removed")
    for warning in done.warnings:
        output.remark(f"note: {warning}")
    if output.json:
        print_json({"status": done.status, **asdict(info), "shared_inputs": done.shared_inputs, "notes": done.warnings})
        return
    rows = ", ".join(f"{count:,} {side}" for side, count in info.rows.items())
    say(f"{done.status} '{name}': {rows} rows, {info.instructions:,} instructions")


@command("inscl tasks --json")
def tasks(memory: MemoryOptions, output: OutputOptions) -> None:
    """List the remembered tasks."""
    infos = memory.open(quiet=output.quiet).existing().tasks()
    if output.json:
        print_json([asdict(info) for info in infos])
        return
    columns = [("task", "left"), *[(name, "right") for name in ("train", "dev", "test", "instructions", "tokens")]]
    rows = [
        (info.name, *[f"{n:,}" for n in (*info.rows.values(), info.instructions, sum(info.tokens.values()))])
        for info in infos
    ]
    told = [("form", "left"), *[("ignored columns", "left")] * any(info.ignored for info in infos)]
    kinds = [(_form(info), shorten(", ".join(info.ignored), 40))[: len(told)] for info in infos]
    print_table([*columns, *told], [(*row, *kind) for row, kind in zip(rows, kinds, strict=True)])


def _form(info: "TaskInfo") -> str:
    return f"{info.form}, general" if info.general else info.form


@command("inscl show support --instructions 10")
def show(
    name: TaskArgument,
    *,
    instructions: Annotated[
        int, typer.Option("--instructions", help="Instructions to list, the commonest first.")
    ] = 10,
    versions: Annotated[bool, typer.Option("--versions", help="List the kept versions instead.")] = False,
    memory: MemoryOptions,
    output: OutputOptions,
) -> None:
    """Show a task: its rows, its split, its instructions and their tags."""
    kept = memory.open(quiet=output.quiet).existing()
    if versions:
        _show_versions(kept.versions(name), output.json)
    else:
        _show_task(kept.task(name), instructions, output.json)


def _show_versions(infos: "list[TaskInfo]", json: bool) -> None:
    if json:
        print_json([asdict(info) for info in infos])
        return
    for number, info in enumerate(infos, 1):
        current = "  (current)" if number == len(infos) else ""
        say(f"{info.content[:12]}  {sum(info.rows.values()):,} rows{current}")


def _show_task(task: "Task", instructions: int, json: bool) -> None:
    from inscl.data.readers import ignored_columns

    whole, info = task.instructions, task.info
    order = sorted(range(len(whole.texts)), key=lambda i: (-int(whole.counts[i].sum()), whole.keys[i]))[:instructions]
    listed = [(int(whole.counts[i].sum()), whole.texts[i], whole.tags[i]) for i in order]
    if json:
        found = [{"text": text, "rows": rows, "tags": list(tags)} for rows, text, tags in listed]
        print_json({**asdict(info), "listed_instructions": found})
        return
    say(f"{info.name}  ({_form(info)}, content {info.content[:12]})")
    say("rows: " + ", ".join(f"{count:,} {side}" for side, count in info.rows.items()))
    say(f"instructions: {info.instructions:,}; distinct inputs: {info.inputs:,}")
    if info.ignored:
        say(ignored_columns(info.ignored, sum(info.rows.values())))
    say(f"encoder: {info.encoder}; tagger: {info.tagger}")
    columns = [("rows", "right"), ("instruction", "left"), ("tags", "left")]
    print_table(columns, [(rows, shorten(text, 70), ", ".join(tags)) for rows, text, tags in listed])


@command("inscl remove support")
def remove(
    name: TaskArgument,
    memory: MemoryOptions,
    output: OutputOptions,
) -> None:
    """Forget a task and delete every byte that only it needed."""
    memory.open(quiet=output.quiet).remove(name)
    if output.json:
        print_json({"removed": name})
    else:
        say(f"removed '{name}'")


@command("inscl verify && echo healthy")
def verify(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Keep what is whole, put the rest aside, and leave a memory that works.")
    ] = False,
    memory: MemoryOptions,
    output: OutputOptions,
) -> int:
    """Check catalogue, tasks, caches and log byte by byte; exit code 1 if something is damaged."""
    found = memory.open(quiet=output.quiet).verify(repair=repair)
    if output.json:
        print_json(asdict(found))
    else:
        for line in (*(f"repaired: {what}" for what in found.repaired), *found.problems, *found.notes):
            say(line)
        say(f"{found.tasks} tasks, {found.files} files: " + ("damaged" if found.problems else "all checksums hold"))
    return 1 if found.problems else 0
