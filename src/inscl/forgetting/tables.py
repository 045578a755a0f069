"""The tables of a forgetting analysis, and their files in the run's folder.

forgetting.parquet   a row per stream, stage and earlier task: rates, also as CSV
forgotten.parquet    a row per forgotten example of the stages that were judged
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import pyarrow as pa

from inscl.core.stats import Estimate
from inscl.experiments.results import StreamKey, TableRow
from inscl.experiments.run_folder import RunFolder, write_tables
from inscl.forgetting.fates import PastTask, RowFate, Tally
from inscl.forgetting.rates import ForgettingRule
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


@dataclass(frozen=True)
class Tables:
    """Both tables of an analysis."""

    rates: pa.Table
    forgotten: pa.Table

    @classmethod
    def of(
        cls,
        run: RunFolder,
        seen: Mapping[PastTask, Tally],
        asked: Collection[PastTask],
        judge: str,
        rule: ForgettingRule,
    ) -> Self:
        """A row per past task, from its rows that were once right, and a row per forgotten example.

        Kinds are told only of the past tasks that were judged (`asked`).
        """
        rates = [_rates(run, past, tally, rule, judge if past in asked else None) for past, tally in seen.items()]
        forgotten = [_record(run, fate, judge) for tally in seen.values() for fate in tally.lost]
        return cls(
            pa.Table.from_pylist(rates, schema=_RATES_SCHEMA),
            pa.Table.from_pylist(forgotten, schema=_FORGOTTEN_SCHEMA),
        )

    @classmethod
    def read(cls, run: RunFolder) -> Self | None:
        """The tables of an earlier analysis; None where there was none."""
        from pyarrow import parquet

        if not all((run.path / name).exists() for name in (_RATES, _FORGOTTEN)):
            return None
        return cls(*(parquet.read_table(run.path / name) for name in (_RATES, _FORGOTTEN)))

    def write(self, run: RunFolder) -> None:
        """Write them into the run's folder; each file is the old one or the new one, never half."""
        write_tables(run.path, {_FORGOTTEN: self.forgotten, _RATES_CSV: self.rates, _RATES: self.rates})


def last_stages(rows: Sequence[TableRow]) -> list[TableRow]:
    """The rows of each stream's last stage among them."""
    last: dict[StreamKey, int] = {}
    for row in rows:
        last[StreamKey.of(row)] = max(row["stage"], last.get(StreamKey.of(row), 0))
    return [row for row in rows if row["stage"] == last[StreamKey.of(row)]]


def _rates(run: RunFolder, past: PastTask, tally: Tally, rule: ForgettingRule, judge: str | None) -> TableRow:
    known = {
        "rows": past.stream.stages[past.stage - 1].scores[past.task].n,
        "ever_right": len(tally.rows),
        "forgotten": sum(row.forgotten for row in tally.rows),
        "ever_right_from": rule.ever_right,
        "drop_from": rule.drop,
    }
    kinds = {} if judge is None else {"judge": judge, **_kinds(tally)}
    return {**_columns(run, past), **known, **_named("rate_forgotten", tally.forgotten), **kinds}


def _kinds(tally: Tally) -> dict[str, float | None]:
    kinds = Counter(fate.verdict.kind for fate in tally.lost)
    counts = {"related": kinds[RELATED], "unrelated": kinds[UNRELATED], "not_judged": kinds[None]}
    return {**counts, **_named("rate_unrelated", tally.unrelated)}


def _named(name: str, of: Estimate | None) -> dict[str, float | None]:
    values = (None, None, None) if of is None else (of.mean, of.low, of.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _columns(run: RunFolder, past: PastTask) -> TableRow:
    return {"run_id": run.name, **past.stream.key._asdict(), "stage": past.stage, "task": past.task}


def _record(run: RunFolder, fate: RowFate, judge: str) -> TableRow:
    asked = fate.asked
    return {
        **_columns(run, fate.past),
        **{name: getattr(fate.history, name) for name in ("row", "best", "best_stage", "score")},
        "judge": judge,
        **asdict(fate.verdict),
        "instruction": asked.instruction if asked else "",
        "input": asked.input if asked else "",
        "reference": asked.references[0] if asked and asked.references else "",
        "once": fate.once.prediction if fate.once else None,
        "now": fate.now.prediction if fate.now else None,
    }
