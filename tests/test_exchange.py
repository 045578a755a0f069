"""A memory as plain files, and back: nothing is lost, nothing removed is in it, and no stranger's file is believed."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from inscl.errors import DataError
from inscl.memory.exchange import folder_of
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, conversation, rows_of


def memory_at(path: Path) -> Memory:
    return Memory(path, encoder=WordEncoder(), tagger=WordTagger(), compression="none")


@pytest.fixture
def memory(tmp_path) -> Memory:
    """Three tasks, one of them a chat, one grown, and the log of a stage."""
    made = memory_at(tmp_path / "memory")
    made.add("billing", rows_of("billing", 60))
    made.add("billing", rows_of("more billing", 9), append=True)
    chats = [{"messages": conversation("Be kind.", f"Question {i}?", f"Answer {i}.")} for i in range(20)]
    made.add("/talk <b>", chats)
    made.add("everyday", [{**row, "tags": ["mine"]} for row in rows_of("everyday", 12)], general=True)
    key = made.task("billing").columns(["key"])["key"][0].as_py().hex()
    tasks = [
        {"name": "billing", "count": 1, "rows": [key], "carried": 0.5},
        {"name": "gone", "count": 2, "rows": [key]},
    ]
    made.log_stage({"name": "/talk <b>", "model": "/home/somebody/models/talk", "tasks": tasks})
    return made


@pytest.fixture
def files(memory, tmp_path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    memory.write_plain(folder)
    return folder


def test_what_was_written_is_read_again_and_gives_the_same_plans(memory, files, tmp_path):
    other = memory_at(tmp_path / "other")
    other.read_plain(files)
    assert other.verify().problems == ()
    assert other.tasks() == memory.tasks()
    for name in ("billing", "/talk <b>"):
        there, here = (one.task(name) for one in (memory, other))
        n = sum(here.info.rows.values())
        assert list(there.examples(range(n))) == list(here.examples(range(n)))
        assert there.tagged() == here.tagged()
    asked = {"budget": 10, "strategy": "inscl-rotate", "general": 0.2}
    plans = [plan(one, "new", list(rows_of("new", 30)), **asked).plan for one in (memory, other)]
    assert plans[0] == plans[1]
    other.add("billing", rows_of("still more", 9), append=True)  # it can grow


def test_the_log_goes_without_paths_and_without_what_the_memory_does_not_hold(memory, files, tmp_path):
    other = memory_at(tmp_path / "other")
    other.read_plain(files)
    (stage,) = other.stages()
    assert "model" not in stage
    assert [task["name"] for task in stage["tasks"]] == ["billing", "(removed)"]
    assert stage["tasks"][0] == memory.stages()[0]["tasks"][0]
    assert "rows" not in stage["tasks"][1]


def test_of_what_was_removed_or_replaced_nothing_is_in_the_files(memory, tmp_path):
    memory.add("secret", rows_of("secret-word", 30))
    memory.add("billing", rows_of("fresh", 30), keep_old=True)
    with memory.reading():  # its bytes stay for now
        pass
    memory.remove("secret")
    folder = tmp_path / "clean"
    folder.mkdir()
    memory.write_plain(folder)
    texts = b"".join(
        str(parquet.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    )
    assert b"fresh input 3" in texts
    assert b"secret" not in texts
    assert b"billing input" not in texts


def test_what_is_removed_meanwhile_stays_until_all_is_written(memory, tmp_path):
    memory.add("large", rows_of("large", 20_000))
    memory.add("last", rows_of("last", 30))
    folder = tmp_path / "files"
    folder.mkdir()
    with ThreadPoolExecutor() as pool:
        written = pool.submit(memory.write_plain, folder)
        while not (folder / folder_of("large")).exists():
            assert not written.done()
        memory_at(tmp_path / "memory").remove("last")
        assert written.done()
    assert [info.name for info in written.result()][-1] == "last"


def test_the_same_memory_gives_the_same_bytes(memory, files, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    memory.write_plain(again)
    subprocess.run(["diff", "-r", files, again], check=True)


def test_the_rows_are_a_table_that_add_reads(memory, files, tmp_path):
    about = json.loads((files / "memory.json").read_text())
    assert [task["name"] for task in about["tasks"]] == ["billing", "/talk <b>", "everyday"]
    other = memory_at(tmp_path / "other")
    for path in files.glob("tasks/*/examples.parquet"):
        other.add(path.parent.name, path)
    counts = sorted(sum(task.rows.values()) for task in other.tasks())
    assert counts == sorted(sum(task.rows.values()) for task in memory.tasks())


def changed(table: pa.Table, column: str, value: object) -> pa.Table:
    """A table whose first row holds something else in a column."""
    rows = table.to_pylist()
    rows[0][column] = value
    return pa.Table.from_pylist(rows, table.schema)


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("examples.parquet", "input", "another"),
        ("examples.parquet", "instruction", " "),
        ("examples.parquet", "split", "nowhere"),
        ("examples.parquet", "messages", "{}"),
        ("examples.parquet", "messages", '[{"role": "user", "content": 1}]'),
        ("examples.parquet", "outputs", []),
        ("instructions.parquet", "tags", ["another"]),
        ("instructions.parquet", "tagger", "another"),
        ("instructions.parquet", "text", "another"),
        ("instructions.parquet", "embedding", [float("nan")] * 64),
        ("instructions.parquet", "embedding", [1.0] + [0.0] * 63),
        ("instructions.parquet", "cut", True),
    ],
)
def test_a_table_that_is_not_what_is_said_of_it_is_refused_in_one_line(files, tmp_path, name, column, value):
    for path in files.glob(f"tasks/*/{name}"):
        parquet.write_table(changed(parquet.read_table(path), column, value), path)
    with pytest.raises(DataError, match=r"^The task '.*' of the shared memory cannot be used \(.+\)\. .*$"):
        memory_at(tmp_path / "other").read_plain(files)


@pytest.mark.parametrize(
    "change",
    [
        {"inscl_memory": 2},
        {"tasks": [{}]},
        {"stages": [{"name": "a", "tasks": [{"name": "a", "rows": ["../x"]}]}]},
        {"tasks": 3},
    ],
)
def test_a_list_of_tasks_that_is_none_is_refused(files, tmp_path, change):
    about = json.loads((files / "memory.json").read_text())
    (files / "memory.json").write_text(json.dumps({**about, **change}))
    with pytest.raises(DataError, match=r"^memory\.json of the shared memory cannot be used"):
        memory_at(tmp_path / "other").read_plain(files)


@pytest.mark.parametrize("raw", [b"", b"PAR1", b"{", b"\x00" * 100])
@pytest.mark.parametrize("name", ["memory.json", "examples.parquet", "instructions.parquet"])
def test_files_of_anything_else_are_refused(files, tmp_path, name, raw):
    for path in files.rglob(name):
        path.write_bytes(raw)
    with pytest.raises(DataError, match="of the shared memory cannot be used"):
        memory_at(tmp_path / "other").read_plain(files)
