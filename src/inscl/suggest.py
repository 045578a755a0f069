"""A near miss for a misspelt word."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(word: object, known: Iterable[str]) -> str:
    """The known word most like `word`, as the end of a message, or nothing.

    >>> suggest("rnadom", ["none", "random"])
    " Did you mean 'random'?"
    >>> suggest("xyz", ["none", "random"])
    ''
    """
    near = get_close_matches(str(word), list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
