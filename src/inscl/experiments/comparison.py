"""Two strategies on the same streams: how far apart they are, and whether that counts."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inscl.core.crossed import crossed_difference
from inscl.core.stats import Estimate, paired_difference
from inscl.experiments.results import FINAL

Place = tuple[str, int]  # order and seed: what two streams must share to be a pair


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One strategy with one budget, on some streams.

    Attributes
    ----------
    label, strategy, budget : str
        The budget is empty where nothing is replayed.
    finals : mapping from place to float
        Final Relative Gain of each stream.
    rows : mapping from place to mapping from task to sequence of float
        What makes it up, row by row (see `inscl.experiments.run_folder.RunFolder.final_rows`); may lack streams.
    """

    label: str
    strategy: str
    budget: str
    finals: Mapping[Place, float]
    rows: Mapping[Place, Mapping[str, Sequence[float]]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Difference in final Relative Gain between two strategies, over the streams that both have.

    Attributes
    ----------
    line, baseline : str
        Labels; the difference is line - baseline.
    paired : Estimate
        With Student's t-interval over the streams.
    resampled : Estimate, optional
        With streams and test rows drawn again together (`inscl.core.crossed.crossed_difference`), of test rows alone
        where there is one stream; None without row scores.
    """

    line: str
    baseline: str
    paired: Estimate
    resampled: Estimate | None = None

    @property
    def counts(self) -> bool:
        """Whether it tells the two apart: an interval over enough streams that leaves out zero."""
        ends = self.paired.shown
        return ends is not None and (ends[0] > 0 or ends[1] < 0)

    def of(self, label: str) -> Estimate:
        """The difference as seen from one of the two."""
        return self.paired if label == self.line else -self.paired


def line_label(strategy: str, budget: str, budgets: Collection[str]) -> str:
    """What a strategy with a budget is called where several `budgets` may stand side by side.

    >>> line_label("inscl", "5%", {"", "5%"}), line_label("inscl", "5%", {"5%", "24 per task"})
    ('inscl', 'inscl (5%)')
    """
    return f"{strategy} ({budget})" if budget and len({*budgets} - {""}) > 1 else strategy


def comparisons(contenders: Sequence[Contender]) -> list[Comparison]:
    """Every contender against every earlier one of the same budget, or of none."""
    pairs = ((line, other) for i, line in enumerate(contenders) for other in contenders[:i])
    found = (_comparison(line, other) for line, other in pairs if _comparable(line, other))
    return [comparison for comparison in found if comparison]


def strategy_difference(
    table: Any,
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
    a, b = ([of.rows.get(place, {}) for place in both] for of in (line, other))
    return Comparison(
        line=line.label,
        baseline=other.label,
        paired=paired_difference(mine, theirs, _orders(both)),
        resampled=crossed_difference(a, b, orders=_orders(both)) if all(a + b) else None,
    )


def _orders(places: Sequence[Place]) -> list[str]:
    """Streams of one order are not independent."""
    return [order for order, _ in places]


def _by_place(table: Any, strategy: str, metric: str, budget: str | None) -> dict[Place, float]:
    found: dict[Place, float] = {}
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


def _whole_stream(table: Any, strategy: str, metric: str) -> Iterator[dict[str, Any]]:
    rows: Iterable[dict[str, Any]] = table.to_pylist()
    wanted = (strategy, metric, None, None)
    return (row for row in rows if (row["strategy"], row["metric"], row["stage"], row["task"]) == wanted)
