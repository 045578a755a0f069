"""Budgets and the plan as a value: read back equal, compared with reasons, refused with a clear line."""

import json
import os
import socket
from dataclasses import replace
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inscl.errors import PlanError
from inscl.memory.memory import Memory
from inscl.replay.budget import Budget
from inscl.replay.plan import _MOST_REPEATS, InstructionPlan, NewTask, Plan, TaskPlan, compare
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, rows_of

# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("text", "amount"),
    [("200", 200), ("0", 0), ("5%", 0.05), ("100%", 1.0), ("0.5%", 0.005), ("29%", 0.29)],
)
def test_budgets_as_written_on_a_command_line(text, amount):
    budget = Budget.parse(text)
    assert budget.amount == amount
    assert type(budget.amount) is type(amount)
    assert (budget.unit, budget.per_task) == ("examples", False)
    assert Budget.parse(text, per_task=True).per_task


@pytest.mark.parametrize("text", ["", "%", "five", "2.5", "1e3", "0%", "-1", "-5%", "101%", "nan%", "inf%", "nan"])
def test_impossible_budgets_are_refused(text):
    with pytest.raises(PlanError, match=r"The budget is .*; wanted a whole number"):
        Budget.parse(text)


@pytest.mark.parametrize("amount", [True, False, -1, 0.0, -0.5, 1.5, float("nan"), float("inf"), "200", None])
def test_impossible_amounts_are_refused(amount):
    with pytest.raises(PlanError, match=r"wanted a whole number of at least 0, or a share in \(0, 1\]"):
        Budget(amount)


def test_a_budget_in_tokens_is_no_share():
    with pytest.raises(PlanError, match="tokens is a whole number, not a share"):
        Budget.parse("5%", unit="tokens")


@example(2900, 50, 1, False)  # 14.5, and 0.29 * 50 is 14.499999999999998
@example(57, 10_000 // 3, 1, True)
@given(st.integers(1, 10_000), st.integers(0, 100_000), st.integers(0, 30), st.booleans())
def test_a_share_rounds_halves_up_as_on_paper(hundredths, rows, earlier, per_task):
    """Decimal arithmetic on the percentage as it was written is the oracle."""
    percent = Decimal(hundredths) / 100
    wanted = int((percent * rows / 100).quantize(Decimal(1), ROUND_HALF_UP))
    budget = Budget.parse(f"{percent}%", per_task=per_task)
    assert budget.total(rows, earlier) == wanted * (earlier if per_task else 1)


@pytest.mark.parametrize(
    ("share", "rows", "total"),
    [(0.05, 10, 1), (0.29, 50, 15), (0.57, 50, 29), (0.05, 9, 0), (1.0, 7, 7), (0.5, 0, 0)],  # 14.5 up, 28.5 up
)
def test_halves_go_up(share, rows, total):
    assert Budget(share, per_task=False).total(rows, 3) == total


def test_a_count_is_a_count():
    assert Budget(200).total(10, 4) == 800
    assert Budget(200, per_task=False).total(10, 4) == 200
    assert Budget(7, "tokens", per_task=False).total(10, 4) == 7
    assert Budget(200).total(10, 0) == 0


def test_a_budget_in_words():
    share = Budget.parse("5%", per_task=True)
    assert share.describe(1200) == "5 % of the new task's 1,200 training rows per earlier task"
    assert Budget(2000, per_task=False).describe(9) == "2,000 examples in total"
    assert Budget(2000, "tokens").describe(9) == "2,000 tokens per earlier task"


# ---------------------------------------------------------------- plans

TEXT = st.text(max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 10**9)
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
OBJECT = st.dictionaries(TEXT, st.none() | st.booleans() | COUNT | NUMBER | TEXT, max_size=3)
SOURCE = st.fixed_dictionaries(
    {},
    optional={
        "data": TEXT | st.lists(TEXT, max_size=2),
        "dev": TEXT | st.lists(TEXT | OBJECT, max_size=2),
        "format": TEXT,
        "skip_bad": st.booleans(),
        "max_mib": COUNT,
        "shares": st.fixed_dictionaries({"dev": NUMBER, "test": NUMBER}),
    },
)

INSTRUCTIONS = st.builds(
    InstructionPlan,
    key=HEX,
    text=TEXT,
    count=COUNT,
    available=COUNT,
    rows=st.lists(HEX, max_size=3).map(tuple),
    tags=st.none() | st.lists(TEXT, max_size=3).map(tuple),
    insinfo=st.none() | NUMBER,
)
TASKS = st.builds(
    TaskPlan,
    name=TEXT,
    content=HEX,
    distance=st.none() | NUMBER,
    share=NUMBER,
    weight=st.floats(0, allow_infinity=False),
    repeats=st.integers(1, _MOST_REPEATS),
    **dict.fromkeys(("count", "available", "tokens", "all_instructions"), COUNT),
    instructions=st.lists(INSTRUCTIONS, max_size=3).map(tuple),
)
BUDGETS = st.builds(Budget, st.integers(0, 999) | st.floats(0.001, 1), per_task=st.booleans()) | st.builds(
    Budget, st.integers(0, 999), st.just("tokens"), st.booleans()
)
PLANS = st.builds(
    Plan,
    name=TEXT,
    new=st.builds(NewTask, content=HEX, instructions=COUNT, rows=COUNT, tokens=COUNT),
    stage=st.integers(1, 99),
    strategy=TEXT,
    seed=COUNT,
    budget=BUDGETS,
    total=COUNT,
    settings=OBJECT,
    versions=st.dictionaries(TEXT, TEXT, max_size=3),
    hashes=st.dictionaries(TEXT, HEX, max_size=3),
    tasks=st.lists(TASKS, max_size=3).map(tuple),
    notes=st.lists(TEXT, max_size=2).map(tuple),
    source=st.none() | SOURCE,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLANS)
def test_a_written_plan_is_read_back_equal(tmp_path, made):
    made.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again == made
    assert again.source == made.source  # which equality leaves out
    assert hash_of_file(again, tmp_path) == hash_of_file(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    assert compare(again, made) == []


def hash_of_file(made: Plan, folder: Path) -> bytes:
    made.write(folder / "plan.json")
    return (folder / "plan.json").read_bytes()


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    memory = Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())
    for name in ("a", "b"):
        memory.add(name, rows_of(name, 60))
    return memory


@pytest.fixture
def made(memory: Memory) -> Plan:
    return plan(memory, "new", list(rows_of("new", 60)), budget=20).plan


def test_a_real_plan_is_read_back_equal(made, tmp_path):
    made.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == made
    assert made.count == 20
    assert made.tokens == sum(task.tokens for task in made.tasks) > 0


def test_a_plan_holds_no_clock_path_or_host(memory, tmp_path):
    file = tmp_path / "new.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows_of("new", 60)))
    replay = plan(memory, "new", str(file), budget=20)
    text = json.dumps(replay.plan.to_dict())
    assert str(tmp_path) not in text
    assert f'"{socket.gethostname()}"' not in text
    assert datetime.now().strftime("%Y-%m") not in text
    assert "source" not in replay.plan.to_dict()
    assert replay.plan.source["data"] == str(file)
    assert replay.plan == plan(memory, "new", list(rows_of("new", 60)), budget=20).plan


def test_the_file_itself_repeats_byte_for_byte(memory, tmp_path):
    files = []
    for n in range(2):
        path = tmp_path / f"{n}.json"
        plan(memory, "new", list(rows_of("new", 60)), budget=20).plan.write(path)
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_equal_plans_have_no_difference(made):
    assert compare(made, replace(made, source={"data": "elsewhere"})) == []


def test_differences_are_named(memory, made):
    assert compare(made, replace(made, seed=3)) == ["seed: 0 against 3"]
    lines = compare(made, plan(memory, "new", list(rows_of("new", 60)), budget=8, strategy="random").plan)
    assert "strategy: inscl against random" in lines
    assert "total: 20 against 8" in lines
    assert f"task 'a': {made.tasks[0].count} rows against 4" in lines
    other = replace(made, versions={**made.versions, "numpy": "0.1"}, settings={**made.settings, "radius": 0.5})
    lines = compare(made, other)
    assert f"versions, numpy: {made.versions['numpy']} against 0.1" in lines
    assert any(line.startswith("settings, radius: ") for line in lines)


def test_a_plan_from_before_insinfo_had_variants_is_the_papers(memory, made, tmp_path):
    path = tmp_path / "plan.json"
    made.write(path)
    document = json.loads(path.read_text())
    del document["plan"]["settings"]["insinfo"]
    path.write_text(json.dumps(document))
    old = Plan.read(path)
    assert compare(old, made) == compare(made, old) == []
    by_mean = plan(memory, "new", list(rows_of("new", 60)), budget=20, insinfo="mean").plan
    assert "settings, insinfo: paper against mean" in compare(old, by_mean)


def test_a_missing_task_counts_as_none(made):
    lines = compare(made, replace(made, tasks=made.tasks[:1]))
    assert lines == [f"task 'b': {made.tasks[1].count} rows against 0"]


def test_embeddings_alone_are_explained(made):
    other = replace(made, hashes={**made.hashes, "embeddings": "0" * 32})
    assert compare(made, other)[-1] == "only the embeddings differ: were the texts encoded on other hardware?"
    both = replace(other, hashes={**other.hashes, "memory": "1" * 32})
    assert not any("only the embeddings" in line for line in compare(made, both))
    assert any(line.startswith("hashes, memory: ") for line in compare(made, both))


def test_other_rows_with_the_same_counts_are_told(made):
    task = replace(made.tasks[0], tokens=made.tasks[0].tokens + 1)
    assert compare(made, replace(made, tasks=(task, *made.tasks[1:]))) == [
        "the same counts, but other rows or measures"
    ]


def test_a_missing_file_is_a_plan_error(tmp_path):
    with pytest.raises(PlanError, match=r"There is no plan '.*none.json'. Write one with `inscl plan"):
        Plan.read(tmp_path / "none.json")


def test_a_folder_is_no_plan(tmp_path):
    with pytest.raises(PlanError, match="is not a plan"):
        Plan.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "3", '"text"', "{}", '{"inscl_plan": 1}', '{"inscl_plan": "1", "plan": {}}',
        '{"inscl_plan": 1, "plan": {}}', '{"inscl_plan": 1, "plan": []}', '{"inscl_plan": null, "plan": {}}',
        '{"inscl_plan": 1, "plan": {"new": 3, "budget": {}, "tasks": [], "notes": []}}',
    ],
)  # fmt: skip
def test_damaged_files_are_plan_errors(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match="is not a plan"):
        Plan.read(tmp_path / "plan.json")


def test_bytes_that_are_no_text_are_a_plan_error(tmp_path):
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="is not a plan"):
        Plan.read(tmp_path / "plan.json")


@pytest.mark.parametrize("part", ["budget", "tasks", "seed", "new", "strategy"])
def test_a_plan_that_lacks_a_part_is_a_plan_error(made, tmp_path, part):
    path = tmp_path / "plan.json"
    made.write(path)
    document = json.loads(path.read_text())
    del document["plan"][part]
    path.write_text(json.dumps(document))
    with pytest.raises(PlanError, match="is not a plan"):
        Plan.read(path)


@pytest.mark.parametrize("part", [None, 3, "task", [3], [{"instructions": 3}], [{"instructions": [{}]}]])
def test_a_plan_with_a_broken_part_is_a_plan_error(made, tmp_path, part):
    path = tmp_path / "plan.json"
    made.write(path)
    document = json.loads(path.read_text())
    document["plan"]["tasks"] = part
    path.write_text(json.dumps(document))
    with pytest.raises(PlanError, match="is not a plan"):
        Plan.read(path)


def test_a_newer_format_is_refused_before_it_is_understood(made, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"inscl_plan": 2, "plan": {"something": "new"}}))
    with pytest.raises(PlanError, match=r"plan of format 2; this release reads up to 1. Upgrade inscl"):
        Plan.read(path)


def test_writing_where_one_cannot_is_one_clear_error_and_leaves_nothing(made, tmp_path):
    with pytest.raises(PlanError, match=r"cannot be written to .*No such file"):
        made.write(tmp_path / "none" / "plan.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PlanError, match="cannot be written"):
        made.write(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir() if path.name != "memory"] == ["folder"]


def test_a_failed_write_leaves_the_old_plan(made, tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    made.write(path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PlanError, match="No space left on device"):
        replace(made, seed=9).write(path)
    assert path.read_bytes() == before
    assert not path.with_name("plan.json.partial").exists()


EDITS = [  # (place, value, what a message says of it)
    (("tasks", 0, "repeats"), 1e9, "tasks.0.repeats: Input should be a valid integer"),
    (("tasks", 0, "repeats"), 10**9, "tasks.0.repeats: Input should be less than or equal to 100"),
    (("tasks", 0, "repeats"), 0, "tasks.0.repeats: Input should be greater than or equal to 1"),
    (("tasks", 0, "weight"), -0.5, "tasks.0.weight: Input should be greater than or equal to 0"),
    (("tasks", 0, "weight"), float("nan"), "tasks.0.weight: Input should be a finite number"),
    (("tasks", 1, "distance"), float("inf"), "tasks.1.distance: Input should be a finite number"),
    (("tasks", 0, "count"), "3", "tasks.0.count: Input should be a valid integer"),
    (("tasks", 0, "count"), True, "tasks.0.count: Input should be a valid integer"),
    (("tasks", 0, "available"), 10**30, "tasks.0.available: Input should be less than"),
    (("tasks", 0, "extra"), 1, "tasks.0.extra: Unexpected keyword argument"),
    (("tasks", 0, "instructions", 0, "rows", 0), "zz", "tasks.0.instructions.0.rows.0: String should match pattern"),
    (("tasks", 0, "instructions", 0, "key"), "\x9b\n", "tasks.0.instructions.0.key: String should match pattern"),
    (("training",), {"kl": 2.0}, "training.kl: Input should be less than or equal to 1"),
    (("budget", "amount"), -3, "The budget is -3"),
    (("stage",), 0, "stage: Input should be greater than or equal to 1"),
    (("settings",), {"radius": [1]}, "settings.radius"),
]


@pytest.mark.parametrize(("place", "value", "said"), EDITS)
def test_an_edited_plan_is_refused_with_the_place(made, tmp_path, place, value, said):
    path = tmp_path / "plan.json"
    made.write(path)
    document = json.loads(path.read_text())
    part = document["plan"]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    path.write_text(json.dumps(document))
    with pytest.raises(PlanError, match="is not a plan") as caught:
        Plan.read(path)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("source", [{"data": 3}, {"code": "x"}, {"max_mib": "1"}, {"shares": {"train": 1}}, []])
def test_a_source_that_no_reader_takes_is_refused(made, tmp_path, source):
    replace(made, source=source).write(tmp_path / "plan.json")
    with pytest.raises(PlanError, match=r"is not a plan \(source"):
        Plan.read(tmp_path / "plan.json")
