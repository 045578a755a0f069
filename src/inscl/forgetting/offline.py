"""A judge without a model: it compares an answer with its input and with the training answers of all tasks.

In this order, the first that holds decides:

    empty        no letter, digit or mark
    degenerate   one character, word or phrase again and again, more often than in any training answer of the task
    echo         most of the answer stands in the input or the instruction in the same order, or most of the input
                 stands in the answer, clearly more than in the task's own training pairs
    (label)      one of the labels that are all the task's answers stands in it, in whatever packing: related
    other task   the training answers of another task are clearly nearer than those of its own
    off-format   far from the training answers of its own task

What is left is related. How near an answer is to a task tells `inscl.forgetting.nearness`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from inscl.core.scoring import longest_common_subsequence
from inscl.data.example import Example
from inscl.forgetting.nearness import Encode, Nearness, pieces
from inscl.forgetting.verdict import (
    DEGENERATE,
    ECHO,
    EMPTY,
    FORM,
    OFF_FORMAT,
    OTHER_TASK,
    RELATED,
    UNRELATED,
    WRONG,
    Case,
    Verdict,
)

_LONGEST_PHRASE = 12  # pieces of a phrase that a degenerate answer repeats
_LABEL_USES = 5  # how often each answer is there on average where the answers of a task are labels
_LABEL_SHARE = 1 / 3  # of an answer that a label in it makes up at least


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where the judge draws its lines; chosen on one half of the hand labels (docs/forgetting.md).

    Attributes
    ----------
    repeats : int
        Equal characters or words in a row that make an answer degenerate.
    rounds : int
        The same for a phrase of several words.
    echo : float
        Share of an answer that stands in its input, or of the input that stands in the answer.
    echo_above : float
        How far that share must lie above nearly all (95 %) of the task's own training pairs.
    embedding : float
        Weight of the embeddings in the nearness; the rest is form.
    ahead : float
        How much nearer another task must be than its own.
    near : float
        Nearness to its own task below which an answer is off-format.
    """

    repeats: int = 8
    rounds: int = 4
    echo: float = 0.7
    echo_above: float = 0.2
    embedding: float = 0.5
    ahead: float = 0.2
    near: float = 0.6


class OfflineJudge:
    """Judges answers by the training data of all tasks of a run.

    Parameters
    ----------
    training : mapping from task to sequence of Example
        Some training rows of every task; their first answers are what answers of the task look like.
    encode : callable
        From n texts to unit vectors, shape (n, d).
    thresholds : Thresholds

    Examples
    --------
    >>> rows = {
    ...     "sum": [Example("Add.", f"{i} + 1", (f"= {i + 1}",)) for i in range(9)],
    ...     "mood": [Example("Good or bad?", f"It rained {i} days.", ("bad",)) for i in range(9)],
    ... }
    >>> judge = OfflineJudge(rows, encode=lambda texts: [[1.0]] * len(texts))
    >>> answers = ["= 7", "bad", "2 + 5", ""]
    >>> [verdict.reason for verdict in judge([Case(task="sum", instruction="Add.", input="2 + 5", answer=a)
    ...                                       for a in answers])]
    ['wrong', 'other task', 'echo', 'empty']
    """

    name = "offline"

    def __init__(
        self,
        training: Mapping[str, Sequence[Example]],
        encode: Encode,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.thresholds = thresholds or Thresholds()
        answers = {task: [_answer(row) for row in rows] for task, rows in training.items()}
        self.nearness = Nearness(answers, encode, self.thresholds.embedding)
        self._copying = {task: _usual_copying(rows) for task, rows in training.items()}
        self._labels = {task: _labels(group) for task, group in answers.items()}
        self._runs = {task: max(map(_longest_run, group)) for task, group in answers.items()}
        self._rounds = {task: max(map(_most_rounds, group)) for task, group in answers.items()}

    def __call__(self, cases: Sequence[Case], /) -> list[Verdict]:
        """A verdict on each case."""
        if not cases:
            return []
        tasks = self.nearness.tasks
        return [
            self._verdict(case, dict(zip(tasks, row.tolist(), strict=True)))
            for case, row in zip(cases, self.nearness([case.answer for case in cases]), strict=True)
        ]

    def _verdict(self, case: Case, nearness: Mapping[str, float]) -> Verdict:
        limits, own = self.thresholds, nearness[case.task]
        nearest = max(nearness, key=lambda task: (nearness[task], task == case.task))

        def unrelated(reason: str) -> Verdict:
            return Verdict(kind=UNRELATED, reason=reason, nearest_task=nearest)

        if not case.answer.strip():
            return Verdict(kind=UNRELATED, reason=EMPTY)
        if self._degenerate(case):
            return unrelated(DEGENERATE)
        if self._echoes(case):
            return unrelated(ECHO)
        if self._labelled(case):
            return Verdict(kind=RELATED, reason=FORM, nearest_task=case.task)
        if nearness[nearest] > own + limits.ahead:
            return unrelated(OTHER_TASK)
        if own < limits.near:
            return unrelated(OFF_FORMAT)
        return Verdict(kind=RELATED, reason=WRONG, nearest_task=nearest)

    def _degenerate(self, case: Case) -> bool:
        runs = max(self.thresholds.repeats, self._runs[case.task] + 1)
        rounds = max(self.thresholds.rounds, self._rounds[case.task] + 1)
        return _longest_run(case.answer) >= runs or _most_rounds(case.answer) >= rounds

    def _echoes(self, case: Case) -> bool:
        limits = self.thresholds
        bounds = np.maximum(limits.echo, self._copying[case.task] + limits.echo_above)
        return any((_copied(case.answer, text) >= bounds).any() for text in (case.input, case.instruction) if text)

    def _labelled(self, case: Case) -> bool:
        """Whether exactly one of the task's labels stands in the answer, and makes up enough of it."""
        answer = pieces(case.answer)
        found = [label for label in self._labels[case.task] if _stands_in(label, answer)]
        return len(found) == 1 and len(found[0]) < len(answer) and len(found[0]) >= _LABEL_SHARE * len(answer)


def _answer(row: Example) -> str:
    return row.outputs[0] if row.outputs else ""


def _labels(answers: Sequence[str]) -> set[tuple[str, ...]]:
    """The distinct answers as pieces, where they are so few that they must be labels."""
    distinct = {tuple(pieces(answer)) for answer in answers} - {()}
    return distinct if _LABEL_USES * len(distinct) <= len(answers) else set()


def _stands_in(label: Sequence[str], answer: Sequence[str]) -> bool:
    n = len(label)
    return any(tuple(answer[i : i + n]) == tuple(label) for i in range(len(answer) - n + 1))


def _longest_run(text: str) -> int:
    """How often the same character, or the same word, stands in a row.

    >>> _longest_run("3200000"), _longest_run("ha ha ha"), _longest_run("")
    (5, 3, 0)
    """
    runs = [
        sum(1 for _ in run) for units in (text.lower(), pieces(text)) for unit, run in groupby(units) if unit != " "
    ]
    return max(runs, default=0)


def _most_rounds(text: str) -> int:
    """How often the same phrase of two to `_LONGEST_PHRASE` pieces stands in a row.

    >>> _most_rounds("I do. I do. I do."), _most_rounds("I do.")
    (3, 1)
    """
    found, most = pieces(text), 1
    for length in range(2, min(_LONGEST_PHRASE, len(found) // 2) + 1):
        equal = [a == b for a, b in zip(found, found[length:], strict=False)]
        longest = max((sum(1 for _ in run) for same, run in groupby(equal) if same), default=0)
        most = max(most, 1 + longest // length)
    return most


def _copied(answer: str, text: str) -> npt.NDArray[np.float64]:
    """Share of the answer's pieces that stand in a text in the same order, and share of the text's in the answer."""
    ours, theirs = pieces(answer), pieces(text)
    common = longest_common_subsequence(ours, theirs)
    return np.array([common / max(1, len(ours)), common / max(1, len(theirs))])


def _usual_copying(rows: Sequence[Example]) -> npt.NDArray[np.float64]:
    """What nearly all training pairs of a task copy at most, as `_copied` counts it, shape (2,)."""
    pairs = [np.maximum(_copied(_answer(row), row.input), _copied(_answer(row), row.instruction)) for row in rows]
    usual: npt.NDArray[np.float64] = np.quantile(np.array(pairs), 0.95, axis=0)
    return usual
