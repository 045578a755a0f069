"""What was forgotten, by kind, with the answers side by side: once, now, and the reference.

The kinds come from ``forgotten.parquet``, which `inscl forgetting RUN` writes into the run's folder. Without it the
examples are looked up in the answers: rows that were right when their task was learnt and are not any more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inscl.report.replayed import First
from inscl.report.runs import RunFolder, StreamFolder
from inscl.runs.summary import StreamKey

TABLE = "forgotten.parquet"
EVER_RIGHT, DROP = 0.5, 0.3  # what counts as forgotten without the table
EXAMPLES_PER_TASK = 3


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
    """How many forgotten rows of a line and task are of which kind, over its streams."""

    line: str
    task: str
    kinds: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ForgottenFacts:
    """What was forgotten.

    Attributes
    ----------
    judged : bool
        Whether the kinds are known.
    kinds : tuple of KindFacts
    examples : tuple of Example
        The largest drops, a few per line and task.
    found : int
        Forgotten rows in all, of which the examples are a part.
    """

    judged: bool
    kinds: tuple[KindFacts, ...]
    examples: tuple[Example, ...]
    found: int


def forgotten_facts(runs: Sequence[RunFolder], firsts: Sequence[First]) -> ForgottenFacts:
    """Kinds and examples from the runs' tables where they are, else examples from the answers."""
    if not all((run.path / TABLE).exists() for run in runs):
        examples = [example for first in firsts for example in _from_answers(*first)]
        return ForgottenFacts(judged=False, kinds=(), examples=_largest(examples), found=len(examples))
    labels = {(run.name, *stream.key[:2]): label for label, run, stream in firsts}
    examples = [example for run in runs for example in _from_table(run, labels)]
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for example in examples:
        kinds = counts.setdefault((example.line, example.task), {})
        kinds[example.kind] = kinds.get(example.kind, 0) + 1
    return ForgottenFacts(
        judged=True,
        kinds=tuple(KindFacts(line=line, task=task, kinds=kinds) for (line, task), kinds in counts.items()),
        examples=_largest(examples),
        found=len(examples),
    )


def _from_table(run: RunFolder, labels: Mapping[tuple[str, str, str], str]) -> Iterable[Example]:
    """What the table says of the last stage of each stream."""
    from pyarrow import parquet

    last = {stream.key: len(stream.tasks) for stream in run.streams}
    for row in parquet.read_table(run.path / TABLE).to_pylist():
        key = StreamKey(row["strategy"], row["budget"], row["order"], row["seed"])
        label = labels.get((run.name, *key[:2]))
        if label is None or row["stage"] != last.get(key):
            continue
        yield Example(
            line=label,
            task=row["task"],
            instruction=row["instruction"],
            input=row["input"],
            reference=_text(row["reference"]),
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
    once, now = (run.answers(stream, stage).get(task, []) for stage in (learnt, last))
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
