"""What one stage of `inscl learn` changed, as data: scores, answers lost and gained, and the months before it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from inscl.core.stats import Estimate, mean_interval
from inscl.errors import InsclError
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.scores import RowScores
from inscl.report.forgotten import ForgottenExample
from inscl.report.plan import PlanFacts
from inscl.report.verdict import Sentence
from inscl.report.words import duration, minus, plural, spread, thousands
from inscl.stages.folder import SCORES, StageFolder, damaged, read_json
from inscl.stages.learn import REQUEST

_Both = tuple[RowScores, RowScores]  # before and after
CHANGED_BY = 0.3  # of a row's score, from which on an answer counts as lost or gained
_MOST_MONTHS = 60


class _Settings(BaseModel):
    scorer: str


class _Request(BaseModel):
    """What is needed of the file in which a stage notes what it was asked."""

    name: str
    start: str
    config: _Settings
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class _Month:
    """A stage of the chain that leads to this one: its model's mean score on each task, in points."""

    name: str
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class StageTask:
    """A task's score before and after the stage, in points, on the same test rows."""

    task: str
    new: bool
    before: float
    after: Estimate
    change: Estimate


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """A stage's report.

    Attributes
    ----------
    name, model, start : str
        The new task, the stage's folder, and what it started from.
    scorer : str
    finished : bool
    tasks : tuple of StageTask
        In the order of the memory, the new one last.
    months : tuple of _Month
        This stage last; before it those that it came from, as far as their folders are there.
    lost, gained : tuple of ForgottenExample
        Test rows whose answers became worse, and better.
    plan : PlanFacts, optional
    losses : tuple of float
        Of the training steps.
    training : mapping
        Steps, tokens, seconds and the like, as the stage's record has them.
    """

    name: str
    model: str
    start: str
    scorer: str
    finished: bool
    tasks: tuple[StageTask, ...]
    months: tuple[_Month, ...]
    lost: tuple[ForgottenExample, ...]
    gained: tuple[ForgottenExample, ...]
    plan: PlanFacts | None
    losses: tuple[float, ...]
    training: Mapping[str, Any]

    @classmethod
    def of(cls, path: str | Path) -> Self:
        """What a stage changed.

        Raises
        ------
        InsclError
            If nothing was scored in the folder yet.
        """
        folder = StageFolder(Path(path), inner="")
        known = _asked(folder.path)
        scorer, both = known.config.scorer, _both(folder, known.config.scorer)
        if not both:
            raise InsclError(
                f"The stage in '{folder.path}' has not scored its model yet: there is nothing to report. "
                "Run the same `inscl learn` command again to go on."
            )
        changed = list(_changed_answers(folder, known, both))
        record = folder.read().get("trained", {})
        plan = folder.plan()
        return cls(
            name=known.name,
            model=str(folder.path),
            start=known.start,
            scorer=scorer,
            finished=known.finished,
            tasks=tuple(_task(task, *rows, scorer, known.name) for task, rows in both.items()),
            months=tuple(_months(folder.path, scorer)),
            lost=tuple(example for example in changed if example.score < example.best),
            gained=tuple(example for example in changed if example.score > example.best),
            plan=None if plan is None else PlanFacts.of(plan),
            losses=tuple(record.get("losses") or ()),
            training={key: record[key] for key in ("steps", "tokens", "seconds", "dtype", "device") if key in record},
        )

    def verdict(self) -> tuple[Sentence, ...]:
        """Learnt, forgotten and cost, in plain words."""
        return tuple(_sentences(self))

    def to_dict(self) -> dict[str, object]:
        """As plain data that JSON holds."""
        return asdict(self)


def is_stage(path: Path) -> bool:
    """Whether a path is the folder of a stage of `inscl learn`."""
    return (path / REQUEST).is_file()


def _asked(path: Path) -> _Request:
    """What a stage's folder says of it."""
    try:
        return _Request.model_validate(read_json(path / REQUEST))
    except ValidationError as error:
        raise damaged(path / REQUEST, error) from error


def _both(folder: StageFolder, scorer: str) -> dict[str, _Both]:
    """Scores of each task before and after, of the same rows."""
    before, after = folder.scores("before"), folder.scores()
    for task, now in after.items():
        then = before.get(task)
        if then is None or then.n != now.n or not then.rows.keys() & now.rows.keys() & {scorer}:
            wanted = f"no '{scorer}' of task '{task}' on the same rows before and after"
            raise damaged(folder.path / SCORES, ValueError(wanted))
    return {task: (before[task], now) for task, now in after.items()}


def _sentences(facts: StageFacts) -> Iterator[Sentence]:
    old, new = [task for task in facts.tasks if not task.new], [task for task in facts.tasks if task.new]
    for task in new:
        words = f"on ‘{task.task}’ {_ends(task.after)}; {minus(task.before)} before the stage."
        yield Sentence(about="Learnt", figure=f"{task.after.mean:.1f} points", words=words)
    if old:
        worst = min(old, key=lambda task: task.change.mean)
        mean = sum(task.change.mean for task in old) / len(old)
        words = f"is the mean change of {plural(len(old), 'earlier task')}."
        if worst.change.mean < 0:
            words += f" Most was lost of ‘{worst.task}’: {minus(worst.change.mean)} {_ends(worst.change)}."
        yield Sentence(about="Kept", figure=f"{minus(mean, sign=True)} points", words=words)
        words = f"{'was' if len(facts.lost) == 1 else 'were'} lost, {len(facts.gained)} gained, of all test rows."
        yield Sentence(about="Answers", figure=str(len(facts.lost)), words=words)
    if facts.training:
        replayed = facts.plan.count if facts.plan else 0
        words = f"of training in {duration(facts.training['seconds'])}; {plural(replayed, 'row')} replayed."
        yield Sentence(about="Cost", figure=f"{thousands(facts.training['tokens'])} tokens", words=words)


def _ends(found: Estimate) -> str:
    return f"({spread(found) or 'no interval'})"


def _task(task: str, before: RowScores, after: RowScores, scorer: str, newest: str) -> StageTask:
    changes = [100 * (now - then) for now, then in zip(after.rows[scorer], before.rows[scorer], strict=True)]
    return StageTask(
        task=task,
        new=task == newest,
        before=100 * before.mean(scorer),
        after=after.estimate(scorer).in_points,
        change=mean_interval(changes, after.instructions),
    )


def _months(path: Path, scorer: str) -> list[_Month]:
    """This stage and those it came from, the oldest first."""
    found: list[_Month] = []
    seen: set[Path] = set()
    here: Path | None = path
    while here is not None and here.resolve() not in seen and len(found) < _MOST_MONTHS:
        seen.add(here.resolve())
        known, scores = _asked(here), StageFolder(here, inner="").scores()
        means = {task: 100 * rows.mean(scorer) for task, rows in scores.items() if scorer in rows.rows}
        found.append(_Month(name=known.name, scores=means))
        here = _start_of(here, known.start)
    return found[::-1]


def _start_of(path: Path, named: str) -> Path | None:
    """The folder of the stage that a stage started from, where it is one: as it was named, or beside this one."""
    start = Path(named)
    return next((place for place in (start, path.parent / start.name) if is_stage(place)), None)


def _changed_answers(folder: StageFolder, known: _Request, both: Mapping[str, _Both]) -> Iterator[ForgottenExample]:
    """Rows of earlier tasks whose score moved far, the farthest of each task first."""
    scorer, start = known.config.scorer, _start_of(folder.path, known.start)
    mine = folder.answer_sets("before")  # none where the stage that it started from had answered these rows
    theirs = StageFolder(start, inner="").answer_sets() if start else {}
    answers = folder.answers()
    for task, (then, now) in both.items():
        sets = [*mine.get(task, ()), *theirs.get(task, ())]
        before = next((rows for rows in sets if then.are_of(rows)), None)
        if before is None or task not in answers or task == known.name:
            continue
        pairs = zip(then.rows[scorer], now.rows[scorer], before, answers[task], strict=True)
        moved = [pair for pair in pairs if abs(pair[1] - pair[0]) >= CHANGED_BY]
        yield from (_example(*pair) for pair in sorted(moved, key=lambda pair: -abs(pair[1] - pair[0])))


def _example(then: float, now: float, before: Prediction, after: Prediction) -> ForgottenExample:
    return ForgottenExample(
        line="",
        task=after.task,
        instruction=after.instruction,
        input=after.input,
        reference=(after.references or [""])[0],
        once=before.prediction,
        now=after.prediction,
        best=100 * then,
        score=100 * now,
        kind="",
        reason="",
    )
