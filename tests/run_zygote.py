"""A run, or a stage, in a process that may be killed."""

import json
import os
import shutil
import time
from pathlib import Path

import torch
import trl.trainer.sft_trainer  # noqa: F401 - imported once for all children

import inscl.experiments.run
import inscl.stages.learn
import inscl.stages.trainer
import inscl.training.watch
from faulty import with_faults
from inscl.experiments.config import parse_config
from inscl.memory.memory import Memory
from inscl.replay.budget import Budget
from inscl.training.config import stage_config
from support import WordEncoder, WordTagger, rows_of
from zygote import serve

STAGE = "training: {learning_rate: 1e-2, num_train_epochs: 1}\ndtype: float32\nbatch_size: 8\nmax_new_tokens: 4\n"


def run(config: str, out: str) -> None:
    inscl.experiments.run.run(parse_config(config), Path(out), encoder=WordEncoder(), tagger=WordTagger())


def remember(folder: str, name: str) -> None:
    memory(folder).add(name, rows_of(name, 16))


def learn(folder: str, name: str, model: str | None, out: str = "model", about: str | None = None) -> None:
    """A stage whose memory and model lie in one folder."""
    inscl.stages.learn.learn(
        memory(folder), name, list(rows_of(about or name, 16)), model=model, out=Path(folder) / out, budget=Budget(4),
        config=stage_config(STAGE), test_rows=2,
    )  # fmt: skip


def learn_on_and_on(folder: str, model: str, cycles: int, answer: str) -> None:
    """Plan, train and remember three tasks in turn, whose data change; write down what each cycle took."""
    costs = []
    for cycle in range(cycles):
        began = time.process_time()
        out = f"model{cycle % 2}"  # the next cycle starts from it, the one after that writes there
        shutil.rmtree(Path(folder) / out, ignore_errors=True)
        learn(folder, f"task{cycle % 3}", None if cycle else model, out, f"data{cycle % 5}")
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        kept = [file for file in (Path(folder) / "memory").rglob("*") if file.is_file()]
        costs.append(
            {
                "seconds": time.process_time() - began,
                "MiB of memory": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
                "KiB on the disk": sum(file.stat().st_size for file in kept) / 2**10,
                "files": len(kept),
                "open files": len(list(Path("/proc/self/fd").iterdir())),
            }
        )
        Path(answer).write_text(json.dumps(costs), "utf-8")


def memory(folder: str) -> Memory:
    return Memory(Path(folder) / "memory", encoder=WordEncoder(), tagger=WordTagger())


def faulty(how: int, at: int, answer: str, folder: str, verb: str, *arguments: object) -> None:
    """Run or learn with faults armed, and a checkpoint after every step."""
    inscl.training.watch._STEPS_TO_TIME, inscl.training.watch._SECONDS_BETWEEN_CHECKPOINTS = 1, 0
    with_faults(how, at, answer, folder, lambda: globals()[verb](*arguments))


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(globals())
