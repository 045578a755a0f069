"""A run in a process that may be killed."""

from pathlib import Path

import torch
import trl.trainer.sft_trainer  # noqa: F401 - imported once for all children

import inscl.experiments.run
from inscl.experiments.config import parse_config
from support import WordEncoder, WordTagger
from zygote import serve


def run(config: str, out: str) -> None:
    inscl.experiments.run.run(parse_config(config), Path(out), encoder=WordEncoder(), tagger=WordTagger())


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(globals())
