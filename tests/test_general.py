"""General tasks: a stated share of the replay, chosen as the rest is, and never counted as tasks."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.cli import main
from inscl.data.everyday import everyday
from inscl.data.mixture import read_mixture
from inscl.errors import ConfigError, PlanError
from inscl.memory.memory import Memory
from inscl.replay.budget import Budget, general_share, share_of
from inscl.replay.general import EVERYDAY
from inscl.replay.mixing import mixture_rows
from inscl.replay.plan import Plan
from inscl.replay.planner import plan, resume
from inscl.replay.survey import survey
from inscl.report.page import write_run_report
from inscl.stages.learn import learn
from support import WordEncoder, WordTagger, rows_of
from test_learn import StageTrainer
from test_run import TASKS, PaperTrainer, config_of, run_with


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("built") / "memory"
    made = Memory(path, encoder=WordEncoder(), tagger=WordTagger())
    for name in ("letters", "numbers"):
        made.add(name, rows_of(name, 90, instructions=5))
    return path


@pytest.fixture
def memory(built, tmp_path):
    shutil.copytree(built, tmp_path / "memory")
    return Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())


def new(n: int = 100):
    return list(rows_of("weather", n))


def test_the_everyday_instructions_are_distinct_and_of_several_kinds():
    rows = everyday()
    assert len(rows) == len({row.instruction for row in rows}) == len({row.key for row in rows}) == 120
    assert all(row.outputs[0].strip() == row.outputs[0] != "" for row in rows)
    assert 30 < sum(bool(row.input) for row in rows) < 90


@pytest.mark.parametrize(
    "strategy", ["none", "random", "inscl", "rotate", "prototype-data", "rgd", "inscl+carry", "inscl+balance"]
)
def test_the_share_goes_to_general_tasks_and_the_rest_is_the_plan_of_a_smaller_budget(memory, strategy):
    with_share = plan(memory, "weather", new(), budget=40, strategy=strategy, general=0.25).plan
    alone = plan(memory, "weather", new(), budget=30, strategy=strategy).plan
    drawn = 0 if strategy == "none" else 1
    assert sum(task.count for task in with_share.tasks if task.general) == 10 * drawn
    assert with_share.count == 40 * drawn
    assert [replace(task, weight=1) for task in with_share.learnt] == [replace(task, weight=1) for task in alone.tasks]
    assert with_share.stage == alone.stage == 3


def test_balance_counts_what_is_replayed_of_general_tasks_too(memory):
    made = plan(memory, "weather", new(), budget=8, strategy="random+balance=0.4", general=0.5).plan
    weights = {task.weight for task in made.tasks}
    rows = mixture_rows(made, memory, None)
    answers = sum(-(-len(row.example.outputs[0].encode()) // 4) for row in rows)
    fresh = plan(memory, "weather", new(), budget=8)
    ours = sum(-(-len(row.outputs[0].encode()) // 4) for row in fresh.new.examples(fresh.new.side("train")))
    assert len(weights) == 1
    assert weights.pop() == pytest.approx(min(4.0, 0.4 / 0.6 * ours / answers), abs=1e-6)


def test_remembered_general_tasks_are_replayed_and_neither_earlier_tasks_nor_surveyed(memory):
    memory.add("chat", rows_of("chat", 60), general=True)
    made = plan(memory, "weather", new(), budget=40, general=0.25).plan
    assert [(task.name, task.general) for task in made.tasks] == [
        ("letters", False),
        ("numbers", False),
        ("chat", True),
    ]
    without = plan(memory, "weather", new(), budget=40).plan
    assert [task.name for task in without.tasks] == ["letters", "numbers"]
    assert without.general == 0
    assert "general" not in without.to_dict()
    assert survey(memory).tasks == ("letters", "numbers")
    assert survey(memory, ["chat"]).tasks == ("chat",)
    asked_for = plan(memory, "weather", new(), budget=40, earlier=["letters", "chat"]).plan
    assert [task.general for task in asked_for.tasks] == [False, False]


def test_a_general_task_stays_general_when_it_grows_and_is_one_no_more_when_it_is_added_anew(memory):
    memory.add("chat", rows_of("chat", 60), general=True)
    assert memory.add("chat", rows_of("talk", 10), append=True).info.general
    assert memory.tasks()[-1].general
    memory.retag({}, "nobody")
    assert memory.tasks()[-1].general
    assert memory.add("chat", rows_of("chat", 60)).status == "replaced"
    assert not memory.tasks()[-1].general
    assert memory.add("chat", rows_of("chat", 60), general=True).status == "replaced"


def test_what_comes_with_inscl_is_mixed_from_a_plan_that_was_read_from_a_file(memory, tmp_path):
    made = plan(memory, "weather", new(), budget=40, general=0.25).plan
    made.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again == made
    rows = [row for row in resume(again, memory, new()).rows() if row.task == EVERYDAY]
    assert len(rows) == 10
    assert all(row.replayed and row.example in everyday() for row in rows)
    assert len({row.example.instruction for row in rows}) == 10


def test_a_first_stage_replays_the_general_share_alone(tmp_path):
    memory = Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())
    made = plan(memory, "weather", new(), budget=40, general=0.25).plan
    assert (made.stage, made.count, [task.name for task in made.tasks]) == (1, 10, [EVERYDAY])
    assert any("no task was learnt before" in note for note in made.notes)
    whole = plan(memory, "weather", new(), budget=40, general=1.0).plan
    assert whole.count == 40
    assert not any("no task was learnt before" in note for note in whole.notes)


def test_more_than_there_is_takes_all_and_the_plan_says_so(memory):
    made = plan(memory, "weather", new(), budget=500, general=0.5).plan
    assert made.tasks[-1].count == made.tasks[-1].available == 120
    assert any("all that there are for the 250 asked for" in note for note in made.notes)


def test_other_general_tasks_are_another_plan(memory):
    before = plan(memory, "weather", new(), budget=40, general=0.25).plan
    assert plan(memory, "weather", new(), budget=40, general=0.25).plan == before
    memory.add("chat", rows_of("chat", 60), general=True)
    after = plan(memory, "weather", new(), budget=40, general=0.25).plan
    assert before.hashes["general"] != after.hashes["general"]
    assert {key for key in before.hashes if before.hashes[key] != after.hashes[key]} == {"general"}


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan"), True])
def test_an_impossible_share_is_refused(memory, share):
    with pytest.raises(PlanError, match="general share"):
        plan(memory, "weather", new(), general=share)


@pytest.mark.parametrize("text", ["ten", "", "0%", "200", "%"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(PlanError, match="general share"):
        general_share(text)


@given(st.integers(0, 100_000), st.integers(1, 100))
def test_parts_are_rounded_as_they_are_written(total, percent):
    assert share_of(total, percent / 100) == (2 * total * percent + 100) // 200  # integers are the oracle


def test_a_task_with_the_name_of_what_comes_with_inscl_is_told(memory):
    memory.add(EVERYDAY, rows_of("mine", 30))
    with pytest.raises(PlanError, match=r"another name.*--general"):
        plan(memory, "weather", new(), general=0.1)
    memory.add(EVERYDAY, rows_of("mine", 30), general=True)
    assert plan(memory, "weather", new(), budget=40, general=0.1).plan.tasks[-1].name == EVERYDAY


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("inscl.memory.memory.SentenceEncoder", WordEncoder)
    monkeypatch.chdir(tmp_path)
    for name in ("letters", "chat", "weather"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(name)))
    assert main(["add", "letters", "letters.jsonl"]) == 0
    assert main(["add", "--general", "chat", "chat.jsonl"]) == 0
    assert main(["tasks", "--json"]) == 0
    assert '"general": true' in capsys.readouterr().out
    assert main(["plan", "weather", "weather.jsonl", "--budget", "20", "--general", "10%", "--out", "plan.json"]) == 0
    out = capsys.readouterr().out
    assert "chat (general)" in out
    assert "general tasks give 2 of the replayed rows (10 % of the budget), and are not scored: 'chat'" in out
    assert main(["mix", "plan.json", "--out", "mixture.jsonl"]) == 0
    assert main(["plan", "weather", "weather.jsonl", "--general", "some"]) == 2


def test_a_stage_learns_from_general_rows_and_scores_none_of_them(tmp_path):
    memory = Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())
    memory.add("chat", rows_of("chat", 60), general=True)
    for name in ("may", "june"):
        more = {"model": "base"} if name == "may" else {}
        options = {"trainer": StageTrainer(), "budget": Budget(10, per_task=False), "general": 0.4}
        done = learn(memory, name, list(rows_of(name, 40)), out=tmp_path / name, **options, **more)
    counts = Counter(row.task for row in read_mixture(done.folder / "mixture.jsonl") if row.replayed)
    assert counts == {"may": 6, "chat": 4}
    assert set(done.before) == set(done.after) == {"may", "june"}
    logged = {task["name"]: task for task in memory.stages()[-1]["tasks"]}
    assert logged["chat"]["count"] == 4
    assert "score" not in logged["chat"]
    assert [info.name for info in memory.tasks() if not info.general] == ["may", "june"]


def test_a_first_stage_with_what_comes_with_inscl(tmp_path):
    memory = Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())
    done = learn(
        memory,
        "may",
        list(rows_of("may", 40)),
        model="base",
        out=tmp_path / "may",
        trainer=StageTrainer(),
        budget=Budget(8, per_task=False),
        general=1.0,
    )
    assert sum(row.task == EVERYDAY for row in read_mixture(done.folder / "mixture.jsonl")) == 8
    assert set(done.after) == {"may"}


def test_a_stream_takes_its_share_from_the_data_that_it_names(tmp_path):
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of("chat", 30)))
    for number, general in enumerate(({"share": "50%", "data": str(tmp_path / "chat.jsonl")}, "50%")):
        config = config_of(strategies=["none", "inscl"], budgets=[8], general=general)
        result = run_with(PaperTrainer(), tmp_path / f"run{number}", config)
        assert {row["task"] for row in result.table.to_pylist() if row["task"]} == set(TASKS)
        plans = [Plan.read(path) for path in (tmp_path / f"run{number}" / "stages").glob("*/plan.json")]
        replayed = [plan for plan in plans if plan.strategy == "inscl" and plan.stage > 1]
        assert len(replayed) == 2
        for made in replayed:
            assert [t.count for t in made.tasks if t.general] == [4]
            assert made.count == 8
            assert made.tasks[-1].name == ("general data", EVERYDAY)[number]
        assert write_run_report([tmp_path / f"run{number}"], tmp_path / f"page{number}").exists()


@pytest.mark.parametrize("general", ["200%", 3, {"share": "10%", "data": "./nowhere.jsonl"}, {"data": "x.jsonl"}])
def test_a_stream_with_an_impossible_general_part_is_told(general):
    with pytest.raises(ConfigError, match="general"):
        config_of(general=general)
