"""A sentence encoder in onnxruntime: a folder of the sentence-transformers layout, read without torch.

What the folder needs is ``tokenizer.json`` and either ``onnx/model.onnx`` or the safetensors of a BERT, whose graph
`inscl.memory.bert_graph` writes. Vectors are those of sentence-transformers to about a millionth.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Encoding, Tokenizer

_Vectors = npt.NDArray[np.float32]  # (n, d)

_EXPORTED, _WEIGHTS = "onnx/model.onnx", "model.safetensors"


class _Card(NamedTuple):
    """What a model's folder says of the way from tokens to a vector."""

    longest: int  # tokens read of a text
    pooling: str  # "mean" or "cls"
    normalised: bool


class OnnxModel:
    """Texts to sentence vectors; loaded when the first text comes.

    Parameters
    ----------
    folder : Path
        One that `can_read` accepts.
    batch_size : int
        Texts computed together.
    """

    def __init__(self, folder: Path, batch_size: int = 8) -> None:
        self._folder, self._batch_size = folder, batch_size

    def encode(self, texts: Sequence[str]) -> _Vectors:
        """The vectors of some texts, (n, d)."""
        tokens = self._tokenizer.encode_batch(list(texts))
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i].ids))
        vectors = np.empty((len(tokens), self._session.get_outputs()[0].shape[-1]), np.float32)
        for start in range(0, len(order), self._batch_size):
            part = order[start : start + self._batch_size]
            vectors[part] = self._encode([tokens[i] for i in part])
        return vectors

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than the model reads."""
        return [bool(encoding.overflowing) for encoding in self._tokenizer.encode_batch(list(texts))]

    def _encode(self, tokens: Sequence["Encoding"]) -> _Vectors:
        shape = len(tokens), max(len(encoding.ids) for encoding in tokens)
        given = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        for row, encoding in enumerate(tokens):
            given["input_ids"][row, : len(encoding.ids)] = encoding.ids
            given["attention_mask"][row, : len(encoding.ids)] = 1
        wanted = [entry.name for entry in self._session.get_inputs()]
        states = self._session.run(None, {name: given[name] for name in wanted})[0]
        return self._pooled(np.asarray(states), given["attention_mask"])

    def _pooled(self, states: _Vectors, mask: npt.NDArray[np.int64]) -> _Vectors:
        """Sentence vectors from those of tokens, (n, t, d)."""
        if self._card.pooling == "cls":
            pooled = states[:, 0]
        else:
            pooled = np.einsum("ntd,nt->nd", states, mask.astype(np.float32)) / mask.sum(axis=1, keepdims=True)
        if self._card.normalised:
            pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled.astype(np.float32)

    @cached_property
    def _card(self) -> _Card:
        card = _read_card(self._folder)
        if card is None:
            raise ValueError(f"{self._folder} is not a model that can be read without sentence-transformers")
        return card

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._card.longest)
        return tokenizer

    @cached_property
    def _session(self) -> "InferenceSession":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: one a core
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        exported = self._folder / _EXPORTED
        if exported.is_file():
            graph: str | bytes = str(exported)
        else:
            graph, weights = _write_graph(self._folder)
            values = [ort.OrtValue.ortvalue_from_numpy(weight) for weight in weights.values()]
            options.add_external_initializers(list(weights), values)
        return ort.InferenceSession(graph, options, providers=ort.get_available_providers())


def can_read(folder: Path) -> bool:
    """Whether `OnnxModel` computes what sentence-transformers would compute from this folder."""
    if not (folder / "tokenizer.json").is_file() or _read_card(folder) is None:
        return False
    return (folder / _EXPORTED).is_file() or _is_plain_bert(folder)


def _read_card(folder: Path) -> _Card | None:
    """How the folder's modules make a vector; None where one of them is not known here."""
    modules = [module["type"].rpartition(".")[2] for module in _json(folder / "modules.json", [])]
    if modules not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    if _json(folder / "config_sentence_transformers.json", {}).get("default_prompt_name"):
        return None
    pooling = _pooling(_json(folder / "1_Pooling/config.json", {}))
    longest = min(
        _json(folder / name, {}).get(field) or 10**9
        for name, field in (
            ("sentence_bert_config.json", "max_seq_length"),
            ("tokenizer_config.json", "model_max_length"),
            ("config.json", "max_position_embeddings"),
        )
    )
    return _Card(longest, pooling, "Normalize" in modules) if pooling in ("mean", "cls") else None


def _pooling(config: Mapping[str, object]) -> str:
    """The one way of pooling, by its present name or by the flags of older models; '' for several together."""
    old = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    chosen = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if "pooling_mode" in config:
        return str(config["pooling_mode"])
    return old.get(chosen[0], "") if len(chosen) == 1 else ""


def _is_plain_bert(folder: Path) -> bool:
    from inscl.memory.bert_graph import BertGraph

    graph = BertGraph(_json(folder / "config.json", {}))
    if not graph.is_known or not (folder / _WEIGHTS).is_file():
        return False
    from safetensors import safe_open

    with safe_open(folder / _WEIGHTS, "numpy") as file:
        there = set(file.keys())
    return there.issuperset(graph.weights)


def _write_graph(folder: Path) -> tuple[bytes, dict[str, _Vectors]]:
    """The graph of a BERT in safetensors, and its weights."""
    from safetensors import safe_open

    from inscl.memory.bert_graph import BertGraph

    graph = BertGraph(_json(folder / "config.json", {}))
    with safe_open(folder / _WEIGHTS, "numpy") as file:
        weights = {name: file.get_tensor(name).astype(np.float32, copy=False) for name in graph.weights}
    return graph.write({name: weight.shape for name, weight in weights.items()}), weights


def _json(path: Path, otherwise: object) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return otherwise
