"""inscl report"""

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inscl.cli.application import command
from inscl.cli.options import EncodingOptions, OutputOptions
from inscl.cli.printing import print_json, say
from inscl.errors import ConfigError, InsclError

if TYPE_CHECKING:
    from inscl.replay.plan import Plan
    from inscl.report.instruction_map import InstructionMap


@command("inscl report runs/first --out report")
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs; or one stage's folder, or one plan's file."),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write. [default: RUN/report, or PLAN-report]")
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option(
            "--figures", help="Files of the figures: svg, png, both or none. [default: both, or svg without resvg-py]"
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    remembered: EncodingOptions,
    output: OutputOptions,
) -> None:
    """Write a page on what runs kept, forgot and cost; on what one stage changed; or on what a plan would replay.

    The page of a plan has a map of the instructions where the memory (--memory) is the one that it was made from.
    """
    kinds = _kinds(figures, output)
    if not (kind := _alone(sources)):
        page, facts = _of_runs(sources, out, kinds, output)
    elif kind == "stage":
        page, facts = _of_stage(sources[0], out, kinds)
    else:
        page, facts = _of_plan(sources[0], out, kinds, remembered, output)
    if output.json:
        print_json(facts)
        output.remark(f"report written to {page}")
    else:
        say(str(page))
    if show:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _alone(sources: list[Path]) -> Literal["plan", "stage"] | None:
    """What the one source is that is no run; None where all are runs."""
    from inscl.report.stage import is_stage

    for source in sources:
        kind: Literal["plan", "stage"] = "plan" if _is_plan(source) else "stage"
        if not (kind == "plan" or is_stage(source)):
            continue
        if len(sources) > 1:
            raise ConfigError(f"A report shows runs, one stage or one plan: '{source}' is a {kind}. Report it alone.")
        return kind
    return None


def _is_plan(source: Path) -> bool:
    """Whether a source is meant as a plan's file rather than as a folder."""
    return source.is_file() or (source.suffix == ".json" and not source.is_dir())


def _kinds(figures: str | None, output: OutputOptions) -> tuple[str, ...]:
    """The kinds of files asked for; those that can be written here where nothing is asked."""
    from inscl.report.page import KINDS

    if figures is not None:
        return () if figures == "none" else tuple(kind.strip() for kind in figures.split(","))
    if find_spec("resvg_py"):
        return KINDS
    output.remark("figures are written as SVG only: PNG needs `pip install 'inscl[report]'`")
    return ("svg",)


def _of_plan(
    file: Path, out: Path | None, kinds: tuple[str, ...], remembered: EncodingOptions, output: OutputOptions
) -> tuple[Path, dict[str, object]]:
    from inscl.replay.plan import Plan
    from inscl.report.page import write_plan_report
    from inscl.report.plan import PlanFacts

    plan = Plan.read(file)
    facts, found = PlanFacts.of(plan), _map(plan, remembered, output)
    place = out or file.with_suffix("").with_name(f"{file.stem}-report")
    page = write_plan_report(file, place, figures=kinds, facts=facts, instruction_map=found)
    return page, {**facts.to_dict(), "map": asdict(found) if found else None}


def _map(plan: "Plan", remembered: EncodingOptions, output: OutputOptions) -> "InstructionMap | None":
    """Where the plan's instructions lie; None, with a remark, where the memory is not the one it was made from."""
    from inscl.report.instruction_map import InstructionMap

    found, why = None, f"the memory '{remembered.memory}' has none of its tasks"
    try:
        found = InstructionMap.of(plan, remembered.open(quiet=output.quiet))
    except InsclError as error:
        why = str(error)
    if plan.tasks and not found:
        output.remark(f"no map of the instructions: {why.rstrip('.')}. Name the plan's memory with --memory")
    return found


def _of_stage(stage: Path, out: Path | None, kinds: tuple[str, ...]) -> tuple[Path, dict[str, object]]:
    from inscl.report.page import write_stage_report
    from inscl.report.stage import StageFacts

    facts = StageFacts.of(stage)
    return write_stage_report(stage, out or stage / "report", figures=kinds, facts=facts), facts.to_dict()


def _of_runs(
    runs: list[Path], out: Path | None, kinds: tuple[str, ...], output: OutputOptions
) -> tuple[Path, dict[str, object]]:
    from inscl.report.page import write_run_report
    from inscl.report.reading import summarize

    facts = summarize(runs)
    page = write_run_report(runs, out or runs[0] / "report", figures=kinds, facts=facts)
    for note in facts.notes:
        output.remark(note)
    return page, facts.to_dict()
