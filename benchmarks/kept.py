"""Tokens per CPU second of a stage: all layers trained, the bottom frozen but run, kept under TRL, kept in our loop.

    python benchmarks/kept.py --frozen 24 --json kept.json

Every way trains the same rows in the same order, on one thread, in turns within one run. What it costs to compute the
states is told apart: a run pays it once per row, for all its strategies, orders and seeds.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from inscl.data.mixture import MixtureRow, write_mixture
from inscl.demo.tasks import demo_tasks
from inscl.models.loading import load
from inscl.training.config import StageConfig, stage_config
from inscl.training.train import train_stage
from measuring import parser_of, tell

# Frozen or not, what is kept, and a field that changes nothing and that the plain loop does not know: so TRL trains.
WAYS: dict[str, tuple[bool, str, dict[str, None]]] = {
    "all trained": (False, "off", {}),
    "frozen and run": (True, "off", {}),
    "kept, TRL": (True, "auto", {"neftune_noise_alpha": None}),
    "kept": (True, "auto", {}),
}


def main() -> None:
    """Measure and print; rates are medians over the repeats."""
    parser = parser_of(__doc__)
    parser.add_argument("--frozen", type=int, default=24, help="layers of the bottom")
    parser.add_argument("--rows", type=int, default=8, help="training rows of each of the demo's tasks")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(options)
    tell(result, options.json)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Tokens per CPU second of each way, and how many times that is what training all layers does."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        mixture = _mixture(place, options.rows)
        first = _rate(options, mixture, place / "first", "kept", place / "states")
        for i in range(options.repeats):
            for way, found in rates.items():
                found.append(_rate(options, mixture, place / f"{way}{i}", way, place / "states"))
    middle = {way: median(found) for way, found in rates.items()}
    return {
        "frozen": options.frozen,
        "torch": torch.__version__,
        "tokens per CPU second": {"kept, states computed": first, **middle},
        "times all trained": {way: rate / middle["all trained"] for way, rate in middle.items()},
    }


def _rate(options: argparse.Namespace, mixture: Path, out: Path, way: str, states: Path) -> float:
    """Of a whole stage, from a model in memory to its saved adapter."""
    config = _config(options, way)
    loaded = load(options.model, dtype=config.dtype)
    begun = time.process_time()
    record = train_stage(mixture, loaded, out, config, keep_in=states)
    return record.tokens / (time.process_time() - begun)


def _config(options: argparse.Namespace, way: str) -> StageConfig:
    from inscl.models.precision import choose_dtype

    frozen, kept, more = WAYS[way]
    return stage_config(
        training={"learning_rate": 1e-3, "num_train_epochs": 2, **more},
        peft={"type": "LoraConfig", "r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        protect={"freeze_bottom_layers": options.frozen if frozen else 0},
        kept=kept,
        batch_size=options.batch_size,
        max_length=128,
        dtype=choose_dtype(options.dtype),
    )


def _mixture(folder: Path, rows: int) -> Path:
    tasks = demo_tasks(0, train=rows, dev=0, test=1)
    found = [MixtureRow(name, row) for name, examples in tasks.items() for row in examples if row.split == "train"]
    write_mixture(folder / "mixture.jsonl", found)
    return folder / "mixture.jsonl"


if __name__ == "__main__":
    main()
