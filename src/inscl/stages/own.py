"""Replay the model's own answer where it is right, in place of the given one."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from inscl.data.example import Example, Message
from inscl.data.mixture import MixtureRow
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.scores import RowScores


def replayed_of(rows: Iterable[MixtureRow]) -> dict[str, list[Example]]:
    """The replayed rows of each task, in order."""
    found: defaultdict[str, list[Example]] = defaultdict(list)
    for row in rows:
        if row.replayed:
            found[row.task].append(row.example)
    return dict(found)


def with_own_answers(
    rows: Iterable[MixtureRow],
    scores: Mapping[str, RowScores],
    answers: Mapping[str, Sequence[Prediction]],
    at_least: float,
) -> list[MixtureRow]:
    """The rows, those replayed with the model's own answer where it scores enough and is whole, else as they are.

    Parameters
    ----------
    rows : iterable of MixtureRow
    scores, answers : mapping from task to those of its replayed rows, as `replayed_of` orders them
        The first score of a `RowScores` counts.
    at_least : float
        Lowest score of an answer that is taken.
    """
    given = {task: iter(_accepted(scores[task], answers.get(task, ()), at_least)) for task in scores}
    return [_answering(row, next(given[row.task])) if row.replayed else row for row in rows]


def _accepted(scores: RowScores, answers: Sequence[Prediction], at_least: float) -> list[str]:
    """An answer for each row; empty where the given one stays."""
    main = next(iter(scores.rows.values()))
    if len(answers) != scores.n:
        return [""] * scores.n
    return [
        "" if score < at_least or answer.capped else answer.prediction.strip()
        for score, answer in zip(main, answers, strict=True)
    ]


def _answering(row: MixtureRow, answer: str) -> MixtureRow:
    if not answer:
        return row
    example = row.example
    messages = None if example.messages is None else _ending(example.messages, answer)
    return replace(row, example=replace(example, outputs=(answer,), messages=messages))


def _ending(messages: Sequence[Message], answer: str) -> tuple[Message, ...]:
    """A chat whose last assistant turn says something else."""
    last = max(i for i, turn in enumerate(messages) if turn["role"] == "assistant")
    return tuple({**turn, "content": answer} if i == last else turn for i, turn in enumerate(messages))
