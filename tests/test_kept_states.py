"""Kept states of frozen layers: a stage on them is the stage without them, through kills, limits and other models."""

import logging
import os
import shutil

import numpy as np
import pytest
import torch

import tiny
from inscl.data.mixture import MixtureRow, write_mixture
from inscl.demo.tasks import demo_tasks
from inscl.errors import ConfigError, InsclError
from inscl.models import kept as kept_module
from inscl.models.kept import Keeping
from inscl.models.loading import load, resolve
from inscl.models.parts import Bottom, layers_of
from inscl.training.config import Protect, stage_config
from inscl.training.protect import freeze_bottom
from inscl.training.train import train_stage

TRAINING = {"learning_rate": 1e-3, "num_train_epochs": 2, "lr_scheduler_type": "cosine", "warmup_steps": 2}
LORA = {"type": "lora", "r": 4, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save_model(tmp_path_factory.mktemp("kept") / "model", layers=4)


def stage(mixture, model, out, training=(), **settings):
    settings = {"batch_size": 8, "dtype": "float32", "freeze_bottom_layers": 3, **settings}
    names = ("progress", "checkpoint_every", "keep_in")
    call = {"seed": settings.pop("seed", 5)} | {name: settings.pop(name) for name in names if name in settings}
    settings["protect"] = {name: settings.pop(name) for name in Protect.model_fields if name in settings}
    return train_stage(mixture, model, out, stage_config(training={**TRAINING, **dict(training)}, **settings), **call)


def weights(folder):
    return {name: p.detach().clone() for name, p in load(folder).model.named_parameters()}


def close(a, b):
    return all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


def frozen(folder, depth=3):
    loaded = load(folder)
    freeze_bottom(loaded.model, depth)
    return loaded


SETTINGS = {
    "whole weights": {},
    "lora": {"peft": LORA},
    "merged": {"peft": LORA, "adapter": "merge"},
    "parts of a step": {"training": {"per_device_train_batch_size": 2}},
    "no padding": {"padding_free": True},
    "near the start": {"l2_start": 0.1, "ema": 0.5, "interpolate": 0.2},
    "decay": {"training": {"weight_decay": 0.1, "max_grad_norm": 0.1, "adam_beta1": 0.8}},
    "trl": {"training": {"neftune_noise_alpha": None}},  # a field that the plain loop does not know
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_stage_on_kept_states_is_the_stage_without_them(model, mixture, tmp_path, settings):
    without = stage(mixture, model, tmp_path / "without", **settings, kept="off")
    on = stage(mixture, model, tmp_path / "on", **settings, kept="float32")
    assert on.losses == pytest.approx(without.losses, abs=1e-5)
    assert (on.steps, on.tokens, on.answer_tokens) == (without.steps, without.tokens, without.answer_tokens)
    assert close(weights(tmp_path / "on"), weights(tmp_path / "without"))
    assert not (tmp_path / "on" / "checkpoints").exists()  # nor the states in it


@pytest.mark.parametrize("loss", ["token", "row"])
def test_weighted_rows_count_as_they_weigh(model, tmp_path, loss):
    rows = [MixtureRow(r.task, r.example, r.replayed, 0.5 if r.replayed else 2.0) for r in tiny.mixture_rows()]
    mixture = tiny.mixture_file(tmp_path, rows)
    without = stage(mixture, model, tmp_path / "without", kept="off", loss=loss)
    assert stage(mixture, model, tmp_path / "on", loss=loss).losses == pytest.approx(without.losses, abs=1e-5)


@pytest.mark.slow
def test_a_real_model_gives_the_same_losses(tmp_path):
    try:
        real = resolve("smollm2-135m")
    except InsclError as error:
        pytest.skip(str(error))
    rows = [row for row in demo_tasks(0, train=8, dev=0, test=1)["record_field"] if row.split == "train"]
    write_mixture(tmp_path / "mixture.jsonl", [MixtureRow("record_field", row) for row in rows])
    settings = {"batch_size": 4, "peft": LORA, "freeze_bottom_layers": 24, "max_length": 128}
    without = stage(tmp_path / "mixture.jsonl", real, tmp_path / "without", kept="off", **settings)
    on = stage(tmp_path / "mixture.jsonl", real, tmp_path / "on", **settings)
    assert on.losses == pytest.approx(without.losses, abs=1e-5)


class StoppedError(Exception):
    """Stands for a kill between two steps."""


@pytest.mark.parametrize("settings", [{}, {"ema": 0.5}, {"peft": {**LORA, "lora_dropout": 0.1}}])
def test_a_resumed_stage_ends_with_the_same_bits(model, mixture, tmp_path, settings):
    def stop(now, steps, loss):
        if now == 5:
            raise StoppedError

    keep = {"keep_in": tmp_path / "kept"}
    whole = stage(mixture, model, tmp_path / "whole", **settings, **keep)
    with pytest.raises(StoppedError):
        stage(mixture, model, tmp_path / "cut", **settings, **keep, checkpoint_every=2, progress=stop)
    seen = []
    again = stage(mixture, model, tmp_path / "cut", **settings, **keep, progress=lambda step, *_: seen.append(step))
    assert seen == [5, 6]
    assert again.losses == whole.losses
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(tmp_path / "whole").values(), weights(tmp_path / "cut").values(), strict=True)
    )


def test_adapters_stand_on_the_layers_above_alone_and_load_as_usual(model, mixture, tmp_path):
    stage(mixture, model, tmp_path / "out", peft=LORA)
    names = [name for name, _ in load(tmp_path / "out", merge=False).model.named_parameters() if "lora_" in name]
    assert names
    assert all(".layers.3." in name for name in names)
    before, after = weights(model), weights(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("model.layers.3.") for name in changed)


def test_rows_are_computed_once_for_all_stages(model, mixture, tmp_path, monkeypatch):
    computed = []
    states = Bottom.states
    monkeypatch.setattr(Bottom, "states", lambda self, ids: computed.append(len(ids)) or states(self, ids))
    for seed in range(3):
        stage(mixture, model, tmp_path / f"{seed}", seed=seed, keep_in=tmp_path / "kept")
    rows = {(row.example.instruction, row.example.input) for row in tiny.mixture_rows()}
    assert sum(n for n in computed if n > 1) == len(rows) + 1  # and the row that fills short batches


def tiny_of(kind):
    """Small models of different makes, with a cut in the middle."""
    import transformers as t

    small = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    torch.manual_seed(0)
    match kind:
        case "gpt2":
            quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
            return t.GPT2LMHeadModel(t.GPT2Config(vocab_size=64, n_embd=32, n_layer=4, n_head=4, **quiet))
        case "gemma3":
            sizes = {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}
            return t.Gemma3ForCausalLM(t.Gemma3TextConfig(**small, **sizes))
        case "qwen3":
            return t.Qwen3ForCausalLM(t.Qwen3Config(**small, intermediate_size=48, num_key_value_heads=2, head_dim=8))
        case "neox":
            return t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**small, intermediate_size=48))
        case "mamba":
            return t.MambaForCausalLM(t.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=4, state_size=4))
        case _:
            return t.PhiForCausalLM(t.PhiConfig(**small, intermediate_size=48))


@pytest.mark.parametrize("kind", ["gpt2", "gemma3", "qwen3", "neox", "mamba", "phi"])
def test_models_of_many_makes_run_in_parts(kind, tmp_path, rng):
    made = tiny_of(kind).eval()
    freeze_bottom(made, 2)
    rows = [rng.integers(3, 60, size=n).tolist() for n in (5, 19, 11)]
    found = Keeping(tmp_path, 2, "float32").of(made)
    assert found
    assert found.keep(rows)
    width = max(map(len, rows))
    ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    with torch.no_grad():
        whole = made(input_ids=ids).logits
        with found.bottom.given(found.padded(rows)):
            parts = made(input_ids=ids).logits
        again = made(input_ids=ids).logits
    for i, row in enumerate(rows):
        assert torch.allclose(whole[i, : len(row)], parts[i, : len(row)], atol=1e-5)
    assert torch.equal(whole, again)  # the model is itself again


def test_other_weights_never_meet_these_states(model):
    digests = {Bottom(frozen(model).model, 3).digest}
    for place in ("embed_tokens.weight", "layers.0.mlp.up_proj.weight", "layers.2.input_layernorm.weight"):
        other = frozen(model).model
        with torch.no_grad():
            other.get_parameter(f"model.{place}").view(-1)[-1] += 1e-3
        digests.add(Bottom(other, 3).digest)
    above = frozen(model).model
    with torch.no_grad():
        above.get_parameter("model.layers.3.mlp.up_proj.weight").zero_()
    assert Bottom(above, 3).digest in digests
    digests |= {Bottom(frozen(model, 2).model, 2).digest, Bottom(frozen(model).model.bfloat16(), 3).digest}
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda m: m.requires_grad_(True), "below the layers that are trained"),
        (lambda m: setattr(layers_of(m)[0].self_attn, "attention_dropout", 0.1), "dropout"),
    ],
    ids=["trained", "dropout"],
)
def test_what_stands_in_the_way_is_said(model, tmp_path, caplog, spoil, why):
    loaded = frozen(model)
    spoil(loaded.model)
    with pytest.raises(ConfigError, match=why):
        Keeping(tmp_path, 3, "float32").of(loaded.model)
    with caplog.at_level(logging.INFO):
        assert Keeping(tmp_path, 3).of(loaded.model) is None
    assert why in caplog.text


def test_a_full_disk_turns_keeping_off_or_is_told(model, mixture, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    without = stage(mixture, model, tmp_path / "without", kept="off")
    assert stage(mixture, model, tmp_path / "auto").losses == without.losses
    with pytest.raises(ConfigError, match="GB free on the disk"):
        stage(mixture, model, tmp_path / "on", kept="float32")


def test_damaged_and_half_written_files_are_computed_again(model, tmp_path, monkeypatch):
    rows = [[5, 6, 7], [8, 9]]
    first = Keeping(tmp_path, 3).of(frozen(model).model)
    first.keep(rows)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    path.with_name("half.safetensors.partial").write_bytes(b"half")
    again = Keeping(tmp_path, 3).of(frozen(model).model)
    assert again.keep(rows)
    assert torch.equal(again.padded(rows), first.padded(rows))


def test_another_process_finds_what_is_kept_and_adds_to_it(model, tmp_path, monkeypatch):
    one, two = (Keeping(tmp_path, 3).of(frozen(model).model) for _ in range(2))
    one.keep([[5, 6, 7]])
    monkeypatch.setattr(os, "getpid", lambda: 4242)
    two.keep([[5, 6, 7], [8, 9]])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    one.keep([[8, 9]])
    assert torch.equal(one.padded([[8, 9]]), two.padded([[8, 9]]))


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("bfloat16", 1e-2), ("float16", 2e-3)])
def test_states_are_as_precise_as_asked(model, tmp_path, precision, error):
    found = Keeping(tmp_path, 3, precision).of(frozen(model).model)
    row = list(range(3, 40))
    found.keep([row])
    exact = found.bottom.states(torch.tensor([row]))
    assert found.padded([row]).dtype == getattr(torch, precision)
    off = (found.padded([row]).float() - exact).abs().max() / exact.abs().max()
    assert float(off) <= error


def test_many_rows_make_files_of_a_bounded_size(model, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(kept_module, "_FILE_BYTES", 10_000)
    monkeypatch.setattr(kept_module, "_BATCH_ROWS", 4)
    rows = [rng.integers(3, 300, size=int(n)).tolist() for n in rng.integers(1, 30, size=60)]
    found = Keeping(tmp_path, 3).of(frozen(model).model)
    found.keep(rows)
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.safetensors")]
    assert len(sizes) > 5
    again = Keeping(tmp_path, 3).of(frozen(model).model)
    assert again.keep(rows)
    alone = [found.bottom.states(torch.tensor([row]))[0] for row in rows]
    np.testing.assert_allclose(again.joined(rows)[0].numpy(), torch.cat(alone).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [4, 99])
def test_more_frozen_layers_than_there_are_is_told_before_anything_is_asked(model, tmp_path, depth):
    with pytest.raises(ConfigError, match=f"must be below the model's 4 layers, got {depth}"):
        Keeping(tmp_path, depth).of(load(model).model, answering=True)
    assert not list(tmp_path.iterdir())
