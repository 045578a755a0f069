"""Run the parts of a model that are needed: the output head at some places, the layers above a frozen bottom.

A frozen bottom gives the same output for the same tokens, so where that output is known the layers of the bottom need
not run. They stay where they are and let everything through; the last of them hands out what is known. Adapters,
attention, positions and head above are the model's own, so this works for any model with numbered layers.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch

from inscl.errors import ConfigError
from inscl.models.loading import LAYER_LISTS

if TYPE_CHECKING:
    from inscl.models.loading import Weights

_LAYERS = re.compile(rf"\.(?:{LAYER_LISTS})$")
_NOT_OF_THE_COMPUTATION = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


@contextmanager
def head_at(model: "Weights", index: torch.Tensor) -> Iterator[None]:
    """Let the output head see only the places of `index` of the flattened batch, (n,) of n_rows x length.

    What it sees is contiguous. The slice that ``logits_to_keep`` takes is not, and of that the CPU's product in half
    precision makes a copy of the head's weights for every row: 3.6 GB for 64 rows of SmolLM2-135M.
    """

    def gather(_: object, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = inputs[0]
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, index).unsqueeze(0), *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()


def layers_of(model: torch.nn.Module) -> torch.nn.ModuleList:
    """The model's numbered layers as a `torch.nn.ModuleList`, bottom first; empty where it has none."""
    lists = (m for name, m in model.named_modules() if _LAYERS.search(name) and isinstance(m, torch.nn.ModuleList))
    return next(lists, torch.nn.ModuleList())


def layers_to_freeze(model: torch.nn.Module, depth: int) -> torch.nn.ModuleList:
    """The model's layers, of which the lowest `depth`, at least 1, shall be frozen.

    Raises
    ------
    ConfigError
        If the model has no numbered layers, or no more than `depth`.
    """
    layers = layers_of(model)
    if not 0 < depth < len(layers):
        raise ConfigError(f"`freeze_bottom_layers` must be below the model's {len(layers)} layers, got {depth}.")
    return layers


def below(model: torch.nn.Module, depth: int) -> list[torch.nn.Parameter]:
    """Parameters registered before layer `depth`: embeddings of tokens and places, and the layers below it."""
    above = {id(parameter) for parameter in layers_of(model)[depth].parameters()}
    return list(takewhile(lambda parameter: id(parameter) not in above, model.parameters()))


@dataclass(frozen=True)
class _Form:
    """What a bottom hands to the layers above, as the first run of it showed."""

    as_tuple: bool = False
    width: int = 0
    dtype: torch.dtype = torch.float32
    problem: str = ""


_seen: dict[bytes, _Form] = {}  # by digest: a stage after another need not find out again


class Bottom:
    """The lowest layers of a model, with all that is before them.

    Parameters
    ----------
    model : transformers.PreTrainedModel or peft.PeftModel
    depth : int
        How many of its layers belong to the bottom, at least 1 and below their number.
    half : bool
        Whether autocast computes it in bfloat16.
    answering : bool
        Whether the model answers only: it does not matter then what could be trained.

    Attributes
    ----------
    device : torch.device
        Where it computes.
    digest : bytes
        What its states depend on beside the tokens: its weights, their precision and the configuration.
    width : int
        Size of a token's state.
    dtype : torch.dtype
        Of the states, as the model computes them.
    problem : str
        Why the layers above cannot be run alone; empty where they can.
    """

    def __init__(self, model: "Weights", depth: int, half: bool = False, answering: bool = False) -> None:
        self._model, self._depth, self._half = model, depth, half
        layers = layers_to_freeze(model, depth)
        self._below, self._last, self._above = layers[: depth - 1], layers[depth - 1], layers[depth:]
        self.device = next(model.parameters()).device
        self.digest = self._digest()
        self._form = _Form()
        if self.digest not in _seen:
            _seen[self.digest] = self._look()
        self._form = _seen[self.digest]
        self.width, self.dtype = self._form.width, self._form.dtype
        self.problem = self._form.problem or ("" if answering else self._in_the_way())

    @torch.no_grad()
    def states(self, ids: torch.Tensor) -> torch.Tensor:
        """What leaves the bottom, (n_rows, length, width), for right-padded tokens (n_rows, length)."""
        found: list[torch.Tensor] = []

        def take(_: object, __: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            self._form = replace(self._form, as_tuple=isinstance(output, tuple))
            found.append(output[0] if isinstance(output, tuple) else output)

        handle = self._last.register_forward_hook(take)
        try:
            first = torch.zeros(1, dtype=torch.long, device=self.device)
            with self._evaluating(), self._letting_through(self._above), head_at(self._model, first):
                self._model(input_ids=ids, use_cache=False)
        finally:
            handle.remove()
        return found[0]

    @contextmanager
    def given(self, states: torch.Tensor) -> Iterator[None]:
        """Run the layers above on `states`, (n_rows, length, width), and not the bottom on the tokens."""
        known = states.to(device=self.device, dtype=self.dtype)
        with self._letting_through(self._below), _answering(self._last, lambda _: self._like_a_layer(known)):
            yield

    def _digest(self) -> bytes:
        digest = blake2b(digest_size=16)
        config = self._model.config.to_dict()
        kept = {name: value for name, value in config.items() if name not in _NOT_OF_THE_COMPUTATION}
        digest.update(json.dumps([kept, self._depth, self._half], sort_keys=True, default=str).encode())
        for weights in below(self._model, self._depth):
            digest.update(f"{weights.dtype} {tuple(weights.shape)}".encode())
            digest.update(_row_sums(weights))
        return digest.digest()

    def _look(self) -> _Form:
        """Run a few tokens whole and in parts, and compare."""
        ids = torch.arange(3, 18, device=self.device)[None]
        name = type(self._model).__name__
        try:
            states = self.states(ids)
            self.dtype = states.dtype
            with torch.no_grad(), self._evaluating():
                whole = self._model(input_ids=ids, use_cache=False).logits.float()
                with self.given(states):
                    parts = self._model(input_ids=ids, use_cache=False).logits.float()
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            return _Form(problem=f"{name} does not run in parts ({str(error).splitlines()[0]})")
        tolerance = 1e-5 if states.dtype == torch.float32 and not self._half else 0.03
        differs = bool((whole - parts).abs().max() > tolerance * max(1.0, float(whole.abs().max())))
        problem = f"{name} computes something else when it runs in parts" if differs else ""
        return replace(self._form, width=int(states.shape[-1]), dtype=states.dtype, problem=problem)

    def _in_the_way(self) -> str:
        if any(parameter.requires_grad for parameter in below(self._model, self._depth)):
            return "something below the layers that are trained is trained, too"
        if any(_draws(module) for layer in (*self._below, self._last) for module in layer.modules()):
            return "the frozen layers have dropout"
        return ""

    def _like_a_layer(self, states: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor]:
        return (states,) if self._form.as_tuple else states

    @contextmanager
    def _letting_through(self, layers: Iterable[torch.nn.Module]) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(_answering(layer, self._like_a_layer))
            yield

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Without dropout, in the precision of training."""
        training = self._model.training
        self._model.eval()
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
                yield
        finally:
            self._model.train(training)


@contextmanager
def _answering(layer: torch.nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Put a function of the hidden states in the place of a layer's own."""
    before = vars(layer).get("forward")
    layer.forward = lambda hidden_states, *_, **__: forward(hidden_states)
    try:
        yield
    finally:
        del layer.forward
        if before is not None:
            layer.forward = before


def _draws(module: torch.nn.Module) -> bool:
    """Whether a module draws at random in training."""
    rates = [getattr(module, name, 0.0) for name in ("attention_dropout", "dropout")]
    rates.append(module.p if isinstance(module, torch.nn.Dropout) else 0.0)
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _row_sums(weights: torch.Tensor) -> bytes:
    """Sums of the bits along all but the first axis: two weights that differ agree in them only by a rare chance."""
    rows = weights.detach().contiguous().reshape(len(weights) if weights.dim() else 1, -1).view(torch.uint8)
    whole = torch.int64 if rows.shape[1] % 8 == 0 and rows.data_ptr() % 8 == 0 else torch.uint8
    return bytes(rows.view(whole).sum(1, dtype=torch.int64).cpu().numpy().tobytes())
