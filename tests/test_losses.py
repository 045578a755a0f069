"""The loss on given answers, against transformers' own."""

import pytest
import torch

from inscl.data.example import Example
from inscl.data.template import render
from inscl.evaluation.losses import row_losses
from inscl.models.loading import load
from tiny import save_model


def test_row_losses_are_those_that_the_model_gives_for_its_labels(tmp_path):
    loaded = load(save_model(tmp_path / "model"), dtype="float32")
    rows = [
        Example("Say the word again.", "one two", ("one two",)),
        Example("Count the letters.", "", ("3",)),
        Example("Say the word again.", "seven, eight and nine", ("seven",)),
    ]
    expected = []
    for row in rows:
        prompt, answer = (loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in render(row))
        ids = torch.tensor([[*prompt, *answer, loaded.tokenizer.eos_token_id]])
        labels = ids.clone()
        labels[0, : len(prompt)] = -100
        expected.append(loaded.model(input_ids=ids, labels=labels).loss.item())
    assert row_losses(loaded, rows, max_length=128, chat=False) == pytest.approx(expected, rel=1e-4)
