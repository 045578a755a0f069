"""Runs one tiny stage in a process of its own, to be killed or launched several times; not a test."""

import json
import sys
from pathlib import Path

from inscl.training.train import train_stage

if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    mixture, model, out = (Path(settings.pop(name)) for name in ("mixture", "model", "out"))

    def tell(step: int, steps: int, loss: float) -> None:
        print(f"step {step}", flush=True)

    train_stage(mixture, model, out, progress=tell, **settings)
