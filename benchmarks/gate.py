"""How often the gate (`inscl check`) is right, on simulated models: false alarms, drops found, tasks it passes.

    python benchmarks/gate.py                    # 2,000 releases a line, about five minutes
    python benchmarks/gate.py --releases 200     # a quick look

A release is a family of tasks. Each row has a chance of a right answer, the same for both models, and both models'
answers are drawn anew from it; what is not right gets partial credit (ROUGE-L) or none (exact match). Then answers of
the new model are lost: replaced by ones that score 0, as when another task's answer is given. The noise of a line is
the variance of a row's difference between two equally good models; on the demo's tasks, models of a stream that scored
alike had 0.018 (ROUGE-L) and 0.048 (exact match).
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import binomtest

from inscl.check.comparison import drop_estimate
from inscl.check.result import Tolerance
from inscl.core.stats import holm

Scores = tuple[np.ndarray, np.ndarray]  # of the reference and of the model, (n_rows,)
LIMITS, TASKS = Tolerance(), 16


@dataclass(frozen=True)
class Rows:
    """A kind of task: `unsure` rows are answered right by chance, of the others most always and some never."""

    unsure: float
    partial: bool  # whether a wrong answer may earn something
    n: int = 500
    instructions: int = 1
    spread: float = 0.0  # standard deviation between instructions of the share of answers that are lost

    def draw(self, rng: np.random.Generator, drop: float = 0.0) -> Scores:
        """Both models' scores, the second `drop` lower on average."""
        kind = rng.random(self.n)
        right = np.where(kind < self.unsure, rng.beta(2, 2, self.n), np.where(kind < self.unsure + 0.15, 0.01, 0.995))
        credit = np.where(rng.random(self.n) < 0.4, 0.0, rng.beta(2, 3, self.n)) if self.partial else np.zeros(self.n)

        def answers() -> np.ndarray:
            near = np.clip(credit + rng.normal(0, 0.1, self.n) * (credit > 0), 0, 1)
            return np.where(rng.random(self.n) < right, 1.0, near)

        old, new = answers(), answers()
        share = drop / self.level if drop else 0.0
        share = (share + self.spread * rng.normal(size=self.instructions))[self.labels]
        lost = rng.random(self.n) < np.abs(share)
        # What some instructions lose beyond `drop`, others win: their answers are lost on the other side.
        return np.where(lost & (share < 0), 0, old), np.where(lost & (share > 0), 0, new)

    @cached_property
    def level(self) -> float:
        """Mean score of a model that lost nothing."""
        rng = np.random.default_rng(1)
        return float(np.mean([self.draw(rng)[1].mean() for _ in range(200)]))

    @cached_property
    def noise(self) -> float:
        """Variance of a row's difference between two equally good models."""
        rng = np.random.default_rng(2)
        return float(np.mean([np.var(np.subtract(*self.draw(rng))) for _ in range(200)]))

    @cached_property
    def labels(self) -> np.ndarray:
        """The instruction of each row."""
        return np.arange(self.n) % self.instructions


def outcomes(tasks: list[Scores], labels: np.ndarray) -> list[str]:
    """What the gate says of each task of a release."""
    found = [drop_estimate(old - new, labels)[0] for old, new in tasks]
    adjusted = holm([estimate.p_above(LIMITS.max_drop / 100) for estimate in found])
    return [
        "fail" if p <= LIMITS.alpha else "pass" if e.high(LIMITS.alpha) < LIMITS.noticed / 100 else "cannot tell"
        for e, p in zip(found, adjusted, strict=True)
    ]


def simulate(rows: Rows, releases: int) -> Counter[str]:
    """How many releases gave a false alarm, found the one task that dropped, passed it, …"""
    counts: Counter[str] = Counter()
    for i in range(releases):
        rng = np.random.default_rng((7, i))
        equal = outcomes([rows.draw(rng) for _ in range(TASKS)], rows.labels)
        limit = outcomes([rows.draw(rng, LIMITS.max_drop / 100) for _ in range(TASKS)], rows.labels)
        one = outcomes([rows.draw(rng, 0.10), *(rows.draw(rng) for _ in range(TASKS - 1))], rows.labels)[0]
        counts += Counter(
            alarm="fail" in equal, at_limit="fail" in limit, passes=equal[0] == "pass", found=one == "fail",
            missed=one == "pass",
        )  # fmt: skip
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the gate is right, on simulated models.")
    parser.add_argument("--releases", type=int, default=2000)
    releases = parser.parse_args().releases
    kinds = {
        "ROUGE-L, as on the demo": Rows(0.04, partial=True),
        "ROUGE-L, noisier": Rows(0.10, partial=True),
        "ROUGE-L, noisy": Rows(0.30, partial=True),
        "exact match, quiet": Rows(0.04, partial=False),
        "exact match, as on the demo": Rows(0.10, partial=False),
        "exact match, noisy": Rows(0.45, partial=False),
        "ROUGE-L, 50 instructions": Rows(0.04, partial=True, instructions=50, spread=0.05),
        "ROUGE-L, 12 instructions": Rows(0.04, partial=True, instructions=12, spread=0.05),
        "ROUGE-L, 100 rows": Rows(0.04, partial=True, n=100),
        "exact match, 100 rows": Rows(0.10, partial=False, n=100),
        "exact match, 12 rows": Rows(0.10, partial=False, n=12),
    }
    columns = {
        "alarm": "false alarms, equal models",
        "at_limit": "false alarms, all tasks at the limit",
        "found": "10 points in one task: fails",
        "missed": "passes",
        "passes": "an equal task passes",
    }
    print(f"{TASKS} tasks of 500 rows unless said; {LIMITS}; {releases:,} releases a line, 95 % intervals")
    print(" | ".join(["kind", "score", "noise", *columns.values()]))
    for name, rows in kinds.items():
        counts = simulate(rows, releases)
        figures = []
        for key in columns:
            low, high = binomtest(counts[key], releases).proportion_ci(0.95)
            figures.append(f"{100 * counts[key] / releases:.1f} ({100 * low:.1f} … {100 * high:.1f})")
        print(" | ".join([name, f"{rows.level:.2f}", f"{rows.noise:.3f}", *figures]), flush=True)


if __name__ == "__main__":
    main()
