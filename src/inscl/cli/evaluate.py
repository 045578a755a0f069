"""inscl evaluate"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.app import (
    JsonOption,
    MemoryOption,
    QuietOption,
    app,
    open_memory,
    print_json,
    print_table,
    remark,
    say,
    table_of,
)
from inscl.cli.learn import ConfigOption, TestRowsOption, interval_text, percent_text, read_settings, score_of

if TYPE_CHECKING:
    from inscl.evaluation.server import Server

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask this OpenAI-compatible server, such as http://localhost:8000/v1; MODEL is the name it knows. The key "
        "comes from OPENAI_API_KEY.",
    ),
]


@app.command(epilog="Example: inscl evaluate models/billing --out scores.json")
def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Hub id, folder or stage. [default: model of the last finished stage]")
    ] = None,
    server: ServerOption = None,
    config: ConfigOption = None,
    test_rows: TestRowsOption = 200,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File for the scores of every row, for `inscl check --against`; answers go to FILE.answers."
        ),
    ] = None,
    memory: MemoryOption = "memory",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score a model on the test rows of every remembered task, and its perplexity on a general text."""
    from inscl.cli.view import StageView
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.check.assessment import assess
    from inscl.stages.learn import last_model

    kept = open_memory(memory, quiet=quiet).existing()
    settings = read_settings(config)
    with StageView(quiet=quiet) as view:
        made = assess(
            kept,
            asked_of(server, model) if server else model or last_model(kept),
            config=settings,
            test_rows=test_rows or None,
            out=out,
            progress=view.show,
        )
    cells = {task: score_of(scores, settings.scorer) for task, scores in made.tasks.items()}
    if json:
        print_json(cells)
    else:
        heads = [("task", "left"), (settings.scorer, "right"), ("95 % interval", "right"), ("exact", "right")]
        rows = [
            (task, percent_text(c["score"]), interval_text(c), percent_text(c["exact_match"]), c["n"])
            for task, c in cells.items()
        ]
        print_table(table_of([*heads, ("rows", "right")], rows))
        if made.perplexity is not None:
            low, high = made.perplexity.interval()
            say(f"General text: perplexity {made.perplexity.value:.1f} ({low:.1f} … {high:.1f}).")
    if out is not None and not quiet:
        remark(f"compare with it: inscl check MODEL --against {out}")


def asked_of(server: str, model: str | None) -> "Server":
    """The server to ask, which needs the name of a model."""
    from inscl.errors import ConfigError
    from inscl.evaluation.server import Server

    if model is None:
        raise ConfigError("`--server` needs the name of a model that the server knows: inscl evaluate MODEL --server …")
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"`--server` must be an address such as http://localhost:8000/v1, got {server!r}.")
    return Server(server, model)
