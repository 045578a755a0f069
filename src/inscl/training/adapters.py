"""PEFT adapters over the stages: one kept through all of them, merged after each, or a new one per stage."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from inscl.errors import ConfigError, require
from inscl.models.loading import ADAPTERS, LAYER_LISTS, LoadedModel
from inscl.suggest import suggest

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel

Adapter = Literal["continue", "merge", "new"]


@dataclass(frozen=True)
class Adapters:
    """Which adapter a stage trains, and how the next stage goes on from it.

    Attributes
    ----------
    peft : mapping, optional
        ``{"type": "LoraConfig" or "lora", ...}``; None trains all weights and merges earlier adapters.
    asked : {"continue", "merge", "new"}
        Train the same adapter on, merge it after the stage, or put a new one on the earlier ones.
    """

    peft: Mapping[str, object] | None
    asked: Adapter = "continue"

    @property
    def mode(self) -> Adapter:
        """How this kind of adapter goes on: OSF protects earlier stages only where each decomposes anew."""
        return "merge" if self.peft and _kind(self.peft) == "OSF" else self.asked

    @property
    def goes_on(self) -> bool:
        """Whether the next stage trains the same adapter."""
        return self.peft is not None and self.mode == "continue"

    @property
    def merge(self) -> bool:
        """Whether an adapter goes into the weights below it after the stage."""
        return self.peft is not None and self.mode == "merge"

    def prepare(self, loaded: LoadedModel, seed: int, frozen: int = 0) -> None:
        """Give the model the adapter that this stage trains, in place; the lowest `frozen` layers get none.

        Raises
        ------
        ConfigError
            If the PEFT configuration is not one, or differs from the adapter that is continued.
        """
        adapted = hasattr(loaded.model, "peft_config")
        if self.peft is None or self.mode != "continue":
            _merge_earlier(loaded, forget=self.peft is None or self.merge)
        config = self.configuration()
        if self.peft is None or config is None:
            return
        _spare_lowest(config, frozen)
        if adapted and self.mode == "continue":
            _same(self.peft, config, loaded.model.peft_config["default"])
            return
        import torch

        package = require("peft", extra="train", purpose="A model with adapters")
        torch.manual_seed(seed)  # an adapter begins with random weights
        try:
            loaded.model = package.get_peft_model(loaded.model, config)
        except ValueError as error:
            raise ConfigError(f"`peft`: {str(error).splitlines()[0]}") from error

    def save(self, loaded: LoadedModel, out: Path, weights: "dict[str, torch.Tensor] | None" = None) -> None:
        """Write the adapters, earlier ones included, or the merged or whole model, into the stage's folder.

        `weights` is the state gathered from several processes; without it the model has its own.
        """
        if self.peft is None or self.merge:
            if self.merge:
                _merge_earlier(loaded, forget=False)
                loaded.adapters, loaded.base = (), ""
            loaded.model.save_pretrained(str(out), state_dict=None if self.merge else weights)
            return
        earlier = loaded.adapters if self.mode == "new" else loaded.adapters[:-1]
        folder = out / ADAPTERS
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was cut off while it saved
        for i, source in enumerate(earlier):
            shutil.copytree(source, folder / f"{i:04d}")
        loaded.model.save_pretrained(str(folder / f"{len(earlier):04d}"), state_dict=weights)
        loaded.adapters = tuple(sorted(folder.glob("[0-9]*")))

    def configuration(self) -> "PeftConfig | None":
        """What `peft` asks for as PEFT has it.

        Raises
        ------
        ConfigError
            If there is no such kind, or it has no such setting.
        """
        if self.peft is None:
            return None
        known, kind = _kinds(), _kind(self.peft)
        if kind not in known:
            raise ConfigError(f"`peft.type` is {self.peft.get('type')!r}; wanted one of {', '.join(sorted(known))}.")
        settings: dict[str, Any] = {name: value for name, value in self.peft.items() if name != "type"}
        fields = known[kind].__dataclass_fields__
        if others := [name for name in settings if name not in fields]:
            hints = [f"unexpected keyword argument '{name}'.{suggest(name, fields)}" for name in others]
            raise ConfigError(f"`peft`: {known[kind].__name__} got an {' And an '.join(hints)}")
        try:
            return known[kind](**{"task_type": "CAUSAL_LM", **settings})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"`peft`: {error}") from error


def _merge_earlier(loaded: LoadedModel, *, forget: bool) -> None:
    """Make the adapters that the model has a part of its weights, and forget their files where they are of no use."""
    if hasattr(loaded.model, "peft_config"):
        loaded.model = cast("PeftModel", loaded.model).merge_and_unload()
    if forget:
        loaded.base, loaded.adapters = loaded.base if not loaded.adapters else "", ()


def _spare_lowest(config: "PeftConfig", frozen: int) -> None:
    """Let the lowest layers have no adapter, where the configuration does not say itself which have none."""
    if frozen and hasattr(config, "exclude_modules") and not config.exclude_modules:
        config.exclude_modules = rf".*\.({LAYER_LISTS})\.({'|'.join(map(str, range(frozen)))})\..*"


def _kinds() -> "dict[str, type[PeftConfig]]":
    """PEFT's configurations by the names of their kinds."""
    package = require("peft", extra="train", purpose="A model with adapters")
    return {str(getattr(name, "name", name)): cls for name, cls in package.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def _kind(peft: Mapping[str, object]) -> str:
    """`LoraConfig`, `lora` and `LORA` are the same kind.

    >>> _kind({"type": "LoraConfig"}), _kind({"type": "osf"})
    ('LORA', 'OSF')
    """
    return str(peft.get("type", "")).removesuffix("Config").upper()


def _same(peft: Mapping[str, object], wanted: object, present: object) -> None:
    """The adapter that is continued has the kind and the numbers (rank, scale, dropout) that are asked for."""
    for name in ("peft_type", *peft):
        new, old = (getattr(config, name, None) for config in (wanted, present))
        if name == "peft_type" or isinstance(new, int | float):
            if new == old:
                continue
            raise ConfigError(
                f"`peft.{name}` is {new!r}, but the adapter that this stage continues has {old!r}. "
                "Keep it, or set `adapter` to merge or new."
            )
