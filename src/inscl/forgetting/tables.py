"""The tables of a forgetting analysis, and their files in the run's folder.

forgetting.parquet   a row per stream, stage and earlier task: rates, also as CSV
forgotten.parquet    a row per forgotten example of the stages that were judged
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from inscl.core.stats import Estimate, score_interval
from inscl.experiments.results import TableRow
from inscl.experiments.run_folder import RunFolder, StreamFolder, write_csv, write_tables
from inscl.forgetting.fates import RowFate, StageTask
from inscl.forgetting.rates import ForgettingRule, RowHistory
from inscl.forgetting.verdict import RELATED, UNRELATED

_RATES, _RATES_CSV, _FORGOTTEN = "forgetting.parquet", "forgetting.csv", "forgotten.parquet"

_STREAM = [("run_id", pa.string()), ("strategy", pa.string()), ("budget", pa.string()), ("order", pa.string())]
_PLACE = [*_STREAM, ("seed", pa.int64()), ("stage", pa.int32()), ("task", pa.string())]
_RATES_SCHEMA = pa.schema(
    [
        *_PLACE,
        ("rows", pa.int64()),  # scored at this stage
        ("ever_right", pa.int64()),  # of these, right at an earlier stage
        ("forgotten", pa.int64()),  # of these, not any more
        ("rate_forgotten", pa.float64()),  # null: no row was ever right
        ("rate_forgotten_low", pa.float64()),
        ("rate_forgotten_high", pa.float64()),
        ("judge", pa.string()),  # null: this stage was not judged
        ("related", pa.int64()),
        ("unrelated", pa.int64()),
        ("not_judged", pa.int64()),
        ("rate_unrelated", pa.float64()),  # of the judged forgotten rows; null: none
        ("rate_unrelated_low", pa.float64()),
        ("rate_unrelated_high", pa.float64()),
        ("ever_right_from", pa.float64()),  # the settings
        ("drop_from", pa.float64()),
    ]
)
_FORGOTTEN_SCHEMA = pa.schema(
    [
        *_PLACE,
        ("row", pa.int64()),  # place in the task's test side
        ("best", pa.float64()),
        ("best_stage", pa.int32()),
        ("score", pa.float64()),
        ("judge", pa.string()),
        ("kind", pa.string()),  # null: not judged
        ("reason", pa.string()),
        ("nearest_task", pa.string()),
        ("instruction", pa.string()),
        ("input", pa.string()),
        ("reference", pa.string()),  # the first of the accepted answers
        ("once", pa.string()),  # the answer at `best_stage`; null: not kept
        ("now", pa.string()),
    ]
)


def rates_table(
    run: RunFolder,
    seen: Mapping[StageTask, Sequence[RowHistory]],
    lost_at: Mapping[StageTask, Sequence[RowFate]],
    asked: Collection[StageTask],
    judge: str,
    rule: ForgettingRule,
) -> pa.Table:
    """A row per place, from its rows that were once right; kinds only where they were judged (`asked`)."""
    records = []
    for place, rows in seen.items():
        stream, stage, task = place
        record = _columns(run, stream, stage, task)
        record |= {"rows": stream.stages[stage - 1].scores[task].n, "ever_right": len(rows)}
        record |= _named("rate_forgotten", forgotten_share(rows))
        record |= {"forgotten": sum(row.forgotten for row in rows)}
        record |= {"ever_right_from": rule.ever_right, "drop_from": rule.drop}
        if place in asked:
            record |= {"judge": judge, **_kinds(lost_at.get(place, ()))}
        records.append(record)
    return pa.Table.from_pylist(records, schema=_RATES_SCHEMA)


def forgotten_table(run: RunFolder, lost: Iterable[RowFate], judge: str) -> pa.Table:
    """A row per forgotten example."""
    return pa.Table.from_pylist([_record(run, entry, judge) for entry in lost], schema=_FORGOTTEN_SCHEMA)


def write_analysis(run: RunFolder, rates: pa.Table, forgotten: pa.Table) -> None:
    """Write the tables into the run's folder; each file is the old one or the new one, never half."""
    from pyarrow import parquet

    write_tables(
        run.path,
        {
            _FORGOTTEN: (parquet.write_table, forgotten),
            _RATES_CSV: (write_csv, rates),
            _RATES: (parquet.write_table, rates),
        },
    )


def read_analysis(run: RunFolder) -> tuple[list[TableRow], list[TableRow]] | None:
    """The rows of both tables of an earlier analysis; None where there was none."""
    from pyarrow import parquet

    if not all((run.path / name).exists() for name in (_RATES, _FORGOTTEN)):
        return None
    rates, forgotten = (parquet.read_table(run.path / name).to_pylist() for name in (_RATES, _FORGOTTEN))
    return rates, forgotten


def forgotten_share(rows: Sequence[RowHistory]) -> Estimate | None:
    """Share of the rows that are forgotten, for other rows like these; None without rows."""
    return score_interval([row.forgotten for row in rows], [row.instruction for row in rows]) if rows else None


def unrelated_share(fates: Iterable[RowFate]) -> Estimate | None:
    """Share of the judged rows whose answer does not attempt the task; None where none was judged."""
    known = [fate for fate in fates if fate.verdict.kind is not None]
    flags = [fate.verdict.kind == UNRELATED for fate in known]
    return score_interval(flags, [fate.history.instruction for fate in known]) if known else None


def _kinds(lost: Sequence[RowFate]) -> dict[str, Any]:
    kinds = Counter(entry.verdict.kind for entry in lost)
    counts = {"related": kinds[RELATED], "unrelated": kinds[UNRELATED], "not_judged": kinds[None]}
    return {**counts, **_named("rate_unrelated", unrelated_share(lost))}


def _named(name: str, of: Estimate | None) -> dict[str, float | None]:
    values = (None, None, None) if of is None else (of.mean, of.low, of.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _columns(run: RunFolder, stream: StreamFolder, stage: int, task: str) -> dict[str, Any]:
    return {"run_id": run.name, **stream.key._asdict(), "stage": stage, "task": task}


def _record(run: RunFolder, entry: RowFate, judge: str) -> dict[str, Any]:
    asked = entry.asked
    return {
        **_columns(run, entry.stream, entry.stage, entry.task),
        **{name: getattr(entry.history, name) for name in ("row", "best", "best_stage", "score")},
        "judge": judge,
        **asdict(entry.verdict),
        "instruction": asked.instruction if asked else "",
        "input": asked.input if asked else "",
        "reference": asked.references[0] if asked and asked.references else "",
        "once": entry.once.prediction if entry.once else None,
        "now": entry.now.prediction if entry.now else None,
    }
