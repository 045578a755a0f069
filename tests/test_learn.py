"""One stage after another as a practitioner does it: first with a made-up trainer, then with a tiny model."""

import json
import re
from pathlib import Path

import pytest

from inscl.data.mixture import read_mixture
from inscl.errors import ConfigError, InsclError
from inscl.evaluation.scores import RowScores
from inscl.memory.locks import alone
from inscl.memory.memory import Memory
from inscl.models.loading import RECORD
from inscl.replay.budget import Budget
from inscl.stages.learn import REQUEST, learn
from inscl.training.config import stage_config
from support import WordEncoder, WordTagger, rows_of
from test_run import PaperTrainer


class StageTrainer(PaperTrainer):
    """The made-up trainer, for folders that are the model themselves."""

    def train(self, mixture, start, out, *, seed, progress):
        if (out / RECORD).exists():
            return json.loads((out / RECORD).read_text())
        record = super().train(mixture, start, out, seed=seed, progress=progress)
        record["fingerprint"] = str(out)
        (out / RECORD).write_text(json.dumps(record))
        return record


def memory_at(path: Path) -> Memory:
    return Memory(path, encoder=WordEncoder(), tagger=WordTagger())


def month(name: str) -> list[dict[str, object]]:
    return list(rows_of(name, 40))


def learn_month(folder: Path, name: str, trainer=None, **more):
    memory = memory_at(folder / "memory")
    more.setdefault("out", folder / "models" / name)
    return learn(memory, name, month(name), trainer=trainer or StageTrainer(), budget=Budget(5), **more)


def test_three_months_in_a_row(tmp_path):
    first = learn_month(tmp_path, "may", model="base")
    assert first.plan.count == 0
    second = learn_month(tmp_path, "june")
    third = learn_month(tmp_path, "july")
    memory = memory_at(tmp_path / "memory")
    assert [info.name for info in memory.tasks()] == ["may", "june", "july"]
    assert [stage["name"] for stage in memory.stages()] == ["may", "june", "july"]
    assert memory.last_model() == str(tmp_path / "models" / "july")
    assert json.loads((second.folder / REQUEST).read_text())["start"] == str(first.folder)
    assert set(third.before) == set(third.after) == {"may", "june", "july"}
    rows = read_mixture(third.folder / "mixture.jsonl")
    assert {row.task for row in rows if row.replayed} == {"may", "june"}
    logged = {task["name"]: task for task in memory.stages()[-1]["tasks"]}
    assert logged["may"]["count"] == 5
    assert logged["july"]["score"] == third.after["july"].mean("rouge_l")


def test_losses_are_logged_where_the_strategy_looks_at_them(tmp_path):
    class Measuring(StageTrainer):
        def losses(self, model, tasks):
            return {task: [float(len(task))] * len(rows) for task, rows in tasks.items()}

    for name in ("may", "june"):
        learn_month(tmp_path, name, Measuring(), strategy="rgd", **({"model": "base"} if name == "may" else {}))
    learn_month(tmp_path, "july")
    may, june, july = memory_at(tmp_path / "memory").stages()
    losses = {task["name"]: set(task["losses"].values()) for task in june["tasks"]}
    assert losses == {"may": {3.0}, "june": {4.0}}
    assert all("losses" in task for task in may["tasks"])
    assert not any("losses" in task for task in july["tasks"])


def test_before_is_the_model_that_the_stage_starts_from(tmp_path):
    first = learn_month(tmp_path, "may", model="base")
    second = learn_month(tmp_path, "june")
    assert first.before["may"].mean("rouge_l") < first.after["may"].mean("rouge_l")
    assert second.before["may"].mean("rouge_l") == first.after["may"].mean("rouge_l")


@pytest.mark.parametrize("die_at", range(3))
def test_an_interrupted_stage_goes_on_and_says_so(tmp_path, die_at):
    learn_month(tmp_path, "may", model="base")
    with pytest.raises(KeyboardInterrupt):
        learn_month(tmp_path, "june", StageTrainer(die_at))
    assert "june" not in memory_at(tmp_path / "memory")
    said: list[str] = []
    trainer = StageTrainer()
    done = learn_month(tmp_path, "june", trainer, say=said.append)
    assert done.continued
    assert said == [f"going on with the unfinished stage 'june' in {tmp_path / 'models' / 'june'}"]
    assert trainer.calls == 3 - die_at
    assert [stage["name"] for stage in memory_at(tmp_path / "memory").stages()] == ["may", "june"]


@pytest.mark.parametrize("step", ["add", "log_stage"])
def test_a_stage_that_died_while_it_was_remembered_is_logged_once(tmp_path, step, monkeypatch):
    learn_month(tmp_path, "may", model="base")
    real = getattr(Memory, step)

    def die_after(self, *args, **kwargs):
        real(self, *args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(Memory, step, die_after)
    with pytest.raises(KeyboardInterrupt):
        learn_month(tmp_path, "june")
    monkeypatch.undo()
    assert learn_month(tmp_path, "june").continued
    memory = memory_at(tmp_path / "memory")
    assert [stage["name"] for stage in memory.stages()] == ["may", "june"]
    assert len(memory.tasks()) == 2


def test_a_finished_stage_is_not_done_again(tmp_path):
    learn_month(tmp_path, "may", model="base")
    with pytest.raises(ConfigError, match="The stage 'may' is finished: its model is in"):
        learn_month(tmp_path, "may", model="base")
    with pytest.raises(ConfigError, match="holds a finished stage with another strategy"):
        learn_month(tmp_path, "may", model="base", strategy="random")


def test_a_mistake_is_mended_by_the_mended_command(tmp_path):
    class Failing(StageTrainer):
        def train(self, *args, **more):
            raise ConfigError("`peft.type` is 'Lorra'")

    with pytest.raises(ConfigError, match="Lorra"):
        learn_month(tmp_path, "may", Failing(), model="base")
    done = learn_month(tmp_path, "may", model="base", strategy="random", config=stage_config("batch_size: 4"))
    assert not done.continued
    assert done.plan.strategy == "random"


def test_nothing_of_a_start_that_failed_sticks(tmp_path):
    """A model that cannot be loaded fails before training; the next command names none and starts from the last one."""

    class Failing(StageTrainer):
        def score(self, *args, **more):
            raise InsclError("The model 'nobody/nothing' cannot be loaded")

    first = learn_month(tmp_path, "may", model="base")
    with pytest.raises(InsclError, match="cannot be loaded"):
        learn_month(tmp_path, "june", Failing(), model="nobody/nothing")
    assert not (tmp_path / "models" / "june").exists()
    done = learn_month(tmp_path, "june")
    assert not done.continued
    assert json.loads((done.folder / REQUEST).read_text())["start"] == str(first.folder)


def test_an_unfinished_stage_of_an_older_release_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        learn_month(tmp_path, "may", StageTrainer(1), model="base")
    request = tmp_path / "models" / "may" / REQUEST
    known = json.loads(request.read_text())
    del known["config"]["padding_free"]  # a setting that came later
    request.write_text(json.dumps(known))
    assert learn_month(tmp_path, "may", model="base").continued


def test_one_command_at_a_time_works_on_a_stage(tmp_path):
    with alone(tmp_path / "models" / "may"), pytest.raises(ConfigError, match="Another command is at work in"):
        learn_month(tmp_path, "may", model="base", out=tmp_path / "models" / "may")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty and holds no stage"):
        learn_month(tmp_path, "may", model="base", out=tmp_path / "mine")


def test_the_first_stage_needs_a_model(tmp_path):
    with pytest.raises(ConfigError, match="Name one with --model"):
        learn_month(tmp_path, "may")


def test_settings_of_a_stage_are_checked_like_those_of_a_stream():
    assert stage_config("training: {learning_rate: 1e-3}", batch_size=4, training={"num_train_epochs": 1}).training == {
        "learning_rate": 1e-3,
        "num_train_epochs": 1,
    }
    with pytest.raises(ConfigError, match=r"stage.yaml has 2 problems:\n  line 1: .*\n  line 2: "):
        stage_config("batch_sise: 8\ntraining: {seed: 3}")


def test_rows_and_means_survive_the_file():
    scores = RowScores({"rouge_l": [0.0, 1.0]}, ["a", "b"], 1)
    assert RowScores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    from tiny import save_model

    return save_model(tmp_path_factory.mktemp("model"))


def months_of_files(folder: Path) -> None:
    for name in ("may", "june"):
        lines = [json.dumps({**row, "output": row["outputs"][0]}) for row in month(name)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "stage.yaml").write_text("training: {learning_rate: 1e-2, num_train_epochs: 1}\ndtype: float32\n")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder with two months of files, and an encoder that needs no model."""
    from inscl.cli import main, options

    months_of_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "_open_memory", lambda path, *_, **__: memory_at(Path(path)))

    def run_command(*words: str) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run_command


def test_learning_through_the_command_line_with_a_real_trainer(command, tiny, tmp_path):
    stage = ("--config", "stage.yaml", "--batch-size", "8", "--budget", "5", "--test-rows", "6", "--json")
    code, out, err = command("learn", "may", "may.jsonl", "--model", tiny, *stage)
    assert code == 0, err
    code, out, err = command("learn", "june", "june.jsonl", *stage)
    assert code == 0, err
    done = json.loads(out)
    assert set(done["after"]) == {"may", "june"}
    assert done["replayed"] == 5
    assert done["after"]["may"]["loss"] > 0
    assert command("learn", "june", "june.jsonl", *stage)[0] == 2
    code, out, err = command("evaluate", "--test-rows", "6", "--config", "stage.yaml", "--json")
    assert code == 0, err
    assert {task: s["score"] for task, s in json.loads(out).items()} == {
        task: s["score"] for task, s in done["after"].items()
    }
    assert json.loads(out)["may"]["loss"] == done["after"]["may"]["loss"]


def test_one_row_of_each_form_is_shown_on_request(command, tiny, tmp_path):
    asked = ("learn", "may", "may.jsonl", "--model", tiny, "--dry-run")
    code, out, err = command(*asked, "--show-row")
    assert code == 0, err
    assert "plain row of task 'may': " in err
    assert " tokens, those in «» are trained" in err
    answers = [row["outputs"][0] for row in month("may")]
    shown = "".join(re.findall("«(.*?)»", err.partition("are trained")[2], re.DOTALL))
    assert shown.removesuffix("<|im_end|>") in answers
    assert "row of task" not in out + command(*asked)[2]
    assert not (tmp_path / "memory").exists()


def test_a_dry_run_shows_plan_and_cost_and_changes_nothing(command, tmp_path):
    code, out, err = command("learn", "may", "may.jsonl", "--dry-run", "--epochs", "2", "--batch-size", "8")
    assert code == 0, err
    assert "There is no earlier task" in out
    assert "Training: 2 epochs, " in out
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "memory").exists()
