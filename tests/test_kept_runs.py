"""A whole run on kept states: the numbers of a run without them, shared by its strategies and by processes."""

import pytest
import yaml

import tiny
from inscl.experiments.config import load_config
from inscl.experiments.run import run

LORA = {"type": "LoraConfig", "r": 4, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save_model(tmp_path_factory.mktemp("runs") / "model", layers=4)


def config_of(tmp_path, model, **changes):
    asked = {**tiny.small_stream(model), "peft": LORA, "protect": {"freeze_bottom_layers": 3}, **changes}
    (tmp_path / "stream.yaml").write_text(yaml.safe_dump(asked))
    return load_config(tmp_path / "stream.yaml")


def states(out):
    return sorted(path.name for path in (out / "kept").rglob("*.safetensors"))


def test_a_run_on_kept_states_is_the_run_without_them(model, tmp_path):
    run(config_of(tmp_path, model, kept="off"), tmp_path / "off")
    run(config_of(tmp_path, model), tmp_path / "on")
    assert states(tmp_path / "on")
    assert not states(tmp_path / "off")
    exact = [row for row in tiny.numbers(tmp_path / "on") if "loss" not in row]
    assert exact == [row for row in tiny.numbers(tmp_path / "off") if "loss" not in row]


def test_another_strategy_finds_the_states_that_are_there(model, tmp_path):
    run(config_of(tmp_path, model, strategies=["none"]), tmp_path / "out")
    before = states(tmp_path / "out")
    run(config_of(tmp_path, model, strategies=["none", "random", "inscl"]), tmp_path / "out")
    assert states(tmp_path / "out") == before


@pytest.mark.slow
def test_processes_share_states_and_give_the_same_numbers(model, tmp_path):
    config = config_of(tmp_path, model)
    run(config, tmp_path / "one")
    run(config, tmp_path / "two", workers=2)
    assert states(tmp_path / "two")
    exact = [row for row in tiny.numbers(tmp_path / "two") if "loss" not in row]
    assert exact == [row for row in tiny.numbers(tmp_path / "one") if "loss" not in row]
