"""What became of the test rows of a stream, with the answers once and now: the same for the command and the page."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from inscl.core.stats import Estimate, score_interval
from inscl.evaluation.predictions import Prediction
from inscl.experiments.run_folder import RunFolder, StreamFolder
from inscl.forgetting.rates import ForgettingRule, RowHistory
from inscl.forgetting.verdict import UNRELATED, Case, Verdict

_NOT_KEPT = Verdict(kind=None, reason="its answer was not kept")


class PastTask(NamedTuple):
    """A task that a stream learnt, or at least scored, before a stage, seen from that stage.

    Attributes
    ----------
    stream : StreamFolder
    stage : int
        From 2; the first is 1.
    task : str
        Scored at that stage.
    """

    stream: StreamFolder
    stage: int
    task: str

    @classmethod
    def all_of(cls, run: RunFolder) -> Iterator["PastTask"]:
        """Every stage of every stream from the second on, with every task learnt before it."""
        for stream in run.streams:
            for stage in range(2, len(stream.stages) + 1):
                for task in stream.tasks[: stage - 1]:
                    yield cls(stream, stage, task)

    @classmethod
    def at_the_end(cls, stream: StreamFolder) -> "list[PastTask]":
        """Every task as the last stage of its stream sees it; none where it is not finished, or has one task."""
        n = len(stream.tasks)
        return [cls(stream, n, task) for task in stream.tasks] if stream.finished and n > 1 else []

    @property
    def is_last(self) -> bool:
        """Whether the stage is the last one that its stream has finished."""
        return self.stage == len(self.stream.stages)

    def histories(self, rule: ForgettingRule = ForgettingRule()) -> list[RowHistory]:
        """What became of each of its rows; every earlier stage counts, also one before the task was learnt."""
        scored = [known.scores.get(self.task) for known in self.stream.stages[: self.stage]]
        rows = [None if scores is None else scores.rows[self.stream.scorer] for scores in scored]
        return rule.histories(rows, self.stream.stages[self.stage - 1].scores[self.task].instructions)

    def fates(self, rows: Iterable[RowHistory]) -> list["RowFate"]:
        """These rows with their answers: the best earlier one, and the one now."""
        return [
            RowFate(
                past=self,
                history=history,
                once=self._answer(history.best_stage, history.row),
                now=self._answer(self.stage, history.row),
            )
            for history in rows
        ]

    def answered(self) -> list["RowFate"]:
        """What became of its rows of which both answers are kept."""
        return [fate for fate in self.fates(self.histories()) if fate.once and fate.now]

    def spans(self, row: int) -> list["AnswerSpan"]:
        """What a row was answered, stage after stage up to now; neighbours with the same answer are one."""
        spans: list[AnswerSpan] = []
        for stage in range(1, self.stage + 1):
            if (answer := self._answer(stage, row)) is None:
                continue
            score = self.stream.stages[stage - 1].scores[self.task].rows[self.stream.scorer][row]
            if spans and spans[-1][1:] == (stage - 1, answer.prediction, score):
                spans[-1] = spans[-1]._replace(last=stage)
            else:
                spans.append(AnswerSpan(stage, stage, answer.prediction, score))
        return spans

    def _answer(self, stage: int, row: int) -> Prediction | None:
        """A stage's answer to a row; None where it is not kept, or the stage scored fewer rows."""
        answers = self.stream.stages[stage - 1].answers.get(self.task, [])
        return answers[row] if row < len(answers) else None


class AnswerSpan(NamedTuple):
    """What a row was answered by stages that follow each other.

    Attributes
    ----------
    first, last : int
        Stages, from 1. Those between spans did not score the row, or their answers were not kept.
    answer : str
    score : float
    """

    first: int
    last: int
    answer: str
    score: float


@dataclass(frozen=True, kw_only=True)
class RowFate:
    """What became of one test row of a past task; None for an answer that was not kept."""

    past: PastTask
    history: RowHistory
    once: Prediction | None
    now: Prediction | None
    verdict: Verdict = _NOT_KEPT

    @property
    def asked(self) -> Prediction | None:
        """An answer that tells what was asked."""
        return self.now or self.once

    @property
    def spans(self) -> list[AnswerSpan]:
        """Its answers up to now."""
        return self.past.spans(self.history.row)

    @property
    def case(self) -> Case | None:
        """What a judge is asked."""
        if self.now is None:
            return None
        return Case(
            task=self.past.task,
            instruction=self.now.instruction,
            input=self.now.input,
            answer=self.now.prediction,
            references=tuple(self.now.references),
        )


@dataclass
class Tally:
    """Rows that were once right, and what became of the forgotten ones among them."""

    rows: list[RowHistory] = field(default_factory=list)
    lost: list[RowFate] = field(default_factory=list)

    @property
    def forgotten(self) -> Estimate | None:
        """Share of the rows that are forgotten, for other rows like these; None without rows."""
        if not self.rows:
            return None
        return score_interval([row.forgotten for row in self.rows], [row.instruction for row in self.rows])

    @property
    def unrelated(self) -> Estimate | None:
        """Share of the judged rows whose answer does not attempt the task; None where none was judged."""
        known = [fate for fate in self.lost if fate.verdict.kind is not None]
        flags = [fate.verdict.kind == UNRELATED for fate in known]
        return score_interval(flags, [fate.history.instruction for fate in known]) if known else None
