"""inscl doctor"""

from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import EncodingOptions, OutputOptions
from inscl.cli.printing import print_json, say

if TYPE_CHECKING:
    from inscl.doctor import Diagnosis


@command("inscl doctor --quick")
def doctor(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Do not recompute the memory's checksums.")] = False,
    devices: Annotated[bool, typer.Option("--devices", help="Load torch: devices, and the faster precision.")] = False,
    memory: EncodingOptions,
    output: OutputOptions,
) -> int:
    """Look for what is missing or wrong: packages, devices, models, memory, disk; exit code 1 if something is.

    Keys are never printed, only whether they are set. --quiet prints the problems alone.
    """
    from inscl.doctor import examine

    found = examine(memory.memory, encoder=memory.encoder, quick=quick, devices=devices)
    if output.json:
        print_json(found.to_dict())
    else:
        _print(found, output.quiet)
    return 1 if found.problems else 0


def _print(found: "Diagnosis", quiet: bool) -> None:
    if not quiet:
        width = max(len(finding.what) for part in found.sections.values() for finding in part)
        for heading, part in found.sections.items():
            say(heading)
            for finding in part:
                mark = "!" if finding.problem else " "
                say(f" {mark} {finding.what:<{width}}  {finding.value}")
    for problem in found.problems:
        say(f"problem: {problem}")
    if not quiet:
        say("healthy" if not found.problems else f"problems: {len(found.problems)}")
