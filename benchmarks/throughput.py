"""Tokens a second of a stage against plain `SFTTrainer`, and of evaluation against unsorted batches of 8.

    python benchmarks/throughput.py --model smollm2-135m --rows 64 --json throughput.json

Both trainers see the same tokens in the same run, in turns; the plain one gets the rows in the same order. Rows are
made up with a long-tailed mix of lengths, like instruction data: most answers short, some ten times as long.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from inscl.data.example import Example
from inscl.data.mixture import MixtureRow, write_mixture
from inscl.evaluation.evaluate import generate_and_score
from inscl.models.loading import LoadedModel, load
from inscl.training.batches import order_of_steps, tokenise_mixture
from inscl.training.config import StageConfig
from inscl.training.train import train_stage
from measuring import parser_of, tell

WORDS = [chr(97 + i % 26) * 2 + "ra lo min te"[j : j + 3].strip() for i in range(26) for j in range(0, 12, 3)]


def rows_of(n: int, seed: int) -> list[MixtureRow]:
    """Rows with log-normal lengths: inputs of about 60 words, answers of about 12."""
    rng = np.random.default_rng(seed)

    def words(centre: float, most: int) -> str:
        count = int(np.clip(rng.lognormal(np.log(centre), 0.9), 1, most))
        return " ".join(rng.choice(WORDS, count))

    return [MixtureRow("made-up", Example("Repeat what matters.", words(60, 260), (words(12, 120),))) for _ in range(n)]


def main() -> None:
    """Measure and print; the numbers are medians over the repeats."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=64, help="training rows, and half as many to answer")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--per-device", type=int, default=8, help="rows a device holds at once, for both trainers")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    options = parser.parse_args()
    result = {"device": _device(), "torch": torch.__version__, **training(options), **evaluation(options)}
    tell(result, options.json)


def training(options: argparse.Namespace) -> dict[str, float]:
    """Tokens a second of both trainers, in turns on fresh copies of the model."""
    rows = rows_of(options.rows, seed=0)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        mixture = Path(folder) / "mixture.jsonl"
        write_mixture(mixture, rows)
        for repeat in range(options.repeats + 1):  # the first one warms up
            record = train_stage(
                mixture,
                load(options.model),
                Path(folder) / f"stage-{repeat}",
                StageConfig(
                    training={"num_train_epochs": 1, "per_device_train_batch_size": options.per_device},
                    batch_size=options.batch_size,
                    max_length=512,
                    dtype=options.dtype,
                ),
                checkpoint_every=0,
            )
            ours.append(record.tokens / record.seconds)
            theirs.append(_plain_sft(load(options.model), rows, options, record.dtype, folder))
    ours, theirs = ours[1:], theirs[1:]
    return {
        "stage_tokens_per_second": median(ours),
        "sft_tokens_per_second": median(theirs),
        "training_ratio": median(a / b for a, b in zip(ours, theirs, strict=True)),
    }


def _plain_sft(
    loaded: LoadedModel, rows: list[MixtureRow], options: argparse.Namespace, dtype: str, folder: str
) -> float:
    """Plain `SFTTrainer` on the same tokens, in the order the stage takes them but not grouped by length."""
    tokens = tokenise_mixture(rows, loaded.tokenizer, 512).rows
    steps = order_of_steps([1] * len(tokens), batch_size=options.batch_size, epochs=1, max_steps=-1, seed=0)
    order = [i for step in steps for i in step]
    config = SFTConfig(
        folder,
        per_device_train_batch_size=options.per_device,
        gradient_accumulation_steps=options.batch_size // options.per_device,
        num_train_epochs=1,
        bf16=dtype == "bfloat16",
        use_cpu=not torch.accelerator.is_available(),
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
    )
    table = Dataset.from_list([{"input_ids": tokens[i].input_ids, "labels": tokens[i].labels} for i in order])
    trainer = SFTTrainer(loaded.model, config, train_dataset=table, processing_class=loaded.tokenizer)
    start = time.perf_counter()
    trainer.train()
    _wait()
    return sum(len(row.input_ids) for row in tokens) / (time.perf_counter() - start)


def evaluation(options: argparse.Namespace) -> dict[str, float]:
    """Rows a second of our evaluation against `generate` on batches of 8 in the order of the rows."""
    loaded = load(options.model)
    examples = [row.example for row in rows_of(max(8, options.rows // 2), seed=1)]
    ours, theirs = [], []
    for _ in range(options.repeats + 1):  # the first one warms up
        start = time.perf_counter()
        generate_and_score(
            loaded, {"made-up": examples}, max_new_tokens=options.max_new_tokens, loss=False, dtype=options.dtype
        )
        _wait()
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        _unsorted(loaded, examples, options.max_new_tokens)
        theirs.append(time.perf_counter() - start)
    ours, theirs = ours[1:], theirs[1:]
    return {
        "evaluation_rows_per_second": len(examples) / median(ours),
        "batches_of_8_rows_per_second": len(examples) / median(theirs),
        "evaluation_ratio": median(b / a for a, b in zip(ours, theirs, strict=True)),
    }


@torch.inference_mode()
def _unsorted(loaded: LoadedModel, examples: list[Example], limit: int) -> None:
    from inscl.data.template import render
    from inscl.models.precision import ready

    model, tokenizer = ready(loaded, "auto").model, loaded.tokenizer
    tokenizer.padding_side = "left"
    for i in range(0, len(examples), 8):
        prompts = [render(example).prompt for example in examples[i : i + 8]]
        batch = tokenizer(prompts, return_tensors="pt", padding=True).to(model.device)
        out = model.generate(**batch, max_new_tokens=limit, do_sample=False)
        tokenizer.batch_decode(out)
    _wait()


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _device() -> Any:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
