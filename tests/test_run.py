"""Whole runs with a made-up trainer whose scores follow from what a model was trained on: fast, and countable."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from inscl.cli import main
from inscl.core import metrics
from inscl.data.mixture import read_mixture
from inscl.errors import ConfigError, DataError, InsclError
from inscl.evaluation.scores import RowScores, instructions_of
from inscl.experiments.config import StreamConfig, parse_config
from inscl.experiments.data import StreamData
from inscl.experiments.run import Event, run
from inscl.experiments.run_folder import RunFolder
from inscl.experiments.summary import Summary
from inscl.models.loading import RECORD
from support import WordEncoder, WordTagger

TASKS = ("review_opinion", "record_field", "price_list")


class PaperTrainer:
    """Trains nothing: a model is the history of its mixtures, and knows a task by how lately it saw it."""

    def __init__(self, die_at: int | None = None) -> None:
        self.trained: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.starts: list[tuple[str, str]] = []
        self.die_at = die_at
        self.calls = 0

    def _live(self) -> None:
        if self.calls == self.die_at:
            raise KeyboardInterrupt
        self.calls += 1

    def train(self, mixture, start, out, *, seed, progress):
        self._live()
        known = json.loads((Path(start) / "known.json").read_text()) if Path(start).is_dir() else {}
        rows = Counter(row.task for row in read_mixture(mixture))
        known = {task: 0.5 * amount for task, amount in known.items()}
        for task, n in rows.items():
            known[task] = known.get(task, 0.0) + n
        out.mkdir(parents=True, exist_ok=True)
        (out / "known.json").write_text(json.dumps(known))
        progress(1, 1, 0.5)
        self.trained[out.parent.name] += 1
        self.starts.append((Path(start).parent.name, out.parent.name))
        record = {"tokens": sum(rows.values()), "seconds": 1.0, "fingerprint": out.parent.name}
        (out / RECORD).write_text(json.dumps(record))
        return record

    def score(self, model, tasks, out, *, progress):
        self._live()
        known = json.loads((Path(model) / "known.json").read_text()) if Path(model).is_dir() else {}
        found = {}
        for task, rows in tasks.items():
            self.asked[f"{Path(model).parent.name}:{task}"] += 1
            share = min(1.0, 0.1 + known.get(task, 0.0) / 50)
            found[task] = RowScores(
                {"rouge_l": [share] * len(rows), "exact_match": [0.0] * len(rows)}, instructions_of(rows)
            )
            progress(1, 1, None)
        return found


def config_of(**changes: object) -> StreamConfig:
    text = {
        "tasks": {"demo": True, "only": list(TASKS), "train": 40, "dev": 5, "test": 12},
        "model": "no-model",
        "strategies": ["none", "random", "inscl"],
        "budgets": [{"per_task": 4}],
        "experts": {"seeds": [0]},
        "limits": {"train": 20, "test": 10},
        "test_rows": {"every_stage": 4, "last_stages": 8},
        **changes,
    }
    return parse_config(json.dumps(text))


def run_with(trainer: PaperTrainer, out: Path, config: StreamConfig | None = None, **more: object):
    return run(config or config_of(), out, trainer=trainer, encoder=WordEncoder(), tagger=WordTagger(), **more)


def values(result, strategy: str, metric: str, stage: int | None = None, task: str | None = None) -> list[float]:
    rows = result.table.to_pylist()
    wanted = (strategy, metric, stage, task)
    return [row["value"] for row in rows if (row["strategy"], row["metric"], row["stage"], row["task"]) == wanted]


def test_every_model_is_trained_once_and_the_first_stage_is_shared(tmp_path):
    trainer = PaperTrainer()
    result = run_with(trainer, tmp_path / "run")
    # Three experts, of which one is the first stage of all three strategies, and two more stages for each.
    assert set(trainer.trained.values()) == {1}
    assert len(trainer.trained) == result.trained == 3 + 3 * 2
    first = [start for start, name in trainer.starts if name.endswith(tuple("0123456789abcdef")) and "-02-" in name]
    assert len(first) == 3
    assert len(set(first)) == 1
    assert set(trainer.asked.values()) == {1}


def test_the_matrix_gives_the_metrics(tmp_path):
    result = run_with(PaperTrainer(), tmp_path / "run")
    scores = [
        [values(result, "random", "rouge_l", i + 1, task)[0] if j <= i + 1 else 0.0 for j, task in enumerate(TASKS)]
        for i in range(3)
    ]
    experts = [values(result, "random", "expert", None, task)[0] for task in TASKS]
    assert values(result, "random", "relative_gain_final") == [metrics.relative_gain(scores, experts)[-1]]
    assert values(result, "random", "backward_transfer") == [metrics.backward_transfer(scores)]
    assert values(result, "none", "relative_gain_final") < values(result, "random", "relative_gain_final")


def test_a_stage_scores_earlier_tasks_its_own_and_the_next(tmp_path):
    result = run_with(PaperTrainer(), tmp_path / "run")
    scored = {
        (row["stage"], row["task"]): row["n"]
        for row in result.table.to_pylist()
        if row["strategy"] == "inscl" and row["metric"] == "rouge_l" and row["stage"]
    }
    assert set(scored) == {(i, task) for i in (1, 2, 3) for task in TASKS[: i + 1]}
    assert set(scored.values()) == {8}  # fewer than five stages: all of them are last ones


def test_an_open_order_is_another_one_for_each_seed(tmp_path):
    result = run_with(PaperTrainer(), tmp_path / "run", config_of(orders=["random"], seeds=[0, 1, 2]))
    rows = result.table.to_pylist()
    assert {(row["order"], row["seed"]) for row in rows} == {(f"random:{seed}", seed) for seed in (0, 1, 2)}
    for seed in (0, 1, 2):
        alone = run_with(PaperTrainer(), tmp_path / f"{seed}", config_of(orders=[f"random:{seed}"], seeds=[seed]))
        mine = [row for row in rows if row["seed"] == seed]
        wanted = alone.table.to_pylist()
        assert [{**row, "run_id": ""} for row in mine] == [{**row, "run_id": ""} for row in wanted]


def test_a_second_call_does_nothing_and_gives_the_same(tmp_path):
    first = run_with(PaperTrainer(), tmp_path / "run")
    trainer = PaperTrainer()
    again = run_with(trainer, tmp_path / "run")
    assert (trainer.calls, again.trained, again.scored) == (0, 0, 0)
    assert again.table == first.table


@pytest.mark.parametrize("die_at", [0, 3, 8, 17])
def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path, die_at):
    whole = run_with(PaperTrainer(), tmp_path / "a" / "run")
    with pytest.raises(KeyboardInterrupt):
        run_with(PaperTrainer(die_at), tmp_path / "b" / "run")
    assert run_with(PaperTrainer(), tmp_path / "b" / "run").table == whole.table


class DiesBeforeNoting(PaperTrainer):
    """Dies right after its so-many-th model, before the stage's folder has noted what training cost."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__()
        self.last = last

    def train(self, mixture, start, out, *, seed, progress):
        if (out / RECORD).exists():
            return json.loads((out / RECORD).read_text())
        record = super().train(mixture, start, out, seed=seed, progress=progress)
        if sum(self.trained.values()) == self.last:
            raise KeyboardInterrupt
        return record


@pytest.mark.parametrize("last", [1, 4, 6])
def test_a_model_whose_record_was_not_noted_in_time_keeps_its_costs(tmp_path, last):
    whole = run_with(PaperTrainer(), tmp_path / "a" / "run")
    dying, after = DiesBeforeNoting(last), DiesBeforeNoting()
    with pytest.raises(KeyboardInterrupt):
        run_with(dying, tmp_path / "b" / "run")
    assert run_with(after, tmp_path / "b" / "run").table == whole.table
    assert not dying.trained & after.trained


def test_a_changed_configuration_is_refused_and_more_work_is_not(tmp_path):
    run_with(PaperTrainer(), tmp_path / "run", config_of(strategies=["none"]))
    with pytest.raises(ConfigError, match=r"`batch_size` changed \(`batch_size` was 32, is 4\)"):
        run_with(PaperTrainer(), tmp_path / "run", config_of(batch_size=4))
    trainer = PaperTrainer()
    run_with(trainer, tmp_path / "run", config_of(strategies=["none", "random"]))
    # The models of the first stage are gone, so one of them is trained again.
    assert sorted(name.split("-")[0] for name in trainer.trained) == ["first", "random", "random"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and holds no run"):
        run_with(PaperTrainer(), tmp_path / "other")


@pytest.mark.parametrize(("keep", "models"), [("none", 0), ("last", 3), ("all", 9)])
def test_disk_is_bounded_by_what_is_kept(tmp_path, keep, models):
    out = tmp_path / "run"
    run_with(PaperTrainer(), out, config_of(keep=keep))
    assert len(list(out.glob("stages/*/model"))) == models


def test_orders_that_begin_alike_share_their_beginning(tmp_path):
    trainer = PaperTrainer()
    orders = ["given", list(TASKS), "reverse"]
    run_with(trainer, tmp_path / "run", config_of(orders=orders, strategies=["random"]))
    assert len(trainer.trained) == 3 + 2 + 2  # the second order is the first one by another name
    assert set(trainer.trained.values()) == {1}


def test_a_curriculum_follows_the_experts_development_scores(tmp_path):
    trainer = PaperTrainer()
    result = run_with(trainer, tmp_path / "run", config_of(orders=["curriculum"], strategies=["random"]))
    assert values(result, "random", "relative_gain_final")
    assert set(trainer.trained.values()) == {1}


def test_joint_training_sees_every_row_once(tmp_path):
    out = tmp_path / "run"
    result = run_with(PaperTrainer(), out, config_of(joint=True, strategies=["none"]))
    folder = next(out.glob("stages/joint-*"))
    rows = read_mixture(folder / "mixture.jsonl")
    assert Counter(row.task for row in rows) == dict.fromkeys(TASKS, 20)
    assert len(values(result, "joint", "rouge_l", 1, TASKS[0])) == 1


def test_a_task_of_a_stream_may_be_preference_data(tmp_path):
    rows = [{"prompt": f"{i} + 1", "chosen": str(i + 1), "rejected": "no"} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"data": "pairs.jsonl", "preferred": True, "max_mib": 1}
    text = json.dumps({"model": "none", "tasks": {"pairs": files}})
    config = parse_config(text, folder=tmp_path)
    data = StreamData(config, RunFolder(tmp_path / "run"), WordEncoder(), WordTagger())
    data.remember()
    assert data.whole.task("pairs").info.ignored == {"rejected": 20}
    files.pop("preferred")
    config = parse_config(json.dumps({"model": "none", "tasks": {"pairs": files}}), folder=tmp_path)
    with pytest.raises(DataError, match="take the preferred answers with --preferred"):
        StreamData(config, RunFolder(tmp_path / "other"), WordEncoder(), WordTagger()).remember()


def test_a_seed_changes_the_training_rows_and_never_the_test_rows(tmp_path):
    data = StreamData(config_of(), RunFolder(tmp_path), WordEncoder(), WordTagger())
    data.remember()
    samples = []
    for seed in (0, 1):
        task = data.memory(seed).task(TASKS[0])
        samples.append({row.input for row in task.examples(task.side("train"))})
        assert task.info.rows == {"train": 20, "dev": 0, "test": 0}
    assert samples[0] != samples[1]
    test = [row.input for row in data.rows(TASKS[0], "test")]
    assert len(test) == 10
    assert data.rows(TASKS[0], "test", 4) == data.rows(TASKS[0], "test")[:4]
    assert not (samples[0] | samples[1]) & set(test)


def test_a_plan_sees_only_earlier_tasks(tmp_path):
    out = tmp_path / "run"
    run_with(PaperTrainer(), out, config_of(strategies=["inscl"]))
    plan = json.loads(next(out.glob("stages/inscl-*-02-*/plan.json")).read_text())["plan"]
    assert [task["name"] for task in plan["tasks"]] == [TASKS[0]]
    assert plan["tasks"][0]["count"] == 4


def test_the_plans_of_a_stream_know_its_earlier_ones(tmp_path):
    out = tmp_path / "run"
    run_with(PaperTrainer(), out, config_of(strategies=["rotate", "inscl+carry"], budgets=[{"per_task": 3}]))
    for strategy in ("rotate", "inscl-carry"):
        second, third = (
            json.loads(next(out.glob(f"stages/{strategy}-3-*-0{n}-*/plan.json")).read_text())["plan"] for n in (2, 3)
        )
        assert second["hashes"]["log"] != third["hashes"]["log"]
        rows = [{row for i in plan["tasks"][0]["instructions"] for row in i["rows"]} for plan in (second, third)]
        assert (strategy == "rotate") <= (not rows[0] & rows[1])


class MeasuringTrainer(PaperTrainer):
    """Its loss on a task is 1 after the task's stage, and rises by 1 with every stage after it."""

    def losses(self, model, tasks):
        self.asked["losses"] += 1
        rows = {task: n for n, task in enumerate(reversed(tasks), start=1)}
        return {task: [float(rows[task])] * len(tasks[task]) for task in tasks}


def test_losses_are_measured_where_a_strategy_looks_at_them(tmp_path):
    out, trainer = tmp_path / "run", MeasuringTrainer()
    config = config_of(strategies=["random", "rgd"], budgets=[{"per_task": 4}], experts=None)
    run_with(trainer, out, config)
    assert trainer.asked["losses"] == 1 + 2 * 2
    plan = json.loads(next(out.glob("stages/rgd-*-03-*/plan.json")).read_text())["plan"]
    e = math.e  # of the first task the loss rose by 1, of the second by nothing
    assert [task["share"] for task in plan["tasks"]] == pytest.approx([e / (e + 1), 1 / (e + 1)])
    run_with(trainer, out, config)
    assert trainer.asked["losses"] == 5
    scores = json.loads(next(out.glob("stages/rgd-*-03-*/scores.json")).read_text())
    assert scores["trained"]["seconds"] == pytest.approx(1 + scores["measuring"]["seconds"])


def test_events_tell_how_far_the_run_is(tmp_path):
    events: list[Event] = []
    run_with(PaperTrainer(), tmp_path / "run", progress=events.append)
    assert {event.jobs for event in events} == {10}  # with the untrained model
    assert [event.job for event in events] == sorted(event.job for event in events)
    assert "inscl with 4 per task, order given, seed 0, stage 3" in {event.what for event in events}


def test_what_stops_a_stage_is_said_with_its_stage(tmp_path):
    class Broken(PaperTrainer):
        def train(self, mixture, start, out, *, seed, progress):
            raise InsclError("the loss is nan at step 3 of 8.")

    with pytest.raises(InsclError, match=r"^expert, seed 0, task 'review_opinion': the loss is nan at step 3"):
        run_with(Broken(), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft": {"type": "Lorra"}}, "`peft.type` is 'Lorra'; wanted one of"),
        ({"peft": {"type": "LoraConfig", "rank": 4}}, "`peft`: .*unexpected keyword argument 'rank'"),
        ({"training": {"learning_rat": 1e-3}}, "learning_rat"),
    ],
)
def test_a_bad_setting_is_told_before_anything_is_computed(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        run(config_of(**changes), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*/*"))


def test_an_expert_that_scores_0_is_named_and_the_scores_are_kept(tmp_path):
    class Clueless(PaperTrainer):
        def score(self, model, tasks, out, *, progress):
            found = super().score(model, tasks, out, progress=progress)
            n = len(next(iter(tasks.values())))
            return {task: replace(rows, rows={**rows.rows, "rouge_l": [0.0] * n}) for task, rows in found.items()}

    with pytest.raises(InsclError, match=r"expert of task 'review_opinion' scores 0.0.*The scores are in .*parquet"):
        run_with(Clueless(), tmp_path / "run")
    assert (tmp_path / "run" / "results.parquet").exists()


def test_a_task_without_test_rows_is_named(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"instruction": "Add.", "input": "1 + 1", "output": "2"}\n')
    with pytest.raises(InsclError, match="Task 'sums' has no test rows"):
        run_with(PaperTrainer(), tmp_path / "run", config_of(tasks={"sums": str(data)}))


def test_the_record_says_what_the_numbers_come_from(tmp_path):
    run_with(PaperTrainer(), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["limits"] == {"train": 20, "test": 10}
    assert set(record["tasks"]) == set(TASKS)
    assert record["versions"]["torch"]
    assert record["hardware"]["cores"]


def test_the_summary_pairs_strategies_by_stream(tmp_path):
    result = run_with(PaperTrainer(), tmp_path / "run", config_of(seeds=[0, 1], strategies=["none", "random"]))
    summary = Summary.of(result.table)
    by_name = {line.strategy: line for line in summary.lines}
    assert (by_name["none"].budget, by_name["random"].budget) == ("", "4 per task")
    assert by_name["random"].streams == 2
    finals = {name: values(result, name, "relative_gain_final") for name in by_name}
    assert by_name["random"].gain_final == pytest.approx(fmean(finals["random"]))
    (difference,) = summary.differences
    assert (difference.line, difference.baseline, difference.paired.n) == ("random", "none", 2)
    assert difference.paired.mean == pytest.approx(fmean(finals["random"]) - fmean(finals["none"]))
    # 20 rows a stage, over three stages, and the replayed ones.
    assert by_name["random"].tokens == 3 * 20 + 4 + 8


def test_the_command_prints_a_table_and_tells_mistakes_with_their_lines(tmp_path, capsys, monkeypatch):
    def with_paper(config, out, workers, progress):
        return run_with(PaperTrainer(), out, config, progress=progress)

    monkeypatch.setattr("inscl.experiments.run.run", with_paper)
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(json.dumps(config_of(strategies=["none", "random"]).resolved()))
    assert main(["run", str(good), "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    assert "random - none" in printed.out
    assert "one stream: none" in printed.out
    assert "20 training rows a task" in printed.out
    assert "stage 3" in printed.err
    bad.write_text("tasks: demo\nmodle: x\nstrategies: [rnadom]\nseeds: [-1]\n")
    assert main(["run", str(bad)]) == 2
    told = capsys.readouterr().err
    assert all(f"line {line}: " in told for line in (1, 2, 3, 4))
