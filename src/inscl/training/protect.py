"""Cheap ways to hold a stage close to its start: frozen layers, L2 towards it, averages of the weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from inscl.errors import ConfigError
from inscl.models.parts import below, layers_of

_AVERAGE = "average.safetensors"


def freeze_bottom(model: Any, layers: int) -> list[Any]:
    """Freeze the embeddings and the lowest `layers` layers; the parameters frozen here are returned.

    A tied output head is frozen with the embeddings.

    Raises
    ------
    ConfigError
        If the model has no numbered layers, or no more than `layers`.
    """
    if not layers:
        return []
    depth = len(layers_of(model))
    if not 0 < layers < depth:
        raise ConfigError(f"`freeze_bottom_layers` must be below the model's {depth} layers, got {layers}.")
    frozen = [parameter for parameter in below(model, layers) if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


@dataclass(frozen=True)
class Protection:
    """Strengths of the ways to stay close to the start; 0 is off.

    Attributes
    ----------
    l2_start : float
        The gradient gets `l2_start` times the distance from the stage's start, after clipping.
    ema : float
        Decay of a running average of the weights over the steps, which is what the stage ends with.
    interpolate : float
        Share of the stage's start in the weights it ends with.
    """

    l2_start: float = 0.0
    ema: float = 0.0
    interpolate: float = 0.0

    def __post_init__(self) -> None:
        problems = [] if self.l2_start >= 0 else [f"`l2_start` must be at least 0, got {self.l2_start}"]
        for name in ("ema", "interpolate"):
            value = getattr(self, name)
            problems += [] if 0 <= value < 1 else [f"`{name}` must be at least 0 and below 1, got {value}"]
        if problems:
            raise ConfigError("; ".join(problems) + ".")

    @property
    def active(self) -> bool:
        """Whether anything is on."""
        return bool(self.l2_start or self.ema or self.interpolate)


class StartCallback(TrainerCallback):
    """Remembers the weights of the stage's start and applies a `Protection` to those that are trained."""

    def __init__(self, model: Any, protection: Protection) -> None:
        self.protection = protection
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.start = {name: p.detach().clone() for name, p in self.trained.items()}
        self.average = {name: p.clone() for name, p in self.start.items()} if protection.ema else {}

    def to(self, device: Any) -> None:
        """Move the copies to where the weights are trained."""
        self.start = {name: p.to(device) for name, p in self.start.items()}
        self.average = {name: p.to(device) for name, p in self.average.items()}

    def resume(self, checkpoint: Path) -> None:
        """Go on from the average that a checkpoint holds."""
        if self.average:
            self.average = load_file(checkpoint / _AVERAGE)

    def save(self, checkpoint: Path) -> None:
        """Keep the average in a checkpoint."""
        if self.average:
            save_file({name: p.contiguous() for name, p in self.average.items()}, checkpoint / _AVERAGE)

    @torch.no_grad()
    def on_train_begin(self, args: Any, *_: Any, **__: Any) -> None:
        """The weights are on their device by now."""
        self.to(args.device)

    @torch.no_grad()
    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Pull towards the start."""
        if self.protection.l2_start:
            for name, parameter in self.trained.items():
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - self.start[name], alpha=self.protection.l2_start)

    @torch.no_grad()
    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Move the average."""
        for name, average in self.average.items():
            average.lerp_(self.trained[name].detach(), 1 - self.protection.ema)

    @torch.no_grad()
    def finish(self) -> None:
        """Put the final weights into the model: the average, and the start's share of it."""
        for name, parameter in self.trained.items():
            if self.average:
                parameter.copy_(self.average[name])
            if self.protection.interpolate:
                parameter.lerp_(self.start[name], self.protection.interpolate)
