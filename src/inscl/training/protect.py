"""Cheap ways to hold a stage close to its start: frozen layers, L2 towards it, averages of the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import Linear
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState, TrainingArguments

from inscl.errors import ConfigError
from inscl.models.parts import below, layers_to_freeze

if TYPE_CHECKING:
    from inscl.models.loading import Weights

_AVERAGE = "average.safetensors"


def freeze_bottom(model: torch.nn.Module, layers: int) -> list[torch.nn.Parameter]:
    """Freeze the embeddings and the lowest `layers` layers; the parameters frozen here are returned.

    A tied output head is frozen with the embeddings.

    Raises
    ------
    ConfigError
        If the model has no numbered layers, or no more than `layers`.
    """
    if not layers:
        return []
    layers_to_freeze(model, layers)
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
        Decay of a running average of the weights after each step, which is what the stage ends with. As in Adam, it is
        corrected for its beginning: the start has no part in it.
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
    """Remembers the weights of the stage's start and applies a `Protection` to those that are trained.

    Averages are of the weights that compute, not of the factors of a LoRA adapter: their product is not the average of
    the products. Of an adapter that is trained on, the average is kept as the nearest one of its rank (by singular
    values); one that is merged takes it exactly.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
    protection : Protection
    merge : bool
        Whether an adapter goes into the weights below it after the stage.

    Raises
    ------
    ConfigError
        If an average is asked for of an adapter other than LoRA on linear layers.
    """

    def __init__(self, model: "Weights", protection: Protection, *, merge: bool = False) -> None:
        self.protection = protection
        self.weights = _moved_weights(model, merge=merge) if protection.ema or protection.interpolate else {}
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.start = {name: p.detach().clone() for name, p in self.trained.items()}
        self.average = {name: moved.now() for name, moved in self.weights.items()} if protection.ema else {}

    def to(self, device: torch.device) -> None:
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
    def on_train_begin(self, args: TrainingArguments, *_: object, **__: object) -> None:
        """The weights are on their device by now."""
        self.to(args.device)

    @torch.no_grad()
    def on_pre_optimizer_step(self, *_: object, **__: object) -> None:
        """Pull towards the start."""
        if self.protection.l2_start:
            for name, parameter in self.trained.items():
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - self.start[name], alpha=self.protection.l2_start)

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        """Move the average; the first step begins it, so that nothing of the start is left in it."""
        decay = self.protection.ema
        share = (1 - decay) / (1 - decay**state.global_step)
        for name, average in self.average.items():
            average.lerp_(self.weights[name].now(), share)

    @torch.no_grad()
    def finish(self) -> None:
        """Put the final weights into the model: the average, and the start's share of it."""
        for name, moved in self.weights.items():
            end = self.average[name] if self.average else moved.now()
            moved.put(end.lerp(moved.of([self.start[part] for part in moved.names]), self.protection.interpolate))


@dataclass(frozen=True)
class _Whole:
    """A parameter that is trained as it is."""

    names: tuple[str]
    parameter: torch.nn.Parameter

    def of(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weights that its parts make."""
        return parts[0]

    def now(self) -> torch.Tensor:
        """The weights of this moment, to keep."""
        return self.parameter.detach().clone()

    def put(self, weights: torch.Tensor) -> None:
        """Set the weights."""
        self.parameter.copy_(weights)


@dataclass(frozen=True)
class _LowRank:
    """What a LoRA adapter adds to a linear layer: scale × B A."""

    names: tuple[str, str]  # of A (rank, n_in) and B (n_out, rank)
    layer: Any  # peft's `Linear`, whose parts torch types as tensors or modules
    adapter: str
    merge: bool

    @property
    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer.lora_A[self.adapter].weight, self.layer.lora_B[self.adapter].weight

    def of(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weights that A and B make, (n_out, n_in)."""
        a, b = parts
        made: torch.Tensor = self.layer.scaling[self.adapter] * (b @ a)
        return made

    def now(self) -> torch.Tensor:
        """The weights of this moment, to keep."""
        return self.of([part.detach() for part in self.parts])

    def put(self, weights: torch.Tensor) -> None:
        """Set the weights: exactly in the layer below, or the nearest ones of the adapter's rank."""
        a, b = self.parts
        if self.merge:
            below = self.layer.get_base_layer().weight
            below.add_(weights.T if self.layer.fan_in_fan_out else weights)
            b.zero_()
            return
        u, s, v = torch.linalg.svd(weights / self.layer.scaling[self.adapter], full_matrices=False)
        root, rank = s.sqrt(), a.shape[0]
        b.copy_((u * root)[:, :rank])
        a.copy_((root[:, None] * v)[:rank])


def _moved_weights(model: "Weights", *, merge: bool) -> dict[str, _Whole | _LowRank]:
    """The weights that a stage moves, as they take part in the computation.

    Raises
    ------
    ConfigError
        If an adapter is not LoRA on linear layers.
    """
    trained = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    found: dict[str, _Whole | _LowRank] = {}
    for name, layer in model.named_modules():
        for adapter in _plain_lora(layer):
            parts = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            if all(id(part) in trained for part in parts):
                a, b = (trained.pop(id(part)) for part in parts)
                found[f"{name}.{adapter}"] = _LowRank((a, b), layer, adapter, merge)
    if strange := [name for name in trained.values() if "lora_" in name] or _other_adapter(model):
        raise ConfigError(
            f"`ema` and `interpolate` average weights, which is not known for {strange[0]}. Train LoRA on linear "
            "layers without DoRA, or all weights, or leave them out."
        )
    parameters = dict(model.named_parameters())
    return found | {name: _Whole((name,), parameters[name]) for name in trained.values()}


def _plain_lora(layer: torch.nn.Module) -> list[str]:
    """Adapters of a layer that only add a product to its weights."""
    return [adapter for adapter in layer.lora_A if adapter not in layer.lora_variant] if type(layer) is Linear else []


def _other_adapter(model: "Weights") -> list[str]:
    kinds = [config.peft_type.value for config in getattr(model, "peft_config", {}).values()]
    return [kind for kind in kinds if kind != "LORA"]
