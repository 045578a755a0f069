"""Compare an answer with the accepted ones: ROUGE-L for every script, Super-NI's ROUGE-L, exact match."""

import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

_Scorer = Callable[[str, Sequence[str]], float]

# One token per character where a script writes without spaces: Han, kana, Thai, Lao, Khmer, Myanmar.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
# A minus belongs to a number where nothing stands before it that it could join: "-3", not "2-3" or "well-3".
_SIGN = re.compile(r"(?<![^\s(\[{,;:=<>*/+])[-\u2212\u2013](?=\.?\d)")
_UNDECIDED = "-\u2212\u2013.\ufffd\u03a3"
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 with Porter stemming over Unicode words, best over the references.

    On ASCII text it is what the `rouge-score` package gives, except that a signed number keeps its sign.
    Words of other scripts count as words, and characters of scripts written without spaces one by one. Where
    neither side has a token (``[]``, ``+``), equality of the trimmed texts decides.

    Parameters
    ----------
    prediction : str
        The answer to score.
    references : sequence of str
        Accepted answers, at least one.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If there is no reference.

    References
    ----------
    Lin (2004), "ROUGE: a package for automatic evaluation of summaries".

    Examples
    --------
    >>> rouge_l("the cat sat", ["a dog", "the cat was sitting"])
    0.5714285714285715
    >>> rouge_l("да", ["да"]), rouge_l("[]", ["[]"]), rouge_l("-3", ["3"])
    (1.0, 1.0, 0.0)
    """
    return _best(_one_rouge_l, prediction, references)


def superni(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L as Super-NaturalInstructions scores it: the `rouge-score` package, stemmed, the best reference.

    For comparison with others' numbers: it reads nothing but Latin letters and digits.

    >>> superni("да", ["да"])
    0.0
    """

    def one(prediction: str, reference: str) -> float:
        return float(_rouge_scorer().score(target=reference, prediction=prediction)["rougeL"].fmeasure)

    return _best(one, prediction, references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 where the prediction equals a reference, else 0.0.

    Normalised as Super-NaturalInstructions does: lower case, without ASCII punctuation, runs of white space
    as one space. Two departures: the sign of a number stays (``-3`` is not ``3``), and where nothing is left
    on either side the trimmed texts are compared as they are (``[]`` is not ``+``).

    >>> exact_match(" The cat. ", ["the cat"]), exact_match("+", ["[]"])
    (1.0, 0.0)
    """
    return _best(_one_exact_match, prediction, references)


SCORERS: dict[str, _Scorer] = {"rouge_l": rouge_l, "superni": superni, "exact_match": exact_match}


def may_match(beginning: str, references: Sequence[str]) -> bool:
    """Whether an answer that begins so may still be an exact match; False only where none can be.

    >>> may_match("Pos", ["positive"]), may_match("neg", ["positive"]), may_match("-", ["-3"])
    (True, False, True)
    """
    # What comes next may make these something else: a sign, half a character, a final sigma.
    known = _normalised(beginning.rstrip(_UNDECIDED))
    return any(_normalised(reference).startswith(known) for reference in references)


def tokens(text: str) -> list[str]:
    """Lower-case words of any script, Latin words of more than three letters stemmed.

    >>> tokens("Two sitting cats, −3 да 東京")
    ['two', 'sit', 'cat', '-3', 'да', '東', '京']
    """
    text = _SIGN.sub("\x00", unicodedata.normalize("NFC", text).lower())
    kept = "".join(c if c == "\x00" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return [_stem(word.replace("\x00", "-")) for word in _UNSPACED.sub(r" \g<0> ", kept).split()]


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, one machine-word-parallel step per item of `b` (Hyyrö, 2004).

    >>> longest_common_subsequence("abcbdab", "bdcaba")
    4
    """
    places: dict[str, int] = {}
    for i, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full  # a zero bit marks a position where the common subsequence grows
    for item in b:
        matches = row & places.get(item, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(a) - row.bit_count()


def _best(one: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    if isinstance(references, str) or not references:
        raise ValueError(f"`references` must be a sequence of one or more texts, got {references!r}.")
    return max(one(prediction, reference) for reference in references)


def _one_rouge_l(prediction: str, reference: str) -> float:
    ours, theirs = tokens(prediction), tokens(reference)
    if not ours and not theirs:
        return float(prediction.strip() == reference.strip())
    common = longest_common_subsequence(ours, theirs)
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def _one_exact_match(prediction: str, reference: str) -> float:
    ours, theirs = _normalised(prediction), _normalised(reference)
    if not ours and not theirs:
        return float(prediction.strip() == reference.strip())
    return float(ours == theirs)


def _normalised(text: str) -> str:
    return " ".join(_SIGN.sub("\x00", text.lower()).translate(_PUNCTUATION).split())


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    stems = len(word) > 3 and _ASCII_WORD.fullmatch(word)
    return str(_rouge_scorer()._tokenizer._stemmer.stem(word)) if stems else word


@cache
def _rouge_scorer() -> Any:
    from inscl.errors import require

    scorer = require("rouge_score.rouge_scorer", extra="train", purpose="Scoring with ROUGE-L")
    return scorer.RougeScorer(["rougeL"], use_stemmer=True)
