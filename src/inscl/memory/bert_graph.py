"""A BERT encoder as an ONNX graph that takes its weights, by their names, from elsewhere."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

_Config = Mapping[str, Any]  # a model's config.json

_FUSED = "com.microsoft"  # onnxruntime's own operations, for attention and GELU
FLOAT, INT32, INT64 = 1, 6, 7  # of ONNX's enumeration of types
_EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_PARTS = (
    *(f"attention.{part}" for part in ("self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")),
    *("intermediate.dense", "output.dense", "output.LayerNorm"),
)


class BertGraph:
    """The graph of a model, without its float32 weights, which a session is given when it is made.

    Inputs ``input_ids`` and ``attention_mask``, int64 (n, t); output ``last_hidden_state``, float32 (n, t, hidden).
    A sequence has one segment, and only tokens where the mask is 1 are attended to.

    Parameters
    ----------
    config : mapping
        A model's config.json.
    """

    def __init__(self, config: _Config) -> None:
        self._config = config

    @property
    def is_known(self) -> bool:
        """Whether the graph of such a model can be written."""
        positions = self._config.get("position_embedding_type", "absolute")
        return (self._config.get("model_type"), self._config.get("hidden_act"), positions) == (
            "bert",
            "gelu",
            "absolute",
        )

    @property
    def weights(self) -> list[str]:
        """Names of the weights that it wants."""
        layers = [f"encoder.layer.{i}.{part}" for i in range(self._config["num_hidden_layers"]) for part in _PARTS]
        tables = [f"embeddings.{name}.weight" for name in _EMBEDDINGS]
        return tables + [f"{part}.{of}" for part in ("embeddings.LayerNorm", *layers) for of in ("weight", "bias")]

    def write(self, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
        """The graph itself, from the shape of each of its `weights`."""
        from onnx import helper

        nodes = _Nodes(self._config)
        hidden = nodes.embedded()
        for layer in range(self._config["num_hidden_layers"]):
            hidden = nodes.layer(hidden, f"encoder.layer.{layer}")
        nodes.add("Reshape", hidden, "by sequence", out="last_hidden_state")
        inputs = [helper.make_tensor_value_info(name, INT64, ["n", "t"]) for name in ("input_ids", "attention_mask")]
        states = helper.make_tensor_value_info("last_hidden_state", FLOAT, ["n", "t", self._config["hidden_size"]])
        weights = [_given(name, shape) for name, shape in shapes.items()]
        graph = helper.make_graph(nodes.all, "bert", inputs, [states], weights)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_FUSED, 1)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


class _Nodes:
    """Collects a graph's nodes; whatever is added gives the name of its result."""

    def __init__(self, config: _Config) -> None:
        self.all: list[NodeProto] = []
        self._config = config

    def add(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = out or f"{kind} {len(self.all)}"
        self.all.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def embedded(self) -> str:
        """Words, positions and the one segment, summed and normed; from here on a row is a token, (n * t, hidden)."""
        words, positions, segments = (f"embeddings.{name}.weight" for name in _EMBEDDINGS)
        self.add("Constant", out="0", value_int=0)
        self.add("Constant", out="[0]", value_ints=[0])
        self.add("Constant", out="by token", value_ints=[-1, self._config["hidden_size"]])
        self.add("Cast", "attention_mask", out="mask", to=INT32)
        length = self.add("Shape", "input_ids", start=1, end=2)
        places = self.add("Slice", positions, "[0]", length, "[0]")
        summed = self.add("Add", self.add("Gather", words, "input_ids"), places)
        summed = self.add("Add", summed, self.add("Gather", segments, "0"))
        self.add("Shape", summed, out="by sequence")
        return self._norm(self.add("Reshape", summed, "by token"), "embeddings.LayerNorm")

    def layer(self, hidden: str, name: str) -> str:
        attended = self._linear(self._attended(hidden, f"{name}.attention.self"), f"{name}.attention.output.dense")
        hidden = self._norm(self.add("Add", attended, hidden), f"{name}.attention.output.LayerNorm")
        wide = self.add("Gelu", self._linear(hidden, f"{name}.intermediate.dense"), domain=_FUSED)
        narrow = self._linear(wide, f"{name}.output.dense")
        return self._norm(self.add("Add", narrow, hidden), f"{name}.output.LayerNorm")

    def _attended(self, hidden: str, name: str) -> str:
        parts = [self._linear(hidden, f"{name}.{part}") for part in ("query", "key", "value")]
        parts = [self.add("Reshape", part, "by sequence") for part in parts]
        heads = self._config["num_attention_heads"]
        mixed = self.add("MultiHeadAttention", *parts, "", "mask", num_heads=heads, domain=_FUSED)
        return self.add("Reshape", mixed, "by token")

    def _linear(self, rows: str, name: str) -> str:
        return self.add("Gemm", rows, f"{name}.weight", f"{name}.bias", transB=1)

    def _norm(self, rows: str, name: str) -> str:
        epsilon = self._config["layer_norm_eps"]
        return self.add("LayerNormalization", rows, f"{name}.weight", f"{name}.bias", epsilon=epsilon)


def _given(name: str, shape: tuple[int, ...]) -> "TensorProto":
    """Stands for a weight that the session is given."""
    from onnx import TensorProto

    weight = TensorProto(name=name, dims=shape, data_type=FLOAT, data_location="EXTERNAL")
    weight.external_data.add(key="location", value="given")
    return weight
