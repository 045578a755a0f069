"""Scores go to the tracker runs that have the loss: with made-up trackers, then with those that are installed."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.errors import ConfigError
from inscl.evaluation.scores import RowScores
from inscl.stages.metrics import metric_name, metrics_so_far, task_metrics
from inscl.training import tracking
from inscl.training.tracking import Tracked, check_trackers
from test_learn import learn_month
from test_run import PaperTrainer, config_of, run_with, values

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@given(NAMES, NAMES)
def test_any_task_name_becomes_a_name_that_mlflow_takes(one, other):
    name = metric_name(one)
    assert re.fullmatch(r"[/\w.\- :]+", name, re.ASCII)  # mlflow.utils.validation
    path = f"task/{name}/rouge_l"
    assert os.path.normpath(path) == path  # it refuses names that are no plain path
    assert len(path) < 250
    assert (metric_name(other) == name) == (one == other)


def test_task_metrics_are_means_per_task_and_score():
    scores = {"a b": RowScores({"rouge_l": [0.0, 1.0], "loss": [2.0, 4.0]}, ["x", "y"])}
    assert task_metrics(scores) == {"task/a b/rouge_l": 0.5, "task/a b/loss": 3.0}


def test_what_a_log_tells_of_a_stage():
    log = [
        {"name": "a", "scorer": "rouge_l", "tasks": [{"name": "a", "score": 0.5}]},
        {"name": "b", "scorer": "rouge_l", "tasks": [{"name": "a", "score": 0.9}, {"name": "b", "score": 0.4}]},
        {"name": "b", "scorer": "superni", "tasks": [{"name": "a", "score": 1.0}]},  # another scorer does not count
        {"name": "x"},
    ]
    found = metrics_so_far(log, {"a": 0.3, "b": 0.7, "c": 0.8}, "c", "rouge_l")
    assert found == pytest.approx(
        {
            "average_performance": 0.6,
            "backward_transfer": ((0.3 - 0.5) + (0.7 - 0.4)) / 2,
            "forgetting": ((0.9 - 0.3) + (0.4 - 0.7)) / 2,
        }
    )
    assert metrics_so_far(log, {"c": 0.9}, "c", "rouge_l") == {"average_performance": 0.9}
    assert metrics_so_far([], {}, "c", "rouge_l") == {}


@pytest.fixture
def sent(monkeypatch) -> dict[str, list[tuple[dict[str, float], int]]]:
    """A made-up tracker that remembers what each of its runs was sent."""
    found: dict[str, list[tuple[dict[str, float], int]]] = defaultdict(list)

    def remember(place, metrics, step):
        print("trackers talk")
        found[place["run"]].append((dict(metrics), step))

    monkeypatch.setitem(tracking._LOGGERS, "memo", remember)
    return found


def test_scores_are_sent_once_and_not_where_nothing_was_tracked(tmp_path, sent, capsys):
    Tracked.send(tmp_path, {"a": 1.0})
    assert [*tmp_path.iterdir()] == []
    Tracked({"memo": {"run": "r"}}, 7).write(tmp_path)
    for metrics in ({"a": 1.0}, {"a": 1.0}, {"a": 2.0}):
        Tracked.send(tmp_path, metrics)
    assert sent == {"r": [({"a": 1.0}, 7), ({"a": 2.0}, 7)]}
    assert "trackers talk" not in capsys.readouterr().out  # results alone go to standard output


def test_a_tracker_that_fails_stops_nothing_and_is_tried_again(tmp_path, sent, monkeypatch, caplog):
    def failing(place, metrics, step):
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(tracking._LOGGERS, "down", failing)
    Tracked({"down": {}, "memo": {"run": "r"}}, 1).write(tmp_path)
    Tracked.send(tmp_path, {"a": 1.0})
    assert "the scores could not be sent to down: no route" in caplog.text
    assert len(sent["r"]) == 1
    Tracked.send(tmp_path, {"a": 1.0})
    assert len(sent["r"]) == 2


def test_runs_that_are_not_found_cost_the_scores_and_not_the_training(monkeypatch, caplog, tmp_path):
    monkeypatch.setitem(tracking._FINDERS, "mlflow", lambda: None["run"])  # switched off by the environment, say
    monkeypatch.setitem(tracking._FINDERS, "trackio", lambda: {"project": "p", "name": "n"})
    found = Tracked.just_opened(["mlflow", "trackio", "comet_ml"], tmp_path).places
    assert found == {"trackio": {"project": "p", "name": "n"}, "tensorboard": {"log_dir": str(tmp_path)}}
    assert "no run of mlflow was found, so it gets no scores" in caplog.text


class TrackedTrainer(PaperTrainer):
    """Trains nothing, in a run of the made-up tracker."""

    def train(self, mixture, start, out, *, seed, progress):
        record = super().train(mixture, start, out, seed=seed, progress=progress)
        Tracked({"memo": {"run": mixture.parent.name}}, 3).write(mixture.parent)
        return record


def test_each_stage_of_a_run_shows_the_numbers_of_the_table(tmp_path, sent):
    result = run_with(TrackedTrainer(), tmp_path / "run")
    stages = json.loads((tmp_path / "run" / "streams.json").read_text())
    for stream in stages:
        for stage, (folder, task) in enumerate(zip(stream["stages"], stream["tasks"], strict=True), start=1):
            (metrics, step), *more = sent[folder]
            assert (step, more) == (3, [])
            assert f"task/{task}/rouge_l" in metrics
            if stage > 1:
                assert [metrics["relative_gain"]] == values(result, stream["strategy"], "relative_gain", stage)
            if stage == len(stream["tasks"]):
                for name in ("backward_transfer", "forgetting", "relative_gain_final", "average_performance"):
                    assert [metrics[name]] == values(result, stream["strategy"], name)
                for other in stream["tasks"]:
                    known = values(result, stream["strategy"], "rouge_l", stage, other)
                    assert [metrics[f"task/{other}/rouge_l"]] == known
    count = sum(map(len, sent.values()))
    run_with(TrackedTrainer(), tmp_path / "run")
    assert sum(map(len, sent.values())) == count


def test_scores_of_a_run_that_was_interrupted_before_they_were_sent_are_sent_later(tmp_path, sent, monkeypatch):
    config = config_of(strategies=["none"])
    with monkeypatch.context() as patch:
        patch.setattr(Tracked, "send", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_with(TrackedTrainer(), tmp_path / "run", config)
    assert sent == {}
    result = run_with(TrackedTrainer(), tmp_path / "run", config)
    (last,) = [r for r in sent.values() if "relative_gain_final" in r[0][0] and len(r) == 1][-1]
    assert [last[0]["relative_gain_final"]] == values(result, "none", "relative_gain_final")


def test_an_expert_that_scores_0_costs_only_the_relative_gain(tmp_path, sent):
    class Blind(TrackedTrainer):
        def score(self, model, tasks, out, *, progress):
            found = super().score(model, tasks, out, progress=progress)
            return {task: RowScores({"rouge_l": [0.0] * r.n, "exact_match": [0.0] * r.n}, r.instructions)
                    for task, r in found.items()}  # fmt: skip

    with pytest.raises(Exception, match="expert"):
        run_with(Blind(), tmp_path / "run", config_of(strategies=["none"]))
    last = [metrics for [(metrics, _)] in sent.values() if "backward_transfer" in metrics]
    assert last
    assert all("relative_gain" not in metrics for metrics in last)


def test_learning_shows_what_the_earlier_months_lost(tmp_path, sent):
    class Tracking(TrackedTrainer):
        def train(self, mixture, start, out, *, seed, progress):
            record = super().train(mixture, start, out, seed=seed, progress=progress)
            (out / "stage.json").write_text(json.dumps({**record, "fingerprint": str(out)}))
            return {**record, "fingerprint": str(out)}

    months = ["may", "june", "july"]
    done = [learn_month(tmp_path, name, Tracking(), **({"model": "base"} if name == "may" else {})) for name in months]
    learnt = [stage.after[name].mean("rouge_l") for stage, name in zip(done, months, strict=True)]
    after = [done[-1].after[name].mean("rouge_l") for name in months]
    (metrics, _), *_ = sent["july"]
    assert metrics["backward_transfer"] == pytest.approx(
        sum(now - then for now, then in zip(after[:2], learnt[:2], strict=True)) / 2
    )
    assert metrics["task/may/rouge_l"] == after[0]


def test_a_tracker_that_is_unknown_or_missing_is_told_at_once(monkeypatch):
    pytest.importorskip("transformers", reason="transformers (extra `train`) is not installed")
    check_trackers(None)
    check_trackers(["none"])
    with pytest.raises(ConfigError, match=r"got 'trakio'; wanted one of .*Did you mean 'trackio'"):
        check_trackers("trakio")
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"mlflow is not installed\. Run `pip install mlflow`"):
        check_trackers(["mlflow"])


# ---------------------------------------------------------------- with real trackers


def read_tensorboard(folder: Path) -> dict[str, dict[str, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for run in sorted({path.parent for path in folder.glob("models/**/events.out.*")}):
        events = EventAccumulator(str(run)).Reload()
        found[run.parent.name] = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    return found


def read_trackio(folder: Path) -> dict[str, dict[str, float]]:
    # In a process of its own: trackio reads its folder from the environment when it is imported.
    code = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as s; print(json.dumps("
        "[(name, s.get_logs('inscl', name)) for name in s.get_runs('inscl')]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {
        name: {key: value for log in logs for key, value in log.items() if isinstance(value, int | float)}
        for name, logs in json.loads(out.strip().splitlines()[-1])
    }


def read_mlflow(folder: Path) -> dict[str, dict[str, float]]:
    from mlflow import MlflowClient

    runs = MlflowClient().search_runs(["0"])
    return {run.info.run_name: dict(run.data.metrics) for run in runs}


READERS = {"tensorboard": read_tensorboard, "trackio": read_trackio, "mlflow": read_mlflow}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    from tiny import save_model

    return save_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("tracker", [*READERS, "wandb"])
def test_loss_and_scores_are_in_the_same_run(tracker, tiny, tmp_path):
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")
    program = tmp_path / "months.py"
    program.write_text(MONTHS)
    environment = {
        **os.environ,
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    if tracker == "wandb":
        environment |= {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, program, tracker, tiny], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if tracker == "wandb":
        ids = {path.name.rsplit("-", 1)[1] for path in (tmp_path / "wandb").glob("offline-run-*")}
        assert len(ids) == 2, "one run a stage: its scores go on with it"
        return
    after = json.loads(done.stdout)  # what trackers say goes to standard error
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TRACKIO_DIR", "MLFLOW_TRACKING_URI"):
            patch.setenv(name, environment[name])
        found = READERS[tracker](tmp_path)
    assert set(found) == {"may", "june"}
    for name, metrics in found.items():
        loss = "loss" if tracker == "mlflow" else "train/loss"
        assert metrics[loss] > 0
        for task, score in after[name].items():
            assert metrics[f"task/{task}/rouge_l"] == pytest.approx(score)
    assert "backward_transfer" in found["june"]


MONTHS = """
import json, sys
from inscl.stages.learn import learn
from inscl.training.config import stage_config
from inscl.replay.budget import Budget
from test_learn import memory_at, month
from pathlib import Path

if __name__ == "__main__":
    tracker, model = sys.argv[1:]
    text = "training: {learning_rate: 1e-2, num_train_epochs: 1, logging_steps: 1}\\ndtype: float32\\nbatch_size: 8"
    config = stage_config(f"{text}\\nreport_to: {tracker}")
    after = {}
    for name in ("may", "june"):
        more = {"model": model} if name == "may" else {}
        memory = memory_at(Path("memory"))
        done = learn(memory, name, month(name), config=config, budget=Budget(4), test_rows=4, **more)
        after[name] = {task: rows.mean("rouge_l") for task, rows in done.after.items()}
    print(json.dumps(after))
"""
