"""The tables of docs/results.md, from the committed scores in seconds: ``python experiments/tables.py``."""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from scipy.stats import spearmanr
from streams import stream

from inscl.core.orders import order_of
from inscl.core.stats import Estimate, holm, mean_interval
from inscl.experiments.comparison import strategy_difference
from inscl.experiments.results import FINAL, SCHEMA

HERE = Path(__file__).parent
LAST_FIVE = "relative_gain_last_five"
OURS, BASELINES, BUDGETS = "rotate+balance+interpolate", ("random", "inscl"), ("2 per task", "5 per task")


def scores(folder: Path) -> pa.Table:
    """All streams of a folder in one table; each has an order and a seed of its own."""
    columns = pyarrow.csv.ConvertOptions(column_types=SCHEMA, null_values=[""], strings_can_be_null=False)
    files = sorted(folder.glob("*.csv"), key=lambda path: int(path.stem))
    table = pa.concat_tables([pyarrow.csv.read_csv(path, convert_options=columns) for path in files])
    whole = pc.if_else(pc.equal(table["task"], ""), None, table["task"])  # CSV has no null for text
    return table.set_column(table.schema.get_field_index("task"), "task", whole)


def streams(table: pa.Table) -> str:
    """The number of each stream, with its final Relative Gain in every arm."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for row in table.to_pylist():
        if row["metric"] == FINAL:
            found[row["seed"]][_arm(row)] = row["value"]
    arms = list(dict.fromkeys(arm for values in found.values() for arm in values))
    return _markdown(
        ["stream", *arms],
        [[str(n), *[f"{values[arm]:.1f}" if arm in values else "" for arm in arms]] for n, values in found.items()],
    )


def arms(table: pa.Table) -> str:
    """Means over streams: what was kept, what was learnt, what it cost."""
    rows = table.to_pylist()
    return _markdown(
        ["strategy", "streams", "RG, last stage", "RG, last five", "learning, % of experts", "tokens", "seconds"],
        [_arm_line(arm, [row for row in rows if _arm(row) == arm]) for arm in dict.fromkeys(map(_arm, rows))],
    )


def _arm_line(arm: str, rows: list[dict[str, object]]) -> list[str]:
    def whole(metric: str) -> list[float]:
        return [row["value"] for row in rows if row["metric"] == metric and row["stage"] is None and not row["task"]]

    def total(metric: str) -> float:
        return sum(row["value"] for row in rows if row["metric"] == metric) / len(whole(FINAL))

    return [
        arm,
        str(len(whole(FINAL))),
        _with_ends(mean_interval(whole(FINAL)), sign=""),
        f"{np.mean(whole(LAST_FIVE)):.1f}",
        f"{100 * np.mean(whole('learning')):.1f}",
        f"{total('tokens'):,.0f}",
        f"{total('seconds'):.0f}",
    ]


def primary(table: pa.Table) -> str:
    """The six primary comparisons of the protocol, Holm over them."""
    found = [comparison for budget in BUDGETS for comparison in _primary(table, budget)]
    adjusted = holm([1.0 if p is None else p for _, _, p in found])
    return _markdown(
        ["difference in final RG", "mean (95 %)", "p", "p (Holm)"],
        [
            [name, _with_ends(estimate), _p(p), _p(holms)]
            for (name, estimate, p), holms in zip(found, adjusted, strict=True)
        ],
    )


def _primary(table: pa.Table, budget: str) -> list[tuple[str, Estimate, float | None]]:
    def differing(strategy: str, baseline: str) -> Estimate:
        return strategy_difference(table, strategy, baseline, budget=budget)

    ours = {name: differing(OURS, name) for name in BASELINES}
    better = min(ours, key=lambda name: ours[name].mean)
    ps = [estimate.p for estimate in ours.values()]
    return [
        (f"(a) InsCL − random, {budget}", (a := differing("inscl", "random")), a.p),
        (f"(b) InsCL − none, {budget}", (b := differing("inscl", "none")), b.p),
        (f"(c) ours − {better}, the better of both, {budget}", ours[better], None if None in ps else max(ps)),
    ]


def gate(table: pa.Table) -> str:
    """What the protocol asks of the setting before its streams count."""
    rows = table.to_pylist()
    experts = {(row["seed"], row["task"]): row["value"] for row in rows if row["metric"] == "expert"}
    below = [strategy_difference(table, "random", "none", budget=budget) for budget in BUDGETS]
    return _markdown(
        ["gate", "wanted", "found"],
        [
            ["exact match of the experts, mean", "0.80", f"{np.mean(list(experts.values())):.3f}"],
            *[
                [f"random − none, {budget}", "20", _with_ends(estimate)]
                for budget, estimate in zip(BUDGETS, below, strict=True)
            ],
        ],
    )


def distances(table: pa.Table) -> str:
    """Whether the Wasserstein distance to the new task predicts what is lost of an earlier one without replay."""
    pairs = _drops(table)
    correlations = [spearmanr(*zip(*of, strict=True)).statistic for of in pairs.values() if len(of) > 2]
    return _markdown(
        ["exploratory", "streams", "mean over streams (95 %)"],
        [
            [
                "rank correlation of distance and drop in exact match at a stage, no replay",
                str(len(correlations)),
                _with_ends(mean_interval(correlations), digits=2),
            ]
        ],
    )


def _drops(table: pa.Table) -> dict[int, list[tuple[float, float]]]:
    """Of each stream: distance of an earlier task to the one just learnt, and by how much its score fell, as learnt
    at the stage before and therefore forgotten by this one alone."""
    between = _wording_distances()
    scored: dict[int, dict[tuple[int, str], float]] = defaultdict(dict)
    for row in table.to_pylist():
        if row["strategy"] == "none" and row["metric"] == "exact_match" and row["stage"]:
            scored[row["seed"]][row["stage"], row["task"]] = row["value"]
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for seed, values in scored.items():
        learnt = _order(seed)
        for stage, new in learnt.items():
            for earlier in (learnt[i] for i in range(1, stage)):
                before, after = values[stage - 1, earlier], values[stage, earlier]
                if before > 0.2:  # else there is hardly anything left to lose
                    found[seed].append((between[frozenset((earlier, new))], (before - after) / before))
    return found


def _order(number: int) -> dict[int, str]:
    """The task that a stream learns at each stage."""
    made = stream(number, HERE / "confirming" / "template.yaml")
    return dict(enumerate(order_of(f"random:{number}", made["tasks"]["only"]), start=1))


def _wording_distances() -> dict[frozenset[str], float]:
    from inscl.core.distance import wasserstein
    from inscl.demo.forms import FORM_TASKS
    from inscl.memory.encoder import SentenceEncoder

    encoder = SentenceEncoder()
    embedded = {name: encoder([said for said, _ in task.instructions]) for name, task in FORM_TASKS.items()}
    return {
        frozenset((a, b)): wasserstein(embedded[a], embedded[b])
        for i, a in enumerate(embedded)
        for b in list(embedded)[:i]
    }


def _arm(row: dict[str, object]) -> str:
    return f"{row['strategy']}, {row['budget']}" if row["budget"] else str(row["strategy"])


def _with_ends(estimate: Estimate, digits: int = 1, sign: str = "+") -> str:
    mean = f"{estimate.mean:{sign}.{digits}f}"
    if estimate.ends is None:
        return mean
    low, high = (f"{end:{sign}.{digits}f}" for end in estimate.ends)
    return f"{mean} ({low} … {high})"


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


TABLES = {"gate": gate, "primary": primary, "arms": arms, "streams": streams, "distances": distances}
PAGES = (HERE.parent / "docs" / "results.md", HERE.parent / "README.md")


def filled(page: str) -> str:
    """A page with every table that it names as `<!-- set: table -->` made again, up to the next empty line."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{TABLES[match[3]](scores(HERE / match[2]))}\n\n"

    return re.sub(r"(<!-- (\w+): (\w+) -->)\n\n(?:\|.*\n)*\n?", made, page)


def main() -> None:
    """Print every table of a set, or write those that the pages name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="confirming", help="folder beside this file")
    parser.add_argument("--write", action="store_true", help="write them into docs/results.md and README.md")
    arguments = parser.parse_args()
    if arguments.write:
        for page in PAGES:
            page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        table = scores(HERE / arguments.set)
        print(*(made(table) for made in TABLES.values()), sep="\n\n")


if __name__ == "__main__":
    main()
