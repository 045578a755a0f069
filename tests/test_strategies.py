"""How strategies become known: ours, those a script adds, those of an installed package."""

import sys
from importlib.metadata import entry_points

import numpy as np
import pytest

from inscl import add_strategy, plan
from inscl.errors import PlanError
from inscl.memory.memory import Memory
from inscl.replay.budget import Budget
from inscl.replay.plan import Plan
from inscl.replay.registry import _GROUP, Strategies, Strategy
from inscl.replay.strategies import STRATEGIES, at_random, equally
from support import WordEncoder, WordTagger, rows_of

MINE = Strategy("mine", lambda stage: [2.0**place for place in range(len(stage.earlier))], at_random)


@pytest.fixture(autouse=True)
def none_added(monkeypatch):
    monkeypatch.setattr(STRATEGIES, "_added", {})


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package beside inscl that brings three strategies, one of them broken, and one that is none."""
    (tmp_path / "our_replay.py").write_text(
        "from inscl import Strategy\nfrom inscl.replay.strategies import at_random, equally\n"
        "EVEN = Strategy('even', equally, at_random)\nNONE = 3\n"
    )
    info = tmp_path / "our_replay-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-replay\nVersion: 1.0\n")
    lines = ["even = our_replay:EVEN", "gone = our_replay:GONE", "three = our_replay:NONE", "random = our_replay:EVEN"]
    (info / "entry_points.txt").write_text("\n".join([f"[{_GROUP}]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("our_replay", None)


def test_a_strategy_that_was_added_is_planned_by(tmp_path):
    add_strategy("mine", MINE)
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    for name in ("a", "b"):
        memory.add(name, rows_of(name, 60))
    made = plan(memory, "c", rows_of("c", 60), budget=30, strategy="mine").plan
    assert [task.count for task in made.tasks] == [10, 20]
    assert "mine" in STRATEGIES
    assert list(STRATEGIES)[-1] == "mine"
    add_strategy("mine", Strategy("another", None, at_random))  # a cell that is run again
    assert STRATEGIES["mine"].about == "another"


@pytest.mark.parametrize(
    ("name", "strategy", "message"),
    [
        ("random", MINE, "'random' comes with inscl"),
        ("a+b", MINE, "wanted up to 60 small letters"),
        ("../x", MINE, "cannot be called"),
        ("", MINE, "cannot be called"),
        ("mine", MINE.budget, "is a function; wanted an `inscl.Strategy`"),
    ],
)
def test_what_cannot_be_added_is_refused(name, strategy, message):
    with pytest.raises(PlanError, match=message):
        add_strategy(name, strategy)
    assert len(STRATEGIES) == len(list(STRATEGIES))


def test_an_installed_package_brings_strategies(package):
    known = Strategies({"random": Strategy("ours", equally, at_random)}, {})
    assert {entry.name for entry in entry_points(group=_GROUP)} >= {"even", "random"}
    assert list(known) == ["random", "even", "gone", "three"]
    assert known.named("even").about == "even"
    assert known["random"].about == "ours"  # nobody takes the name of one of ours
    with pytest.raises(PlanError, match="'gone' cannot be loaded from our_replay:GONE"):
        known.named("gone")
    with pytest.raises(PlanError, match=r"'three' .* is a int; wanted an"):
        known.named("three")


def test_an_unknown_strategy_is_answered_with_those_there_are():
    with pytest.raises(PlanError, match=r"no strategy 'randm'; wanted one of none, random, .* Did you mean 'random'"):
        STRATEGIES.named("randm")
    assert "randm" not in STRATEGIES
    with pytest.raises(KeyError):
        STRATEGIES["randm"]


@pytest.fixture
def memory(tmp_path):
    memory = Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())
    for n, name in enumerate(("letters", "numbers", "colours")):
        memory.add(name, rows_of(name, 60, instructions=5 + n))
    return memory


def learnt(memory, name, strategy, **more):
    """A plan, and its stage logged as finished."""
    made = plan(memory, name, rows_of(name, 40), strategy=strategy, **{"budget_per_task": 2, **more}).plan
    memory.log_stage(made.finished("model", "rouge_l", {}))
    return made


def replayed(made):
    return {(task.name, row) for task in made.tasks for i in task.instructions for row in i.rows}


def wordings(made):
    return {(task.name, i.key) for task in made.tasks for i in task.instructions}


@pytest.mark.parametrize("strategy", ["rotate", "inscl-rotate"])
def test_what_was_replayed_does_not_return_before_all_have_been(memory, strategy):
    stages = [learnt(memory, f"new{n}", strategy) for n in range(4)]
    for n, made in enumerate(stages[1:], start=1):
        assert not replayed(made) & set().union(*(replayed(earlier) for earlier in stages[:n]))
    if strategy == "rotate":  # 5, 6 and 7 wordings, 2 at a stage: all after 3, 3 and 4 stages
        assert len(set().union(*(wordings(made) for made in stages))) == 5 + 6 + 7
        assert not wordings(stages[0]) & wordings(stages[1])


def test_a_plan_names_the_log_it_looked_at_by_hash_and_is_made_again_after_its_stage(memory):
    first = learnt(memory, "new0", "rotate")
    again = plan(memory, "new0", rows_of("new0", 40), strategy="rotate", budget_per_task=2).plan
    assert again == first  # its own stage is none of the earlier ones
    second = plan(memory, "new1", rows_of("new1", 40), strategy="rotate", budget_per_task=2).plan
    assert first.hashes["log"] != second.hashes["log"]
    assert "log" not in plan(memory, "new1", rows_of("new1", 40), strategy="inscl", budget_per_task=2).plan.hashes


def test_steady_is_rotate_with_balance_and_interpolate(memory):
    one, other = (
        plan(memory, "new", rows_of("new", 40), strategy=name, budget_per_task=2).plan
        for name in ("steady", "rotate+balance+interpolate")
    )
    assert one.tasks == other.tasks
    assert STRATEGIES["steady"].training == STRATEGIES["rotate+balance+interpolate"].training == {"interpolate": 0.2}
    assert STRATEGIES["steady+interpolate=0.1"].training == {"interpolate": 0.1}


def test_a_removed_task_leaves_the_log(memory):
    learnt(memory, "new0", "rotate")
    memory.remove("numbers")
    (stage,) = memory.stages()
    assert [task["name"] for task in stage["tasks"]] == ["letters", "(removed)", "colours", "new0"]
    assert "rows" not in stage["tasks"][1]
    assert len(stage["tasks"][0]["rows"]) == 2


def test_a_log_of_an_older_release_counts_for_nothing(memory):
    before = plan(memory, "new", rows_of("new", 40), strategy="rotate", budget_per_task=2).plan
    memory.log_stage({"name": "old", "tasks": [{"name": "letters", "count": 2}]})
    after = plan(memory, "new", rows_of("new", 40), strategy="rotate", budget_per_task=2).plan
    assert after == before


def test_remainders_are_carried_from_stage_to_stage(memory):
    stages = [learnt(memory, f"new{n}", "inscl+carry", budget_per_task=1) for n in range(5)]
    plain = [plan(memory, f"new{n}", rows_of(f"new{n}", 40), budget_per_task=1).plan for n in range(5)]
    assert {task.count for made in plain for task in made.tasks} == {1}
    note = next(note for note in plain[0].notes if "rounding makes all shares exactly equal" in note)
    assert "at 1 for each earlier task" in note
    assert "InsInfo takes the same instructions at every stage" in note
    assert "inscl+carry" in note
    assert not any("rounding" in note for made in stages for note in made.notes)
    got = [sum(made.tasks[j].count for made in stages) for j in range(3)]
    owed = [sum(made.tasks[j].share * made.total for made in stages) for j in range(3)]
    assert [abs(n - due) < 1 for n, due in zip(got, owed, strict=True)] == [True] * 3
    assert [due - n for n, due in zip(got, owed, strict=True)] == pytest.approx(
        [task.carried for task in stages[-1].tasks], abs=1e-6
    )
    assert any(task.count != 1 for made in stages for task in made.tasks)
    tokens = Budget(300, "tokens", per_task=False)
    by_tokens = plan(memory, "new", rows_of("new", 40), strategy="inscl+carry", budget=tokens).plan
    assert any("in tokens carries nothing" in note for note in by_tokens.notes)
    assert by_tokens.tasks == plan(memory, "new", rows_of("new", 40), strategy="inscl", budget=tokens).plan.tasks


def test_a_plan_that_carries_can_be_written_and_read(memory, tmp_path):
    made = learnt(memory, "new0", "inscl+carry")
    made.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == made
    assert "carried" not in (plan(memory, "new1", rows_of("new1", 40)).plan.to_dict()["tasks"][0])


def log_losses(memory, stage, losses):
    """A finished stage whose model has these losses on the first rows of each task."""
    tasks = []
    for name, values in losses.items():
        keys = memory.task(name).columns(["key"])["key"].to_pylist()
        by_key = {key.hex(): loss for key, loss in zip(keys, values, strict=False)}
        tasks.append({"name": name, "count": 0, "losses": by_key})
    memory.log_stage({"name": stage, "tasks": tasks})


def test_rgd_shares_by_the_ratio_of_perplexities(memory):
    log_losses(memory, "letters", {"letters": [1.0, 2.0]})
    log_losses(memory, "numbers", {"letters": [1.5, 2.5], "numbers": [0.5, 0.5]})
    log_losses(memory, "colours", {"letters": [2.0, 3.0], "numbers": [0.4, 0.4], "colours": [0.2, 0.2]})
    made = plan(memory, "new", rows_of("new", 40), strategy="rgd", budget=30).plan
    ratios = np.exp([1.0, -0.1, 0.0])
    assert [task.share for task in made.tasks] == pytest.approx(ratios / ratios.sum(), abs=1e-6)
    assert all(abs(task.count - 30 * task.share) < 1 for task in made.tasks)
    assert not any("no losses are logged" in note for note in made.notes)


def test_surprise_takes_the_rows_whose_loss_has_risen_most(memory):
    start, rises = [1.0] * 6, [0.1, 0.9, -0.2, 0.7, 0.0, 0.3]
    log_losses(memory, "letters", {"letters": start})
    log_losses(memory, "numbers", {"letters": [a + b for a, b in zip(start, rises, strict=True)]})
    made = plan(memory, "new", rows_of("new", 40), strategy="surprise", budget_per_task=3).plan
    keys = [key.hex() for key in memory.task("letters").columns(["key"])["key"].to_pylist()]
    chosen = {row for i in made.tasks[0].instructions for row in i.rows}
    assert chosen == {keys[1], keys[3], keys[5]}
    more = plan(memory, "new", rows_of("new", 40), strategy="surprise", budget_per_task=8).plan
    chosen = {row for i in more.tasks[0].instructions for row in i.rows}
    assert len(chosen) == 8
    assert chosen > set(keys[:6])
    assert any("no losses are logged of 'numbers', 'colours'" in note for note in made.notes)


def test_losses_of_other_content_are_not_compared(memory):
    log_losses(memory, "letters", {"letters": [1.0, 2.0]})
    memory.add("letters", rows_of("other", 60))
    log_losses(memory, "numbers", {"letters": [9.0, 9.0]})
    made = plan(memory, "new", rows_of("new", 40), strategy="rgd", budget=30).plan
    assert [task.share for task in made.tasks] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("random+cary", r"has no part 'cary'; wanted one of carry.* Did you mean 'carry'"),
        ("randm+carry", "no strategy 'randm'"),
        ("random+carry=0.3", r"takes no number, got '0.3'\. Write '\+carry'"),
        ("random+", "has no part ''"),
    ],
)
def test_a_part_that_is_none_is_told(name, message):
    with pytest.raises(PlanError, match=message):
        STRATEGIES.named(name)
