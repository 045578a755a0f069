"""Relative Gain at equal training tokens: a strategy that replays sees more rows than one that does not."""

from collections.abc import Iterable, Mapping

import numpy as np

from inscl.experiments.results import FINAL, StreamKey, TableRow


def gains_at_equal_tokens(rows: Iterable[TableRow]) -> dict[StreamKey, float]:
    """Relative Gain of each finished stream when it had seen as many tokens as the cheapest one of its order and seed.

    Between two stages it is interpolated over the tokens seen so far. A stream that had not learnt two tasks by then
    has none. A dearer stream has learnt fewer tasks by then, which are easier to keep: read it beside the final value,
    and what both say of two strategies, believe.

    Parameters
    ----------
    rows : iterable of mapping
        Of the table of a run.

    Examples
    --------
    >>> place = {"budget": "", "order": "given", "seed": 0, "task": None}
    >>> def stream(name, tokens, gains):
    ...     made = [("tokens", i, n) for i, n in enumerate(tokens, 1)] + [("relative_gain", i, g) for i, g in gains]
    ...     made.append(("relative_gain_final", None, gains[-1][1]))
    ...     return [{**place, "strategy": name, "metric": m, "stage": i, "value": v} for m, i, v in made]
    >>> rows = stream("none", [10, 10, 10], [(2, 60), (3, 40)]) + stream("inscl", [10, 15, 20], [(2, 100), (3, 90)])
    >>> [(key.strategy, gain) for key, gain in gains_at_equal_tokens(rows).items()]
    [('none', 40.0), ('inscl', 97.5)]
    """
    known: dict[str, dict[StreamKey, dict[int, float]]] = {"tokens": {}, "relative_gain": {}, FINAL: {}}
    for row in rows:
        if row["metric"] in known:
            known[row["metric"]].setdefault(StreamKey.of(row), {})[row["stage"]] = row["value"]
    tokens, gains, finals = known.values()
    measured = [key for key in gains if key in finals and key in tokens]
    totals = {key: sum(tokens[key].values()) for key in measured}
    found = {}
    for key in measured:
        least = min(total for other, total in totals.items() if other[2:] == key[2:])
        if (gain := _gain_at(least, tokens[key], gains[key])) is not None:
            found[key] = gain
    return found


def _gain_at(tokens: float, by_stage: Mapping[int, float], gains: Mapping[int, float]) -> float | None:
    stages = sorted(gains)
    seen = [sum(n for stage, n in by_stage.items() if stage <= last) for last in stages]
    return float(np.interp(tokens, seen, [gains[stage] for stage in stages])) if tokens >= seen[0] else None
