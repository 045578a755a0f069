"""Plain lines taken many at a time, against the same lines read one by one."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inscl.data.example import Example, plain_keys
from inscl.data.readers import Block, ReadReport, json_files, read_examples
from inscl.errors import InsclError

ROW = {"instruction": "Add.", "input": "2 + 2", "output": "4"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["a  b", " \n", "\x1c", "é"])
ODD = [  # lines that one parser may take for something else than the other does
    '{"instruction": "a", "input": "b", "output": "c"} {"instruction": "a", "input": "b", "output": "d"}',
    '{"instruction": "a", "input": "b",',
    '"output": "c"}',
    '{"instruction": "a", "instruction": "z", "input": "b", "output": "c"}',
    '{"instruction": "\\ud800", "input": "b", "output": "c"}',
    '{"instruction": "a", "input": "b", "output": "c", "n": Inf}',
    '{"instruction": "a", "input": "b", "output": "c", "n": NaN}',
    '{"instruction": "a", "input": "b", "output": "c", "n": {"x": null}}',
    '{"instruction": "a", "input": "b", "output": "c", "n": 1e999}',
    '{"instruction": "a", "input": null, "output": "c"}',
    '{"instruction": "a", "output": "c"}',
    '{"instruction": "a", "input": "b", "output": ["c", "d"]}',
    '{"instruction": "a", "input": "b", "output": "c", "tags": "x, y"}',
    '{"instruction": "a", "input": "b", "output": "c", "split": "test"}',
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
    "[1, 2]",
    "",
    " ",
    "nonsense",
    '{"instruction": "a", "input": "b", "output": "c"}\r',
]
PLAIN = st.fixed_dictionaries(
    {"instruction": TEXTS, "input": TEXTS, "output": TEXTS},
    optional={
        "id": st.integers() | st.floats(allow_nan=False) | st.none(),
        "source": TEXTS,
        "day": st.just("2020-01-01"),
    },
)
LINES = st.lists(PLAIN.map(json.dumps) | PLAIN.map(lambda row: json.dumps(row, ensure_ascii=False)), max_size=12)


def read(path: Path, *, single: int, skip_bad: bool) -> object:
    """What reading gives, or the error; so many lines one by one before any block."""
    report = ReadReport()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "_SINGLE", single)
        try:
            rows = list(read_examples(path, report=report, skip_bad=skip_bad))
        except InsclError as error:
            return str(error)
    return rows, report


@settings(max_examples=150, deadline=None)
@given(LINES, st.lists(st.sampled_from(ODD), max_size=2), st.randoms(), st.booleans())
def test_it_makes_no_difference_how_many_lines_are_read_at_once(tmp_path_factory, plain, odd, random, skip_bad):
    lines = [*plain, *odd]
    random.shuffle(lines)
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    path.write_text("\n".join([json.dumps(ROW), *lines]) + random.choice(["", "\n", "\n\n"]), newline="")
    assert read(path, single=1, skip_bad=skip_bad) == read(path, single=10**6, skip_bad=skip_bad)


def test_plain_lines_come_in_blocks_and_others_do_not(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(ROW | {"input": str(i), "id": i}) + "\n" for i in range(1000)))
    report = ReadReport()
    found = list(read_examples(path, report=report, split="dev").in_blocks())
    assert [type(row) for row in found] == [Example] * 100 + [Block]
    assert [row.input for row in found[-1].examples()] == [str(i) for i in range(100, 1000)]
    assert {row.split for row in found[-1].examples()} == {"dev"}
    assert (report.rows, report.kept, report.ignored) == (1000, 1000, {"id": 1000})
    assert all(isinstance(row, Example) for row in read_examples(path, instruction_field="input").in_blocks())


def test_a_blank_answer_is_dropped_with_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(ROW | {"output": " " if i == 777 else "x"}) + "\n" for i in range(1, 1001)))
    report = ReadReport()
    assert len(list(read_examples(path, report=report))) == 999
    assert report.dropped["blank output"].places == [f"{path}:777"]


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=5))
def test_keys_of_many_rows_are_those_of_each(rows):
    examples = [Example(*row[:2], (row[2],)) for row in rows]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    assert plain_keys(*columns) == ([row.key for row in examples], [row.input_key for row in examples])
