"""How near an answer is to the answers of each task: in form, and in meaning.

The form of a text is its words, numbers and marks, without what it says. A word stays as it is where many answers of
some task hold it ("pay", "positive"); any other is just a word. The form of an answer is the multiset of its pieces and
of its pairs of neighbours, so that order and length count too.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_Floats = npt.NDArray[np.float32]
Encode = Callable[[list[str]], npt.ArrayLike]  # n texts to unit vectors, (n, d)
_COMMON = 0.2  # share of a task's answers from which on a word belongs to the form
_PIECES = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\w\s]|_")
_NEAREST = 3  # training answers whose mean likeness is that to the task


class _Known(NamedTuple):
    forms: "csr_array"  # (n, units), 0 and 1
    sizes: _Floats  # (n,), units of each form
    vectors: _Floats  # (n, d)


class Nearness:
    """Likeness to the training answers of several tasks.

    The likeness of two answers blends the Dice coefficient of their forms with the cosine of their embeddings; that to
    a task is the mean over its nearest answers. It is counted in units of the task's typical one, the median likeness
    of a training answer to the others, and never more than 1: one threshold then serves labels and essays.

    Parameters
    ----------
    answers : mapping from task to sequence of str
        Training answers, at least one each.
    encode : callable
        From n texts to unit vectors, shape (n, d).
    embedding : float
        Weight of the cosine; the rest is form.

    Examples
    --------
    >>> near = Nearness({"sum": ["= 1", "= 2"], "mood": ["bad", "good"]}, lambda texts: [[1.0]] * len(texts), 0.0)
    >>> near(["= 305", "bad"]).round(1).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, answers: Mapping[str, Sequence[str]], encode: Encode, embedding: float) -> None:
        self.tasks = list(answers)
        self._encode, self._embedding = encode, embedding
        self._words = set().union(*map(_common_words, answers.values()))
        pooled = [answer for group in answers.values() for answer in group]
        units = sorted(set().union(*(_answer_form(answer, self._words) for answer in pooled)))
        self._columns = {unit: column for column, unit in enumerate(units)}
        self._known = self._look(pooled)
        ends = np.cumsum([len(group) for group in answers.values()]).tolist()
        self._places = [slice(end - len(group), end) for group, end in zip(answers.values(), ends, strict=True)]
        self._typical = [self._typical_of(place) for place in self._places]

    def __call__(self, answers: Sequence[str]) -> _Floats:
        """Nearness of answers to each task, from 0 to 1, shape (n_answers, n_tasks)."""
        likeness = self._likeness(self._look(answers), self._known)
        columns = [
            _nearest(likeness[:, place]) / typical for place, typical in zip(self._places, self._typical, strict=True)
        ]
        return np.minimum(1, np.stack(columns, axis=1))

    def _typical_of(self, place: slice) -> float:
        own = _Known(*(part[place] for part in self._known))
        likeness = self._likeness(own, own)
        if len(likeness) == 1:
            return 1.0
        np.fill_diagonal(likeness, -np.inf)
        return max(float(np.median(_nearest(likeness, but=1))), 1e-6)

    def _likeness(self, a: _Known, b: _Known) -> _Floats:
        """Likeness of all pairs of answers, shape (n_a, n_b)."""
        shared = (a.forms @ b.forms.T).toarray()
        form = 2 * shared / np.maximum(1, a.sizes[:, None] + b.sizes[None, :])
        cosine = np.clip(a.vectors @ b.vectors.T, 0, 1)
        blend: _Floats = ((1 - self._embedding) * form + self._embedding * cosine).astype(np.float32)
        return blend

    def _look(self, answers: Sequence[str]) -> _Known:
        from scipy.sparse import csr_array

        forms = [_answer_form(answer, self._words) for answer in answers]
        columns = [sorted(self._columns[unit] for unit in form if unit in self._columns) for form in forms]
        starts = np.cumsum([0, *map(len, columns)])
        flat = np.array([column for row in columns for column in row], dtype=int)
        matrix = csr_array((np.ones(len(flat), np.float32), flat, starts), shape=(len(forms), len(self._columns)))
        sizes = np.array([len(form) for form in forms], dtype=np.float32)
        vectors = np.asarray(self._encode([answer or " " for answer in answers]), dtype=np.float32)
        return _Known(matrix, sizes, vectors)


def _nearest(likeness: _Floats, but: int = 0) -> _Floats:
    """Mean of the largest values of each row, shape (n,); `but` is how many of a row's values are none."""
    k = min(_NEAREST, likeness.shape[1] - but)
    top: _Floats = np.sort(likeness, axis=1)[:, -k:].mean(axis=1)
    return top


def pieces(text: str) -> list[str]:
    """Words in lower case, numbers and marks.

    >>> pieces("Pay 32 coins, [now].")
    ['pay', '32', 'coins', ',', '[', 'now', ']', '.']
    """
    return _PIECES.findall(text.lower())


def _common_words(answers: Sequence[str], share: float = _COMMON) -> set[str]:
    """Words that at least `share` of the answers hold.

    >>> sorted(_common_words(["pay 3 coins", "pay 1 coin", "pay 4 coins"], share=0.5))
    ['coins', 'pay']
    """
    counts = Counter(word for answer in answers for word in set(pieces(answer)) if word[0].isalpha())
    return {word for word, n in counts.items() if n >= max(2, share * len(answers))}


def _answer_form(text: str, words: Collection[str]) -> frozenset[tuple[str, ...]]:
    """Pieces and pairs of a text; the n-th of equal ones carries its number, so that a set counts them.

    >>> sorted(_answer_form("pay 5", {"pay"}))
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
