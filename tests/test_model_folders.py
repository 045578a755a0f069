"""Model folders as people have them: adapters, damage, end tokens and vocabularies that do not fit."""

import contextlib
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny
from inscl.data.example import Example
from inscl.data.mixture import MixtureRow
from inscl.data.row_check import check_rows
from inscl.errors import DataError, InsclError
from inscl.models.loading import load, load_tokenizer
from inscl.training.batches import tokenise_mixture
from inscl.training.config import stage_config
from inscl.training.train import train_stage

PLAIN = [MixtureRow("sums", Example("Add.", "1 and 2", ("3",)))]


def chat_row(*texts: str) -> MixtureRow:
    turns = tuple({"role": role, "content": text} for role, text in zip(("user", "assistant") * 4, texts, strict=False))
    return MixtureRow("talk", Example(texts[0], "x", (texts[-1],), turns))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def adapter(model, tmp_path) -> Path:
    """A PEFT adapter folder, as `save_pretrained` leaves it, that changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(load(model).model, LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False))
    adapted.peft_config["default"].base_model_name_or_path = str(model)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        torch.save(adapted(ids).logits, tmp_path / "logits")
    return tmp_path / "adapter"


def test_an_adapter_folder_is_loaded_on_its_base(model, adapter):
    import torch

    loaded = load(adapter)
    with torch.inference_mode():
        found = loaded.model(torch.tensor([[5, 6, 7, 8]])).logits
    assert torch.allclose(found, torch.load(adapter.parent / "logits"), atol=1e-5)
    assert not hasattr(loaded.model, "peft_config")  # merged
    assert (loaded.base, loaded.adapters) == (str(model), (adapter,))
    assert loaded.tokenizer.eos_token == "<|im_end|>"  # that of its base
    assert hasattr(load(adapter, merge=False).model, "peft_config")


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


PICKLES = (
    "pytorch_model.bin",
    "adapter_model.bin",
    "training_args.bin",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
)
CODE = "import os\nos.mkdir({!r})\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M\n"


@pytest.mark.parametrize("whole", [True, False], ids=["beside", "instead"])
def test_no_pickle_or_code_in_a_strangers_model_is_run(model, adapter, tmp_path, whole):
    for i, folder in enumerate((shutil.copytree(model, tmp_path / "model"), adapter)):
        trap = tmp_path / f"trap{i}"
        for name in PICKLES:
            with (folder / name).open("wb") as file:
                pickle.dump({"weight": Trap(trap)}, file)
        (folder / "code.py").write_text(CODE.format(str(trap)))
        if (config := folder / "config.json").exists():
            classes = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
            config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": classes}))
        if not whole:
            next(folder.glob("*.safetensors")).unlink()
        said = ""
        try:
            load(folder)
        except InsclError as error:
            said = str(error)
        assert (said == "") == whole
        assert "\n" not in said
        assert not trap.exists()


@pytest.mark.slow
def test_no_pickle_in_the_checkpoint_of_an_unfinished_stage_is_run(model, tmp_path):
    """Who can write into a stage's folder can change what is trained, but runs nothing."""
    mixture, config = tiny.mixture_file(tmp_path), stage_config(dtype="float32", batch_size=4)

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stage(mixture, model, tmp_path / "out", config, checkpoint_every=1, progress=stop)
    files = [file for file in (tmp_path / "out").rglob("*") if file.suffix in (".bin", ".pt", ".pth")]
    assert files
    for file in files:
        with file.open("wb") as opened:
            pickle.dump({"weight": Trap(tmp_path / "trap")}, opened)
    with contextlib.suppress(InsclError):
        train_stage(mixture, model, tmp_path / "out", config)
    assert not (tmp_path / "trap").exists()


def test_an_adapter_whose_base_is_gone_is_one_line(adapter):
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(json.loads(config.read_text())["base_model_name_or_path"], "/gone"))
    with pytest.raises(InsclError, match="stands on '/gone', which is not there"):
        load(adapter)
    config.write_text("{}")
    with pytest.raises(InsclError, match="does not say what the adapter stands on"):
        load(adapter)


def test_an_adapter_of_another_model_is_one_line(adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: value[:, :1].contiguous() for name, value in weights.items()}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(InsclError, match="cannot be put on its model") as caught:
        load(adapter)
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_are_not_made_up(model, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InsclError, match=r"lacks 1 of its weights, such as model\.layers\.1\.mlp"):
        load(folder)


FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "generation_config.json"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(FILES), place=st.floats(0, 1), byte=st.sampled_from(b'\x00{]"5\xff'), cut=st.booleans())
def test_a_damaged_folder_is_loaded_or_one_line(model, tmp_path_factory, file, place, byte, cut):
    folder = shutil.copytree(model, tmp_path_factory.mktemp("damaged") / "model")
    content = bytearray((folder / file).read_bytes())
    at = min(len(content) - 1, int(place * min(len(content), 4000)))
    if cut:
        del content[at:]
    else:
        content[at] = byte
    (folder / file).write_bytes(content)
    said = ""
    try:
        loaded = load(folder)
        tokenise_mixture(PLAIN, loaded.tokenizer, 99, vocabulary=loaded.vocabulary)
    except InsclError as error:
        said = str(error)
    finally:
        shutil.rmtree(folder.parent)
    assert "\n" not in said


def test_tokens_without_an_embedding_are_refused_where_they_are_used(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<city>"])
    tokenizer.save_pretrained(folder)
    loaded = load(folder)
    size = loaded.vocabulary
    assert len(tokenise_mixture(PLAIN, loaded.tokenizer, 99, vocabulary=size).rows) == 1
    rows = [*PLAIN, MixtureRow("cities", Example("Name it.", "<city>", ("Oslo",)))]
    with pytest.raises(DataError, match=rf"^Task 'cities', row 2: the token '<city>' .* beyond the {size} embeddings"):
        tokenise_mixture(rows, loaded.tokenizer, 99, vocabulary=size)


def test_an_end_token_may_stand_in_the_model_alone(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    tiny.template_tokenizer("chatml", eos=None).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 2}))
    assert load_tokenizer(folder).eos_token == "</s>"
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == (None, "<unk>")
    with pytest.raises(DataError, match="Task 'sums', row 1: The tokenizer has no end-of-text token"):
        tokenise_mixture(PLAIN, tokenizer, 99)
    assert tokenise_mixture([chat_row("Hi", "Hello")], tokenizer, 99).rows


# --- the check before anything is computed ---


def test_one_row_of_each_form_is_shown_token_by_token():
    call = {"type": "function", "function": {"name": "now", "arguments": {}}}
    tools = Example("Time?", "", ("x",), ({"role": "user", "content": "Time?"},
                    {"role": "assistant", "content": "", "tool_calls": [call]}))  # fmt: skip
    rows = [*PLAIN, *PLAIN, chat_row("Hi", "Hello"), MixtureRow("talk", tools)]
    shown = check_rows(rows, tiny.template_tokenizer("chatml"), chat=True)
    assert [(row.form, row.task) for row in shown] == [("plain", "sums"), ("chat", "talk"), ("chat with tools", "talk")]
    heading, text = shown[1].lines()
    assert heading == f"chat row of task 'talk': {len(shown[1].tokens)} tokens, those in «» are trained"
    assert text.endswith("[\n]«H»«e»«l»«l»«o»«<|im_end|>»[\n]")
    (plain,) = check_rows(PLAIN, tiny.template_tokenizer("chatml"), chat=False)
    assert "".join(text for text, trained in plain.tokens if trained) == "3<|im_end|>"


def test_an_answer_may_hold_an_end_token_of_its_own():
    assert check_rows([chat_row("Hi", "a <|im_end|> b")], tiny.template_tokenizer("chatml"), chat=True)


def test_a_template_that_ends_an_answer_twice_is_refused():
    tokenizer = tiny.template_tokenizer("chatml")
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "<|im_end|><|im_end|>")
    with pytest.raises(DataError, match="Task 'talk', row 1: the answer ends 2 times instead of once"):
        check_rows([chat_row("Hi", "Hello")], tokenizer, chat=True)


def test_a_template_whose_prompt_is_not_where_rows_begin_is_refused():
    tokenizer = tiny.template_tokenizer("chatml")
    tokenizer.chat_template = "{{ 'P' if add_generation_prompt else 'R' }}" + tokenizer.chat_template
    with pytest.raises(DataError, match="does not begin a conversation with the prompt it makes for it"):
        check_rows([chat_row("Hi", "Hello")], tokenizer, chat=True)
