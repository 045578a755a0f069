"""inscl demo"""

import os
from pathlib import Path
from typing import Annotated

import typer

from inscl.cli.app import JsonOption, QuietOption, app, remark
from inscl.cli.run import WorkersOption, carry_out


@app.command(epilog="Example: inscl demo --fast")
def demo(
    fast: Annotated[bool, typer.Option("--fast", help="A smaller one, of a minute or two.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run. [default: runs/demo-seedN]")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the samples, draws and shuffling.")] = 0,
    workers: WorkersOption = min(2, os.cpu_count() or 1),
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """The whole story offline in minutes, on a real small model: learn six tasks with and without replay."""
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.demo import stream_file
    from inscl.experiments.config import Experts, load_config
    from inscl.models.loading import EMBEDDED, resolve

    resolve(EMBEDDED)  # first of all, so that a missing package is told at once
    config = load_config(stream_file(fast)).model_copy(
        update={"seeds": (seed,), "experts": Experts(seeds=(seed,))}  # so that an expert is also a first stage
    )
    if not quiet:
        remark(
            f"Small tasks, one after another, learnt by {EMBEDDED} with strategies {', '.join(config.strategies)}. "
            "Interrupt it when you like: the same command goes on."
        )
    folder = out or Path("runs") / f"demo{'-fast' if fast else ''}-seed{seed}"
    carry_out(config, folder, workers=workers, json=json, quiet=quiet)
    page = _page(folder)
    if not quiet:
        remark(f"what was kept, and what was forgotten, on one page: {page}")


def _page(folder: Path) -> Path:
    from inscl.forgetting.analysis import analyse
    from inscl.report.page import write_run_report

    analyse(folder).write()
    return write_run_report([folder], folder / "report", figures=("svg",))
