"""Runs one tiny stage in a process of its own, to be killed or launched several times; not a test."""

import json
import sys
from pathlib import Path

from inscl.training.config import stage_config
from inscl.training.train import train_stage

if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    mixture, model, out = (Path(settings.pop(name)) for name in ("mixture", "model", "out"))

    def tell(step: int, steps: int, loss: float) -> None:
        print(f"step {step}", flush=True)

    call = {name: settings.pop(name) for name in ("seed", "checkpoint_every") if name in settings}
    train_stage(mixture, model, out, stage_config(**settings), progress=tell, **call)
