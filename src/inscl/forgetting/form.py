"""The form of a text: its words, numbers and marks, without what it says.

A word stays as it is where many answers of some task hold it ("pay", "positive"); any other is just a word. The form
of an answer is the multiset of its pieces and of its pairs of neighbours, so that order and length count too.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

_COMMON = 0.2  # share of a task's answers from which on a word belongs to the form
_PIECES = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\w\s]|_")


def pieces(text: str) -> list[str]:
    """Words in lower case, numbers and marks.

    >>> pieces("Pay 32 coins, [now].")
    ['pay', '32', 'coins', ',', '[', 'now', ']', '.']
    """
    return _PIECES.findall(text.lower())


def common_words(answers: Sequence[str], share: float = _COMMON) -> set[str]:
    """Words that at least `share` of the answers hold.

    >>> sorted(common_words(["pay 3 coins", "pay 1 coin", "pay 4 coins"], share=0.5))
    ['coins', 'pay']
    """
    counts = Counter(word for answer in answers for word in set(pieces(answer)) if word[0].isalpha())
    return {word for word, n in counts.items() if n >= max(2, share * len(answers))}


def answer_form(text: str, words: Collection[str]) -> frozenset[tuple[str, ...]]:
    """Pieces and pairs of a text; the n-th of equal ones carries its number, so that a set counts them.

    >>> sorted(answer_form("pay 5", {"pay"}))
    [('<number>', '$', '1'), ('<number>', '1'), ('^', 'pay', '1'), ('pay', '1'), ('pay', '<number>', '1')]
    """
    shape = [_class(piece, words) for piece in pieces(text)]
    units: Iterable[tuple[str, ...]] = [(piece,) for piece in shape] + [*pairwise(["^", *shape, "$"])]
    seen: Counter[tuple[str, ...]] = Counter()
    numbered = set()
    for unit in units:
        seen[unit] += 1
        numbered.add((*unit, str(seen[unit])))
    return frozenset(numbered)


def _class(piece: str, words: Collection[str]) -> str:
    if piece in words:
        return piece
    if piece[0].isdigit():
        return "<number>"
    return "<word>" if piece[0].isalpha() else piece


def likeness(a: Collection[object], b: Collection[object]) -> float:
    """Dice coefficient: twice what two sets share, over the sum of their sizes.

    >>> likeness({1, 2}, {2, 3})
    0.5
    """
    return 2 * len(set(a) & set(b)) / max(1, len(a) + len(b))
