"""inscl watch"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import OutputOptions
from inscl.cli.printing import print_json, say


@command("inscl watch runs/first --open")
def watch(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or of a stage of `inscl learn`.")],
    *,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks at the folder.")] = 5.0,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    output: OutputOptions,
) -> None:
    """Serve the page of a run or stage to this machine while it works; it reloads by itself, and ends with the work."""
    from inscl.report.live import LivePage

    with TemporaryDirectory(prefix="inscl-watch-") as folder:
        page = LivePage(source, Path(folder), port=port, every=every)
        if output.json:
            print_json({"address": page.address})
        else:
            say(page.address)
        if show:
            import webbrowser

            webbrowser.open(page.address)
        page.serve(output.remark)
