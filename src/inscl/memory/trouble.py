"""What Lance and Arrow raise when a disk is full or a file is damaged or gone, told in one line."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from inscl.errors import DamageError, InsclError, MemoryStateError, first_line

REPAIR = "Restore the folder from a backup, or let `inscl verify --repair` keep what is whole."
_UNREACHED = re.compile(r"bucket|AWS Error|error sending request|dispatch failure|credentials", re.IGNORECASE)


@contextmanager
def explained(what: str, advice: str = REPAIR) -> Iterator[None]:
    """Turn what goes wrong underneath into one line about `what`, the beginning of a sentence.

    Raises
    ------
    MemoryStateError
        For a failed call of the system or a store out of reach, with the reason.
    DamageError
        For anything else.
    """
    try:
        yield
    except (InsclError, GeneratorExit, SystemExit, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        if "KeyboardInterrupt" in str(error):  # Lance was reading, and wraps it
            raise
        raise _as_line(what, advice, error) from error
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # a panic of Lance's Rust is no `Exception`
            raise
        raise _as_line(what, advice, error) from error


def _as_line(what: str, advice: str, error: BaseException) -> MemoryStateError:
    if reason := _system_reason(error):
        return MemoryStateError(f"{what}: {reason}. Mend this and run the command again; nothing committed is lost.")
    if _UNREACHED.search(str(error)):
        return MemoryStateError(f"{what}: cannot be reached ({first_line(error)}). Check its address and credentials.")
    return DamageError(f"{what}: damaged or gone ({first_line(error)}). {advice}")


def _system_reason(error: BaseException) -> str:
    """Why the system refused a call, but for a missing file; Lance hides its number in the text."""
    hidden = re.search(r"\(os error (\d+)\)", str(error))
    number = int(hidden[1]) if hidden else getattr(error, "errno", None)
    return os.strerror(number) if number and number != 2 else ""
