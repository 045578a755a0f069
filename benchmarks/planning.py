"""Time and memory of planning a whole stream, cold and warm, and how they grow with tasks and examples.

    python benchmarks/planning.py [CHECKOUT] [--growth]

CHECKOUT is a Super-NaturalInstructions folder with `categories.json`; its 16 categories are planned in the paper's
Curriculum order, 200 per earlier task. `--growth` doubles made-up tasks, and examples per instruction, twice.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inscl.core.orders import PAPER_ORDERS
from measuring import peak

CURRICULUM = PAPER_ORDERS["paper-curriculum"]
CHECKOUT = Path(__file__).parents[2] / "shared" / "data" / "natural-instructions"


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    value = call()
    return time.perf_counter() - began, value


class Counted:
    """Anything callable, with the seconds spent inside it added up."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.identity, self.seconds, self.texts = inner, inner.identity, 0.0, 0

    def __call__(self, texts: list[str]) -> Any:
        seconds, value = timed(lambda: self.inner(texts))
        self.seconds += seconds
        self.texts += len(texts)
        return value

    def too_long(self, texts: list[str]) -> list[bool]:
        return self.inner.too_long(texts)


def plan_all(memory: Any, order: Sequence[str]) -> list[Any]:
    from inscl.replay.planner import plan

    return [plan(memory, order[i], earlier=order[:i]).plan for i in range(1, len(order))]


def real(checkout: Path) -> None:
    """The 16 categories: adding (which tags and encodes), then 15 plans cold and warm."""
    from inscl.data.superni import superni_files
    from inscl.memory.encoder import SentenceEncoder
    from inscl.memory.memory import Memory
    from inscl.tags.keyphrase import KeyphraseTagger

    folder = tempfile.TemporaryDirectory()
    encoder, tagger = Counted(SentenceEncoder()), Counted(KeyphraseTagger())
    loading, _ = timed(lambda: encoder.inner(["load the model"]))
    memory = Memory(f"{folder.name}/memory", encoder=encoder, tagger=tagger)
    files = superni_files(checkout, checkout / "categories.json")

    def add() -> None:
        for name in CURRICULUM:
            memory.add(name, files[name], format="superni")

    adding, _ = timed(add)
    print(f"loading the encoder        {loading:8.2f} s")
    print(f"adding 16 categories       {adding:8.2f} s, of which")
    print(f"  encoding {encoder.texts:5d} texts     {encoder.seconds:8.2f} s")
    print(f"  tagging  {tagger.texts:5d} texts     {tagger.seconds:8.2f} s")
    print(f"  reading, splitting, writing {adding - encoder.seconds - tagger.seconds:5.2f} s")
    encoder.seconds = 0.0
    cold, plans = timed(lambda: plan_all(memory, CURRICULUM))
    print(f"15 plans, first time       {cold:8.2f} s, of which encoding {encoder.seconds:.2f} s")
    warm, again = timed(lambda: plan_all(memory, CURRICULUM))
    assert again == plans
    print(f"15 plans, again            {warm:8.2f} s")
    # A fresh process: nothing in memory, everything in the folder.
    script = (
        f"import json, sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "began = time.perf_counter()\n"
        "from inscl.memory.memory import Memory\nimport planning\n"
        f"planning.plan_all(Memory({memory.path!r}), planning.CURRICULUM)\n"
        "print(time.perf_counter() - began, 'torch' in sys.modules, planning.peak())"
    )
    seconds, torch, peak_mib = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    print(
        f"15 plans, a new process    {float(seconds):8.2f} s with imports, torch loaded: {torch}, peak {peak_mib} MiB"
    )
    command = [sys.executable, "-m", "inscl", "plan", "Mathematics", "--memory", memory.path, "--json"]
    seconds_cli, _ = timed(lambda: subprocess.run(command, check=True, capture_output=True))
    print(f"`inscl plan`, all cached   {seconds_cli:8.2f} s")
    print(f"peak memory of this process {peak():7d} MiB")


def growth() -> None:
    """Made-up tasks with random embeddings: what doubling tasks and examples does, each in a process of its own."""
    print(f"{'tasks':>6} {'instructions':>12} {'examples':>9} {'add s':>8} {'plan s':>8} {'again s':>8} {'MiB':>6}")
    base = (25, 100, 10)
    for tasks, instructions, rows in (
        base, (50, 100, 10), (100, 100, 10), (25, 100, 20), (25, 100, 40), (25, 200, 10), (25, 400, 10),
    ):  # fmt: skip
        command = [sys.executable, __file__, "--made-up", json.dumps([tasks, instructions, rows])]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="", flush=True)


def made_up(tasks: int, instructions: int, rows: int) -> None:
    import numpy as np

    from inscl.memory.memory import Memory
    from inscl.replay.planner import plan

    rng = np.random.default_rng(0)

    def encoder(texts: list[str]) -> Any:
        return rng.normal(size=(len(texts), 384))

    class Tagger:
        identity = "made up"

        def __call__(self, texts: list[str]) -> list[list[str]]:
            return [["tag " + chr(97 + int(n) % 26) + chr(97 + int(n) // 26 % 26) for n in row] for row in draws(texts)]

    def draws(texts: list[str]) -> Any:
        return rng.zipf(1.5, size=(len(texts), 4)) % 676

    def examples(task: int) -> list[dict[str, str]]:
        return [
            {"instruction": f"Do {task} thing {i}.", "input": f"{task} {i} {r}", "output": "yes"}
            for i in range(instructions)
            for r in range(rows)
        ]

    with tempfile.TemporaryDirectory() as folder:
        memory = Memory(f"{folder}/memory", encoder=encoder, tagger=Tagger())

        def add() -> None:
            for task in range(tasks):
                memory.add(f"task {task}", examples(task))

        adding, _ = timed(add)
        first, _ = timed(lambda: plan(memory, "task 0"))
        again, _ = timed(lambda: plan(memory, "task 0", seed=1))
    print(f"{tasks:6d} {instructions:12d} {rows:9d} {adding:8.2f} {first:8.2f} {again:8.2f} {peak():6d}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=CHECKOUT)
    parser.add_argument("--growth", action="store_true", help="also double made-up tasks and examples")
    parser.add_argument("--made-up", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.made_up:
        made_up(*json.loads(options.made_up))
        return
    if (options.checkout / "categories.json").exists():
        real(options.checkout)
    else:
        print(f"no checkout with categories.json at {options.checkout}: the real stream is left out")
    if options.growth:
        growth()


if __name__ == "__main__":
    main()
