"""Targets that are partly what a stage's start says, against torch's own divergence and in whole stages."""

import copy
from dataclasses import replace

import pytest
import torch

from inscl.data.mixture import MixtureRow, write_mixture
from inscl.errors import ConfigError
from inscl.models.collator import Collator
from inscl.models.loading import load
from inscl.models.logits import answer_logits
from inscl.training.batches import tokenise_mixture
from inscl.training.config import stage_config
from inscl.training.loss import answer_losses
from inscl.training.soft import SoftTargets
from inscl.training.train import train_stage
from tiny import mixture_rows, save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(save_model(tmp_path_factory.mktemp("model")), dtype="float32")


def softened(rows: list[MixtureRow], share: float) -> list[MixtureRow]:
    return [replace(row, soft=share if row.replayed else 0.0) for row in rows]


def moved(start: torch.nn.Module) -> torch.nn.Module:
    """A model that is no longer where it started."""
    torch.manual_seed(1)
    there = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return there


@pytest.mark.parametrize("padding_free", [False, True])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_gradient_is_that_of_nll_and_divergence(model, monkeypatch, share, padding_free):
    """Against (1 - s) NLL + s KL(start || model), both from torch, over the whole vocabulary."""
    monkeypatch.setattr("inscl.training.soft._LIKELIEST", 10**6)
    rows = tokenise_mixture(softened(mixture_rows(9), share), model.tokenizer, 128).rows
    plain = Collator(model.tokenizer.pad_token_id, weighted=False, padding_free=padding_free)
    soft = SoftTargets(model.model, rows, plain)
    batch = replace(plain, soft=soft)([vars(row) for row in rows])
    there = moved(model.model)
    ours = torch.autograd.grad(answer_losses(there, batch).sum(), list(there.parameters()))

    logits, start = answer_logits(there, batch), answer_logits(model.model, batch).detach()
    given = batch["labels"].reshape(-1)[batch["answer_index"] + 1]
    nll = torch.nn.functional.cross_entropy(logits, given, reduction="none")
    divergence = torch.nn.functional.kl_div(
        logits.log_softmax(-1), start.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    shares = torch.tensor([row.soft for row in rows for _ in range(row.answers)])
    expected = torch.autograd.grad(((1 - shares) * nll + shares * divergence).sum(), list(there.parameters()))
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_kept_shares_sum_to_one_and_are_the_likeliest(model):
    rows = tokenise_mixture(softened(mixture_rows(6), 1.0), model.tokenizer, 128).rows
    plain = Collator(model.tokenizer.pad_token_id, weighted=False)
    found = SoftTargets(model.model, rows, plain).of([vars(row) for row in rows])
    assert found["target_ids"].shape == (sum(row.answers for row in rows), 65)
    torch.testing.assert_close(found["target_shares"].sum(1), torch.ones(len(found["target_ids"])))
    whole = answer_logits(model.model, plain([vars(row) for row in rows])).softmax(-1)
    soft = torch.tensor([bool(row.soft) for row in rows for _ in range(row.answers)])
    assert (found["target_shares"][soft, 1:] >= whole.gather(1, found["target_ids"][:, 1:])[soft] - 1e-6).all()
    assert found["target_shares"][~soft, 0].tolist() == [1.0] * int((~soft).sum())


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_stage_with_soft_targets_stays_nearer_to_its_start(tmp_path, frozen):
    """By TRL and, where the bottom is kept, by the plain loop; and nothing soft is the hard loss, bit for bit."""
    base = save_model(tmp_path / "base")
    text = f"batch_size: 8\ndtype: float32\nprotect: {{freeze_bottom_layers: {frozen}}}"
    config = stage_config(f"{text}\ntraining: {{learning_rate: 5e-3, num_train_epochs: 3, use_cpu: true}}")
    away = {}
    for share in (0.0, 1.0):
        write_mixture(tmp_path / f"{share}.jsonl", softened(mixture_rows(), share))
        trained = load(base, dtype="float32")
        train_stage(tmp_path / f"{share}.jsonl", trained, tmp_path / str(share), config)
        away[share] = divergence_on_replayed(load(base, dtype="float32"), trained)
    assert away[1.0] < 0.5 * away[0.0]


def divergence_on_replayed(start, trained) -> float:
    rows = tokenise_mixture([row for row in mixture_rows() if row.replayed], start.tokenizer, 128).rows
    batch = Collator(start.tokenizer.pad_token_id, weighted=False)([vars(row) for row in rows])
    with torch.no_grad():
        said = [answer_logits(model.model, batch).log_softmax(-1) for model in (start, trained)]
    return float(torch.nn.functional.kl_div(said[1], said[0], log_target=True, reduction="batchmean"))


def test_soft_targets_need_the_plain_loss(tmp_path):
    base = save_model(tmp_path / "base")
    write_mixture(tmp_path / "mixture.jsonl", softened(mixture_rows(), 0.5))
    config = stage_config("training: {loss_type: dft, use_cpu: true}\ndtype: float32")
    with pytest.raises(ConfigError, match=r"'\+kl' needs the plain loss"):
        train_stage(tmp_path / "mixture.jsonl", base, tmp_path / "out", config)
