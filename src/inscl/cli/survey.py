"""inscl survey"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import EncodingOptions, OutputOptions, complete_task
from inscl.cli.printing import print_json, print_table, say, shorten

if TYPE_CHECKING:
    from inscl.replay.survey import Agreement, Survey
    from inscl.tags import Tagger

_LISTED = 20  # rows of a table; JSON has all
_OFFLINE = "keyphrase"


@command("inscl survey --insinfo paper --top 5")
def survey(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Tasks to tell of; without, all.", autocompletion=complete_task),
    ] = None,
    *,
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
    memory: EncodingOptions,
    output: OutputOptions,
) -> None:
    """Show the tags of the remembered tasks, what was merged, and how they rank the instructions."""
    from inscl.replay.settings import DEFAULT_INSINFO
    from inscl.replay.survey import agreement
    from inscl.replay.survey import survey as make_survey

    kept = memory.open(quiet=output.quiet).existing()
    by = insinfo or DEFAULT_INSINFO
    if against is not None:
        _tell_agreement(agreement(kept, _other_tags(against), names or (), insinfo=by), by, against, output.json)
        return
    made = make_survey(kept, names or (), insinfo=by)
    if output.json:
        print_json(_as_json(made, top or None))
        return
    _print_survey(made)
    listed = _LISTED if top is None else top
    if insinfo is None:
        _print_tags(made, listed)
    else:
        _print_instructions(made, listed)
    if made.warning:
        output.remark(f"note: {made.warning}")


def _as_json(made: "Survey", top: int | None) -> dict[str, object]:
    """All that is known, of tags and instructions the first."""
    plain = asdict(made)
    return {**plain, **{part: plain[part][:top] for part in ("tags", "instructions")}}


def _other_tags(against: str) -> "Tagger | dict[bytes, tuple[str, ...]]":
    """The offline tagger, or the tags of a file."""
    if against == _OFFLINE:
        from inscl.tags.keyphrase import KeyphraseTagger

        return KeyphraseTagger()
    from inscl.errors import DataError
    from inscl.suggest import suggest
    from inscl.tags import read_tags

    if not Path(against).exists():
        raise DataError(
            f"There is no file '{against}'; wanted a file of tags, or {_OFFLINE}.{suggest(against, [_OFFLINE])}"
        )
    return read_tags(against)


def _print_survey(made: "Survey") -> None:
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


def _print_tags(made: "Survey", listed: int) -> None:
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


def _print_instructions(made: "Survey", listed: int) -> None:
    """The instructions as a table, the highest InsInfo first."""
    columns = [("InsInfo", "right"), ("task", "left"), ("instruction", "left"), ("tags", "left")]
    rows = [
        (f"{use.insinfo:.3f}", ", ".join(use.tasks), shorten(use.text, 60), ", ".join(use.tags))
        for use in made.instructions[: listed or None]
    ]
    _print_part(columns, rows, len(made.instructions), "instructions")


def _tell_agreement(found: "list[Agreement]", insinfo: str, against: str, json: bool) -> None:
    """Rank correlations as a table."""
    if json:
        print_json({"against": against, "insinfo": insinfo, "agreement": [asdict(part) for part in found]})
        return
    say(f"Rank of instructions by InsInfo '{insinfo}': tags in memory against {against}")
    columns = [("task", "left"), *[(name, "right") for name in ("instructions", "of", "Spearman", "Kendall")]]
    rows = [
        (part.task or "all together", f"{part.n:,}", f"{part.of:,}", _signed(part.spearman), _signed(part.kendall))
        for part in found
    ]
    print_table(columns, rows)
    if any(part.spearman is None for part in found):
        say("–: fewer than two instructions, or all rank alike on one side")


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _print_part(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[object]], whole: int, what: str) -> None:
    if rows:
        print_table(columns, rows)
    if len(rows) < whole:
        say(f"… and {whole - len(rows):,} more {what}: --top 0 lists all")
