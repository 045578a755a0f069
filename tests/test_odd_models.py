"""Whatever lies in a model's folder, `learn`, `run` and `evaluate` end with one line that names what is wrong."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from inscl.check.assessment import assess
from inscl.errors import InsclError
from inscl.experiments.config import parse_config
from inscl.experiments.run import run
from inscl.memory.memory import Memory
from inscl.stages.learn import learn
from inscl.training.config import stage_config
from support import WordEncoder, WordTagger, rows_of

Damage = Callable[[Path], object]
SETTINGS = {"batch_size": 4, "max_new_tokens": 3, "dtype": "float32", "training": {"max_steps": 1}}
ROWS = {
    "plain": list(rows_of("talk", 12)),
    "chat": [
        {"messages": [{"role": "user", "content": f"talk {i}?"}, {"role": "assistant", "content": f"answer {i}"}]}
        for i in range(12)
    ],
}


def settings(file: str, **changes: object) -> Damage:
    def change(folder: Path) -> None:
        known = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**known, **changes}))

    return change


def holds(file: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def without(*files: str) -> Damage:
    return lambda folder: [(folder / file).unlink() for file in files]


def weights(change: Callable[[dict], dict]) -> Damage:
    def save(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        changed = change(load_file(folder / "model.safetensors"))
        save_file(changed, folder / "model.safetensors", {"format": "pt"})

    return save


def pickled(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def other(kind: str, **config: int) -> Damage:
    def save(folder: Path) -> None:
        import transformers

        made = getattr(transformers, f"{kind}Config")(vocab_size=330, **config)
        model = {"GPT2": "GPT2LMHeadModel", "T5": "T5ForConditionalGeneration", "Bert": "BertModel"}[kind]
        getattr(transformers, model)(made).save_pretrained(folder)

    return save


def template(text: str | bytes) -> Damage:
    return holds("chat_template.jinja", text)


def without_template(folder: Path) -> None:
    made = tiny.tokenizer()
    made.chat_template = None
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    made.save_pretrained(folder)


def larger_vocabulary(folder: Path) -> None:
    made = tiny.tokenizer()
    made.add_tokens(["talk"])
    made.save_pretrained(folder)


def without_end(folder: Path) -> None:
    settings("config.json", eos_token_id=None)(folder)
    tiny.template_tokenizer("chatml", eos=None).save_pretrained(folder)


def narrow(found: dict) -> dict:
    name = "model.layers.0.mlp.up_proj.weight"
    return {**found, name: found[name][:10].contiguous()}


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def adapter_of(base: object) -> Damage:
    def change(folder: Path) -> None:
        emptied(folder)
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))

    return change


BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
ODD: dict[str, tuple[Damage, str]] = {
    "no weights": (without("model.safetensors"), "no file named model.safetensors"),
    "weights as pickle": (pickled, "no file named model.safetensors"),
    "no weight in the file": (weights(lambda found: {}), "lacks .* of its weights, such as"),
    "an empty file": (holds("model.safetensors", b""), "header too small"),
    "a weight of another shape": (weights(narrow), r"of other shapes than its config\.json says, such as .*up_proj"),
    "config that is no JSON": (holds("config.json", "oops"), r"config\.json' is not a valid JSON file"),
    "config that says nothing": (holds("config.json", "{}"), r"`model_type` key in its config\.json"),
    "no config": (without("config.json"), r"`model_type` key in its config\.json"),
    "config with a text for a number": (settings("config.json", hidden_size="big"), "'hidden_size'"),
    "config of another architecture": (settings("config.json", model_type="gpt2"), "of its weights, such as|other sha"),
    "an unknown architecture": (settings("config.json", model_type="nonsense"), "model type `nonsense`"),
    "code of its own": (settings("config.json", model_type="x", auto_map={"AutoConfig": "x.C"}), "custom code"),
    "an encoder": (other("Bert", hidden_size=32, num_hidden_layers=1, num_attention_heads=2), "of its weights"),
    "encoder and decoder": (other("T5", d_model=32, num_layers=1, num_heads=2, d_kv=16), "T5Config"),
    "too few positions": (
        other("GPT2", n_embd=32, n_layer=1, n_head=2, n_positions=16),
        r"^(untrained model: )?Task '\w+', row 1: with its answer .* the model has positions for 16",
    ),
    "quantised": (settings("config.json", quantization_config=BNB), r"is quantised \(bitsandbytes\)"),
    "quantised by nobody": (settings("config.json", quantization_config={"bits": 4}), "is quantised|quantization"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "The tokenizer of"),
    "tokenizer that is no JSON": (holds("tokenizer.json", "oops"), "The tokenizer of"),
    "no end token": (without_end, "row 1: The tokenizer has no end-of-text token"),
    "tokens without embeddings": (larger_vocabulary, r"row \d+: the token 'talk' .* is beyond"),
    "end of answers that is no token": (
        settings("generation_config.json", eos_token_id="x"), r"`eos_token_id` in generation_config\.json is 'x'",
    ),
    "generation settings that are a list": (holds("generation_config.json", "[1]"), "cannot be loaded: 'list' object"),
    "record of another thing": (holds("stage.json", "{}"), r"stage\.json is not the record of a stage: it has no"),
    "an adapter of nothing": (adapter_of(3), r"stands on '3', which is not there. Mend .* adapter_config\.json"),
    "nothing": (emptied, "The tokenizer of|The model"),
    "template with a mistake": (template("{% for m in messages %}{{ m"), "row 1: The tokenizer's chat template"),
    "template that raises": (template("{{ raise_exception('never') }}"), "row 1: .*chat template refuses .*never"),
    "template that divides by zero": (template("{{ 1 / 0 }}"), "row 1: .*chat template refuses .*division by zero"),
    "template that says nothing": (template(""), "row 1: .*(chat template|nothing stands before)"),
    "template without answers": (template("hello"), "row 1: the tokenizer's chat template leaves the answer out"),
    "template that is no text": (template(b"\xff\xfe{{"), "The tokenizer of .* cannot be read"),
    "no template": (without_template, "row 1: .* the tokenizer has no chat template"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("odd") / "model", layers=1)


@pytest.fixture(scope="module")
def memories(tmp_path_factory) -> dict[str, Memory]:
    """A memory of one task for each form."""
    made = {}
    for form, rows in ROWS.items():
        made[form] = Memory(tmp_path_factory.mktemp(form), encoder=WordEncoder(), tagger=WordTagger())
        made[form].add("old", rows)
    return made


def said_by(command: Callable[[], object]) -> str:
    with pytest.raises(InsclError) as caught:
        command()
    return str(caught.value)


@pytest.mark.parametrize("name", ODD)
def test_a_folder_that_cannot_be_used_is_one_line(whole, memories, tmp_path, name):
    damage, expected = ODD[name]
    folder = shutil.copytree(whole, tmp_path / "model")
    damage(folder)
    form = "chat" if "template" in name else "plain"
    memory = memories[form]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[form]))
    tasks = {task: str(tmp_path / "rows.jsonl") for task in "ab"}
    stream = {"tasks": tasks, "model": str(folder), "strategies": ["random"], "experts": None, **SETTINGS}
    config = stage_config(json.dumps(SETTINGS))
    commands: list[Callable[[], object]] = [
        lambda: learn(memory, "new", ROWS[form], model=folder, out=tmp_path / "out", config=config),
        lambda: assess(memory, folder, config=config),
        lambda: run(parse_config(json.dumps(stream)), tmp_path / "run", encoder=WordEncoder(), tagger=WordTagger()),
    ]
    for command in commands:
        said = said_by(command)
        assert "\n" not in said
        assert re.search(expected, said), said
    assert not (tmp_path / "out").exists()
    assert "new" not in memory
    assert not list((tmp_path / "run").rglob("scores.json"))
