"""inscl demo"""

import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import OutputOptions, WorkersOption
from inscl.cli.printing import print_json, say
from inscl.cli.run import carry_out, where_numbers_are

if TYPE_CHECKING:
    from inscl.experiments.summary import Summary


_BAR = 40  # characters that stand for 100 per cent


@command("inscl demo --fast")
def demo(
    *,
    fast: Annotated[bool, typer.Option("--fast", help="Three tasks, no replay against replay: a minute.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run. [default: runs/demo-seedN]")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the samples, draws and shuffling.")] = 0,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser at the end.")] = False,
    workers: WorkersOption = min(2, os.cpu_count() or 1),
    output: OutputOptions,
) -> None:
    """A real small model forgets, and replay keeps it: small tasks learnt one after another, offline, in minutes."""
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.demo import stream_file
    from inscl.experiments.config import Experts, load_config
    from inscl.models.loading import EMBEDDED, resolve

    resolve(EMBEDDED)  # first of all, so that a missing package is told at once
    config = load_config(stream_file(fast)).model_copy(
        update={"seeds": (seed,), "experts": Experts(seeds=(seed,))}  # so that an expert is also a first stage
    )
    output.remark(
        f"Small tasks, one after another, learnt by {EMBEDDED} with strategies {', '.join(config.strategies)}. "
        "Interrupt it when you like: the same command goes on."
    )
    folder = out or Path("runs") / f"demo{'-fast' if fast else ''}-seed{seed}"
    summary = carry_out(config, folder, workers=workers, quiet=output.quiet)
    if output.json:
        print_json(summary.to_dict())
    else:
        _print_kept(summary)
    page = _page(folder)
    output.remark(where_numbers_are(folder))
    output.remark(f"what was kept, and what was forgotten, on one page: {page}")
    if show:
        webbrowser.open(page.absolute().as_uri())


def _print_kept(summary: "Summary") -> None:
    """A bar for each strategy."""
    say("What the model still knows of the earlier tasks after the last one, in per cent of an expert in each:")
    for line in summary.lines:
        name = f"{line.strategy}, {line.budget}" if line.budget else f"{line.strategy}: no replay"
        kept = line.gain_final or 0.0
        say(f"  {name:<22} {'█' * round(max(kept, 0) / 100 * _BAR):<{_BAR}} {kept:.0f}")


def _page(folder: Path) -> Path:
    from inscl.forgetting.analysis import analyse
    from inscl.report.page import write_run_report

    analyse(folder).write()
    return write_run_report([folder], folder / "report", figures=("svg",))
