"""inscl run"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inscl.cli.app import JsonOption, QuietOption, app, print_json, print_table, printable, remark, table_of

if TYPE_CHECKING:
    from inscl.core.stats import Estimate
    from inscl.experiments.config import StreamConfig
    from inscl.experiments.summary import Summary

WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, help="Models trained side by side, each in a process of its own.")
]


@app.command(epilog="Example: inscl run stream.yaml --out runs/first")
def run(
    stream: Annotated[Path, typer.Argument(help="Configuration of the experiment, YAML.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run. [default: runs/ and the file's name]")
    ] = None,
    workers: WorkersOption = 1,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run strategies x orders x budgets x seeds; the same command goes on where it was interrupted."""
    from inscl.experiments.config import load_config

    carry_out(load_config(stream), out or Path("runs") / stream.stem, workers=workers, json=json, quiet=quiet)


def carry_out(config: "StreamConfig", out: Path, *, workers: int, json: bool, quiet: bool) -> None:
    """Run an experiment under a live view, and print what came out."""
    from inscl.cli.view import RunView
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.experiments.run import run as run_streams
    from inscl.experiments.run_folder import RunFolder
    from inscl.experiments.summary import summarize

    with RunView(quiet=quiet) as view:
        result = run_streams(config, out, workers=workers, progress=view.show)
    summary = summarize(result.table, RunFolder(out).final_rows())
    if json:
        print_json(summary.to_dict())
    else:
        print_summary(summary, config)
    if not quiet:
        remark(f"every number: {out / 'results.parquet'} and results.csv; answers: {out / 'stages'}")


def print_summary(summary: "Summary", config: "StreamConfig") -> None:
    """Strategies, and the differences between them."""
    percent = [("RG final", "gain_final"), ("RG mean", "gain_mean"), ("last five", "gain_last_five")]
    scores = [("AP", "performance"), ("BWT", "backward"), ("forgetting", "forgetting")]
    columns = [
        ("strategy", "left"),
        ("budget", "left"),
        ("streams", "right"),
        *[(head, "right") for head, _ in (*percent, *scores)],
        ("tokens", "right"),
        ("seconds", "right"),
    ]
    rows = [
        (
            line.strategy,
            line.budget,
            line.streams,
            *[_number(getattr(line, name), 1) for _, name in percent],
            *[_number(getattr(line, name), 1, 100) for _, name in scores],
            _number(line.tokens, 0),
            _number(line.seconds, 0),
        )
        for line in summary.lines
    ]
    print_table(table_of(columns, rows))
    print(printable(_legend(config)))
    if summary.differences:
        heads = [("difference in final RG", "left"), ("mean", "right")]
        intervals = [("streams, t", "right"), ("streams and rows", "right"), ("streams", "right")]
        cells = [
            (
                f"{d.line} - {d.baseline}",
                f"{d.paired.mean:+.1f}",
                _interval(d.paired) or "one stream: none",
                _interval(d.resampled),
                d.paired.n,
            )
            for d in summary.differences
        ]
        print_table(table_of([*heads, *intervals], cells))
        print(
            "95 % intervals of differences paired by order and seed: Student's t over the streams; and streams and "
            "test rows drawn again together (of one stream: test rows alone)."
        )


def _interval(of: "Estimate | None") -> str:
    ends = of and of.ends
    return f"{ends[0]:+.1f} … {ends[1]:+.1f}" if ends else ""


def _legend(config: "StreamConfig") -> str:
    rows, limits = config.test_rows, config.limits
    scored = f"{_rows(rows.every_stage)} test rows a task, {_rows(rows.last_stages)} at the last five stages"
    capped = "" if limits.train is None else f"; {limits.train:,} training rows a task"
    capped += "" if limits.test is None else f"; at most {limits.test:,} test rows"
    return (
        f"RG: per cent of the experts' {config.scorer} kept on earlier tasks; AP, BWT, forgetting: {config.scorer} "
        f"x 100. Scored on {scored}{capped}."
    )


def _rows(rows: int | None) -> str:
    return "all" if rows is None else f"{rows:,}"


def _number(value: Any, digits: int, scale: float = 1.0) -> str:
    return "" if value is None else f"{scale * value:,.{digits}f}"
