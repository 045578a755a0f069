"""PEFT adapters over the stages: one kept through all of them, merged after each, or a new one per stage."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from inscl.errors import ConfigError, require
from inscl.models.loading import ADAPTERS, LAYER_LISTS, LoadedModel
from inscl.suggest import suggest

Adapter = Literal["continue", "merge", "new"]
_MODES: tuple[Adapter, ...] = ("continue", "merge", "new")


def mode_of(peft: Mapping[str, object], adapter: Adapter) -> Adapter:
    """How this kind of adapter goes on: OSF protects earlier stages only where each decomposes anew."""
    if adapter not in _MODES:
        raise ConfigError(f"`adapter` must be one of {', '.join(_MODES)}, got {adapter!r}.")
    return "merge" if _kind(peft) == "OSF" else adapter


def prepare(loaded: LoadedModel, peft: Mapping[str, object] | None, mode: Adapter, seed: int, frozen: int = 0) -> None:
    """Give the model the adapter that this stage trains, in place; without `peft`, merge earlier ones.

    The lowest `frozen` layers get none.

    Raises
    ------
    ConfigError
        If the PEFT configuration is not one, or differs from the adapter that is continued.
    """
    adapted = hasattr(loaded.model, "peft_config")
    if peft is None or mode != "continue":
        _merge_earlier(loaded, forget=peft is None or mode == "merge")
    if peft is None:
        return
    config = configuration(peft)
    _spare_lowest(config, frozen)
    if adapted and mode == "continue":
        _same(peft, config, loaded.model.peft_config["default"])
        return
    import torch

    package = require("peft", extra="train", purpose="A model with adapters")
    torch.manual_seed(seed)  # an adapter begins with random weights
    try:
        loaded.model = package.get_peft_model(loaded.model, config)
    except ValueError as error:
        raise ConfigError(f"`peft`: {str(error).splitlines()[0]}") from error


def _merge_earlier(loaded: LoadedModel, *, forget: bool) -> None:
    """Make the adapters that the model has a part of its weights, and forget their files where they are of no use."""
    if hasattr(loaded.model, "peft_config"):
        loaded.model = loaded.model.merge_and_unload()
    if forget:
        loaded.base, loaded.adapters = loaded.base if not loaded.adapters else "", ()


def _spare_lowest(config: Any, frozen: int) -> None:
    """Let the lowest layers have no adapter, where the configuration does not say itself which have none."""
    if frozen and hasattr(config, "exclude_modules") and not config.exclude_modules:
        config.exclude_modules = rf".*\.({LAYER_LISTS})\.({'|'.join(map(str, range(frozen)))})\..*"


def save(loaded: LoadedModel, out: Path, mode: Adapter, weights: Mapping[str, Any] | None = None) -> None:
    """Write the adapters, earlier ones included, or the merged model, into the stage's folder.

    `weights` is the state gathered from several processes; without it the model has its own.
    """
    if mode == "merge":
        loaded.model = loaded.model.merge_and_unload()
        loaded.model.save_pretrained(out)
        loaded.adapters, loaded.base = (), ""
        return
    earlier = loaded.adapters if mode == "new" else loaded.adapters[:-1]
    folder = out / ADAPTERS
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was cut off while it saved
    for i, source in enumerate(earlier):
        shutil.copytree(source, folder / f"{i:04d}")
    loaded.model.save_pretrained(folder / f"{len(earlier):04d}", state_dict=weights)
    loaded.adapters = tuple(sorted(folder.glob("[0-9]*")))


def configuration(peft: Mapping[str, object]) -> Any:
    """The PEFT configuration of ``{"type": "LoraConfig" or "lora", ...}``.

    Raises
    ------
    ConfigError
        If there is no such kind, or it has no such setting.
    """
    package = require("peft", extra="train", purpose="A model with adapters")
    kind = _kind(peft)
    known = {str(getattr(name, "name", name)): cls for name, cls in _mapping(package).items()}
    if kind not in known:
        raise ConfigError(f"`peft.type` is {peft.get('type')!r}; wanted one of {', '.join(sorted(known))}.")
    settings = {name: value for name, value in peft.items() if name != "type"}
    fields = known[kind].__dataclass_fields__
    if others := [name for name in settings if name not in fields]:
        hints = [f"unexpected keyword argument '{name}'.{suggest(name, fields)}" for name in others]
        raise ConfigError(f"`peft`: {known[kind].__name__} got an {' And an '.join(hints)}")
    try:
        return known[kind](**{"task_type": "CAUSAL_LM", **settings})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`peft`: {error}") from error


def _mapping(package: Any) -> Mapping[Any, Any]:
    mapping: Mapping[Any, Any] = package.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    return mapping


def _kind(peft: Mapping[str, object]) -> str:
    """`LoraConfig`, `lora` and `LORA` are the same kind.

    >>> _kind({"type": "LoraConfig"}), _kind({"type": "osf"})
    ('LORA', 'OSF')
    """
    return str(peft.get("type", "")).removesuffix("Config").upper()


def _same(peft: Mapping[str, object], wanted: Any, present: Any) -> None:
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
