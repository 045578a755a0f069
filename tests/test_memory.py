import json
import os
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from inscl.data.example import Example, instruction_key
from inscl.data.split import Shares
from inscl.errors import DataError, MemoryStateError
from inscl.memory.catalogue import CATALOGUE, Commit
from inscl.memory.memory import Memory
from support import WordEncoder, WordTagger, rows_of


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())


def reopened(memory: Memory) -> Memory:
    return Memory(memory.path, encoder=WordEncoder(), tagger=WordTagger())


def texts(memory: Memory, name: str) -> set[str]:
    task = memory.task(name)
    return {example.input for example in task.examples(range(sum(task.info.rows.values())))}


def test_what_was_added_is_read_back_whole(memory):
    given = [Example(**{**row, "outputs": tuple(row["outputs"])}) for row in rows_of("a", 50)]
    memory.add("a", given)
    task = reopened(memory).task("a")
    found = task.examples(range(50))
    assert {(e.instruction, e.input, e.outputs) for e in found} == {(e.instruction, e.input, e.outputs) for e in given}


def test_rows_are_grouped_by_instruction_training_rows_first(memory):
    memory.add("a", rows_of("a", 90, instructions=4))
    task = memory.task("a")
    train = list(task.examples(task.side("train")))
    keys = [instruction_key(example.instruction) for example in train]
    assert keys == sorted(keys)
    assert task.instructions.keys == sorted(set(task.instructions.keys))
    counts = dict(zip(task.instructions.keys, task.instructions.counts[:, 0], strict=True))
    assert {key: keys.count(key) for key in counts} == counts
    assert {example.split for example in task.examples(task.side("test"))} == {"test"}


def test_the_order_in_which_rows_arrive_changes_nothing(tmp_path):
    rows = list(rows_of("a", 70))
    infos = []
    for n, order in enumerate((rows, rows[::-1])):
        memory = Memory(tmp_path / str(n), encoder=WordEncoder(), tagger=WordTagger())
        infos.append(memory.add("a", order).info)
    assert infos[0] == infos[1]


def test_adding_the_same_again_changes_nothing(memory):
    assert memory.add("a", rows_of("a")).status == "added"
    before = memory.state()
    assert memory.add("a", list(rows_of("a"))[::-1]).status == "unchanged"
    assert memory.state() == before


def test_other_content_replaces_and_the_old_bytes_go(memory):
    memory.add("a", rows_of("a"))
    memory.add("b", rows_of("b"))
    assert memory.add("a", rows_of("new")).status == "replaced"
    assert [info.name for info in memory.tasks()] == ["a", "b"]  # a replaced task keeps its place
    assert texts(memory, "a") == {f"new input {i}" for i in range(60)}
    assert len(list((Path(memory.path) / "tasks").iterdir())) == 2


def test_keep_old_keeps_the_replaced_version(memory):
    first = memory.add("a", rows_of("a")).info
    memory.add("a", rows_of("new"), keep_old=True)
    assert next(info.content for info in memory.versions("a")) == first.content
    assert memory.task("a", first.content[:8]).info.content == first.content
    with pytest.raises(MemoryStateError, match="no version 'ffff'"):
        memory.task("a", "ffff")


def test_kept_versions_and_the_order_of_tasks_outlive_a_condensed_catalogue(memory):
    contents = [memory.add("a", rows_of("a")).info.content]
    memory.add("b", rows_of("b"))
    contents.append(memory.add("a", rows_of("two"), keep_old=True).info.content)
    memory.add("a", rows_of("three"), keep_old=True)
    contents.append(memory.add("a", rows_of("four")).info.content)  # replaces the third, and keeps what was kept
    memory.add("gone", rows_of("gone"))
    memory.remove("gone")
    memory.remove("b")
    memory.add("b", rows_of("b"))
    again = reopened(memory)
    assert again.state().dead == ()
    assert [info.content for info in again.versions("a")] == contents
    assert [info.name for info in again.tasks()] == ["a", "b"]
    assert texts(again, "a") == {f"four input {i}" for i in range(60)}


def test_the_log_of_many_stages_is_put_together_and_says_the_same(memory):
    memory.add("b", rows_of("b"))
    for number in range(40):
        memory.log_stage({"name": f"stage{number}", "tasks": [{"name": "a", "count": number}]})
    logged = memory.stages()
    files = len(list(Path(memory.path, "stages.lance").rglob("*.*")))
    memory.add("b", rows_of("c"))  # replaces, and purges
    assert len(list(Path(memory.path, "stages.lance").rglob("*.*"))) < files / 8
    found = reopened(memory).stages()
    assert [stage["name"] for stage in found] == [stage["name"] for stage in logged]
    assert [stage["tasks"][0]["count"] for stage in found] == list(range(40))


def test_append_adds_rows_and_no_row_changes_side(memory):
    rows = list(rows_of("a", 200))
    memory.add("a", rows[:40])
    task = memory.task("a")
    before = {e.input: e.split for e in task.examples(range(40))}
    done = memory.add("a", rows[30:], append=True)
    assert done.status == "appended"
    assert done.info.duplicates == 10  # rows 30-39 were there already
    task = memory.task("a")
    after = {e.input: e.split for e in task.examples(range(200))}
    assert {text: after[text] for text in before} == before
    at_once = Memory(Path(memory.path).parent / "other", encoder=WordEncoder(), tagger=WordTagger())
    assert done.info.content == at_once.add("a", rows).info.content


def test_exact_duplicates_are_removed_and_counted(memory):
    rows = list(rows_of("a", 50))
    done = memory.add("a", [*rows, *rows[:7]])
    assert (sum(done.info.rows.values()), done.info.duplicates) == (50, 7)


def test_several_references_survive(memory):
    """The published code re-uses one dict per reference: A, B, C load as C, C, C."""
    memory.add("a", [{"instruction": "Say.", "input": str(i), "outputs": ["A", "B", "C"]} for i in range(9)])
    assert {e.outputs for e in memory.task("a").examples(range(9))} == {("A", "B", "C")}


def test_rows_without_input_stay(memory):
    """The published code loads only rows with a non-blank input."""
    memory.add("a", [{"instruction": f"Name fact {i}.", "input": "", "output": "x"} for i in range(20)])
    assert sum(memory.tasks()[0].rows.values()) == 20


def test_the_split_is_by_input_and_the_same_for_all_tasks(memory):
    shared = [f"input {i}" for i in range(200)]
    memory.add("a", [{"instruction": "Do.", "input": text, "output": "1"} for text in shared])
    done = memory.add("b", [{"instruction": "Else.", "input": text, "output": "2"} for text in [*shared[:120], "z"]])
    sides = [{e.input: e.split for e in memory.task(t).examples(range(n))} for t, n in (("a", 200), ("b", 121))]
    assert all(sides[0][text] == sides[1][text] for text in shared[:120])
    assert (done.shared_inputs, done.shared_across) == (120, 0)
    assert any("120 input(s) also stand" in warning for warning in done.warnings)
    assert 25 < memory.task("a").info.rows["test"] < 55


def test_inputs_on_another_side_in_another_task_are_counted(memory):
    rows = [{"instruction": "Do.", "input": f"i{i}", "output": "1", "split": "train"} for i in range(40)]
    memory.add("a", rows)
    done = memory.add("b", [{**row, "split": "test"} for row in rows] + list(rows_of("b", 5)))
    assert (done.shared_inputs, done.shared_across) == (40, 40)


def test_few_test_rows_are_warned_of(memory):
    assert any("fewer than 30" in warning for warning in memory.add("a", rows_of("a", 60)).warnings)
    assert not any("fewer than 30" in warning for warning in memory.add("b", rows_of("b", 400)).warnings)


def test_held_out_files_replace_the_hashed_side(memory, tmp_path):
    test = tmp_path / "held.jsonl"
    test.write_text("\n".join(json.dumps(row) for row in rows_of("held", 31)))
    info = memory.add("a", rows_of("a", 100), test=str(test)).info
    assert info.rows["test"] == 31
    assert {e.input.split()[0] for e in memory.task("a").examples(memory.task("a").side("test"))} == {"held"}


def test_your_own_tags_are_kept_and_the_others_are_made(memory):
    rows = list(rows_of("a", 30, instructions=2))
    own = {instruction_key(rows[0]["instruction"]): ["mine", "mine", "also mine"]}
    memory.add("a", rows, tags=own)
    task = memory.task("a")
    by_key = dict(zip(task.instructions.keys, task.tagged(), strict=True))
    assert by_key[instruction_key(rows[0]["instruction"])] == (("also mine", "mine"), "yours")
    assert by_key[instruction_key(rows[1]["instruction"])][1] == "long-words"


def test_no_text_is_encoded_twice_across_runs(memory):
    memory.add("a", rows_of("a"))
    again = WordEncoder()
    other = Memory(memory.path, encoder=again, tagger=WordTagger())
    other.add("same instructions", [{**row, "input": f"x{i}"} for i, row in enumerate(rows_of("a"))])
    assert again.seen == []


def test_embeddings_of_an_encoder_without_identity_are_never_kept_for_another(tmp_path):
    first, second = (lambda texts, k=k: np.eye(8)[[k] * len(texts)] + 0.1 for k in (1, 2))
    for name, encoder in (("one", first), ("two", second)):
        Memory(tmp_path / "m", encoder=encoder, tagger=WordTagger()).add(name, rows_of("a"))
    memory = Memory(tmp_path / "m", encoder=first, tagger=WordTagger())
    one, two = (memory.task(name).instructions.embeddings for name in ("one", "two"))
    assert not np.array_equal(one, two)
    assert not (tmp_path / "m" / "cache").exists()


def test_who_may_only_read_still_reads_under_the_lock(memory, monkeypatch):
    memory.add("a", rows_of("a"))
    whole = os.open

    def read_only(path, flags, *arguments, **keywords):
        if Path(path).name.startswith("lock") and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", read_only)
    with reopened(memory).reading():
        assert texts(reopened(memory), "a") == {f"a input {i}" for i in range(60)}


def test_a_nan_embedding_stops_before_anything_is_written(tmp_path):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    memory.add("a", rows_of("a"))
    broken = Memory(memory.path, encoder=lambda texts: np.full((len(texts), 3), np.nan), tagger=WordTagger())
    before = memory.state()
    with pytest.raises(DataError, match=r"NaN, infinite or all-zero values for 3 of 3 texts"):
        broken.add("b", rows_of("b"))
    assert reopened(memory).state() == before
    assert len(list((tmp_path / "m" / "tasks").iterdir())) == 1


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (lambda texts: np.zeros((len(texts), 4)), "all-zero"),
        (lambda texts: np.ones(len(texts)), "wanted"),
        (lambda texts: np.ones((len(texts) + 1, 4)), "Return one row per text"),
    ],
)
def test_a_custom_encoder_is_checked(tmp_path, vectors, message):
    with pytest.raises(DataError, match=message):
        Memory(tmp_path / "m", encoder=vectors, tagger=WordTagger()).add("a", rows_of("a"))


@pytest.mark.parametrize(
    "name", ["", "  ", "x" * 201, "../../etc/x", "a/../b", "a\\..\\b", ".", "line\nbreak", "\u202egnp", "bell\x07"]
)
def test_impossible_names_are_refused_and_nothing_is_made(memory, name):
    with pytest.raises(DataError, match="task name"):
        memory.add(name, rows_of("a"))
    assert not Path(memory.path).exists()


@pytest.mark.parametrize(
    "name", ["a/b", "<script>alert(1)</script>", "été 数据", "..hidden", "%s{0}", "con", "x" * 200]
)
def test_all_other_names_are_names(memory, name):
    memory.add(name, rows_of("a"))
    assert [info.name for info in reopened(memory).tasks()] == [name]
    reopened(memory).remove(name)
    assert memory.tasks() == []


def test_an_unknown_task_is_met_with_the_nearest_name(memory):
    memory.add("billing", rows_of("a"))
    with pytest.raises(MemoryStateError, match=r"no task 'billng'\. Did you mean 'billing'"):
        memory.task("billng")
    with pytest.raises(MemoryStateError, match="no task 'xyz'"):
        memory.remove("xyz")


def test_a_memory_written_by_a_newer_release_is_refused_unchanged(memory):
    memory.add("a", rows_of("a"))
    rows = pa.Table.from_pylist([Commit("add", "z").row()], CATALOGUE.with_metadata({"inscl_format": "99"}))
    lance.write_dataset(rows, f"{memory.path}/catalogue.lance", mode="overwrite")
    with pytest.raises(MemoryStateError, match=r"newer inscl \(format 99; this release reads up to 1\)"):
        reopened(memory).tasks()
    with pytest.raises(MemoryStateError, match="newer inscl"):
        reopened(memory).add("b", rows_of("b"))


def test_a_folder_with_other_things_is_never_taken_for_a_memory(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MemoryStateError, match=r"not a memory and not empty \(it holds 'thesis.tex'\)"):
        Memory(tmp_path, encoder=WordEncoder(), tagger=WordTagger()).add("a", rows_of("a"))


def test_deleting_touches_only_folders_of_our_own(memory):
    memory.add("a", rows_of("a"))
    stranger = Path(memory.path) / "tasks" / "not ours"
    stranger.mkdir()
    memory.remove("a")
    assert stranger.exists()


def test_verify_finds_a_flipped_bit_in_any_file(memory):
    memory.add("a", rows_of("a"))
    assert memory.verify().problems == ()
    files = [file for file in (Path(memory.path) / "tasks").rglob("*") if file.is_file()]
    assert len(files) >= 4
    for file in files:
        whole = file.read_bytes()
        broken = bytearray(whole)
        broken[len(broken) // 2] ^= 1
        file.write_bytes(broken)
        assert any(file.name in problem for problem in memory.verify().problems), file
        file.write_bytes(whole)
    files[0].unlink()
    assert any("is missing" in problem for problem in memory.verify().problems)


def test_a_damaged_catalogue_row_is_seen(memory):
    row = {**Commit("add", "a", "0" * 32).row(), "info": "{}"}
    Path(memory.path).mkdir()
    lance.write_dataset(pa.Table.from_pylist([row], CATALOGUE), f"{memory.path}/catalogue.lance")
    with pytest.raises(MemoryStateError, match="damaged"):
        memory.tasks()


def every_byte(folder: str | Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(Path(folder).rglob("*")) if file.is_file())


def test_remove_leaves_no_byte_behind(tmp_path):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger(), compression="none")
    memory.add("kept", rows_of("kept"))
    memory.add("secret", rows_of("zebrafish"))
    memory.log_stage({"name": "secret", "tasks": [{"name": "kept", "count": 3, "rows": ["00"]}]})
    memory.log_stage({"name": "kept", "tasks": [{"name": "secret", "count": 5, "instructions": ["zebrafish"]}]})
    assert b"zebrafish" in every_byte(memory.path)
    assert b"secret" in every_byte(memory.path)
    memory.remove("secret")
    left = every_byte(memory.path)
    assert b"zebrafish" not in left
    assert b"secret" not in left
    assert b"kept" in left
    assert memory.stages()[1]["tasks"] == [{"name": "(removed)", "count": 5}]
    assert memory.verify().problems == ()


def test_remove_takes_cached_embeddings_that_only_it_used(tmp_path):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    memory.add("a", rows_of("a"))
    memory.add("b", rows_of("b"))
    memory.remove("b")
    fresh = WordEncoder()
    again = Memory(memory.path, encoder=fresh, tagger=WordTagger())
    again.encode(memory.task("a").instructions.texts)
    assert fresh.seen == []
    again.encode([row["instruction"] for row in rows_of("b")][:1])
    assert len(fresh.seen) == 1


def test_shares_must_leave_something_to_train_on():
    with pytest.raises(DataError, match="sum is below 1"):
        Shares(0.5, 0.5)


def test_one_chat_makes_a_task_a_chat(memory):
    chat = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
    rows = [Example("a", "b", ("c",)), Example("hi", "", ("hello",), tuple(chat["messages"]))]
    assert memory.add("a", rows).info.form == "chat"
    kept = [replace(row, split=None) for row in memory.task("a").examples(range(2))]
    assert sorted(kept, key=lambda row: row.instruction) == rows
