"""inscl push | pull"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import MemoryOptions, OutputOptions
from inscl.cli.printing import print_json, say

if TYPE_CHECKING:
    from inscl.sharing.share import Shared


@command("inscl push memory shared/memory --license cc-by-4.0")
def push(
    source: Annotated[
        str, typer.Argument(help="A memory, a plan's file, or the folder of a run or of a stage of `inscl learn`.")
    ],
    dest: Annotated[
        str, typer.Argument(help="A new folder, or one that was pushed to before; or hf://datasets/OWNER/NAME.")
    ],
    *,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence of the data, for the card, such as cc-by-4.0.")
    ] = None,
    about: Annotated[str | None, typer.Option("--about", help="Which data it came from, for the card.")] = None,
    weights: Annotated[bool, typer.Option("--models", help="Also the models of a run or stage.")] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Let all see the dataset of the Hub, which is private otherwise.")
    ] = False,
    memory: MemoryOptions,
    output: OutputOptions,
) -> None:
    """Share a memory, a plan, a run or a stage, with a card that says what it is."""
    from inscl.sharing.share import push as push_to

    kept = memory.open(quiet=output.quiet)
    done = push_to(source, dest, memory=kept, licence=licence, about=about, weights=weights, public=public)
    _tell("pushed", done, output)


@command("inscl pull shared/memory memory")
def pull(
    source: Annotated[str, typer.Argument(help="A folder that `inscl push` wrote, or hf://datasets/OWNER/NAME.")],
    dest: Annotated[str, typer.Argument(help="A new folder; of a plan, a new file.")],
    *,
    output: OutputOptions,
) -> None:
    """Fetch what somebody pushed, and check every file of it; nothing is overwritten."""
    from inscl.sharing.share import pull as pull_from

    _tell("pulled", pull_from(source, dest), output)


def _tell(done: str, shared: "Shared", output: OutputOptions) -> None:
    if output.json:
        print_json(asdict(shared))
    else:
        say(f"{done} a {shared.kind}: {shared.files:,} files, {shared.bytes:,} bytes, in {shared.place}")
