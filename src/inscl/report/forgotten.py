"""What was forgotten, by kind, with the answers side by side: once, now, and the reference.

The kinds come from the tables that `inscl forgetting RUN` writes into the run's folder. Without them the examples are
looked up in the answers: rows that were right when their task was learnt and are not any more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inscl.experiments.summary import StreamKey
from inscl.report.replayed import First
from inscl.report.runs import RunFolder, StreamFolder

RATES, TABLE = "forgetting.parquet", "forgotten.parquet"
EVER_RIGHT, DROP = 0.5, 0.3  # what counts as forgotten without the tables
EXAMPLES_PER_TASK = 3
COUNTS = ("ever_right", "related", "unrelated", "not_judged")
Labels = Mapping[tuple[str, str, str], str]  # run, strategy and budget -> label of the line


@dataclass(frozen=True, kw_only=True)
class Example:
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
    examples : tuple of Example
        The largest drops, a few per line and task.
    found : int
        Forgotten rows in all, of which the examples are a part.
    """

    judges: tuple[str, ...]
    kinds: tuple[KindFacts, ...]
    examples: tuple[Example, ...]
    found: int


def forgotten_facts(runs: Sequence[RunFolder], firsts: Sequence[First]) -> ForgottenFacts:
    """Kinds and examples from the runs' tables where they are, else examples from the answers."""
    if not all((run.path / name).exists() for run in runs for name in (RATES, TABLE)):
        examples = [example for first in firsts for example in _from_answers(*first)]
        return ForgottenFacts(judges=(), kinds=(), examples=_largest(examples), found=len(examples))
    labels = {(run.name, *stream.key[:2]): label for label, run, stream in firsts}
    counted = [counts for run in runs for counts in _rates(run, labels)]
    examples = [example for run in runs for example in _from_table(run, labels)]
    return ForgottenFacts(
        judges=tuple(dict.fromkeys(judge for judge, _, _ in counted)),
        kinds=tuple(_kinds(counted)),
        examples=_largest(examples),
        found=len(examples),
    )


def _rates(run: RunFolder, labels: Labels) -> Iterable[tuple[str, tuple[str, str], Mapping[str, int]]]:
    """Judge, line and task, and counts of each stream's last judged stage."""
    rows = [row for row in _read(run, RATES) if row["judge"]]
    last: dict[StreamKey, int] = {}
    for row in rows:
        last[_key(row)] = max(row["stage"], last.get(_key(row), 0))
    for row in rows:
        label = labels.get((run.name, row["strategy"], row["budget"]))
        if label and row["stage"] == last[_key(row)]:
            yield row["judge"], (label, row["task"]), {name: row[name] or 0 for name in COUNTS}


def _kinds(counted: Iterable[tuple[str, tuple[str, str], Mapping[str, int]]]) -> Iterable[KindFacts]:
    totals: dict[tuple[str, str], dict[str, int]] = {}
    for _, place, counts in counted:
        total = totals.setdefault(place, dict.fromkeys(COUNTS, 0))
        for name, n in counts.items():
            total[name] += n
    for (line, task), total in totals.items():
        yield KindFacts(line=line, task=task, **total)


def _read(run: RunFolder, name: str) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return list(parquet.read_table(run.path / name).to_pylist())


def _key(row: Mapping[str, Any]) -> StreamKey:
    return StreamKey(row["strategy"], row["budget"], row["order"], row["seed"])


def _from_table(run: RunFolder, labels: Labels) -> Iterable[Example]:
    """The forgotten rows of each stream's last judged stage."""
    rows = _read(run, TABLE)
    last: dict[StreamKey, int] = {}
    for row in rows:
        last[_key(row)] = max(row["stage"], last.get(_key(row), 0))
    for row in rows:
        label = labels.get((run.name, row["strategy"], row["budget"]))
        if label is None or row["stage"] != last[_key(row)]:
            continue
        yield Example(
            line=label,
            task=row["task"],
            instruction=row["instruction"],
            input=row["input"],
            reference=row["reference"],
            once=row["once"],
            now=row["now"],
            best=100 * row["best"],
            score=100 * row["score"],
            kind=row["kind"] or "",
            reason=row["reason"] or "",
        )


def _text(reference: object) -> str:
    """The first reference, where there are several."""
    return str(reference[0]) if isinstance(reference, list) and reference else str(reference)


def _from_answers(label: str, run: RunFolder, stream: StreamFolder) -> Iterable[Example]:
    """Rows of a finished stream that were right when their task was learnt and are not after the last stage."""
    for task in stream.tasks[:-1]:
        for row in answers_of(run, stream, task):
            if row["best"] >= 100 * EVER_RIGHT and row["best"] - row["score"] >= 100 * DROP:
                yield Example(line=label, task=task, kind="", reason="", **row)


def answers_of(run: RunFolder, stream: StreamFolder, task: str) -> list[dict[str, Any]]:
    """The answers to a task's test rows when it was learnt and after the last stage, with their scores in points.

    Rows that both stages scored; none where the stream is not finished, or its answers are gone.
    """
    learnt, last = stream.tasks.index(task) + 1, len(stream.tasks)
    scorer = run.config.scorer
    once, now = (run.answers(stream, stage, task) for stage in (learnt, last))
    best, score = (run.row_scores(stream, stage).get(task) for stage in (learnt, last))
    if best is None or score is None:
        return []
    rows = zip(once, now, best.rows[scorer], score.rows[scorer], strict=False)
    return [
        {
            "instruction": a["instruction"],
            "input": a["input"],
            "reference": _text(a["references"]),
            "once": a["prediction"],
            "now": b["prediction"],
            "best": 100 * before,
            "score": 100 * after,
        }
        for a, b, before, after in rows
        if (a["instruction"], a["input"]) == (b["instruction"], b["input"])
    ]


def _largest(examples: Iterable[Example]) -> tuple[Example, ...]:
    """A few per line and task, the largest drops first; both kinds where both are there."""
    chosen: list[Example] = []
    count: dict[tuple[str, str, str], int] = {}
    most: dict[tuple[str, str], int] = {}
    for example in sorted(examples, key=lambda e: (e.score - e.best, e.input, e.now)):
        place = (example.line, example.task)
        kind = (*place, example.kind)
        if most.get(place, 0) < EXAMPLES_PER_TASK and count.get(kind, 0) < EXAMPLES_PER_TASK - 1:
            chosen.append(example)
            most[place], count[kind] = most.get(place, 0) + 1, count.get(kind, 0) + 1
    return tuple(chosen)
