"""Two strategies on the same streams: how far apart they are, and whether that counts."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa

from inscl.core.crossed import crossed_difference
from inscl.core.stats import Estimate, holm, paired_difference
from inscl.experiments.results import FINAL, TableRow

_ALPHA = 0.05
OrderSeed = tuple[str, int]  # order and seed: what two streams must share to be a pair


class FinalRows(NamedTuple):
    """What makes up a stream's final Relative Gain: its mean over the rows and then over the tasks.

    Attributes
    ----------
    scores : mapping from task to sequence of float, shape (n_rows,)
        Scores of the last model in per cent of the task's expert, for every task but the newest.
    instructions : mapping from task to sequence of str, shape (n_rows,)
        Key of each row's instruction.
    """

    scores: Mapping[str, Sequence[float]]
    instructions: Mapping[str, Sequence[str]]

    def estimate(self) -> Estimate:
        """The mean, for other test rows than these."""
        nothing = {task: [0.0] * len(rows) for task, rows in self.scores.items()}
        found = crossed_difference([self.scores], [nothing], instructions=self.instructions)
        return replace(found, clusters=sum(len(set(asked)) for asked in self.instructions.values()))


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One strategy with one budget, on some streams.

    Attributes
    ----------
    label, strategy, budget : str
        The budget is empty where nothing is replayed.
    finals : mapping from place to float
        Final Relative Gain of each stream.
    rows : mapping from place to FinalRows
        What makes it up; may lack streams.
    """

    label: str
    strategy: str
    budget: str
    finals: Mapping[OrderSeed, float]
    rows: Mapping[OrderSeed, FinalRows]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Difference in final Relative Gain between two strategies, over the streams that both have.

    Attributes
    ----------
    line, baseline : str
        Labels; the difference is line - baseline.
    paired : Estimate
        With Student's t-interval over the streams.
    crossed : Estimate, optional
        For other streams and other test rows (`inscl.core.crossed.crossed_difference`), of test rows alone
        where there is one stream; None without row scores.
    p : float, optional
        Of "there is no difference" over the streams, adjusted by Holm for all comparisons that are shown together; None
        where the streams give none.
    """

    line: str
    baseline: str
    paired: Estimate
    crossed: Estimate | None = None
    p: float | None = None

    @property
    def counts(self) -> bool:
        """Whether it tells the two apart: over enough streams, and although so many pairs were looked at."""
        return self.paired.enough and self.p is not None and self.p <= _ALPHA

    def of(self, label: str) -> Estimate:
        """The difference as seen from one of the two."""
        return self.paired if label == self.line else -self.paired


def line_label(strategy: str, budget: str, budgets: Collection[str]) -> str:
    """What a strategy with a budget is called where several `budgets` may stand side by side.

    >>> line_label("inscl", "5%", {"", "5%"}), line_label("inscl", "5%", {"5%", "24 per task"})
    ('inscl', 'inscl (5%)')
    """
    return f"{strategy} ({budget})" if budget and len({*budgets} - {""}) > 1 else strategy


def comparisons(*groups: Sequence[Contender]) -> list[Comparison]:
    """Every contender of a group against every earlier one of it that has the same budget, or none.

    They are shown together, so the p-values hold for all of them at once.
    """
    pairs = ((line, other) for group in groups for i, line in enumerate(group) for other in group[:i])
    found = (_comparison(line, other) for line, other in pairs if _comparable(line, other))
    return _adjusted([comparison for comparison in found if comparison])


def _adjusted(shown: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons that are shown together, with p-values that hold for all of them at once."""
    raw = {place: comparison.paired.p for place, comparison in enumerate(shown)}
    known = {place: p for place, p in raw.items() if p is not None}
    together = dict(zip(known, holm(list(known.values())), strict=True)) if known else {}
    return [replace(comparison, p=together.get(place)) for place, comparison in enumerate(shown)]


def strategy_difference(
    table: pa.Table,
    strategy: str,
    baseline: str,
    *,
    metric: str = FINAL,
    budget: str | None = None,
    level: float = 0.95,
) -> Estimate:
    """Difference of a stream metric between two strategies, paired by order and seed.

    Parameters
    ----------
    table : pyarrow.Table
        With the columns of `inscl.experiments.results.SCHEMA`, of one model.
    strategy, baseline : str
        The difference is strategy - baseline.
    metric : str
        A metric of the whole stream.
    budget : str, optional
        Budget of both; a strategy without a budget (the budget column is empty) is paired with any.
    level : float

    Returns
    -------
    Estimate
        Over the streams that both have.

    Raises
    ------
    ValueError
        If no stream has both, or a strategy has several values for one order and seed.
    """
    a, b = (_by_place(table, name, metric, budget) for name in (strategy, baseline))
    both = sorted(a.keys() & b.keys())
    if not both:
        raise ValueError(
            f"No stream (order and seed) has '{metric}' for both '{strategy}' and '{baseline}'. Run both first."
        )
    return paired_difference([a[key] for key in both], [b[key] for key in both], _orders(both), level)


def _comparable(line: Contender, other: Contender) -> bool:
    same_budget = not (line.budget and other.budget) or line.budget == other.budget
    return line.strategy != other.strategy and same_budget


def _comparison(line: Contender, other: Contender) -> Comparison | None:
    """None where they have no stream in common."""
    both = sorted(line.finals.keys() & other.finals.keys())
    if not both:
        return None
    mine, theirs = ([of.finals[place] for place in both] for of in (line, other))
    return Comparison(
        line=line.label,
        baseline=other.label,
        paired=paired_difference(mine, theirs, _orders(both)),
        crossed=_over_rows_too(line, other, both),
    )


def _over_rows_too(line: Contender, other: Contender, both: Sequence[OrderSeed]) -> Estimate | None:
    """The difference for other streams and other test rows; None where row scores are gone."""
    if not all(place in of.rows for of in (line, other) for place in both):
        return None
    a, b = ([of.rows[place].scores for place in both] for of in (line, other))
    asked = {task: keys for place in both for task, keys in line.rows[place].instructions.items()}
    return crossed_difference(a, b, orders=_orders(both), instructions=asked)


def _orders(places: Sequence[OrderSeed]) -> list[str]:
    """Streams of one order are not independent."""
    return [order for order, _ in places]


def _by_place(table: pa.Table, strategy: str, metric: str, budget: str | None) -> dict[OrderSeed, float]:
    found: dict[OrderSeed, float] = {}
    for row in _whole_stream(table, strategy, metric):
        if budget is None or row["budget"] in ("", budget):
            place = row["order"], row["seed"]
            if place in found:
                raise ValueError(
                    f"'{strategy}' has several values of '{metric}' for order '{place[0]}' and seed {place[1]}. "
                    "Give `budget`, and the rows of one run and model."
                )
            found[place] = row["value"]
    return found


def _whole_stream(table: pa.Table, strategy: str, metric: str) -> Iterator[TableRow]:
    rows: Iterable[TableRow] = table.to_pylist()
    wanted = (strategy, metric, None, None)
    return (row for row in rows if (row["strategy"], row["metric"], row["stage"], row["task"]) == wanted)
