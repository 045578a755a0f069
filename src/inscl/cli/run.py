"""inscl run"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import OutputOptions, WorkersOption
from inscl.cli.printing import print_json, print_table, say

if TYPE_CHECKING:
    from inscl.core.stats import Estimate
    from inscl.experiments.comparison import Comparison
    from inscl.experiments.config import StreamConfig
    from inscl.experiments.summary import Summary

_COLUMNS: tuple[tuple[str, str, int, int], ...] = (  # head, field, digits, factor
    ("RG final", "gain_final", 1, 1),
    ("RG mean", "gain_mean", 1, 1),
    ("last five", "gain_last_five", 1, 1),
    ("at equal tokens", "gain_equal_tokens", 1, 1),
    ("of joint", "share_of_joint", 1, 1),
    ("AP", "performance", 1, 100),
    ("BWT", "backward", 1, 100),
    ("forgetting", "forgetting", 1, 100),
    ("tokens", "tokens", 0, 1),
    ("seconds", "seconds", 0, 1),
)


@command("inscl run stream.yaml --out runs/first")
def run(
    stream: Annotated[Path, typer.Argument(help="Configuration of the experiment, YAML.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run. [default: runs/ and the file's name]")
    ] = None,
    workers: WorkersOption = 1,
    output: OutputOptions,
) -> None:
    """Run strategies x orders x budgets x seeds; the same command goes on where it was interrupted."""
    from inscl.experiments.config import load_config

    config, folder = load_config(stream), out or Path("runs") / stream.stem
    summary = carry_out(config, folder, workers=workers, quiet=output.quiet)
    if output.json:
        print_json(summary.to_dict())
    else:
        _print_summary(summary, config)
    output.remark(where_numbers_are(folder))


def where_numbers_are(folder: Path) -> str:
    """A line on the files of a run."""
    return f"every number: {folder / 'results.parquet'} and results.csv; answers: {folder / 'stages'}"


def carry_out(config: "StreamConfig", out: Path, *, workers: int, quiet: bool) -> "Summary":
    """Run an experiment under a live view, and sum up what came out."""
    from inscl.cli.view import RunView
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.experiments.run import run as run_streams
    from inscl.experiments.run_folder import RunFolder
    from inscl.experiments.summary import Summary

    with RunView(quiet=quiet) as view:
        result = run_streams(config, out, workers=workers, progress=view.show)
    return Summary.of(result.table, RunFolder(out).final_rows())


def _print_summary(summary: "Summary", config: "StreamConfig") -> None:
    """Strategies, and the differences between them."""
    columns = [column for column in _COLUMNS if any(getattr(line, column[1]) is not None for line in summary.lines)]
    heads = [("strategy", "left"), ("budget", "left"), ("streams", "right"), *[(head, "right") for head, *_ in columns]]
    rows = [
        (
            line.strategy,
            line.budget,
            line.streams,
            *[_number(getattr(line, name), digits, scale) for _, name, digits, scale in columns],
        )
        for line in summary.lines
    ]
    print_table(heads, rows)
    say(_legend(config, {name for _, name, *_ in columns}))
    if summary.differences:
        _print_differences(summary.differences)


def _print_differences(differences: "Sequence[Comparison]") -> None:
    from inscl.report.words import p_value

    heads = ("mean", "95 %, streams", "95 %, streams and rows", "streams", "p (Holm)")
    cells = [
        (
            f"{d.line} - {d.baseline}",
            f"{d.paired.mean:+.1f}",
            _interval(d.paired) or ("one stream: none" if d.paired.n == 1 else "none"),
            _interval(d.crossed),
            d.paired.n,
            p_value(d.p, enough=d.paired.enough),
        )
        for d in differences
    ]
    print_table([("difference in final RG", "left"), *[(head, "right") for head in heads]], cells)
    say(
        "Paired by order and seed; streams of one order count as one. Intervals: Student's t over the streams; and for "
        "other streams and other test rows (of one stream: test rows alone). p holds for all these pairs together."
    )


def _interval(of: "Estimate | None") -> str:
    ends = of and of.ends
    return f"{ends[0]:+.1f} … {ends[1]:+.1f}" if ends else ""


def _legend(config: "StreamConfig", shown: Collection[str]) -> str:
    rows, limits = config.test_rows, config.limits
    scored = f"{_rows(rows.every_stage)} test rows a task, {_rows(rows.last_stages)} at the last five stages"
    capped = "" if limits.train is None else f"; {limits.train:,} training rows a task"
    capped += "" if limits.test is None else f"; at most {limits.test:,} test rows"
    said = {
        "gain_equal_tokens": " At equal tokens: RG when a stream had seen as many as the cheapest beside it.",
        "share_of_joint": " Of joint: the earlier tasks in per cent of joint training.",
    }
    more = "".join(words for name, words in said.items() if name in shown)
    return (
        f"RG: per cent of the experts' {config.scorer} kept on earlier tasks; AP, BWT, forgetting: {config.scorer} "
        f"x 100.{more} Scored on {scored}{capped}."
    )


def _rows(rows: int | None) -> str:
    return "all" if rows is None else f"{rows:,}"


def _number(value: float | None, digits: int, scale: int) -> str:
    return "" if value is None else f"{scale * value:,.{digits}f}"
