"""inscl check"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import ConfigOption, MemoryOptions, OutputOptions, ServerOption, asked_of, stage_settings
from inscl.cli.printing import print_json, print_table, remark, say

if TYPE_CHECKING:
    from inscl.check.result import CheckResult


@command("inscl check models/july --against models/june --max-drop 2 --junit check.xml")
def check(
    model: Annotated[
        str, typer.Argument(help="Hub id, folder or stage; with --server a name; or a file of its scores.")
    ],
    against: Annotated[
        Path,
        typer.Option(
            "--against", help="What to compare with: a file of `inscl evaluate --out`, a finished stage, or a model."
        ),
    ],
    *,
    max_drop: Annotated[float, typer.Option("--max-drop", help="Largest drop of a task allowed, in points.")] = 2.0,
    notice: Annotated[
        float | None,
        typer.Option("--notice", help="A drop so large must not pass, in points. [default: 8 more than --max-drop]"),
    ] = None,
    max_rise: Annotated[
        str,
        typer.Option("--max-perplexity-rise", help="Largest rise of the general text's perplexity allowed, or off."),
    ] = "5%",
    alpha: Annotated[float, typer.Option("--alpha", help="Share of false alarms over all tasks.")] = 0.05,
    score: Annotated[
        str | None, typer.Option("--score", help="Row score to compare. [default: the scorer of the reference]")
    ] = None,
    undecided: Annotated[
        str, typer.Option("--undecided", metavar="pass|fail", help="What it counts as where the rows cannot tell.")
    ] = "pass",
    strict: Annotated[bool, typer.Option("--strict", hidden=True, help="The same as --undecided fail.")] = False,
    server: ServerOption = None,
    config: ConfigOption = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            envvar="INSCL_MEMORY",
            help="Folder or object-store URI of the memory. [default: the run's for a run's stage, else memory]",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File for the model's scores, as of `evaluate`.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="File for JUnit XML, a case per task.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="File for a Markdown summary.")] = None,
    output: OutputOptions,
) -> None:
    """The gate before a release: exit with 1 where a task dropped by more than is allowed."""
    from inscl.cli.view import StageProgress
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.check import gate
    from inscl.check.result import Tolerance
    from inscl.errors import ConfigError

    if out is not None and out.absolute() == against.absolute():
        raise ConfigError(f"`--out` would replace the reference '{against}'. Name another file.")
    limits = Tolerance(
        max_drop=max_drop,
        notice=notice,
        max_rise=_percent(max_rise),
        alpha=alpha,
        undecided="fail" if strict else undecided,  # type: ignore[arg-type]  # it is checked there
    )
    forms = _forms(junit, markdown)
    settings = None if config is None else stage_settings(config)
    kept = MemoryOptions(memory or _usual_memory(against)).open(quiet=output.quiet)
    with StageProgress(quiet=output.quiet) as view:
        result = gate.check(
            asked_of(server, model) if server else model,
            against,
            kept,
            limits,
            config=settings,
            score=score,
            out=out,
            progress=view.show,
        )
    for file, form in forms:
        _write(file, form(result))
    if output.json:
        print_json(result.to_dict())
    else:
        _print(result)
    if not result.cleared:
        raise typer.Exit(1)


def _usual_memory(against: Path) -> str:
    """The memory of the run that the reference is a stage of; "memory" where it is no run's."""
    from inscl.experiments.run_folder import run_of

    run = run_of(against)
    return "memory" if run is None else str(run.memory())


def _forms(junit: Path | None, markdown: Path | None) -> list[tuple[Path, Callable[["CheckResult"], str]]]:
    """The files asked for, without what an earlier call said in them, and what writes each."""
    from inscl.check import formats

    asked = [(junit, formats.junit), (markdown, formats.markdown)]
    for file, _ in asked:
        if file is not None and _plain(file):
            file.unlink()
    return [(file, form) for file, form in asked if file is not None]


def _print(result: "CheckResult") -> None:
    heads = [(name, "right") for name in ("before", "after", "change", "bounds", "rows")]
    rows = [found.cells() for found in result.findings]
    print_table([("task", "left"), *heads, ("outcome", "left")], rows, title=f"{result.score} x 100")
    for line in result.reasons():
        say(line)
    loud = ", WHICH IS NO PASS" if result.outcome == "cannot tell" else ""
    say(f"{result.outcome.upper()}{loud}: {result.summary}.")
    for line in result.remarks:
        remark(f"note: {line}")
    if loud and result.cleared:
        remark("note: the exit code is 0 all the same; with `--undecided fail` it is 1")


def _percent(text: str) -> float | None:
    """A rise in percent, or none for "off"."""
    from inscl.errors import ConfigError

    if text.lower() == "off":
        return None
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        raise ConfigError(f"`--max-perplexity-rise` must be percent such as 5%, or off, got {text!r}.") from None


def _plain(path: Path) -> bool:
    """Whether this is a file, and neither a link (/dev/stdout is one) nor a device."""
    return path.is_file() and not path.is_symlink()


def _write(path: Path, text: str) -> None:
    from inscl.files import whole_file

    if path.exists() and not _plain(path):
        path.write_text(text, encoding="utf-8")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text)
