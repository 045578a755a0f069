"""The command line: each verb calls one library function and prints what came back.

Results go to standard output, progress and remarks to standard error. Exit codes: 0 done, 1 a check failed, 2 the
user can mend it. Launched as several processes, the first does all this and the others join in training.
"""

import sys
from collections.abc import Sequence

import click

from inscl import ranks
from inscl.cli import demo, learn, memory, plan, run
from inscl.cli.app import app
from inscl.errors import InsclError

__all__ = ["app", "demo", "learn", "main", "memory", "plan", "run"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    if ranks.following():
        from inscl.worker import follow

        return follow()
    code = _run(argv)
    ranks.end(code)
    return code


def _run(argv: Sequence[str] | None) -> int:
    try:
        result = app(args=None if argv is None else list(argv), standalone_mode=False, prog_name="inscl")
    except InsclError as error:
        print(f"inscl: {error}", file=sys.stderr)
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        print("inscl: interrupted; nothing committed is lost, and the same command goes on.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `inscl tasks | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno is None and not error.filename:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"inscl: {error.strerror or error}{where}. Mend this and run the command again.", file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0
