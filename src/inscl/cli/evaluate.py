"""inscl evaluate"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import (
    ConfigOption,
    MemoryOptions,
    OutputOptions,
    ServerOption,
    TestRowsOption,
    asked_of,
    stage_settings,
)
from inscl.cli.printing import print_json, print_table, say, score_cells

if TYPE_CHECKING:
    from inscl.check.assessment import Assessment
    from inscl.evaluation.scores import RowScores


@command("inscl evaluate models/billing --out scores.json")
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Hub id, folder or stage; with --server a name. [default: model of the last finished stage]"
        ),
    ] = None,
    *,
    server: ServerOption = None,
    config: ConfigOption = None,
    test_rows: TestRowsOption = 200,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File for the scores of every row, for `inscl check --against`; answers go to FILE.answers."
        ),
    ] = None,
    memory: MemoryOptions,
    output: OutputOptions,
) -> None:
    """Score a model on the test rows of every remembered task, and its perplexity on a general text."""
    from inscl.cli.view import StageProgress
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.check.assessment import assess

    kept = memory.open(quiet=output.quiet).existing()
    settings = stage_settings(config)
    with StageProgress(quiet=output.quiet) as view:
        made = assess(
            kept,
            asked_of(server, model) if server else model or kept.last_model(),
            config=settings,
            test_rows=test_rows or None,
            out=out,
            progress=view.show,
        )
    cells = {task: score_of(scores, settings.scorer) for task, scores in made.tasks.items()}
    if output.json:
        print_json(cells)
    else:
        _print_scores(made, settings.scorer)
    if out is not None:
        output.remark(f"compare with it: inscl check MODEL --against {out}")


def _print_scores(made: "Assessment", scorer: str) -> None:
    heads = [("task", "left"), (scorer, "right"), ("95 % interval", "right"), ("exact", "right"), ("rows", "right")]
    rows = [
        (task, *score_cells(scores.estimate(scorer)), f"{100 * scores.mean('exact_match'):.1f}", scores.n)
        for task, scores in made.tasks.items()
    ]
    print_table(heads, rows)
    if made.perplexity is not None:
        low, high = made.perplexity.interval()
        say(f"General text: perplexity {made.perplexity.value:.1f} ({low:.1f} … {high:.1f}).")


def score_of(scores: "RowScores", scorer: str) -> Mapping[str, object]:
    """A task's score as JSON holds it."""
    main = scores.estimate(scorer)
    others = {score: scores.mean(score) for score in scores.rows if score != scorer}
    return {"score": main.mean, "low": main.low, "high": main.high, "n": main.n, "capped": scores.capped, **others}
