"""inscl add | tasks | show | remove | verify"""

from dataclasses import asdict
from typing import Annotated, Any

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
    complete_task,
    open_memory,
    print_json,
    print_table,
    remark,
    say,
    shorten,
    table_of,
    tell_read,
)

TaskArgument = Annotated[str, typer.Argument(help="Name of the task.", autocompletion=complete_task)]


@app.command(epilog="Example: inscl add support tickets.jsonl")
def add(
    name: Annotated[str, typer.Argument(help="Name of the task.")],
    data: Annotated[
        list[str], typer.Argument(help="Files, a folder, a Super-NaturalInstructions checkout or a Hub id.")
    ],
    append: Annotated[bool, typer.Option("--append", help="Add rows instead of replacing the task.")] = False,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Keep the replaced version.")] = False,
    categories: CategoriesOption = None,
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
) -> None:
    """Remember a task: read its data, split it, tag and encode its instructions."""
    from inscl.data.split import Shares
    from inscl.tags import read_tags

    kept = open_memory(memory, encoder, quiet)
    source: str | list[str] = as_source(data)
    if categories is not None:
        source = category_files(data, categories, name)
    done = kept.add(
        name,
        source,
        append=append,
        keep_old=keep_old,
        format=format,
        instruction_field=instruction_field,
        skip_bad=skip_bad,
        preferred=preferred,
        max_mib=max_mib,
        tags=None if tags is None else read_tags(tags),
        dev=dev,
        test=test,
        shares=Shares.parse(split),
    )
    info = done.info
    if not quiet:
        tell_read(done.report)
        if info.duplicates:
            remark(f"{info.duplicates:,} exact duplicates removed")
        for warning in done.warnings:
            remark(f"note: {warning}")
    if json:
        print_json({"status": done.status, **asdict(info), "shared_inputs": done.shared_inputs, "notes": done.warnings})
        return
    rows = ", ".join(f"{count:,} {side}" for side, count in info.rows.items())
    say(f"{done.status} '{name}': {rows} rows, {info.instructions:,} instructions")


@app.command(epilog="Example: inscl tasks --json")
def tasks(memory: MemoryOption = "memory", json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List the remembered tasks."""
    infos = open_memory(memory, quiet=quiet).existing().tasks()
    if json:
        print_json([asdict(info) for info in infos])
        return
    columns = [("task", "left"), *[(name, "right") for name in ("train", "dev", "test", "instructions", "tokens")]]
    rows = [
        (info.name, *[f"{n:,}" for n in (*info.rows.values(), info.instructions, sum(info.tokens.values()))])
        for info in infos
    ]
    told = [("form", "left"), *[("ignored columns", "left")] * any(info.ignored for info in infos)]
    kinds = [(info.form, shorten(", ".join(info.ignored), 40))[: len(told)] for info in infos]
    print_table(table_of([*columns, *told], [(*row, *kind) for row, kind in zip(rows, kinds, strict=True)]))


@app.command(epilog="Example: inscl show support --instructions 10")
def show(
    name: TaskArgument,
    instructions: Annotated[
        int, typer.Option("--instructions", help="Instructions to list, the commonest first.")
    ] = 10,
    versions: Annotated[bool, typer.Option("--versions", help="List the kept versions instead.")] = False,
    memory: MemoryOption = "memory",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a task: its rows, its split, its instructions and their tags."""
    from inscl.data.readers import ignored_columns

    kept = open_memory(memory, quiet=quiet).existing()
    if versions:
        infos = kept.versions(name)
        if json:
            print_json([asdict(info) for info in infos])
            return
        for number, info in enumerate(infos, 1):
            current = "  (current)" if number == len(infos) else ""
            say(f"{info.content[:12]}  {sum(info.rows.values()):,} rows{current}")
        return
    task = kept.task(name)
    whole, info = task.instructions, task.info
    order = sorted(range(len(whole.texts)), key=lambda i: (-int(whole.counts[i].sum()), whole.keys[i]))[:instructions]
    listed: list[dict[str, Any]] = [
        {"text": whole.texts[i], "rows": int(whole.counts[i].sum()), "tags": list(whole.tags[i])} for i in order
    ]
    if json:
        print_json({**asdict(info), "listed_instructions": listed})
        return
    say(f"{name}  ({info.form}, content {info.content[:12]})")
    say("rows: " + ", ".join(f"{count:,} {side}" for side, count in info.rows.items()))
    say(f"instructions: {info.instructions:,}; distinct inputs: {info.inputs:,}")
    if info.ignored:
        say(ignored_columns(info.ignored, sum(info.rows.values())))
    say(f"encoder: {info.encoder}; tagger: {info.tagger}")
    columns = [("rows", "right"), ("instruction", "left"), ("tags", "left")]
    print_table(
        table_of(
            columns, [(entry["rows"], shorten(str(entry["text"]), 70), ", ".join(entry["tags"])) for entry in listed]
        )
    )


@app.command(epilog="Example: inscl remove support")
def remove(
    name: TaskArgument,
    memory: MemoryOption = "memory",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Forget a task and delete every byte that only it needed."""
    open_memory(memory, quiet=quiet).remove(name)
    if json:
        print_json({"removed": name})
    else:
        say(f"removed '{name}'")


@app.command(epilog="Example: inscl verify && echo healthy")
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Keep what is whole, put the rest aside, and leave a memory that works.")
    ] = False,
    memory: MemoryOption = "memory",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Check catalogue, tasks, caches and log byte by byte; exit code 1 if something is damaged."""
    found = open_memory(memory, quiet=quiet).verify(repair=repair)
    if json:
        print_json(asdict(found))
    else:
        for line in (*(f"repaired: {what}" for what in found.repaired), *found.problems, *found.notes):
            say(line)
        say(f"{found.tasks} tasks, {found.files} files: " + ("damaged" if found.problems else "all checksums hold"))
    return 1 if found.problems else 0
