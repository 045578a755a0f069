"""How far the judges of forgotten answers agree with labels written by hand, and with real data.

python benchmarks/judge.py                                     the offline judge on benchmarks/judge/labels.jsonl
python benchmarks/judge.py --base-url http://… --model NAME    a judge through a server
python benchmarks/judge.py --real ../shared/data/natural-instructions
                                                               the offline judge on accepted answers
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from inscl.data.example import Example
from inscl.demo.tasks import demo_tasks
from inscl.forgetting import Case, Judge, OfflineJudge, ServerJudge
from inscl.memory.embedding_cache import CachedEncoder
from inscl.memory.encoder import Encoder, SentenceEncoder

LABELS = Path(__file__).parent / "judge" / "labels.jsonl"
KINDS = ("related", "unrelated")


@dataclass(frozen=True)
class Agreement:
    """Two labellers on the same cases.

    Attributes
    ----------
    counts : dict from (hand, judge) to int
    kappa, low, high : float
        Cohen's κ with its 95 % interval.
    """

    counts: dict[tuple[str, str], int]
    kappa: float
    low: float
    high: float


def agreement(hand: Sequence[str], judge: Sequence[str], clusters: Sequence[str]) -> Agreement:
    """Cohen's κ = (p_o - p_e) / (1 - p_e), with a percentile bootstrap over clusters of cases (2,000 draws).

    p_o is the share of cases on which both agree, p_e what labellers with these frequencies would agree on by chance.
    """
    kinds = sorted({*hand, *judge})
    names = list(dict.fromkeys(clusters))
    table = np.zeros((len(names), len(kinds), len(kinds)))
    for a, b, cluster in zip(hand, judge, clusters, strict=True):
        table[names.index(cluster), kinds.index(a), kinds.index(b)] += 1
    draws = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=2000)
    drawn = _kappa(np.einsum("dn,nij->dij", draws, table))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    counts = Counter(zip(hand, judge, strict=True))
    return Agreement(dict(counts), float(_kappa(table.sum(axis=0)[None])[0]), float(low), float(high))


def _kappa(tables: Any) -> Any:
    """κ of each confusion table, shape (n, k, k) to (n,)."""
    shares = tables / tables.sum(axis=(1, 2), keepdims=True)
    observed = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (observed - chance) / (1 - chance)


def read_labels(path: Path = LABELS) -> list[dict[str, Any]]:
    """The hand labels."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def part_of(label: Mapping[str, Any]) -> str:
    """ "tuned on", "held out" (both of the first sample, by the hash of the input), or "forgotten" (the second)."""
    if label["sample"] == "forgotten":
        return "forgotten"
    return "held out" if blake2b(label["input"].encode(), digest_size=1).digest()[0] % 2 else "tuned on"


def training_rows() -> dict[str, list[Example]]:
    """The demo's training rows, which the labelled answers' models were trained on."""
    return {task: [row for row in rows if row.split == "train"] for task, rows in demo_tasks(0).items()}


def offline(encoder: Encoder | None = None) -> OfflineJudge:
    """The offline judge of the demo's tasks."""
    return OfflineJudge(training_rows(), CachedEncoder(encoder or SentenceEncoder()).vectors)


def measured(judge: Judge, labels: Sequence[Mapping[str, Any]]) -> Agreement:
    """Agreement of a judge with labels; what it does not judge counts as a kind of its own."""
    names = ("task", "instruction", "input", "answer")
    cases = [Case(**{name: label[name] for name in names}, references=tuple(label["references"])) for label in labels]
    kinds = [verdict.kind or "not judged" for verdict in judge(cases)]
    return agreement([label["kind"] for label in labels], kinds, [label["input"] for label in labels])


def on_labels(judge: Judge) -> None:
    """Print the agreement on each part of the labels."""
    labels = read_labels()
    parts = {
        part: [label for label in labels if part_of(label) == part] for part in ("tuned on", "held out", "forgotten")
    }
    for part, chosen in parts.items():
        show(f"{part}: {len(chosen)} cases", measured(judge, chosen))
        sure = [label for label in chosen if not label["unsure"]]
        found = measured(judge, sure)
        print(f"  without the {len(chosen) - len(sure)} that the annotator was unsure of: κ {interval(found)}\n")


def show(title: str, found: Agreement) -> None:
    """Print a confusion table and κ."""
    print(title)
    columns = [*KINDS, "not judged"]
    print("  hand \\ judge" + "".join(f"{kind:>12}" for kind in columns))
    for kind in KINDS:
        print(f"  {kind:<12}" + "".join(f"{found.counts.get((kind, other), 0):>12}" for other in columns))
    same = sum(n for (a, b), n in found.counts.items() if a == b)
    print(f"  agree on {same} of {sum(found.counts.values())}, κ {interval(found)}")


def interval(found: Agreement) -> str:
    """κ with its interval."""
    return f"{found.kappa:.2f} ({found.low:.2f} … {found.high:.2f})"


def on_real(folder: Path, seed: int) -> None:
    """Print how often accepted answers of real tasks, and those of other categories, are called unrelated."""
    from inscl.data.readers import read_examples
    from inscl.data.superni import superni_files

    rng, training, held_out = np.random.default_rng(seed), {}, {}
    for name, files in superni_files(str(folder), str(folder / "categories.json")).items():
        rows = list(read_examples([str(file) for file in files], format="superni"))
        chosen = [rows[i] for i in rng.permutation(len(rows))[:360]]
        training[name], held_out[name] = chosen[:300], chosen[300:]
    judge, names = OfflineJudge(training, CachedEncoder(SentenceEncoder()).vectors), list(held_out)

    def other(k: int, i: int) -> Example:
        return held_out[names[(i + 1 + k % (len(names) - 1)) % len(names)]][k]

    answers: dict[str, Callable[[int, int, Example], Example]] = {
        "its own accepted answer": lambda k, i, row: row,
        "an accepted answer of another category": lambda k, i, row: other(k, i),
    }
    for title, answer in answers.items():
        cases = [
            Case(task=name, instruction=row.instruction, input=row.input, answer=answer(k, i, row).outputs[0])
            for i, name in enumerate(names)
            for k, row in enumerate(held_out[name])
        ]
        reasons = Counter(verdict.reason for verdict in judge(cases) if verdict.kind == "unrelated")
        share = reasons.total() / len(cases)
        print(f"{title}: {reasons.total()} of {len(cases)} called unrelated ({share:.1%}), {dict(reasons)}")


def main() -> None:
    """Read the flags and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url")
    parser.add_argument("--model")
    parser.add_argument("--real", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.real:
        on_real(given.real, given.seed)
    elif given.base_url:
        from inscl.llm.client import Asker

        on_labels(ServerJudge(Asker(given.base_url, given.model, most_tokens=200), training_rows()))
    else:
        on_labels(offline())


if __name__ == "__main__":
    main()
