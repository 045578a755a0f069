"""The mistakes a user can mend, and how an optional dependency is asked for.

Every message says what came, what was wanted and what to do, in one line. The command line prints the message
alone and exits with 2; a real bug keeps its traceback.
"""

import importlib
from types import ModuleType


class InsclError(Exception):
    """Anything the user can mend."""


class DataError(InsclError, ValueError):
    """The data cannot be read or used."""


class MemoryStateError(InsclError):
    """The memory cannot do what was asked: no such task, a newer format, damage."""


class DamageError(MemoryStateError):
    """Files of a memory are not what was written."""


class PlanError(InsclError, ValueError):
    """A plan cannot be made, read or carried out."""


class ConfigError(InsclError, ValueError):
    """A setting is wrong; all problems of a configuration are reported together."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 200 characters.

    >>> first_line(OSError("no such file\\nat all")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    return short((str(error).strip() or type(error).__name__).splitlines()[0], 200)


def short(text: str, most: int) -> str:
    """A text cut to so many characters.

    >>> short("a long text", 7)
    'a long…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say exactly how to install it.

    Parameters
    ----------
    module : str
        Dotted name of the module.
    extra : str
        The extra of inscl that brings it.
    purpose : str
        What needs it, as the beginning of a sentence.

    Raises
    ------
    InsclError
        If the package is not installed. A package that is installed but broken inside raises its own error.

    Examples
    --------
    >>> require("math", extra="train", purpose="Arithmetic").floor(1.5)
    1
    >>> require("no_such_module", extra="train", purpose="Training")
    Traceback (most recent call last):
    inscl.errors.InsclError: Training needs `no_such_module`, which is not installed. Run `pip install 'inscl[train]'`.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise InsclError(
            f"{purpose} needs `{module}`, which is not installed. Run `pip install 'inscl[{extra}]'`."
        ) from error
