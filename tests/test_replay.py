import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import inscl
from inscl.core.insinfo import density_insinfo, insinfo, mean_insinfo
from inscl.errors import MemoryStateError, PlanError
from inscl.memory.encoder import _unit_rows
from inscl.memory.memory import Memory
from inscl.replay.budget import DEFAULT_BUDGET, Budget
from inscl.replay.mixing import mixture_rows
from inscl.replay.plan import Plan, compare
from inscl.replay.planner import plan, resume
from inscl.replay.settings import Settings
from inscl.replay.strategies import STRATEGIES
from inscl.tags.clean import clean_tags
from support import WordEncoder, WordTagger, merge_tags, rows_of

TASKS = {"letters": 150, "numbers": 90, "colours": 240, "animals": 60}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    memory = Memory(tmp_path_factory.mktemp("built") / "memory", encoder=WordEncoder(), tagger=WordTagger())
    for n, (name, rows) in enumerate(TASKS.items()):
        memory.add(name, rows_of(name, rows, instructions=3 + 2 * n))
    return Path(memory.path)


@pytest.fixture
def memory(built: Path, tmp_path: Path) -> Memory:
    shutil.copytree(built, tmp_path / "memory")
    return Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())


def new(n: int = 100) -> list[dict[str, object]]:
    return list(rows_of("weather", n))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("budget", [0, 1, 3, 40, 100_000])
def test_every_plan_sums_exactly_and_its_rows_are_distinct_training_rows(memory, strategy, budget):
    made = plan(memory, "weather", new(), budget=budget, strategy=strategy).plan
    available = sum(info.rows["train"] for info in memory.tasks())
    assert made.count == (0 if strategy == "none" else min(budget, available))
    for part in made.tasks:
        rows = [row for instruction in part.instructions for row in instruction.rows]
        assert len(rows) == len(set(rows)) == part.count == sum(i.count for i in part.instructions)
        assert all(0 < i.count <= i.available for i in part.instructions)
        task = memory.task(part.name)
        train = task.columns(["key"])["key"].to_pylist()[: part.available]
        assert {bytes.fromhex(row) for row in rows} <= set(train)


def test_shares_follow_the_distances(memory):
    made = plan(memory, "weather", new(), budget=100).plan
    distances = [part.distance for part in made.tasks]
    assert [part.share for part in made.tasks] == pytest.approx(np.array(distances) / sum(distances))
    assert all(abs(part.count - 100 * part.share) < 1 for part in made.tasks if part.count < part.available)


def test_insinfo_in_the_plan_is_that_of_the_pool_of_earlier_and_new_tasks(memory):
    memory.add("future", rows_of("future", 30, instructions=9))
    made = plan(memory, "weather", new(), budget=60, strategy="insinfo", earlier=["letters", "animals"]).plan
    # An independent way: the pool's instructions from the raw rows, tagged and merged in one go.
    rows = [
        *rows_of("letters", TASKS["letters"], instructions=3),
        *rows_of("animals", TASKS["animals"], instructions=9),
        *new(),
    ]
    pool = sorted({row["instruction"] for row in rows})
    tags = [clean_tags(raw) for raw in WordTagger()(pool)]
    merged = merge_tags(tags, WordEncoder(), radius=made.settings["radius"], min_samples=made.settings["min_samples"])
    expected = dict(zip(pool, insinfo(merged.tag_sets), strict=True))
    found = {i.text: i.insinfo for part in made.tasks for i in part.instructions}
    assert len(found) > 5
    assert found == pytest.approx({text: expected[text] for text in found})


def pool_of_plan() -> list[str]:
    """Every distinct instruction of the remembered tasks and the new one, from the raw rows."""
    rows = [
        row for n, (name, count) in enumerate(TASKS.items()) for row in rows_of(name, count, instructions=3 + 2 * n)
    ]
    return sorted({str(row["instruction"]) for row in [*rows, *new()]})


def test_insinfo_by_the_mean_and_by_density_in_the_plan(memory):
    pool = pool_of_plan()
    tags = merge_tags([clean_tags(raw) for raw in WordTagger()(pool)], WordEncoder()).tag_sets
    vectors = _unit_rows(WordEncoder()(pool), len(pool), "words")
    expected = {"mean": mean_insinfo(tags), "density": density_insinfo(vectors)}
    for name, scores in expected.items():
        made = plan(memory, "weather", new(), budget=60, insinfo=name).plan
        assert made.settings["insinfo"] == name
        by_text = dict(zip(pool, scores, strict=True))
        found = {i.text: i.insinfo for part in made.tasks for i in part.instructions}
        assert len(found) > 5
        assert found == pytest.approx({text: by_text[text] for text in found})
        assert any(note.startswith(f"InsInfo is '{name}' here: ") for note in made.notes)


def test_density_looks_at_no_tags(memory):
    made = plan(memory, "weather", new(), budget=60, insinfo="density").plan
    assert all(i.tags is None for part in made.tasks for i in part.instructions)
    assert not any("merged" in note for note in made.notes)
    by_mean = plan(memory, "weather", new(), budget=60, insinfo="mean").plan
    assert all(i.tags for part in by_mean.tasks for i in part.instructions)


def test_the_papers_insinfo_is_the_default(memory):
    made = plan(memory, "weather", new(), budget=60).plan
    assert made.settings["insinfo"] == "paper"
    assert plan(memory, "weather", new(), budget=60, settings=Settings()).plan == made
    assert not any("InsInfo is" in note for note in made.notes)


@pytest.mark.parametrize("name", ["mean", "density"])
def test_a_strategy_may_stand_for_an_insinfo(memory, name):
    made = plan(memory, "weather", new(), budget=60, strategy=f"inscl-{name}").plan
    by_setting = plan(memory, "weather", new(), budget=60, insinfo=name).plan
    assert (made.tasks, made.settings) == (by_setting.tasks, by_setting.settings)
    assert plan(memory, "weather", new(), budget=60, strategy=f"inscl-{name}", insinfo=name).plan == made


def test_the_order_of_the_memory_changes_no_density(tmp_path):
    """White space in an instruction does not count: the smallest text stands for all, whichever task came first."""
    rows = {name: list(rows_of(name, 40)) for name in ("a", "b")}
    rows["c"] = [{**row, "instruction": str(row["instruction"]).replace(" the ", "  the ")} for row in rows["a"]]
    found = []
    for order in ("abc", "cba"):
        memory = Memory(tmp_path / order, encoder=Spaced(), tagger=WordTagger())
        for name in order:
            memory.add(name, rows[name])
        made = plan(memory, "weather", new(), budget=60, insinfo="density").plan
        found.append({i.key: i.insinfo for part in made.tasks for i in part.instructions})
    assert found[0] == found[1]


class Spaced(WordEncoder):
    """An encoder that sees spaces."""

    identity = "spaces-too"

    def __call__(self, texts):
        rows = super().__call__(texts)
        rows[:, 0] += [3 * text.count("  ") for text in texts]
        return rows


def test_alike_instructions_share_equally_by_density(tmp_path):
    """All distances 0, so InsInfo is 0 for all: equal shares, and the plan says so."""

    class Blind(WordEncoder):
        identity = "blind"

        def __call__(self, texts):
            return np.ones((len(texts), 4), dtype=np.float32)

    memory = Memory(tmp_path / "m", encoder=Blind(), tagger=WordTagger())
    memory.add("a", rows_of("a", 120, instructions=4))
    made = plan(memory, "b", rows_of("b", 40), budget=40, insinfo="density").plan
    assert [(i.count, i.insinfo) for i in made.tasks[0].instructions] == [(10, 0.0)] * 4
    assert any("the same InsInfo" in note for note in made.notes)


def test_a_remembered_task_of_the_same_name_is_not_an_earlier_one(memory):
    made = plan(memory, "colours", budget=30).plan
    assert [part.name for part in made.tasks] == ["letters", "numbers", "animals"]
    assert made.stage == 4


def test_the_first_stage_has_nothing_to_replay(tmp_path):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    memory.add("weather", new())
    replay = plan(memory, "weather", budget=30)
    assert (replay.plan.tasks, replay.plan.count, replay.plan.stage) == ((), 0, 1)
    assert {row.replayed for row in replay.rows()} == {False}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_earlier_task_gets_the_whole_budget(memory, strategy):
    made = plan(memory, "weather", new(), budget=7, strategy=strategy, earlier=["numbers"]).plan
    assert made.count == (0 if strategy == "none" else 7)


def test_equal_tasks_get_equal_shares_and_the_remainder_moves_with_the_stage(tmp_path):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    rows = list(rows_of("same", 100))
    for n in range(4):
        memory.add(f"t{n}", rows)
    lucky = Counter()
    for seed in range(40):
        made = plan(memory, "new", rows, budget=1, seed=seed).plan
        assert sorted(part.count for part in made.tasks) == [0, 0, 0, 1]
        lucky.update(part.name for part in made.tasks if part.count)
    assert len(lucky) == 4  # not always the earliest
    assert any("all distances are equal" in note for note in made.notes)


def test_instructions_without_tags_share_equally(tmp_path):
    class Silent(WordTagger):
        def __call__(self, instructions):
            return [[] for _ in instructions]

    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=Silent())
    memory.add("a", rows_of("a", 120, instructions=4))
    made = plan(memory, "b", rows_of("b", 40), budget=40).plan
    assert [i.count for i in made.tasks[0].instructions] == [10] * 4
    assert any("the same InsInfo" in note for note in made.notes)


def test_fewer_examples_than_instructions_is_said(memory):
    made = plan(memory, "weather", new(), budget_per_task=2).plan
    assert any("are never replayed" in note for note in made.notes)
    assert all(i.count == 1 for part in made.tasks for i in part.instructions)
    assert any("all go in" in note for note in plan(memory, "weather", new(), budget=10**6).plan.notes)


def test_a_plan_that_was_asked_for_no_budget_says_how_much_it_takes_and_why(memory):
    made = plan(memory, "weather", new()).plan
    assert made.budget == DEFAULT_BUDGET
    assert made.total == round(0.2 * made.new.rows)
    assert any(note.startswith("no budget was asked for: a fifth of the new rows") for note in made.notes)
    assert not any("no budget" in note for note in plan(memory, "weather", new(), budget=0.1).plan.notes)


@pytest.mark.parametrize(
    ("budget", "total", "words"),
    [
        (Budget(0.05, per_task=False), 4, "5 % of the new task's 74 training rows in total"),
        (Budget(0.05), 16, "5 % of the new task's 74 training rows per earlier task"),
        (Budget(10), 40, "10 examples per earlier task"),
        (Budget(10, per_task=False), 10, "10 examples in total"),
    ],
)
def test_budgets_say_what_they_are_a_share_of(memory, budget, total, words):
    made = plan(memory, "weather", new(), budget=budget).plan
    assert made.new.rows == 74
    assert (made.total, made.count) == (total, total)
    assert made.budget.describe(made.new.rows) == words


@pytest.mark.parametrize("strategy", ["inscl", "random", "diverse-instruction"])
def test_a_token_budget_is_never_exceeded_and_nearly_used(memory, strategy):
    made = plan(memory, "weather", new(), budget=Budget(600, "tokens", per_task=False), strategy=strategy).plan
    longest = max(max(memory.task(t).columns(["tokens"])["tokens"].to_pylist()) for t in TASKS)
    assert made.tokens <= 600
    assert made.tokens > 600 - len(TASKS) * (longest + 1)
    chosen = sum(
        memory.task(part.name).columns(["key", "tokens"]).to_pydict()["tokens"][i]
        for part in made.tasks
        for i, key in enumerate(memory.task(part.name).columns(["key"])["key"].to_pylist())
        if key.hex() in {row for instruction in part.instructions for row in instruction.rows}
    )
    assert made.tokens == chosen


def test_the_mixture_is_the_new_training_rows_and_the_chosen_ones(memory):
    replay = plan(memory, "weather", new(), budget=30)
    rows = replay.rows()
    assert len(rows) == replay.plan.new.rows + 30
    assert sum(row.replayed for row in rows) == 30
    held_out = {e.input for e in replay.new.examples([*replay.new.side("dev"), *replay.new.side("test")])}
    for name in TASKS:
        task = memory.task(name)
        held_out |= {e.input for e in task.examples([*task.side("dev"), *task.side("test")])}
    assert not held_out & {row.example.input for row in rows}
    per_task = Counter(row.task for row in rows if row.replayed)
    assert per_task == {part.name: part.count for part in replay.plan.tasks if part.count}
    assert [row.task for row in rows] != sorted(row.task for row in rows)  # shuffled in from the start
    dataset = replay.mixture()
    assert dataset.column_names == ["prompt", "completion", "task", "replayed"]
    assert len(dataset) == len(rows)


def test_planning_never_changes_the_memory(memory):
    before = memory.state()
    plan(memory, "weather", new(), budget=30)
    assert memory.state() == before
    assert memory.verify().problems == ()


def test_seed_and_stage_and_nothing_else_move_the_draws(memory):
    first = plan(memory, "weather", new(), budget=30).plan
    assert plan(memory, "weather", new()[::-1], budget=30).plan == first
    assert plan(memory, "weather", new(), budget=30, seed=1).plan.tasks != first.tasks
    np.random.seed(3)  # noqa: NPY002  (the global state must not matter)
    assert plan(memory, "weather", new(), budget=30).plan == first


SCRIPT = """
import sys
from support import WordEncoder, WordTagger, rows_of
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
memory = Memory(sys.argv[1], encoder=WordEncoder(), tagger=WordTagger())
plan(memory, "weather", list(rows_of("weather", 100)), budget=30, strategy=sys.argv[2]).plan.write(sys.argv[3])
"""


@pytest.mark.parametrize("strategy", ["inscl", "inscl-density", "prototype-data", "prototype-instruction"])
def test_another_process_makes_the_same_plan_bit_for_bit(memory, tmp_path, strategy):
    plan(memory, "weather", new(), budget=30, strategy=strategy).plan.write(tmp_path / "here.json")
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONHASHSEED": hash_seed}
        arguments = [memory.path, strategy, str(tmp_path / "there.json")]
        subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, env=environment)
        assert (tmp_path / "here.json").read_bytes() == (tmp_path / "there.json").read_bytes()


def test_a_plan_file_gives_the_same_mixture_later(memory, tmp_path):
    data = tmp_path / "weather.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in new()))
    replay = plan(memory, "weather", data, budget=30)
    replay.plan.write(tmp_path / "plan.json")
    made = Plan.read(tmp_path / "plan.json")
    assert made == replay.plan
    assert resume(made, memory).rows() == replay.rows()
    assert mixture_rows(made, memory, None) == mixture_rows(replay.plan, memory, None)


def test_changed_data_are_refused(memory, tmp_path):
    data = tmp_path / "weather.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in new()))
    made = plan(memory, "weather", data, budget=30).plan
    data.write_text("\n".join(json.dumps(row) for row in new(101)))
    with pytest.raises(PlanError, match="The data of 'weather' have changed since the plan was made"):
        resume(made, memory)


def test_changed_or_missing_tasks_are_refused_but_appending_is_not_a_change(memory):
    replay = plan(memory, "weather", new(), budget=100)
    memory.add("letters", rows_of("more", 30), append=True)
    assert len(replay.rows()) == replay.plan.new.rows + 100
    memory.add("letters", rows_of("other", 30))
    with pytest.raises(PlanError, match="'letters' has changed since the plan was made"):
        replay.rows()
    memory.remove("letters")
    with pytest.raises(PlanError, match="which the memory no longer has"):
        replay.rows()


def test_comparing_says_what_differs(memory):
    one = plan(memory, "weather", new(), budget=30).plan
    lines = compare(one, plan(memory, "weather", new(), budget=31, strategy="random").plan)
    assert any(line.startswith("strategy: inscl against random") for line in lines)
    assert any(line.startswith("total: 30 against 31") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "insc"}, "There is no strategy 'insc'; wanted one of none, random, inscl"),
        ({"seed": -1}, "The seed is -1"),
        ({"budget": -5}, "The budget is -5"),
        ({"budget": 1.5}, r"The budget is 1.5; wanted a whole number of at least 0, or a share"),
        ({"budget": 5, "budget_per_task": 5}, "Give one of them"),
        ({"settings": Settings(), "weights": "uniform"}, "`weights` was given beside `settings`, which says it too"),
        ({"settings": Settings(), "insinfo": "mean"}, "`insinfo` was given beside `settings`"),
        ({"weights": "even"}, "The weights are 'even'"),
        ({"insinfo": "densty"}, r"There is no InsInfo 'densty'; wanted one of paper, mean, density\..*'density'"),
        (
            {"insinfo": "density", "strategy": "inscl-mean"},
            "Strategy 'inscl-mean' chooses by InsInfo 'mean', and the settings ask for 'density'. Leave one",
        ),
    ],
)
def test_impossible_questions_are_answered_in_one_line(memory, arguments, message):
    with pytest.raises(PlanError, match=message):
        plan(memory, "weather", new(), **arguments)


def test_an_unknown_earlier_task_is_named(memory):
    with pytest.raises(MemoryStateError, match=r"no task 'leters'\. Did you mean 'letters'"):
        plan(memory, "weather", new(), earlier=["leters"])


def test_another_encoder_than_the_memory_has_is_refused(memory):
    class Other(WordEncoder):
        identity = "other"

    other = Memory(memory.path, encoder=Other(), tagger=WordTagger())
    with pytest.raises(MemoryStateError, match="was encoded with 'words-64', and the encoder is now 'other'"):
        plan(other, "weather", new(), budget=3)


def test_every_public_name_exists():
    assert all(getattr(inscl, name) is not None for name in inscl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = inscl.nothing
