"""The demo tasks: every answer is worked out again here, by code and word lists of the tests' own."""

import hashlib
import re
import subprocess
import sys
from collections import Counter

import pytest

from inscl.data.example import SPLITS
from inscl.demo.tasks import TASKS, demo_tasks

PARTICIPLES = {
    "broke": "broken", "built": "built", "carried": "carried", "chose": "chosen", "cleaned": "cleaned",
    "closed": "closed", "drew": "drawn", "found": "found", "hid": "hidden", "lost": "lost",
    "opened": "opened", "painted": "painted", "sold": "sold", "stole": "stolen", "threw": "thrown",
    "washed": "washed", "wrote": "written",
}  # fmt: skip
SMALLER = {"kilometres": ("000", "metres"), "metres": ("00", "centimetres"),
           "kilograms": ("000", "grams"), "euros": ("00", "cents")}  # fmt: skip
BAD = """cold bland rude careless dirty damp hard broken boring silly awful loud neglected ugly late crowded
grumpy impatient weak stale disappointing poor unfriendly lazy"""
GOOD = """tasty delicious friendly helpful bright tidy comfortable soft moving funny lovely beautiful pretty
peaceful punctual clean cheerful patient excellent fresh wonderful splendid kind attentive"""


def reverse(text):
    first, second, third, fourth = text.split(", ")
    return f"{fourth} < {third} < {second} < {first}"


def field_of_record(text):
    record, asked = re.fullmatch(r"(.+)\. Field: (\w+)", text).groups()
    return "[" + re.search(rf"\b{asked} = (\w+)", record).group(1) + "]"


def in_smaller_unit(text):
    number, unit = re.search(r"(\d+) (\w+)", text).groups()
    zeros, smaller = SMALLER[unit]
    return f"{number}{zeros} {smaller}"


def passive(text):
    _, person, verb, _, thing = text.rstrip(".").split(" ")
    be = {True: "were", False: "was"}[thing[-1] == "s"]
    return " ".join(["The", thing, be, PARTICIPLES[verb], "by", "the", person]) + "."


def price(text):
    table, wanted = text.split(" | wanted: ")
    return f"pay {dict(entry.split() for entry in table.split(' | '))[wanted]} coins"


def opinion(text):
    words = set(re.findall(r"\w+", text))
    good, bad = len(words & {*GOOD.split()}), len(words & {*BAD.split()})
    assert {good, bad} == {0, 2}, f"the opinion is not plain: {text}"
    return "positive" if good else "negative"


ANSWERS = {
    "reverse_words": reverse,
    "record_field": field_of_record,
    "smaller_unit": in_smaller_unit,
    "passive_voice": passive,
    "price_list": price,
    "review_opinion": opinion,
}


@pytest.mark.parametrize("name", TASKS)
def test_every_answer_is_right(name):
    for row in demo_tasks(seed=5, train=400, dev=40, test=60)[name]:
        assert row.outputs == (ANSWERS[name](row.input),), row.input


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_input_occurs_twice(seed):
    keys = [row.input_key for rows in demo_tasks(seed).values() for row in rows]
    assert len(keys) == len(set(keys)) == 6 * 200


def test_sides_have_the_sizes_asked_for_and_all_instructions():
    for name, rows in demo_tasks(train=64, dev=10, test=30).items():
        assert Counter(row.split for row in rows) == {"train": 64, "dev": 10, "test": 30}
        for split in SPLITS:
            turns = Counter(row.instruction for row in rows if row.split == split)
            assert set(turns) == set(TASKS[name].instructions)
            assert max(turns.values()) - min(turns.values()) <= 1


def test_held_out_rows_stay_when_more_training_rows_are_made():
    few, many = demo_tasks(train=10), demo_tasks(train=200)
    for name in TASKS:
        assert [r for r in few[name] if r.split != "train"] == [r for r in many[name] if r.split != "train"]
        assert [r for r in many[name] if r.split == "train"][:10] == few[name][:10]


def test_a_seed_changes_the_rows():
    assert all(demo_tasks(0)[name] != demo_tasks(1)[name] for name in TASKS)


def test_instructions_differ_within_and_across_tasks():
    instructions = [text for task in TASKS.values() for text in task.instructions]
    assert len(instructions) == len(set(instructions))
    assert all(4 <= len(task.instructions) <= 6 for task in TASKS.values())


def test_answers_of_different_tasks_have_different_forms():
    forms = {
        "reverse_words": r"\w+( < \w+){3}",
        "record_field": r"\[\w+\]",
        "smaller_unit": r"\d+ \w+",
        "passive_voice": r"The \w+ (was|were) \w+ by the \w+\.",
        "price_list": r"pay \d+ coins",
        "review_opinion": r"positive|negative",
    }
    for name, rows in demo_tasks().items():
        for row in rows:
            assert [other for other, form in forms.items() if re.fullmatch(form, row.outputs[0])] == [name]


def test_labels_are_balanced():
    labels = Counter(row.outputs[0] for row in demo_tasks(train=420)["review_opinion"])
    assert min(labels.values()) > 0.42 * sum(labels.values())


def test_prompts_are_short():
    for rows in demo_tasks().values():
        assert max(len(f"{row.instruction} {row.input}") for row in rows) <= 140  # at most 45 tokens


def test_rows_are_the_same_in_another_process():
    program = (
        "import hashlib; from inscl.demo.tasks import demo_tasks; "
        "print(hashlib.sha256(repr(demo_tasks(3)).encode()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(repr(demo_tasks(3)).encode()).hexdigest()


def test_rows_are_those_of_the_published_numbers():
    """The README's figures are for these rows; a change of NumPy's generator or the word lists shows here."""
    rows = [(r.instruction, r.input, r.outputs) for rows in demo_tasks(0).values() for r in rows]
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    assert digest[:16] == "7c4eb3dd0d96fef6"


@pytest.mark.parametrize("sizes", [{"train": -1}, {"train": 600}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="0 to 500 rows"):
        demo_tasks(**sizes)
