"""What became of the test rows of a stream, with the answers once and now: the same for the command and the page."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from inscl.evaluation.predictions import Prediction
from inscl.experiments.run_folder import RunFolder, StreamFolder
from inscl.forgetting.rates import RowHistory
from inscl.forgetting.verdict import Case, Judge, Verdict

_NOT_KEPT = Verdict(kind=None, reason="its answer was not kept")
StageTask = tuple[StreamFolder, int, str]  # a stream, a stage of it (from 1), and a task learnt before


@dataclass(frozen=True, kw_only=True)
class RowFate:
    """What became of one test row of a stream, seen from a stage; None for an answer that was not kept."""

    stream: StreamFolder
    stage: int
    task: str
    history: RowHistory
    once: Prediction | None
    now: Prediction | None
    verdict: Verdict = _NOT_KEPT

    @property
    def asked(self) -> Prediction | None:
        """An answer that tells what was asked."""
        return self.now or self.once

    @property
    def case(self) -> Case | None:
        """What a judge is asked."""
        if self.now is None:
            return None
        return Case(
            task=self.task,
            instruction=self.now.instruction,
            input=self.now.input,
            answer=self.now.prediction,
            references=tuple(self.now.references),
        )


def places_of(run: RunFolder) -> Iterator[StageTask]:
    """Every stage of every stream from the second on, with every task learnt before it."""
    for stream in run.streams:
        for stage in range(2, len(stream.stages) + 1):
            for task in stream.tasks[: stage - 1]:
                yield stream, stage, task


def fates(place: StageTask, rows: Iterable[RowHistory]) -> list[RowFate]:
    """The rows of a place with their answers: the best earlier one, and the one now."""
    stream, stage, task = place
    now = stream.stages[stage - 1].answers.get(task)
    return [
        RowFate(
            stream=stream,
            stage=stage,
            task=task,
            history=history,
            once=_answer(stream, history.best_stage, task, history.row),
            now=None if now is None else now[history.row],
        )
        for history in rows
    ]


def judged(rows: Sequence[RowFate], judge: Judge) -> list[RowFate]:
    """The same with verdicts; equal cases are judged once."""
    cases = [entry.case for entry in rows]
    distinct = list(dict.fromkeys(case for case in cases if case is not None))
    verdicts = dict(zip(distinct, judge(distinct), strict=True)) if distinct else {}
    return [
        entry if case is None else replace(entry, verdict=verdicts[case])
        for entry, case in zip(rows, cases, strict=True)
    ]


def _answer(stream: StreamFolder, stage: int, task: str, row: int) -> Prediction | None:
    answers = stream.stages[stage - 1].answers.get(task)
    return None if answers is None else answers[row]
