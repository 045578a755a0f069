"""inscl pool"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import OutputOptions, ServerOption, asked_of
from inscl.cli.printing import print_json, say


@command("inscl pool smollm2-135m --out pool.jsonl && inscl add --general before pool.jsonl")
def pool(
    model: Annotated[str, typer.Argument(help="Hub id, folder or smollm2-135m; with --server the name it knows.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write, JSON lines; answers so far in FILE.answers.")],
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="File of prompts, one on each line. [default: inscl's everyday instructions]"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longer answers are left out.")] = 256,
    server: ServerOption = None,
    output: OutputOptions,
) -> None:
    """A model's own answers to a set of prompts, to be replayed as general data. Goes on if interrupted."""
    from inscl.cli.view import StageProgress
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.evaluation.pool import read_prompts, write_pool

    asked = None if prompts is None else read_prompts(prompts)
    with StageProgress(quiet=output.quiet) as view:
        done = write_pool(
            asked_of(server, model) if server else model,
            out,
            asked,
            max_new_tokens=max_new_tokens,
            progress=lambda count, total: view.show("answer", count, total, None),
        )
    if output.json:
        print_json({"file": str(out), **asdict(done)})
        return
    say(f"{done.rows:,} answers written to {out}; left out: {done.unfinished:,} not finished, {done.empty:,} empty")
    output.remark(f"remember them: inscl add --general before {out}")
