"""What reading costs: 100,000 rows of JSONL as examples, against parsing alone.

    python benchmarks/reading.py [--rows 100000]

CPU seconds, the best of five. Parsing alone is what `json` and the reader of pyarrow take for the same bytes; neither
looks at what a row holds.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.json

from inscl.data.readers import read_examples
from measuring import cpu

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "table", "invoice", "question"]
TIMES = 5


def alpaca(i: int, rng: random.Random) -> dict[str, object]:
    asked = {"instruction": f"Rewrite the {WORDS[i % 13]}.", "input": f"{i} {' '.join(rng.choices(WORDS, k=25))}"}
    return {**asked, "output": " ".join(rng.choices(WORDS, k=20))}


def alpaca_with_id(i: int, rng: random.Random) -> dict[str, object]:
    return {"id": i, **alpaca(i, rng)}


def chat(i: int, rng: random.Random) -> dict[str, object]:
    row = alpaca(i, rng)
    return {
        "messages": [{"role": "user", "content": row["input"]}, {"role": "assistant", "content": row["output"]}]
    }  # fmt: skip


def cpu_seconds(call: Callable[[], object]) -> float:
    return min(cpu(call)[0] for _ in range(TIMES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    print(f"{rows:,} rows: CPU seconds, and times what pyarrow takes")
    with tempfile.TemporaryDirectory() as folder:
        for kind in (alpaca, alpaca_with_id, chat):
            rng, path = random.Random(0), Path(folder) / f"{kind.__name__}.jsonl"
            path.write_text("".join(json.dumps(kind(i, rng)) + "\n" for i in range(rows)))
            lines = path.read_text().splitlines()
            arrow = cpu_seconds(lambda path=path: pyarrow.json.read_json(path))  # type: ignore[misc]
            parsed = cpu_seconds(lambda lines=lines: [json.loads(line) for line in lines])  # type: ignore[misc]
            read = cpu_seconds(lambda path=path: sum(1 for _ in read_examples(path)))  # type: ignore[misc]
            print(f"{kind.__name__:<15} read {read:.2f} ({read / arrow:.1f} x), json {parsed:.2f}, pyarrow {arrow:.2f}")


if __name__ == "__main__":
    main()
