"""A stage against a plain PyTorch loop; any batch split, two processes, kills and adapters give the same."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny
from inscl.data.mixture import MixtureRow
from inscl.errors import ConfigError, DataError, InsclError
from inscl.models.loading import RECORD, load
from inscl.stages.trainer import ModelTrainer
from inscl.training import checkpoints
from inscl.training.batches import order_of_steps, tokenise_mixture
from inscl.training.config import Protect, StageConfig, stage_config
from inscl.training.fields import OWNED, checked, shares
from inscl.training.train import train_stage

WORKER = Path(__file__).with_name("stage_worker.py")
TRAINING = {"learning_rate": 1e-3, "num_train_epochs": 2, "lr_scheduler_type": "constant"}
COMMON = {"batch_size": 8, "dtype": "float32", "seed": 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save_model(tmp_path_factory.mktemp("train") / "model")


def stage(mixture, model, out, training=(), **settings):
    settings = {**COMMON, **settings}
    call = {name: settings.pop(name) for name in ("seed", "progress", "checkpoint_every") if name in settings}
    settings["protect"] = {name: settings.pop(name) for name in Protect.model_fields if name in settings}
    return train_stage(mixture, model, out, stage_config(training={**TRAINING, **dict(training)}, **settings), **call)


def weights(folder):
    return {name: p.detach().clone() for name, p in load(folder).model.named_parameters()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def plain_loop(model, rows, order, *, l2=0.0, ema=0.0, by_row=False):
    """AdamW on one row at a time, the loss divided by the step's answer tokens or rows: no TRL, no padding."""
    loaded = load(model)
    net, losses = loaded.model.train(), []
    tokens = tokenise_mixture(rows, loaded.tokenizer, 512).rows
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    averages = {name: torch.zeros_like(p) for name, p in start.items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0)
    items = [1 if by_row else row.answers for row in tokens]
    mean = sum(r.weight * n for r, n in zip(rows, items, strict=True)) / sum(items)
    for step in order:
        count = sum(items[i] for i in step)
        total = 0.0
        for i in step:
            logits = net(torch.tensor([tokens[i].input_ids])).logits[0, :-1]
            each = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[i].labels[1:]), reduction="sum")
            loss = each * rows[i].weight / mean / count / (tokens[i].answers if by_row else 1)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for name, p in net.named_parameters():
            p.grad += l2 * (p.detach() - start[name])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        for name, p in net.named_parameters():
            averages[name] = ema * averages[name] + (1 - ema) * p.detach()
    average = {name: total / (1 - ema ** len(order)) for name, total in averages.items()}
    return losses, average if ema else {name: p.detach() for name, p in net.named_parameters()}


def weighted_rows():
    return [MixtureRow(r.task, r.example, r.replayed, 0.5 if r.replayed else 1.0) for r in tiny.mixture_rows()]


@pytest.mark.parametrize("loss", ["token", "row"])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_are_those_of_a_plain_loop(model, tmp_path, weighted, loss):
    rows = weighted_rows() if weighted else tiny.mixture_rows()
    record = stage(tiny.mixture_file(tmp_path, rows), model, tmp_path / "out", loss=loss)
    lengths = [len(t.input_ids) for t in tokenise_mixture(rows, load(model).tokenizer, 512).rows]
    order = order_of_steps(lengths, batch_size=8, epochs=2, max_steps=-1, seed=5)
    losses, expected = plain_loop(model, rows, order, by_row=loss == "row")
    assert record.losses == pytest.approx(losses, abs=1e-5)
    assert record.steps == len(order) == 6
    for name, p in weights(tmp_path / "out").items():
        assert torch.allclose(p, expected[name], atol=1e-4)


@pytest.mark.parametrize("loss", ["token", "row"])
def test_a_weight_is_no_learning_rate(model, tmp_path, loss):
    """Doubling all weights changes nothing, bit for bit."""
    once, twice = (
        [MixtureRow(r.task, r.example, r.replayed, factor * r.weight) for r in weighted_rows()] for factor in (1, 2)
    )
    (tmp_path / "twice").mkdir()
    a = stage(tiny.mixture_file(tmp_path, once), model, tmp_path / "a", loss=loss)
    b = stage(tiny.mixture_file(tmp_path / "twice", twice), model, tmp_path / "b", loss=loss)
    assert a.losses == b.losses
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_a_mixture_in_which_nothing_counts_is_refused(model, tmp_path):
    rows = [MixtureRow(r.task, r.example, weight=0.0) for r in tiny.mixture_rows()]
    with pytest.raises(DataError, match="weight above 0"):
        stage(tiny.mixture_file(tmp_path, rows), model, tmp_path / "out")


def test_ways_to_stay_near_the_start_are_those_of_a_plain_loop(model, mixture, tmp_path):
    rows = tiny.mixture_rows()
    record = stage(mixture, model, tmp_path / "out", l2_start=2.0, ema=0.5)
    lengths = [len(t.input_ids) for t in tokenise_mixture(rows, load(model).tokenizer, 512).rows]
    order = order_of_steps(lengths, batch_size=8, epochs=2, max_steps=-1, seed=5)
    losses, expected = plain_loop(model, rows, order, l2=2.0, ema=0.5)
    assert record.losses == pytest.approx(losses, abs=1e-5)
    for name, p in weights(tmp_path / "out").items():
        assert torch.allclose(p, expected[name], atol=1e-4)


def test_interpolation_mixes_start_and_end(model, mixture, tmp_path):
    stage(mixture, model, tmp_path / "plain")
    stage(mixture, model, tmp_path / "mixed", interpolate=0.25)
    start, end, mixed = weights(model), weights(tmp_path / "plain"), weights(tmp_path / "mixed")
    for name in start:
        assert torch.allclose(mixed[name], 0.25 * start[name] + 0.75 * end[name], atol=1e-6)


def test_frozen_layers_stay_and_thaw_again(model, mixture, tmp_path):
    loaded = load(model)
    stage(mixture, loaded, tmp_path / "out", freeze_bottom_layers=1)
    start, end = weights(model), weights(tmp_path / "out")
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed
    assert not [name for name in changed if "layers.0." in name or "embed" in name]
    assert all(p.requires_grad for p in loaded.model.parameters())
    with pytest.raises(ConfigError, match="below the model's 2 layers"):
        stage(mixture, model, tmp_path / "no", freeze_bottom_layers=2)


def test_a_batch_of_8_equals_8_of_1_and_changes_nothing_else(model, mixture, tmp_path):
    one = stage(mixture, model, tmp_path / "a", {"per_device_train_batch_size": 8})
    eight = stage(mixture, model, tmp_path / "b", {"per_device_train_batch_size": 1})
    assert eight.losses == pytest.approx(one.losses, abs=1e-5)
    assert (one.fingerprint, one.tokens, one.answer_tokens) == (eight.fingerprint, eight.tokens, eight.answer_tokens)


@pytest.mark.parametrize("weighted", [False, True])
def test_without_padding_a_stage_is_the_same(model, tmp_path, weighted):
    """Each batch's positions restart with each row, so that no row sees another."""
    mixture = tiny.mixture_file(tmp_path, weighted_rows() if weighted else None)
    loss = "row" if weighted else "token"
    padded = stage(mixture, model, tmp_path / "padded", loss=loss)
    for rows in (8, 2):  # one step as one sequence, and as four
        at_once = {"per_device_train_batch_size": rows}
        free = stage(mixture, model, tmp_path / f"free-{rows}", at_once, padding_free=True, loss=loss)
        assert free.losses == pytest.approx(padded.losses, abs=1e-5)
        assert free.tokens == padded.tokens


def test_a_model_in_which_rows_would_leak_is_refused(model, mixture, tmp_path, monkeypatch):
    loaded = load(model)
    whole = type(loaded.model).forward
    monkeypatch.setattr(  # a model that takes positions and ignores them
        type(loaded.model), "forward", lambda self, *a, position_ids=None, **k: whole(self, *a, **k)
    )
    with pytest.raises(ConfigError, match="LlamaForCausalLM lets rows in one sequence see each other"):
        stage(mixture, loaded, tmp_path / "out", padding_free=True)
    assert stage(mixture, loaded, tmp_path / "out").steps == 6


def launch(arguments, settings):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments, str(WORKER), json.dumps(settings)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def settings_for(mixture, model, out, **more):
    return {"mixture": str(mixture), "model": str(model), "out": str(out), "training": TRAINING, **COMMON, **more}


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"loss": "row"}, {"peft": {"type": "lora", "r": 4}}], ids=["whole", "lora"])
def test_two_processes_equal_one(model, mixture, tmp_path, more):
    one = stage(mixture, model, tmp_path / "one", **more)
    arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = launch(arguments, settings_for(mixture, model, tmp_path / "two", **more))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    two = json.loads((tmp_path / "two" / RECORD).read_text())
    assert two["losses"] == pytest.approx(one.losses, abs=1e-5)
    assert (two["tokens"], two["fingerprint"]) == (one.tokens, one.fingerprint)
    for (name, a), b in zip(weights(tmp_path / "one").items(), weights(tmp_path / "two").values(), strict=True):
        assert torch.allclose(a, b, atol=1e-4), name


class StoppedError(Exception):
    """Stands for a kill between two steps."""


def interrupted_at(step):
    def tell(now, steps, loss):
        if now == step:
            raise StoppedError

    return tell


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dtype": "bfloat16"},
        {"ema": 0.5, "l2_start": 0.1},
        {"peft": {"type": "lora", "r": 4, "lora_dropout": 0.1}},
        {"peft": {"type": "osf"}},
    ],
    ids=["float32", "bfloat16", "average", "lora", "osf"],
)
def test_a_resumed_stage_ends_with_the_same_bits(model, mixture, tmp_path, settings):
    whole = stage(mixture, model, tmp_path / "whole", **settings)
    with pytest.raises(StoppedError):
        stage(mixture, model, tmp_path / "cut", **settings, checkpoint_every=2, progress=interrupted_at(5))
    seen = []
    again = stage(mixture, model, tmp_path / "cut", **settings, progress=lambda step, *_: seen.append(step))
    assert seen == [5, 6]  # from the checkpoint of step 4
    assert again.losses == whole.losses
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert not (tmp_path / "cut" / checkpoints.FOLDER).exists()
    assert not [p for p in (tmp_path / "cut").rglob("*") if p.suffix in (".pt", ".pth", ".bin", ".pkl")]


def test_an_incomplete_checkpoint_is_deleted_and_the_one_before_is_used(model, mixture, tmp_path):
    whole = stage(mixture, model, tmp_path / "whole")
    with pytest.raises(StoppedError):
        stage(mixture, model, tmp_path / "cut", checkpoint_every=2, progress=interrupted_at(5))
    newest = tmp_path / "cut" / checkpoints.FOLDER / "checkpoint-4"
    (newest / "optimizer.pt").write_bytes(b"half")  # the mark lists sizes
    unmarked = newest.with_name("checkpoint-6")
    unmarked.mkdir()
    seen = []
    again = stage(mixture, model, tmp_path / "cut", progress=lambda step, *_: seen.append(step))
    assert seen[0] == 1
    assert again.losses == whole.losses


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(model, mixture, tmp_path):
    """SIGKILL after a random step while every step writes a checkpoint, until the stage is through."""
    whole = stage(mixture, model, tmp_path / "whole")
    rng, kills = random.Random(0), 0
    for _ in range(12):
        process = launch([], settings_for(mixture, model, tmp_path / "cut", checkpoint_every=1))
        steps = 0
        for line in process.stdout:
            steps += line.startswith("step")
            if kills < 3 and steps == 2:
                try:
                    process.wait(timeout=rng.uniform(0, 0.3))  # within the next steps and their checkpoints
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                break
        process.communicate(timeout=120)
        if (tmp_path / "cut" / RECORD).exists():
            break
    assert kills
    assert json.loads((tmp_path / "cut" / RECORD).read_text())["losses"] == whole.losses
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_finished_stage_is_not_trained_again(model, mixture, tmp_path):
    first = stage(mixture, model, tmp_path / "out")
    loaded = load(model)
    assert stage(mixture, loaded, tmp_path / "out", progress=interrupted_at(1)) == first
    assert same(dict(loaded.model.named_parameters()), weights(tmp_path / "out"))  # the model in memory follows
    with pytest.raises(InsclError, match="another mixture, model or configuration"):
        stage(mixture, model, tmp_path / "out", seed=6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stages_in_memory_equal_stages_through_folders(model, mixture, tmp_path, dtype):
    loaded = load(model)
    for name in ("a", "b"):
        stage(mixture, loaded, tmp_path / f"memory-{name}", dtype=dtype)
    stage(mixture, model, tmp_path / "folder-a", dtype=dtype)
    folder = stage(mixture, tmp_path / "folder-a", tmp_path / "folder-b", dtype=dtype)
    assert json.loads((tmp_path / "memory-b" / RECORD).read_text())["losses"] == folder.losses
    assert same(weights(tmp_path / "memory-b"), weights(tmp_path / "folder-b"))


@pytest.mark.parametrize(
    ("peft", "adapter", "folders"),
    [
        ({"type": "LoraConfig", "r": 4}, "continue", 1),
        ({"type": "lora", "r": 4}, "merge", 0),
        ({"type": "lora", "r": 4}, "new", 2),
        ({"type": "osf"}, "continue", 0),  # decomposed anew, so merged
    ],
)
def test_adapters_over_two_stages(model, mixture, tmp_path, peft, adapter, folders):
    loaded = load(model)
    settings = {"peft": peft, "adapter": adapter, "training": {"learning_rate": 1e-2}}
    stage(mixture, loaded, tmp_path / "a", **settings)
    memory = stage(mixture, loaded, tmp_path / "b", **settings)
    stage(mixture, model, tmp_path / "fa", **settings)
    folder = stage(mixture, tmp_path / "fa", tmp_path / "fb", **settings)
    assert folder.losses == pytest.approx(memory.losses, abs=1e-5)
    assert folder.losses[-1] < folder.losses[0]
    assert len(list((tmp_path / "b").glob("adapters/*"))) == folders
    again, ids = load(tmp_path / "b"), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(again.model(ids).logits, loaded.model.eval()(ids).logits, atol=1e-3)


def test_a_continued_adapter_keeps_its_numbers(model, mixture, tmp_path):
    stage(mixture, model, tmp_path / "a", peft={"type": "lora", "r": 4})
    with pytest.raises(ConfigError, match=r"`peft.r` is 8, but the adapter .* has 4"):
        stage(mixture, tmp_path / "a", tmp_path / "b", peft={"type": "lora", "r": 8})


def test_what_was_cut_and_left_out_is_counted(model, tmp_path):
    rows = tiny.mixture_rows(8)
    long = tiny.Example("Say the word again.", "one " * 300, ("one",))
    hopeless = tiny.Example("Say the word again.", "one", ("one " * 300,))
    rows += [MixtureRow("long", long), MixtureRow("hopeless", hopeless)]
    record = stage(tiny.mixture_file(tmp_path, rows), model, tmp_path / "out", max_length=150)
    assert (record.truncated, record.skipped) == ({"long": 1}, {"hopeless": 1})
    assert record.replayed_share == pytest.approx(3 / 9)
    with pytest.raises(DataError, match="None of the 1 rows fits"):
        stage(tiny.mixture_file(tmp_path, rows[-1:]), model, tmp_path / "no", max_length=150)


def test_a_loss_that_is_not_finite_stops_and_names_the_step(model, mixture, tmp_path):
    loaded = load(model)
    with torch.no_grad():
        loaded.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InsclError, match=r"Stage 'out': the loss is nan at step 1 of 6"):
        stage(mixture, loaded, tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (OSError(28, "No space left on device"), "the disk is full"),
    ],
)
def test_memory_or_disk_running_out_is_one_line_and_resumable(model, mixture, tmp_path, error, message):
    def fail(step, steps, loss):
        if step == 4:
            raise error

    with pytest.raises(InsclError, match=message) as caught:
        stage(mixture, model, tmp_path / "out", checkpoint_every=2, progress=fail)
    assert "\n" not in str(caught.value)
    seen = []
    stage(mixture, model, tmp_path / "out", progress=lambda step, *_: seen.append(step))
    assert seen[0] == 3


def test_fields_that_inscl_owns_are_refused_together_with_reasons(model, mixture, tmp_path):
    with pytest.raises(ConfigError) as caught:
        stage(mixture, model, tmp_path / "out", {"max_length": 5, "packing": True, "no_field": 1})
    assert all(
        part in str(caught.value) for part in ("only the input is cut", "`training.packing`", "`training.no_field`")
    )


def test_every_owned_field_exists():
    from trl import SFTConfig

    assert set(OWNED) <= set(SFTConfig.__dataclass_fields__)
    with pytest.raises(ConfigError):
        checked({"seed": 1})


@pytest.mark.parametrize(
    ("arguments", "shared"),
    [((32, 1, 32), (32, 1)), ((32, 2, 6), (4, 4)), ((10, 1, 8), (5, 2)), ((3, 1, 2), (1, 3))],
)
def test_the_batch_is_shared_out_whole(arguments, shared):
    assert shares(*arguments, strict=False) == shared


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ConfigError, match="over 3 processes"):
        shares(32, 3, 8, strict=False)
    with pytest.raises(ConfigError, match="does not divide the 32 rows"):
        shares(32, 1, 5, strict=True)


def test_every_epoch_sees_every_row_once():
    order = order_of_steps(list(range(10)), batch_size=4, epochs=3, max_steps=-1, seed=1)
    assert [len(step) for step in order] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(i for step in order[3 * epoch : 3 * epoch + 3] for i in step) == list(range(10))
    assert order[:3] != order[3:6]
    assert len(order_of_steps([1] * 10, batch_size=4, epochs=1, max_steps=7, seed=1)) == 7


def test_a_stage_whose_process_died_right_after_its_record_leaves_no_checkpoint(tmp_path):
    (tmp_path / checkpoints.FOLDER / "checkpoint-3").mkdir(parents=True)
    (tmp_path / RECORD).write_text('{"tokens": 7}')
    trainer = ModelTrainer(StageConfig(), answers=lambda task: (), chat=lambda: False)
    again = trainer.train(tmp_path / "mixture.jsonl", "base", tmp_path, seed=0, progress=lambda *_: None)
    assert again == {"tokens": 7}
    assert not (tmp_path / checkpoints.FOLDER).exists()
