"""The twelve tasks of twelve instructions: what their rows promise."""

from collections import Counter

import pytest

from inscl.demo.forms import FORM_TASKS, form_tasks

TASKS = form_tasks(seed=3)


@pytest.mark.parametrize("name", TASKS)
def test_every_instruction_stands_equally_often_on_each_side(name):
    for side in ("train", "dev", "test"):
        counts = Counter(row.instruction for row in TASKS[name] if row.split == side)
        assert len(counts) == 12
        assert len(set(counts.values())) == 1


@pytest.mark.parametrize("name", TASKS)
def test_inputs_are_distinct_and_answers_read_from_them(name):
    rows = TASKS[name]
    assert len({row.input for row in rows}) == len(rows)
    assert all(row.outputs[0].strip() == row.outputs[0] for row in rows)


def test_no_two_instructions_are_equal_and_no_two_forms_of_a_task_answer_alike():
    said = [instruction for task in FORM_TASKS.values() for instruction, _ in task.instructions]
    assert len(set(said)) == len(said) == 144
    assert all(len(set(task.forms.values())) == 4 for task in FORM_TASKS.values())


def test_an_answer_can_be_told_by_reading_the_input():
    facts = {"honey 39 | bread 5 | flour 8 | wanted: bread": 5}
    for text, price in facts.items():
        wanted = text.rpartition("wanted: ")[2]
        assert int(text.split(f"{wanted} ")[1].split(" ")[0]) == price
    for row in TASKS["price"]:
        table, _, wanted = row.input.rpartition(" | wanted: ")
        prices = dict(entry.split(" ") for entry in table.split(" | "))
        assert prices[wanted] in row.outputs[0]
    for row in TASKS["older"]:
        first, second = (part.rstrip(".").split(" is ") for part in row.input.split(" and "))
        older, younger = sorted((first, second), key=lambda person: -int(person[1]))
        named = younger if row.outputs[0].startswith("junior") else older
        assert named[0] in row.outputs[0] or named[1] in row.outputs[0]


def test_training_rows_may_change_and_held_out_rows_stay():
    fewer = form_tasks(seed=3, train=24)
    for name, rows in TASKS.items():
        held_out = [row for row in rows if row.split != "train"]
        assert [row for row in fewer[name] if row.split != "train"] == held_out


def test_other_seeds_give_other_rows():
    assert form_tasks(seed=4)["price"] != TASKS["price"]


def test_too_many_rows_are_refused():
    with pytest.raises(ValueError, match="400"):
        form_tasks(train=400)
