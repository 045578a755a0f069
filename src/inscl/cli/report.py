"""inscl report"""

from pathlib import Path
from typing import Annotated

import typer

from inscl.cli.app import JsonOption, QuietOption, app, print_json, printable, remark
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
        str, typer.Option("--figures", help="Files of the figures: svg, png, both or none.")
    ] = "svg,png",
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one page on what runs kept, forgot and cost, with its figures; or on what a plan would replay, and why."""
    from inscl.report.page import KINDS, drawable, is_plan

    if figures is None:
        kinds = drawable()
        if not quiet and kinds != KINDS:
            remark("figures are written as SVG only: PNG needs `pip install 'inscl[report]'`")
    else:
        kinds = () if figures == "none" else tuple(kind.strip() for kind in figures.split(","))
    plans = [source for source in sources if is_plan(source)]
    if plans and len(sources) > 1:
        raise ConfigError(f"A report shows runs, or one plan: '{plans[0]}' is a plan. Report it alone.")
    if plans:
        from inscl.report.page import write_plan_report
        from inscl.report.plan import summarize_plan

        plan = summarize_plan(plans[0])
        page = write_plan_report(
            plans[0], out or plans[0].with_suffix("").with_name(f"{plans[0].stem}-report"), figures=kinds, facts=plan
        )
        facts = plan.to_dict()
    else:
        from inscl.report.facts import summarize
        from inscl.report.page import write_run_report

        found = summarize(sources)
        page = write_run_report(sources, out or sources[0] / "report", figures=kinds, facts=found)
        facts = found.to_dict()
        for note in () if quiet else found.notes:
            remark(note)
    if json:
        print_json(facts)
        if not quiet:
            remark(f"report written to {page}")
    else:
        print(printable(str(page)))
    if show:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
