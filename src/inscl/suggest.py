"""A near miss for a misspelt word."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(word: object, known: Iterable[str]) -> str:
    """The known word most like `word`, whatever its case, as the end of a message, or nothing.

    >>> suggest("rnadom", ["none", "random"])
    " Did you mean 'random'?"
    >>> suggest("CODE", ["Code", "Closed_QA"])
    " Did you mean 'Code'?"
    >>> suggest("xyz", ["none", "random"])
    ''
    """
    by_letters: dict[str, str] = {}
    for name in known:
        by_letters.setdefault(name.casefold(), name)
    near = get_close_matches(str(word).casefold(), by_letters, n=1)
    return f" Did you mean '{by_letters[near[0]]}'?" if near else ""
