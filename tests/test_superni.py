"""Super-NaturalInstructions: a small checkout made by hand, and all the real tasks against plain JSON."""

import json

import pytest

from inscl.data.example import Example
from inscl.data.readers import ReadReport, read_examples
from inscl.data.superni import superni_files
from inscl.errors import DataError


def read(path, categories=None, report=None):
    """The tasks of a checkout with their examples."""
    return {
        name: list(read_examples(files, format="superni", report=report))
        for name, files in superni_files(path, categories).items()
    }


@pytest.fixture
def checkout(tmp_path):
    """Two tasks, one of them with two wordings and with rows that cannot be used; other files around them."""
    first = {
        "Definition": ["Add the numbers.", "Sum up."],
        "Positive Examples": [{"input": "1", "output": "1"}],
        "Instances": [
            {"id": "1", "input": "2 + 2", "output": ["4", "four", "4"]},
            {"id": "2", "input": "", "output": ["0"]},
            {"id": "3", "input": "1 + 1", "output": []},
            "oops",
        ],
    }
    second = {"Definition": "Say yes.", "Instances": [{"input": "x", "output": "yes"}]}
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "task1_add.json").write_text(json.dumps(first, indent=4))
    (tmp_path / "tasks" / "task2_yes.json").write_text(json.dumps(second))
    (tmp_path / "tasks" / "README.md").write_text("# Tasks")
    (tmp_path / "categories.json").write_text(json.dumps({"All": ["task2_yes", "task1_add"]}))
    return tmp_path


ADD = [Example("Add the numbers.", "2 + 2", ("4", "four")), Example("Add the numbers.", "", ("0",))]
YES = [Example("Say yes.", "x", ("yes",))]


def test_each_file_is_a_task(checkout):
    report = ReadReport()
    tasks = read(checkout, report=report)
    assert tasks == {"task1_add": ADD, "task2_yes": YES}
    file = checkout / "tasks" / "task1_add.json"
    assert report.drops == (f"kept 3 of 5: 1 × no output ({file}:3), 1 × not an object with named fields ({file}:4)")
    assert read(checkout / "tasks") == tasks
    assert [*superni_files(file)] == ["task1_add"]


def test_tasks_are_grouped_by_a_category_map(checkout):
    for categories in (
        checkout / "categories.json",
        str(checkout / "categories.json"),
        {"All": ["task2_yes", "task1_add"]},
    ):
        assert read(checkout, categories) == {"All": YES + ADD}


def test_a_checkout_read_as_examples_is_one_task(checkout):
    assert list(read_examples(checkout)) == list(read_examples(checkout, format="superni")) == ADD + YES


def test_a_category_that_names_missing_files_is_an_error(checkout):
    categories = {"A": ["task1_add", "x1"], "B": ["x2", "x3", "x4"]}
    with pytest.raises(DataError, match=r"not there: 'x1' \(A\), 'x2' \(B\), 'x3' \(B\) and 1 more"):
        superni_files(checkout, categories)


NO_MAPS = {"[]": "wants one JSON object", '{"A": "task1_add"}': "category 'A' wants a list", "{": "cannot be read"}


@pytest.mark.parametrize(("categories", "message"), NO_MAPS.items())
def test_a_map_that_is_none_is_an_error(checkout, categories, message):
    (checkout / "categories.json").write_text(categories)
    with pytest.raises(DataError, match=message):
        superni_files(checkout, checkout / "categories.json")


def test_a_folder_without_tasks_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no task files"):
        superni_files(tmp_path)
    with pytest.raises(DataError, match="There is no file or folder"):
        superni_files(tmp_path / "nothing")


def test_a_file_that_is_no_task_is_dropped_and_named(checkout):
    (checkout / "tasks" / "other.json").write_text('{"a": 1}')
    report = ReadReport()
    list(read_examples(checkout, format="superni", report=report))
    assert report.dropped["not a Super-NaturalInstructions task: no `Instances`"].count == 1


def test_all_real_tasks_load_with_every_reference(real_data):
    count = 0
    for name, examples in read(real_data).items():
        task = json.loads((real_data / "tasks" / f"{name}.json").read_text())
        count += len(examples)
        assert [e.input for e in examples] == [instance["input"] for instance in task["Instances"]]
        assert [list(e.outputs) for e in examples] == [
            list(dict.fromkeys(instance["output"])) for instance in task["Instances"]
        ]
        assert {e.instruction for e in examples} == {task["Definition"][0]}
    assert count == 46_173


def test_the_real_categories_hold_every_task(real_data):
    categories = json.loads((real_data / "categories.json").read_text())
    report = ReadReport()
    loaded = {
        name: {e.instruction for e in examples}
        for name, examples in read(real_data, real_data / "categories.json", report).items()
    }
    assert list(loaded) == list(categories)
    assert len(loaded) == 16
    assert (report.rows, report.kept) == (46_173, 46_173)
    assert sum(len(stems) for stems in categories.values()) == 696
    assert all(0 < len(loaded[name]) <= len(stems) for name, stems in categories.items())
