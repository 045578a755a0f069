"""What the reading of a reference tells equals what generation gives, with and without kept states."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import inscl.models.generate as generating
import tiny
from inscl.core.scoring import exact_match, may_match
from inscl.evaluation.evaluate import generate_and_score, predict
from inscl.models.kept import Keeping
from inscl.models.loading import load
from inscl.models.precision import ready
from inscl.training.config import stage_config
from inscl.training.train import train_stage

ROWS = [row.example for row in tiny.mixture_rows(24)]
TASKS = {"say": ROWS[:14], "count": ROWS[14:]}
LORA = {"type": "lora", "r": 8, "lora_alpha": 32, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A model that has learnt about half of its rows, with its adapter."""
    folder = tmp_path_factory.mktemp("reading")
    model = tiny.save_model(folder / "model", layers=4)
    config = stage_config(
        "dtype: float32",
        batch_size=4,
        peft=LORA,
        protect={"freeze_bottom_layers": 2},
        training={"learning_rate": 3e-3, "num_train_epochs": 14},
    )
    train_stage(tiny.mixture_file(folder, tiny.mixture_rows(24)), model, folder / "out", config)
    return load(folder / "out", merge=False)


def asked(loaded, **more):
    options = {"max_new_tokens": {"say": 8, "count": 2}, "dtype": "float32", **more}
    return [row for rows in predict(loaded, TASKS, **options).values() for row in rows]


def test_a_reading_and_generation_give_the_same_answers(learnt, tmp_path):
    generated = asked(learnt, loss=False)  # nothing is read
    plain = [(row.prediction, row.capped) for row in generated]
    assert 3 <= sum(exact_match(row.prediction, row.references) for row in generated) <= 20  # both kinds are there
    assert any(capped for _, capped in plain)
    read = asked(learnt)
    kept = asked(learnt, keeping=Keeping(tmp_path, 2, "float32"))
    assert [(row.prediction, row.capped) for row in read] == plain
    assert [(row.prediction, row.capped) for row in kept] == plain
    assert [row.loss for row in kept] == pytest.approx([row.loss for row in read], abs=1e-4)
    assert list(tmp_path.rglob("*.safetensors"))


def test_exact_matches_are_told_with_little_generated(learnt, tmp_path, monkeypatch):
    options = {"max_new_tokens": 8, "dtype": "float32"}
    whole = generate_and_score(learnt, TASKS, scorer="rouge_l", **options)
    prompts, generate = [], generating.generate

    def counted(model, asked, **more):
        prompts.extend(asked)
        return generate(model, asked, **more)

    monkeypatch.setattr(generating, "generate", counted)
    exact = generate_and_score(learnt, TASKS, scorer="exact_match", out=tmp_path, **options)
    wanted = {name: score.exact for name, score in whole.items()}
    assert {name: score.exact for name, score in exact.items()} == wanted
    assert {name: score.rouge_l for name, score in exact.items()} == wanted  # the scorer's value
    assert len(prompts) < len(ROWS) / 2
    texts = [row.prediction for row in asked(learnt, out=tmp_path, exact_only=True, max_new_tokens=8)]
    assert Counter(text.endswith("…") for text in texts)[True] > 3


def test_a_merged_copy_shares_what_no_adapter_stands_on_and_leaves_the_model_alone(learnt):
    before = {name: p.clone() for name, p in learnt.model.named_parameters()}
    merged = ready(learnt, "float32").model
    assert merged.model.layers[0].mlp.up_proj.weight is learnt.model.base_model.model.model.layers[0].mlp.up_proj.weight
    half = ready(learnt, "bfloat16").model
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    after = dict(learnt.model.named_parameters())
    assert all(torch.equal(p, after[name]) and p.dtype == after[name].dtype for name, p in before.items())
    ids = torch.arange(3, 20)[None]
    learnt.model.eval()
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, learnt.model(ids).logits, atol=1e-4)


TEXTS = st.text(st.sampled_from("aAbB1-−–.[]+ ,…ΣΟ\u00e9\ufffd"), max_size=6)


@given(TEXTS, TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_no_beginning_that_may_match_is_given_up(beginning, rest, references):
    if not may_match(beginning, references):
        assert exact_match(beginning + rest, references) == 0.0


@given(TEXTS, st.integers(0, 6))
def test_the_beginnings_of_a_reference_may_match(reference, n):
    assert may_match(reference[:n], [reference])
