"""A TRL script made continual: the task is remembered when training ended well, and only then."""

import importlib.util
import runpy
from functools import partial
from pathlib import Path

import pytest

import inscl
from inscl.data.split import Shares
from inscl.errors import ConfigError
from inscl.memory.memory import Memory
from inscl.replay.planner import Replay, plan
from inscl.training.tracking import _LOGGERS, Tracked
from support import WordEncoder, WordTagger, rows_of

pytest.importorskip("trl", reason="trl (extra `train`) is not installed")

SCRIPT = Path(__file__).parents[1] / "examples" / "trl_script.py"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    from tiny import save_model

    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def memory(tmp_path) -> Memory:
    made = Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())
    made.add("may", list(rows_of("may", 30)))
    return made


def trainer_of(tiny: Path, out: Path, replay: Replay, *callbacks: object, **settings: object):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    usual = {"max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1, "report_to": "none"}
    return SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny),
        args=SFTConfig(str(out), use_cpu=True, bf16=False, **{**usual, **settings}),
        train_dataset=replay.mixture(),
        callbacks=list(callbacks),
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )


def same_as_added(folder: Path, name: str, data: object, **options: object) -> str:
    """Content of the task in a memory that was given the data themselves."""
    other = Memory(folder, encoder=WordEncoder(), tagger=WordTagger())
    return other.add(name, data, **options).info.content


def test_training_that_ended_is_remembered_scored_and_logged(tiny, tmp_path, memory):
    data = list(rows_of("june", 30))
    replay = plan(memory, "june", data, budget=5)
    callback = inscl.ContinualCallback(replay, rows=3)
    trainer = trainer_of(tiny, tmp_path / "out", replay, callback)
    trainer.train()
    assert {name: score.n for name, score in callback.scores.items()} == {"may": 3, "june": 3}
    assert callback.added.status == "added"
    task = memory.task("june").info
    assert task.content == replay.plan.new.content == same_as_added(tmp_path / "other", "june", data)
    assert (task.given, task.shares) == ([], replay.new.info.shares)
    (stage,) = memory.stages()
    assert (stage["name"], stage["replayed"], memory.last_model()) == ("june", 5, str(tmp_path / "out"))
    logged = next(entry for entry in trainer.state.log_history if "average_performance" in entry)
    assert logged["task/june/rouge_l"] == callback.scores["june"].rouge_l
    assert trainer.model.training  # the script goes on with the model as it was


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ([{**row, "split": "test" if i % 5 == 0 else None} for i, row in enumerate(rows_of("june", 30))], {}),
        ([{**row, "split": "train"} for row in rows_of("june", 30)], {}),  # no side that the hash could give
        (list(rows_of("june", 30)), {"shares": Shares.parse("50/0/50")}),
        ([{**row, "tags": ["mine"]} for row in rows_of("june", 30)], {}),
    ],
    ids=["test rows", "training rows", "shares", "tags"],
)
def test_the_task_is_remembered_as_it_was_planned(tmp_path, memory, data, options):
    replay = plan(memory, "june", data, budget=2, **options)
    inscl.ContinualCallback(replay)._remember()
    same_as_added(tmp_path / "other", "june", data, **options)
    other = Memory(tmp_path / "other", encoder=WordEncoder(), tagger=WordTagger())
    for found in (memory.task("june").info, other.task("june").info):
        assert (found.content, found.tags) == (replay.new.info.content, replay.new.info.tags)


def test_backward_transfer_is_against_what_was_logged_when_the_task_was_learnt(tiny, tmp_path, memory):
    memory.log_stage({"name": "may", "scorer": "rouge_l", "tasks": [{"name": "may", "score": 0.75}]})
    replay = plan(memory, "june", list(rows_of("june", 30)), budget=5)
    callback = inscl.ContinualCallback(replay, rows=3)
    trainer = trainer_of(tiny, tmp_path / "out", replay, callback)
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "backward_transfer" in entry)
    assert logged["backward_transfer"] == pytest.approx(callback.scores["may"].rouge_l - 0.75)


def failing_at(step: int, error: BaseException) -> object:
    from transformers import TrainerCallback

    class Failing(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == step:
                raise error

    return Failing()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_training_that_did_not_end_changes_nothing(tiny, tmp_path, memory, error):
    replay = plan(memory, "june", list(rows_of("june", 30)), budget=5)
    callback = inscl.ContinualCallback(replay, rows=3)
    with pytest.raises(type(error)):
        trainer_of(tiny, tmp_path / "out", replay, callback, failing_at(2, error)).train()
    assert [info.name for info in memory.tasks()] == ["may"]
    assert memory.stages() == []
    assert (callback.scores, callback.added) == ({}, None)


def test_a_loss_that_is_not_finite_is_not_remembered(tiny, tmp_path, memory, caplog):
    replay = plan(memory, "june", list(rows_of("june", 30)), budget=5)
    trainer_of(tiny, tmp_path / "out", replay, inscl.ContinualCallback(replay, rows=3), learning_rate=1e30).train()
    assert "the loss is not finite, so task 'june' is not remembered" in caplog.text
    assert "june" not in memory


@pytest.mark.parametrize(
    ("broken", "said", "remembered"),
    [
        ("inscl.stages.callback.generate_and_score", "the earlier tasks were not scored", True),
        ("inscl.memory.memory.Memory.add", "task 'june' was not remembered; do it with `memory.add`", False),
    ],
)
def test_a_failure_at_the_end_does_not_cost_the_trained_model(
    tiny, tmp_path, memory, monkeypatch, caplog, broken, said, remembered
):
    replay = plan(memory, "june", list(rows_of("june", 30)), budget=5)
    trainer = trainer_of(tiny, tmp_path / "out", replay, inscl.ContinualCallback(replay, rows=1), max_steps=1)

    def failing(*_: object, **__: object):
        raise OSError("no space")

    monkeypatch.setattr(broken, failing)
    trainer.train()
    assert said in caplog.text
    assert ("june" in memory) is remembered


def test_a_task_that_is_remembered_already_stays_and_nothing_need_be_scored(tiny, tmp_path, memory):
    replay = plan(memory, "may", budget=0)
    callback = inscl.ContinualCallback(replay, rows=0)
    trainer_of(tiny, tmp_path / "out", replay, callback, max_steps=1).train()
    assert callback.added.status == "unchanged"
    assert callback.scores == {}


def test_settings_are_checked_before_training(memory):
    replay = plan(memory, "may", budget=0)
    with pytest.raises(ConfigError, match="`rows` is -1"):
        inscl.ContinualCallback(replay, rows=-1)
    with pytest.raises(ConfigError, match="`scorer` must be one of rouge_l, superni, exact_match, got 'bleu'"):
        inscl.ContinualCallback(replay, scorer="bleu")


def test_adapters_are_scored_and_stay_adapters(tiny, tmp_path, memory):
    from peft import LoraConfig, get_peft_model

    replay = plan(memory, "june", list(rows_of("june", 30)), budget=5)
    callback = inscl.ContinualCallback(replay, rows=2)
    trainer = trainer_of(tiny, tmp_path / "out", replay, callback, max_steps=1)
    trainer.model = trainer.model_wrapped = get_peft_model(trainer.model, LoraConfig(r=2, target_modules=["q_proj"]))
    trainer.train()
    assert set(callback.scores) == {"may", "june"}
    assert hasattr(trainer.model, "peft_config")


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_scores_go_to_the_tracker_of_the_loss(tiny, tmp_path, memory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    replay = plan(memory, "june", list(rows_of("june", 30)), budget=5)
    callback = inscl.ContinualCallback(replay, rows=2)
    trainer_of(tiny, tmp_path / "out", replay, callback, report_to="tensorboard").train()
    (run,) = (tmp_path / "out" / "runs").iterdir()
    events = EventAccumulator(str(run)).Reload()
    assert {"train/loss", "task/may/rouge_l", "task/june/rouge_l", "average_performance"} <= {*events.Tags()["scalars"]}


def test_a_made_up_tracker_gets_the_scores_with_the_last_step(tiny, tmp_path, memory, monkeypatch):
    found = []
    monkeypatch.setitem(_LOGGERS, "memo", lambda place, metrics, step: found.append((place, metrics, step)))
    replay = plan(memory, "june", list(rows_of("june", 30)), budget=5)
    monkeypatch.setattr(Tracked, "just_opened", lambda *_: Tracked({"memo": {"run": "r"}}))
    trainer_of(tiny, tmp_path / "out", replay, inscl.ContinualCallback(replay, rows=2)).train()
    ((place, metrics, step),) = found
    assert (place, step) == ({"run": "r"}, 2)
    assert {"task/may/rouge_l", "task/may/exact_match", "task/may/loss", "average_performance"} <= set(metrics)


def test_the_example_script_learns_two_months(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inscl, "Memory", partial(Memory, encoder=WordEncoder(), tagger=WordTagger()), raising=False)
    months = SCRIPT.parent / "months"
    model: str = str(tiny)
    for month in ("may", "june"):
        main = runpy.run_path(str(SCRIPT))["main"]
        main(model, month, str(months / f"{month}.jsonl"))
        model = f"models/{month}"
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out if "ROUGE-L" in line] == ["may", "may", "june"]
    memory = inscl.Memory("memory")
    assert [(stage["name"], stage["replayed"]) for stage in memory.stages()] == [("may", 0), ("june", 4)]
