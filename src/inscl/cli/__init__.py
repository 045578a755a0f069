"""The command line: each verb calls one library function and prints what came back.

Results go to standard output, progress and remarks to standard error. Exit codes: 0 done, 1 a check failed, 2 the
user can mend it. Launched as several processes, the first does all this and the others join in training.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from inscl.cli import (
    check,
    demo,
    doctor,
    evaluate,
    forgetting,
    learn,
    memory,
    plan,
    pool,
    report,
    run,
    share,
    survey,
    tag,
    watch,
)
from inscl.cli.application import app
from inscl.cli.printing import remark
from inscl.errors import InsclError
from inscl.suggest import suggest
from inscl.training import ranks

__all__ = [
    "app",
    "check",
    "demo",
    "doctor",
    "evaluate",
    "forgetting",
    "learn",
    "main",
    "memory",
    "plan",
    "pool",
    "report",
    "run",
    "share",
    "survey",
    "tag",
    "watch",
]

_INTERRUPTED = 130

# Typer brings a click of its own and names this class nowhere: it is what a bad parameter is.
_UsageError: Any = typer.BadParameter.__base__


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    if ranks.following():
        from inscl.stages.trainer import follow

        return follow()
    code = _run(argv)
    ranks.end(code)
    return code


def _run(argv: Sequence[str] | None) -> int:
    try:
        result = app(args=None if argv is None else list(argv), standalone_mode=False, prog_name="inscl")
    except (Exception, KeyboardInterrupt) as error:
        code = _told(error)
        if code is None:
            raise
        return code
    if result == _INTERRUPTED:  # Typer turns Ctrl-C into this code
        return _interrupted()
    return result if isinstance(result, int) else 0


def _told(error: BaseException) -> int | None:
    """The exit code for what stopped a command, once it is told; None for what is no user's mistake."""
    if isinstance(error, BrokenPipeError):  # `inscl tasks | head`
        sys.stderr.close()
        return 0
    if isinstance(error, typer.Abort | KeyboardInterrupt):
        return _interrupted()
    if message := _message(error):
        remark(f"inscl: {message}")
        return 2
    wrapped = not isinstance(error, OSError) and "KeyboardInterrupt" in str(error)  # Lance was reading
    return _interrupted() if wrapped else None


def _message(error: BaseException) -> str:
    """One line for a mistake that the user can mend; nothing for any other."""
    if isinstance(error, InsclError):
        return str(error)
    if isinstance(error, _UsageError):
        where = error.ctx.command_path if error.ctx else "inscl"
        return f"{_complaint(error)} See `{where} --help`."
    if isinstance(error, OSError) and (error.errno is not None or error.filename):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}. Mend this and run the command again."
    return ""


def _complaint(error: Any) -> str:
    """What is wrong with the command line, as a sentence, with the nearest option or value."""
    near = getattr(error, "possibilities", None)
    if near:
        return f"{error.message}. Did you mean '{near[0]}'?"
    said = str(error.format_message()).replace("Value error, ", "")
    sentence = said if said.endswith((".", "?")) else f"{said}."
    if choice := re.search(r"'([^']*)' is not one of (.+)", said):
        sentence += suggest(choice[1], re.findall(r"'([^']*)'", choice[2]))
    return sentence


def _interrupted() -> int:
    remark("inscl: interrupted; nothing committed is lost. Run the same command again to go on.")
    return _INTERRUPTED
