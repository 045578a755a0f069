"""How often the intervals that inscl prints hold the truth: simulated, one line for each situation.

    python benchmarks/coverage.py [--trials 4000] [--json FILE]

Rows are drawn from a known mean, the interval is computed, and the share of samples in which it holds that mean is
counted. 95 % is wanted. The error of a share over 4,000 trials is 0.35 points.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inscl.core.crossed import crossed_difference
from inscl.core.stats import Estimate, mean_interval, paired_difference, score_interval

Rng = np.random.Generator


class Case(NamedTuple):
    """A situation: what is drawn, and the mean that it is drawn from."""

    interval: str
    situation: str
    truth: float
    draw: Callable[[Rng], Estimate]


def cases() -> Iterator[Case]:
    """The situations that a page meets."""
    for rows in (30, 60, 200):
        for p in (0.5, 0.9, 0.97):
            yield right_or_wrong(rows, 1, p, 0.0)
    for clusters, rows in ((8, 4), (8, 10), (20, 6)):
        for p in (0.5, 0.8, 0.9):
            for alike in (0.0, 0.2, 0.5):
                yield right_or_wrong(clusters, rows, p, alike)
    for clusters, rows in ((30, 1), (8, 4), (8, 10), (20, 6)):
        yield shares(clusters, rows, 0.2)
        yield changes(clusters, rows, 0.2)
    for orders, seeds, effect in ((20, 1, 0.0), (8, 3, 2.0), (3, 5, 1.0), (3, 5, 2.0), (3, 5, 3.0)):
        yield streams(orders, seeds, effect)
    for n in (3, 8, 20):
        yield crossed(n, 0.05, 0.2, 0.3)


def right_or_wrong(clusters: int, rows: int, p: float, alike: float) -> Case:
    """Rows of 0 and 1; the instructions differ in difficulty, with a correlation of `alike` within one."""
    labels = np.repeat(np.arange(clusters), rows).tolist()

    def draw(rng: Rng) -> Estimate:
        chance = _chances(rng, clusters, p, alike)
        return score_interval((rng.random(len(labels)) < np.repeat(chance, rows)).astype(float), labels)

    return Case("score", f"{clusters} x {rows} rows of 0/1, mean {p}, alike {alike}", p, draw)


def shares(clusters: int, rows: int, alike: float) -> Case:
    """Scores such as ROUGE-L: a fifth are 0, `chance` of the rest 1, the others between."""
    labels = np.repeat(np.arange(clusters), rows).tolist()

    def draw(rng: Rng) -> Estimate:
        chance = np.repeat(_chances(rng, clusters, 0.4, alike), rows)
        values = np.where(rng.random(len(labels)) < chance, 1.0, rng.beta(2, 3, len(labels)))
        return score_interval(np.where(rng.random(len(labels)) < 0.2, 0.0, values), labels)

    return Case("score", f"{clusters} x {rows} rows from 0 to 1, alike {alike}", 0.8 * (0.4 + 0.6 * 0.4), draw)


def changes(clusters: int, rows: int, alike: float) -> Case:
    """Differences of 0/1 scores: -1, 0 and 1, more gains than losses."""
    labels = np.repeat(np.arange(clusters), rows).tolist()

    def draw(rng: Rng) -> Estimate:
        gains = rng.random(len(labels)) < np.repeat(_chances(rng, clusters, 0.3, alike), rows)
        return mean_interval(gains.astype(float) - (rng.random(len(labels)) < 0.1), labels)

    return Case("change", f"{clusters} x {rows} rows of -1, 0, 1, alike {alike}", 0.2, draw)


def streams(orders: int, seeds: int, effect: float) -> Case:
    """A difference with an effect of the order of sd `effect` and of the seed of sd 3, clustered by order."""
    labels = np.repeat(np.arange(orders), seeds).tolist()

    def draw(rng: Rng) -> Estimate:
        values = np.repeat(rng.normal(0, effect, orders), seeds) + rng.normal(0, 3, len(labels))
        return paired_difference(values, np.zeros(len(labels)), labels)

    return Case("paired", f"{orders} orders x {seeds} seeds, order effect of sd {effect}", 0.0, draw)


def crossed(n: int, of_stream: float, of_row: float, of_both: float) -> Case:
    """Streams that were scored on the same 30 rows of five tasks."""

    def draw(rng: Rng) -> Estimate:
        rows = {task: rng.normal(0, of_row, 30) for task in "uvwxy"}
        a = [
            {task: base + drift + rng.normal(0, of_both, 30) for task, base in rows.items()}
            for drift in rng.normal(0, of_stream, n)
        ]
        return crossed_difference(a, [{task: np.zeros(30) for task in rows} for _ in a])

    return Case("crossed", f"{n} streams x 5 tasks x 30 rows, sd {of_stream}, {of_row}, {of_both}", 0.0, draw)


def coverage(case: Case, trials: int, seed: int) -> tuple[float, float]:
    """Share of samples whose interval holds the truth, and the median width."""
    rng = np.random.default_rng(seed)
    ends = [case.draw(rng).ends for _ in range(trials)]
    held = [e is not None and e[0] <= case.truth <= e[1] for e in ends]
    return float(np.mean(held)), float(np.median([e[1] - e[0] if e else np.inf for e in ends]))


def _chances(rng: Rng, clusters: int, p: float, alike: float) -> np.ndarray:
    if not alike:
        return np.full(clusters, p)
    spread = (1 - alike) / alike
    return rng.beta(p * spread, (1 - p) * spread, clusters)


def main() -> None:
    """Print a line for each situation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = []
    for seed, case in enumerate(cases()):
        held, width = coverage(case, asked.trials, seed)
        found.append({"interval": case.interval, "situation": case.situation, "coverage": held, "width": width})
        print(f"{case.interval:8} {case.situation:58} {100 * held:5.1f} %  width {width:.3f}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
