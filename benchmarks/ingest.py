"""What remembering many rows costs: `add` of made-up JSONL, against pyarrow's parsing of it.

    python benchmarks/ingest.py [--rows 100000] [--instructions 20]

CPU seconds and the peak memory of one process, so run it once for each size. Encoder and tagger are made up: what they
cost is left out. Without --instructions each row has an instruction of its own.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.json

from inscl import Memory
from measuring import Tagger, cpu, peak
from reading import alpaca, cpu_seconds


class Encoder:
    """An encoder that needs no model; 384 numbers a text."""

    identity = "made up"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.random.default_rng(len(texts[0])).normal(size=(len(texts), 384))


def write(path: Path, rows: int, instructions: int) -> None:
    rng = random.Random(0)
    with path.open("w") as file:
        for i in range(rows):
            file.write(json.dumps(alpaca(i, rng) | {"instruction": f"Rewrite number {i % instructions}."}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--instructions", type=int, help="how many distinct ones; default: as many as rows")
    options = parser.parse_args()
    instructions = options.instructions or options.rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path, options.rows, instructions)
        memory = Memory(Path(folder) / "memory", encoder=Encoder(), tagger=Tagger())
        added, _ = cpu(lambda: memory.add("rows", path))
        used = peak()  # before pyarrow parses all at once
        arrow = cpu_seconds(lambda: pyarrow.json.read_json(path))
    print(f"{options.rows:,} rows, {instructions:,} instructions: add {added:.2f} CPU s, {used} MiB")
    print(f"pyarrow parses them in {arrow:.2f}; ratio {added / arrow:.1f}")


if __name__ == "__main__":
    main()
