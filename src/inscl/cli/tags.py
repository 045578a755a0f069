"""inscl tags"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inscl.cli.app import (
    EncoderOption,
    JsonOption,
    MemoryOption,
    QuietOption,
    app,
    open_memory,
    print_json,
    print_table,
    remark,
    say,
    shorten,
    table_of,
)

if TYPE_CHECKING:
    from inscl.replay.survey import Agreement, Survey

LISTED = 20  # rows of a table; JSON has all
OFFLINE = "keyphrase"


@app.command(epilog="Example: inscl tags --insinfo paper --top 5")
def tags(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Tasks to tell of; without, all.")
    ] = None,
    insinfo: Annotated[
        str | None,
        typer.Option("--insinfo", help="Rank the instructions by this InsInfo instead: paper, mean or density."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="FILE|keyphrase",
            help="Compare the ranking with that by other tags: a file of them, or the offline tagger's.",
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=0, help="Rows to list; 0: all. [default: 20; JSON: all]")
    ] = None,
    memory: MemoryOption = "memory",
    encoder: EncoderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show the tags of the remembered tasks, what was merged, and how they rank the instructions."""
    from inscl.replay.settings import DEFAULT_INSINFO
    from inscl.replay.survey import agreement, survey

    kept = open_memory(memory, encoder, quiet).existing()
    by = insinfo or DEFAULT_INSINFO
    if against is not None:
        found = agreement(kept, _other_tags(against), names or (), insinfo=by)
        if json:
            print_json({"against": against, "insinfo": by, "agreement": [asdict(part) for part in found]})
        else:
            print_agreement(found, by, against)
        return
    made = survey(kept, names or (), insinfo=by)
    listed = top if top is not None else len(made.tags) + len(made.instructions) if json else LISTED
    if json:
        plain = asdict(made)
        for part in ("tags", "instructions"):
            plain[part] = plain[part][: listed or None]
        print_json(plain)
        return
    print_survey(made)
    if insinfo is None:
        print_tags(made, listed)
    else:
        print_instructions(made, listed)
    if made.warning and not quiet:
        remark(f"note: {made.warning}")


def _other_tags(against: str) -> Any:
    """The offline tagger, or the tags of a file."""
    if against == OFFLINE:
        from inscl.tags.keyphrase import KeyphraseTagger

        return KeyphraseTagger()
    from inscl.errors import DataError
    from inscl.suggest import suggest
    from inscl.tags import read_tags

    if not Path(against).exists():
        raise DataError(
            f"There is no file '{against}'; wanted a file of tags, or {OFFLINE}.{suggest(against, [OFFLINE])}"
        )
    return read_tags(against)


def print_survey(made: "Survey") -> None:
    """How many of what, in a few lines."""
    if not made.pool:
        say("The memory holds no instruction with training rows. Add a task with `inscl add NAME DATA`.")
        return
    of = "" if len(made.instructions) == made.pool else f" of {made.pool:,} in memory"
    tasks = f"'{made.tasks[0]}'" if len(made.tasks) == 1 else f"{len(made.tasks)} tasks"
    say(f"{tasks}: {len(made.instructions):,} instructions{of}, {len(made.tags):,} tags after merging")
    merged = f"{made.n_merged:,} merged into {made.n_clusters:,} others" if made.n_merged else "none merged"
    say(f"in memory {made.n_tags:,} clean tags, {merged} (radius {made.radius:g})")
    for tagger, count in made.taggers.items():
        say(f"{count:,} instructions tagged by {tagger}")


def print_tags(made: "Survey", listed: int) -> None:
    """The tags as a table, the most frequent first."""
    part = len(made.instructions) != made.pool
    columns = [("tag", "left"), ("instructions", "right"), *([("in memory", "right")] if part else [])]
    columns += [("tasks", "right"), ("ln(N/f)", "right"), ("merged into it", "left")]
    rows = [
        (
            use.tag,
            f"{use.here:,}",
            *([f"{use.instructions:,}"] if part else []),
            f"{len(use.tasks):,}",
            f"{use.rarity:.2f}",
            ", ".join(use.merged),
        )
        for use in made.tags[: listed or None]
    ]
    _print_part(columns, rows, len(made.tags), "tags")


def print_instructions(made: "Survey", listed: int) -> None:
    """The instructions as a table, the highest InsInfo first."""
    columns = [("InsInfo", "right"), ("task", "left"), ("instruction", "left"), ("tags", "left")]
    rows = [
        (f"{use.insinfo:.3f}", ", ".join(use.tasks), shorten(use.text, 60), ", ".join(use.tags))
        for use in made.instructions[: listed or None]
    ]
    _print_part(columns, rows, len(made.instructions), "instructions")


def print_agreement(found: "list[Agreement]", insinfo: str, against: str) -> None:
    """Rank correlations as a table."""
    say(f"Rank of instructions by InsInfo '{insinfo}': tags in memory against {against}")
    columns = [("task", "left"), *[(name, "right") for name in ("instructions", "of", "Spearman", "Kendall")]]
    rows = [
        (part.task or "all together", f"{part.n:,}", f"{part.of:,}", _signed(part.spearman), _signed(part.kendall))
        for part in found
    ]
    print_table(table_of(columns, rows))
    if any(part.spearman is None for part in found):
        say("–: fewer than two instructions, or all rank alike on one side")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _print_part(columns: Any, rows: list[Any], whole: int, what: str) -> None:
    if rows:
        print_table(table_of(columns, rows))
    if len(rows) < whole:
        say(f"… and {whole - len(rows):,} more {what}: --top 0 lists all")
