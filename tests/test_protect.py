"""Averages of weights against dense arithmetic, for whole weights and for adapters."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

import tiny
from inscl.data.mixture import MixtureRow
from inscl.errors import ConfigError
from inscl.models.loading import load
from inscl.training.config import stage_config
from inscl.training.protect import Protection, StartCallback
from inscl.training.train import train_stage

LORA = {"type": "LoraConfig", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}
PLACE = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save_model(tmp_path_factory.mktemp("protect") / "model")


def stage(mixture, start, out, **settings):
    config = stage_config(batch_size=8, dtype="float32", training={"learning_rate": 1e-2}, peft=LORA, **settings)
    train_stage(mixture, start, out, config, seed=3)
    return merged(out)


def merged(folder):
    """All weights, adapters included."""
    net = load(folder).model
    whole = net.merge_and_unload() if isinstance(net, PeftModel) else net
    return {name: p.detach().clone() for name, p in whole.named_parameters()}


@pytest.mark.parametrize("adapter", ["merge", "new", "continue"])
def test_a_first_stage_is_mixed_with_its_start_exactly(model, mixture, tmp_path, adapter):
    """The start of a fresh adapter adds nothing, so the mixture has the adapter's rank."""
    end = stage(mixture, model, tmp_path / "plain", adapter=adapter)
    mixed = stage(mixture, model, tmp_path / "mixed", adapter=adapter, protect={"interpolate": 0.25})
    start = merged(model)
    assert not torch.allclose(start[PLACE], end[PLACE], atol=1e-3)
    for name in start:
        assert torch.allclose(mixed[name], 0.25 * start[name] + 0.75 * end[name], atol=1e-5)


def test_a_merged_adapter_is_mixed_exactly_at_every_stage(model, mixture, tmp_path):
    first = stage(mixture, model, tmp_path / "first", adapter="merge")
    end = stage(mixture, tmp_path / "first", tmp_path / "plain", adapter="merge")
    mixed = stage(mixture, tmp_path / "first", tmp_path / "mixed", adapter="merge", protect={"interpolate": 0.4})
    for name in first:
        assert torch.allclose(mixed[name], 0.4 * first[name] + 0.6 * end[name], atol=1e-5)


def test_a_continued_adapter_is_the_nearest_of_its_rank(model, mixture, tmp_path):
    """NumPy's singular values are the oracle; the average of the factors is farther from the average of the weights."""
    base = merged(model)[PLACE]
    first = stage(mixture, model, tmp_path / "first")[PLACE] - base
    end = stage(mixture, tmp_path / "first", tmp_path / "plain")[PLACE] - base
    mixed = stage(mixture, tmp_path / "first", tmp_path / "mixed", protect={"interpolate": 0.5})[PLACE] - base
    wanted = (0.5 * first + 0.5 * end).numpy()
    u, s, v = np.linalg.svd(wanted)
    assert mixed.numpy() == pytest.approx((u[:, :2] * s[:2]) @ v[:2], abs=1e-5)
    factors = [
        load(folder, merge=False).model.get_submodule("base_model.model." + PLACE[:-7])
        for folder in (tmp_path / "first", tmp_path / "plain")
    ]
    a, b = (sum(getattr(f, part)["default"].weight for f in factors) / 2 for part in ("lora_A", "lora_B"))
    of_factors = (3 * b @ a).detach().numpy()
    assert np.linalg.norm(mixed.numpy() - wanted) < np.linalg.norm(of_factors - wanted)


@pytest.mark.parametrize("merge", [False, True])
def test_the_running_average_is_that_of_the_products(model, merge):
    """Thirty made-up steps: adam-like correction by a sum over all of them, nothing of the start left."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["down_proj"])
    net = get_peft_model(load(model).model, config)
    layer = net.get_submodule("base_model.model." + PLACE[:-7])
    below = layer.get_base_layer().weight.detach().clone()
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    b.data.normal_()
    callback, decay, products = StartCallback(net, Protection(ema=0.9), merge=merge), 0.9, []
    with torch.no_grad():
        for step in range(1, 31):
            a.add_(0.3 * torch.randn_like(a))
            b.add_(0.3 * torch.randn_like(b))
            products.append((3 * b @ a).double().numpy())
            callback.on_step_end(None, SimpleNamespace(global_step=step))
    callback.finish()
    shares = np.array([decay ** (30 - step) for step in range(1, 31)])
    wanted = np.tensordot(shares / shares.sum(), products, axes=1)
    if merge:
        assert (layer.get_base_layer().weight - below).detach().numpy() == pytest.approx(wanted, abs=1e-4)
        assert not b.any()
    else:
        u, s, v = np.linalg.svd(wanted)
        assert (3 * b @ a).detach().numpy() == pytest.approx((u[:, :2] * s[:2]) @ v[:2], abs=1e-3)


def test_one_step_of_a_slow_average_leaves_nothing_of_the_start(model, tmp_path):
    few = tiny.mixture_file(tmp_path, [MixtureRow(r.task, r.example) for r in tiny.mixture_rows()[:4]])
    whole = {"batch_size": 8, "dtype": "float32", "training": {"learning_rate": 1e-2, "num_train_epochs": 1}}
    train_stage(few, model, tmp_path / "plain", stage_config(**whole))
    train_stage(few, model, tmp_path / "average", stage_config(**whole, protect={"ema": 0.99}))
    plain, average = merged(tmp_path / "plain"), merged(tmp_path / "average")
    assert all(torch.allclose(average[name], plain[name], atol=1e-6) for name in plain)


def test_an_adapter_whose_weights_are_no_product_is_refused(model):
    net = get_peft_model(load(model).model, LoraConfig(r=2, use_dora=True, target_modules=["down_proj"]))
    with pytest.raises(ConfigError, match="Train LoRA on linear layers without DoRA"):
        StartCallback(net, Protection(interpolate=0.1))
    StartCallback(net, Protection(l2_start=0.1))  # a pull is no average


PAGE = (Path(__file__).parents[1] / "docs" / "protect.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "settings", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL), ids=["averages", "freeze", "osf"]
)
def test_a_stage_is_trained_with_the_settings_of_the_guide(model, mixture, tmp_path, settings):
    config = stage_config(
        settings.replace("freeze_bottom_layers: 24", "freeze_bottom_layers: 1"),
        batch_size=8,
        dtype="float32",
        training={"learning_rate": 1e-2},
    )
    train_stage(mixture, model, tmp_path / "out", config, seed=3)
    start, end = merged(model), merged(tmp_path / "out")
    assert not torch.equal(start[PLACE], end[PLACE])
    if config.protect.freeze_bottom_layers:
        below = PLACE.replace("layers.1", "layers.0")
        assert torch.equal(start[below], end[below])
