"""The index of inputs: the same counts as looking into every task, without doing so."""

import shutil

import lance
import pyarrow as pa
import pytest

from inscl.memory.cache_table import KEY, CacheTable, _checks
from inscl.memory.input_index import InputIndex
from inscl.memory.memory import Memory
from inscl.memory.task import Task
from support import WordEncoder, WordTagger, flip
from test_memory import every_byte


def opened(path) -> Memory:
    return Memory(path, encoder=WordEncoder(), tagger=WordTagger())


def rows(start: int, stop: int, split: str | None = None) -> list[dict[str, object]]:
    side = {"split": split} if split else {}
    return [{"instruction": "Do.", "input": f"input {i}", "output": str(start), **side} for i in range(start, stop)]


@pytest.fixture
def looked_into(monkeypatch):
    """Tasks whose inputs were read from their own tables."""
    found = []

    def inputs(task):
        found.append(task.info.name)
        return whole(task)

    whole = Task.__dict__["inputs"].func
    monkeypatch.setattr(Task, "inputs", property(inputs))
    return found


def in_every_task(memory: Memory, name: str) -> tuple[int, int]:
    """What the counts should be, example by example."""
    sides = {info.name: {e.input: e.split for e in memory.task(info.name).examples(range(sum(info.rows.values())))}
             for info in memory.tasks()}  # fmt: skip
    mine = sides.pop(name)
    shared = {text for text in mine if any(text in other for other in sides.values())}
    return len(shared), sum(
        any(mine[text] != other.get(text, mine[text]) for other in sides.values()) for text in shared
    )


def test_counts_are_those_of_looking_into_every_task(tmp_path, looked_into):
    path = tmp_path / "m"
    for name, data in {"a": rows(0, 40), "b": rows(30, 60, "test"), "c": rows(55, 90), "d": rows(200, 220)}.items():
        opened(path).add(name, data)
    looked_into.clear()
    for name, data in {"e": rows(10, 70, "dev"), "b": rows(0, 58), "f": rows(300, 310)}.items():
        done = opened(path).add(name, data)
        assert set(looked_into) == {name}
        looked_into.clear()
        assert (done.shared_inputs, done.shared_across) == in_every_task(opened(path), name)
        looked_into.clear()


def test_what_is_not_in_it_or_not_whole_is_put_into_it(tmp_path, looked_into):
    path = tmp_path / "m"
    for name in "abc":
        opened(path).add(name, rows(0, 40))
    table = path / "cache" / "inputs.lance"
    shutil.rmtree(table)  # as in a memory of an earlier release
    looked_into.clear()
    done = opened(path).add("d", rows(20, 50))
    assert (done.shared_inputs, set(looked_into)) == (20, {"a", "b", "c", "d"})
    lost = InputIndex.key(opened(path).state().live["b"].id)
    (file,) = [file for file in table.rglob("data/*.lance") if file.read_bytes().count(lost)][:1]
    flip(file, file.read_bytes().index(lost))
    assert any("inputs.lance" in problem for problem in opened(path).verify().problems)
    assert opened(path).verify(repair=True).problems == ()
    looked_into.clear()
    assert opened(path).add("e", rows(20, 50)).shared_inputs == 30
    assert "e" in looked_into
    looked_into.clear()
    opened(path).add("f", rows(20, 50))
    assert set(looked_into) == {"f"}


def test_a_removed_task_leaves_it(tmp_path):
    path = tmp_path / "m"
    for name in "ab":
        opened(path).add(name, rows(0, 40))
    gone = InputIndex.key(opened(path).state().live["a"].id)
    table = path / "cache" / "inputs.lance"
    assert gone in every_byte(table)
    opened(path).remove("a")
    assert gone not in every_byte(table)
    assert lance.dataset(str(table)).count_rows() == 40


def test_many_small_pieces_are_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr("inscl.memory.cache_table._PIECES", 3)
    monkeypatch.setattr("inscl.memory.purging._LONG_LOG", 6)
    path = tmp_path / "m"
    for k in range(8):
        opened(path).add(f"task {k}", rows(10 * k, 10 * k + 15))
    for table in (path / "cache").iterdir():
        assert len(lance.dataset(str(table)).get_fragments()) < 6
    assert opened(path).verify().problems == ()
    assert opened(path).add("last", rows(0, 200)).shared_inputs == 85


def test_without_a_folder_every_task_is_looked_into(tmp_path, looked_into):
    memory = opened(tmp_path / "m")
    for name in "abc":
        memory.add(name, rows(0, 40))
    looked_into.clear()
    others = {name: memory.task(name) for name in "bc"}
    assert InputIndex(None).shared(memory.task("a"), {task.folder[-32:]: task for task in others.values()})[0] == 40
    assert sorted(set(looked_into)) == ["a", "b", "c"]


@pytest.mark.parametrize("table", ["inputs.lance", "0-distances.lance"])
def test_a_table_without_rows_is_whole(tmp_path, table):
    """Who was killed between making it and the first rows, or removed the last task, leaves one."""
    number = pa.int64() if table == "inputs.lance" else pa.float64()
    empty = pa.table({"first": pa.array([], KEY), "value": pa.array([], number)})
    lance.write_dataset(empty.append_column("check", pa.array([], pa.uint64())), str(tmp_path / table))
    assert CacheTable("a cache", str(tmp_path / table)).damage() == ""
    assert CacheTable("the cache", str(tmp_path / table)).find(first=[bytes(16)]) is None
    assert CacheTable("the cache", str(tmp_path / table)).counts("first") == {}
    assert len(_checks(empty)) == 0
