"""inscl report"""

from pathlib import Path
from typing import Annotated, Any

import typer

from inscl.cli.app import JsonOption, QuietOption, app, print_json, remark, say
from inscl.errors import ConfigError


@app.command(epilog="Example: inscl report runs/first --out report")
def report(
    sources: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, for one report; or the file of one plan.")
    ],
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
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one page on what runs kept, forgot and cost, with its figures; or on what a plan would replay, and why."""
    from inscl.report.page import is_plan

    kinds = _kinds(figures, quiet)
    plans = [source for source in sources if is_plan(source)]
    if plans and len(sources) > 1:
        raise ConfigError(f"A report shows runs, or one plan: '{plans[0]}' is a plan. Report it alone.")
    page, facts = _of_plan(plans[0], out, kinds) if plans else _of_runs(sources, out, kinds, quiet)
    if json:
        print_json(facts)
        if not quiet:
            remark(f"report written to {page}")
    else:
        say(str(page))
    if show:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _kinds(figures: str | None, quiet: bool) -> tuple[str, ...]:
    """The kinds of files asked for; those that can be written here where nothing is asked."""
    from inscl.report.page import KINDS, drawable

    if figures is not None:
        return () if figures == "none" else tuple(kind.strip() for kind in figures.split(","))
    kinds = drawable()
    if not quiet and kinds != KINDS:
        remark("figures are written as SVG only: PNG needs `pip install 'inscl[report]'`")
    return kinds


def _of_plan(plan: Path, out: Path | None, kinds: tuple[str, ...]) -> tuple[Path, dict[str, Any]]:
    from inscl.report.page import write_plan_report
    from inscl.report.plan import summarize_plan

    facts = summarize_plan(plan)
    place = out or plan.with_suffix("").with_name(f"{plan.stem}-report")
    return write_plan_report(plan, place, figures=kinds, facts=facts), facts.to_dict()


def _of_runs(runs: list[Path], out: Path | None, kinds: tuple[str, ...], quiet: bool) -> tuple[Path, dict[str, Any]]:
    from inscl.report.page import write_run_report
    from inscl.report.reading import summarize

    facts = summarize(runs)
    page = write_run_report(runs, out or runs[0] / "report", figures=kinds, facts=facts)
    for note in () if quiet else facts.notes:
        remark(note)
    return page, facts.to_dict()
