"""What was forgotten, by kind, with the answers side by side: once, now, and the reference.

Which rows are forgotten says `inscl.forgetting`, here as there. The kinds come from the tables that `inscl forgetting
RUN` writes into the run's folder; without them the forgotten rows are looked up, and nobody has judged them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inscl.experiments.results import TableRow
from inscl.experiments.run_folder import RunFolder, StreamFolder
from inscl.forgetting.fates import PastTask, RowFate
from inscl.forgetting.tables import Tables, last_stages
from inscl.report.replayed import First

_EXAMPLES_PER_TASK = 3
COUNTS = ("ever_right", "related", "unrelated", "not_judged")
_Labels = Mapping[tuple[str, str, str], str]  # run, strategy and budget -> label of the line


@dataclass(frozen=True, kw_only=True)
class ForgottenExample:
    """A test row that a model once answered better than it does now; scores in points."""

    line: str
    task: str
    instruction: str
    input: str
    reference: str
    once: str
    now: str
    best: float
    score: float
    kind: str  # "related", "unrelated", or "" where nobody judged
    reason: str


@dataclass(frozen=True, kw_only=True)
class KindFacts:
    """Test rows of a line and task, counted over its streams after their last judged stage."""

    line: str
    task: str
    ever_right: int  # answered well at an earlier stage
    related: int  # of these forgotten: the answer still attempts the task
    unrelated: int  # of these forgotten: it does not answer the instruction any more
    not_judged: int


@dataclass(frozen=True, kw_only=True)
class ForgottenFacts:
    """What was forgotten.

    Attributes
    ----------
    judges : tuple of str
        Who judged the kinds; none where they are not known.
    kinds : tuple of KindFacts
    examples : tuple of ForgottenExample
        The largest drops, a few per line and task.
    found : int
        Forgotten rows in all, of which the examples are a part.
    """

    judges: tuple[str, ...]
    kinds: tuple[KindFacts, ...]
    examples: tuple[ForgottenExample, ...]
    found: int

    @classmethod
    def of(cls, runs: Sequence[RunFolder], firsts: Sequence[First]) -> "ForgottenFacts":
        """Kinds and examples from the runs' tables where they are, else examples from the answers."""
        tables = [(run, found) for run in runs if (found := Tables.read(run))]
        if len(tables) == len(runs):
            return _judged(tables, {(run.name, *stream.key[:2]): label for label, run, stream in firsts})
        examples = [example for first in firsts for example in _looked_up(*first)]
        return cls(judges=(), kinds=(), examples=_largest(examples), found=len(examples))


def _judged(tables: Sequence[tuple[RunFolder, Tables]], labels: _Labels) -> ForgottenFacts:
    """What the tables of all runs say: kinds from the rates that have a judge, and the rows that were lost."""
    judged = [(run, [row for row in found.rates.to_pylist() if row["judge"]]) for run, found in tables]
    rates = [row for run, rows in judged for row in _labelled(run, rows, labels)]
    lost = [row for run, found in tables for row in _labelled(run, found.forgotten.to_pylist(), labels)]
    return ForgottenFacts(
        judges=tuple(dict.fromkeys(row["judge"] for _, row in rates)),
        kinds=tuple(_kinds(rates)),
        examples=_largest(_example(label, row) for label, row in lost),
        found=len(lost),
    )


def _labelled(run: RunFolder, rows: Sequence[TableRow], labels: _Labels) -> Iterable[tuple[str, TableRow]]:
    """The rows of each stream's last stage among them, with the label of their line."""
    for row in last_stages(rows):
        if label := labels.get((run.name, row["strategy"], row["budget"])):
            yield label, row


def _kinds(rates: Iterable[tuple[str, TableRow]]) -> Iterable[KindFacts]:
    totals: dict[tuple[str, str], dict[str, int]] = {}
    for label, row in rates:
        total = totals.setdefault((label, row["task"]), dict.fromkeys(COUNTS, 0))
        for name in COUNTS:
            total[name] += row[name] or 0
    for (line, task), total in totals.items():
        yield KindFacts(line=line, task=task, **total)


def _example(label: str, row: TableRow) -> ForgottenExample:
    return ForgottenExample(
        line=label,
        task=row["task"],
        **{name: row[name] or "" for name in ("instruction", "input", "reference", "once", "now", "kind", "reason")},
        best=100 * row["best"],
        score=100 * row["score"],
    )


def _looked_up(label: str, run: RunFolder, stream: StreamFolder) -> Iterable[ForgottenExample]:
    """What a finished stream has forgotten after its last stage, where its answers are kept."""
    for past in PastTask.at_the_end(stream)[:-1]:
        for fate in past.answered():
            if fate.history.forgotten:
                yield _example(label, _record(fate))


def _record(fate: RowFate) -> TableRow:
    assert fate.once is not None
    assert fate.now is not None
    return {
        "task": fate.past.task,
        "instruction": fate.now.instruction,
        "input": fate.now.input,
        "reference": (fate.now.references or [""])[0],
        "once": fate.once.prediction,
        "now": fate.now.prediction,
        "kind": "",
        "reason": "",
        "best": fate.history.best,
        "score": fate.history.score,
    }


def _largest(examples: Iterable[ForgottenExample]) -> tuple[ForgottenExample, ...]:
    """A few per line and task, the largest drops first; both kinds where both are there."""
    chosen: list[ForgottenExample] = []
    count: dict[tuple[str, str, str], int] = {}
    most: dict[tuple[str, str], int] = {}
    for example in sorted(examples, key=lambda e: (e.score - e.best, e.input, e.now)):
        place = (example.line, example.task)
        kind = (*place, example.kind)
        if most.get(place, 0) < _EXAMPLES_PER_TASK and count.get(kind, 0) < _EXAMPLES_PER_TASK - 1:
            chosen.append(example)
            most[place], count[kind] = most.get(place, 0) + 1, count.get(kind, 0) + 1
    return tuple(chosen)
