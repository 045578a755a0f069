"""The losses and the time of a stage, and what happens after each of its steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from inscl.errors import InsclError

_Progress = Callable[[int, int, float], None]  # step, steps, loss

_SECONDS_BETWEEN_CHECKPOINTS = 300
_STEPS_TO_TIME = 20


@dataclass
class Watch:
    """The losses and the time of a stage, over all its interruptions."""

    stage: str
    steps: int
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    pending: list[torch.Tensor] = field(default_factory=list)  # tensors, read together to spare the device
    running: torch.Tensor | None = None
    started: float = field(default_factory=time.perf_counter)

    def add(self, loss: torch.Tensor) -> None:
        """Add the loss of a part of the current step."""
        self.running = loss if self.running is None else self.running + loss

    def step(self) -> None:
        """End the current step."""
        if self.running is not None:
            self.pending.append(self.running)
        self.running = None

    def read(self) -> None:
        """Fetch the losses of the steps since the last reading, averaged over processes.

        Raises
        ------
        InsclError
            If one is not finite.
        """
        if not self.pending:
            return
        values = torch.stack(self.pending).double()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(values)
            values = values / torch.distributed.get_world_size()
        self.pending = []
        for loss in values.tolist():
            self.losses.append(loss)
            if not isfinite(loss):
                raise InsclError(
                    f"Stage {self.stage!r}: the loss is {loss} at step {len(self.losses)} of {self.steps}. "
                    "Lower `learning_rate`, or train in float32."
                )

    def session(self) -> float:
        """Seconds of training since this process began the stage."""
        return time.perf_counter() - self.started

    def elapsed(self) -> float:
        """Seconds of training, earlier sessions included."""
        return self.seconds + self.session()


class StageCallback(TrainerCallback):
    """Reads the losses now and then, reports progress and asks for checkpoints."""

    def __init__(self, watch: Watch, every: int | None, reading: int, progress: _Progress | None) -> None:
        self.watch, self.every, self.reading, self.progress = watch, every, reading, progress
        self.steps_here = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """After every step of the optimizer."""
        self.watch.step()
        self.steps_here += 1
        last = state.global_step >= state.max_steps
        if last or state.global_step % self.reading == 0:
            self.watch.read()
            if self.progress and state.is_world_process_zero:
                self.progress(state.global_step, state.max_steps, self.watch.losses[-1])
        if self.every is None and self.steps_here == _STEPS_TO_TIME:
            self.every = self._steps_between()
        every = self.every or 0  # 0: never
        control.should_save = every != 0 and state.global_step % every == 0 and not last

    def _steps_between(self) -> int:
        """Steps in about five minutes, as the first process measures it, so that all processes agree."""
        pace = torch.tensor([self.watch.session() / self.steps_here], dtype=torch.float64)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            pace = pace.to("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
            torch.distributed.broadcast(pace, src=0)
        return max(_STEPS_TO_TIME, round(_SECONDS_BETWEEN_CHECKPOINTS / pace.item()))
