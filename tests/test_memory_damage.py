"""A damaged memory: nothing is lost that was whole, and what is damaged is named in one line."""

import shutil
from pathlib import Path

import pytest

from inscl.errors import MemoryStateError
from inscl.memory.catalogue import Commit
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, flip, rows_of
from test_memory import every_byte
from torture import FULL, Row


def opened(path: str | Path) -> Memory:
    return Memory(path, encoder=WordEncoder(), tagger=WordTagger(), compression="none")


@pytest.fixture
def path(tmp_path) -> Path:
    memory = opened(tmp_path / "m")
    for name in ("a", "b"):
        memory.add(name, rows_of(name))
    return tmp_path / "m"


def manifests(path: Path) -> list[Path]:
    """Of the catalogue, the newest first: Lance counts names down."""
    return sorted((path / "catalogue.lance" / "_versions").glob("*.manifest"))


def without_all_manifests(path: Path) -> None:
    shutil.rmtree(path / "catalogue.lance" / "_versions")


def without_the_newest_manifest(path: Path) -> None:
    manifests(path)[0].unlink()


def without_the_catalogue(path: Path) -> None:
    shutil.rmtree(path / "catalogue.lance")


def with_an_older_manifest_as_the_newest(path: Path) -> None:
    shutil.copyfile(manifests(path)[1], manifests(path)[0])


def with_a_flipped_head(path: Path) -> None:
    head = path / "catalogue.head"
    head.write_bytes(head.read_bytes().replace(b"rows", b"rowz"))


DAMAGE = [
    without_all_manifests,
    without_the_newest_manifest,
    without_the_catalogue,
    with_an_older_manifest_as_the_newest,
    with_a_flipped_head,
]
VERBS = {
    "add": lambda memory: memory.add("c", rows_of("c")),
    "replace": lambda memory: memory.add("a", rows_of("c")),
    "append": lambda memory: memory.add("a", rows_of("a", 90), append=True),
    "remove": lambda memory: memory.remove("a"),
    "retag": lambda memory: memory.retag({}, "other"),
    "tasks": lambda memory: memory.tasks(),
    "open": lambda memory: memory.open(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_catalogue_is_refused_and_no_task_is_deleted(path, damage, verb):
    damage(path)
    before = sorted((path / "tasks").rglob("*"))
    with pytest.raises(MemoryStateError, match=r"damaged") as caught:
        VERBS[verb](opened(path))
    assert "\n" not in str(caught.value)
    assert sorted((path / "tasks").rglob("*")) == before
    assert any("catalogue.lance" in problem for problem in opened(path).verify().problems)


@pytest.mark.parametrize("damage", [without_all_manifests, without_the_catalogue])
def test_tasks_without_a_catalogue_are_kept_in_a_memory_of_an_earlier_release_too(path, damage):
    (path / "catalogue.head").unlink()  # earlier releases wrote none
    damage(path)
    before = sorted((path / "tasks").rglob("*"))
    for verb in VERBS.values():
        with pytest.raises(MemoryStateError, match="has tasks but no catalogue"):
            verb(opened(path))
    assert sorted((path / "tasks").rglob("*")) == before


def test_a_version_that_no_row_names_is_put_aside_unless_it_was_being_written(path):
    (path / "catalogue.head").unlink()
    without_the_newest_manifest(path)  # an earlier release would delete `b` now
    killed = path / "tasks" / ("0" * 32)
    (killed / "examples.lance").mkdir(parents=True)
    (path / "writing" / killed.name).touch()
    memory = opened(path)
    (lost,) = {folder.name for folder in (path / "tasks").iterdir()} - memory.state().named - {killed.name}
    memory.add("c", rows_of("c"))
    assert not killed.exists()
    assert len(list((path / "aside" / lost).rglob("data/*.lance"))) == 2
    assert any(lost in note for note in memory.verify().notes)
    assert memory.verify().problems == ()
    assert [info.name for info in memory.tasks()] == ["a", "c"]


def test_a_head_that_is_behind_does_no_harm(path):
    head = (path / "catalogue.head").read_bytes()
    opened(path).add("c", rows_of("c"))
    (path / "catalogue.head").write_bytes(head)  # killed after the commit
    assert [info.name for info in opened(path).tasks()] == ["a", "b", "c"]
    opened(path).remove("c")
    assert (path / "catalogue.head").read_bytes() != head


def test_a_damaged_log_of_stages_is_refused(path):
    memory = opened(path)
    for name in ("a", "b"):
        memory.log_stage({"name": name, "tasks": []})
    assert [stage["name"] for stage in opened(path).stages()] == ["a", "b"]
    sorted((path / "stages.lance" / "_versions").glob("*.manifest"))[0].unlink()
    with pytest.raises(MemoryStateError, match=r"stages\.lance .* version 2, and was at version 3"):
        opened(path).stages()
    assert any("stages.lance" in problem for problem in opened(path).verify().problems)


def test_who_began_before_a_purge_cannot_commit_after_it(path):
    """What a writer on an object store meets that was asleep until its lease was taken away."""
    memory = opened(path)
    late = memory.state()
    memory.remove("b")
    with pytest.raises(MemoryStateError, match="stood still for so long"):
        memory._store.commit(late.live["b"], since=late)
    assert [info.name for info in opened(path).tasks()] == ["a"]


# ---------------------------------------------------------------- repair


def whole(name: str, rows: int = 60) -> set[str]:
    return {f"{name} input {i}" for i in range(rows)}


def inputs(memory: Memory, name: str) -> set[str]:
    task = memory.task(name)
    return {example.input for example in task.examples(range(sum(task.info.rows.values())))}


def works(memory: Memory) -> None:
    """Whether a memory can be read, added to and removed from, and is healthy afterwards."""
    for info in memory.tasks():
        assert inputs(memory, info.name) == whole(info.name)
    memory.stages()
    memory.add("later", rows_of("later"))
    memory.remove("later")
    assert opened(memory.path).verify().problems == ()


@pytest.mark.parametrize("damage", DAMAGE)
def test_repair_makes_a_damaged_catalogue_again_and_loses_no_task(path, damage):
    opened(path).add("c", rows_of("c"))
    damage(path)
    found = opened(path).verify(repair=True)
    assert found.problems == ()
    assert found.repaired == ("the catalogue was made again from what is whole: 3 task(s)",)
    memory = opened(path)
    assert [info.name for info in memory.tasks()] == ["a", "b", "c"]
    works(memory)


def test_repair_revives_no_removed_task_and_no_replaced_version(path):
    memory = opened(path)
    memory.add("c", rows_of("c"))
    memory.add("a", rows_of("a", 60, instructions=4), keep_old=True)
    memory.remove("c")
    without_the_catalogue(path)
    opened(path).verify(repair=True)
    memory = opened(path)
    assert [info.name for info in memory.tasks()] == ["a", "b"]
    assert [info.instructions for info in memory.versions("a")] == [3, 4]
    works(memory)


def test_repair_puts_a_damaged_task_aside_and_remove_forgets_it(path):
    victim = next((path / "tasks").rglob("examples.lance/data/*.lance"))
    name = "a" if b"a input" in victim.read_bytes() else "b"
    other = "b" if name == "a" else "a"
    flip(victim, 300)
    found = opened(path).verify(repair=True)
    assert found.problems == ()
    assert len(found.repaired) == 1
    assert found.repaired[0].startswith(f"task '{name}' was put aside")
    memory = opened(path)
    assert [info.name for info in memory.tasks()] == [other]
    works(memory)
    assert f"{name} input 7".encode() in every_byte(path)
    opened(path).remove(name)
    assert f"{name} input 7".encode() not in every_byte(path)


def test_repair_keeps_a_task_whose_unread_files_are_damaged(path):
    victim = next((path / "tasks").rglob("_transactions/*.txn"))
    flip(victim, 30)
    memory = opened(path)
    assert inputs(memory, "a") | inputs(memory, "b") == whole("a") | whole("b")
    assert len(memory.verify().problems) == 1
    assert memory.verify(repair=True).problems == ()
    assert {info.name for info in opened(path).tasks()} == {"a", "b"}
    works(opened(path))


def test_repair_keeps_the_stages_that_are_whole(path):
    memory = opened(path)
    for name in ("a", "b", "a"):
        memory.log_stage({"name": name, "tasks": []})
    sorted((path / "stages.lance" / "_versions").glob("*.manifest"))[0].unlink()
    found = opened(path).verify(repair=True)
    assert found.repaired == ("the log of stages was made again from what is whole: 2 of 3 stage(s)",)
    assert [stage["name"] for stage in opened(path).stages()] == ["a", "b"]
    works(opened(path))


def test_repair_of_a_healthy_memory_changes_nothing(path):
    before = opened(path).state().live
    found = opened(path).verify(repair=True)
    assert (found.repaired, found.problems) == ((), ())
    assert opened(path).state().live.keys() == before.keys()
    works(opened(path))


# ---------------------------------------------------------------- each file, damaged in each way


def flipped(file: Path) -> None:
    flip(file, file.stat().st_size // 2)


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def removed(file: Path) -> None:
    file.unlink()


def flipped_near_its_start(file: Path) -> None:
    flip(file, file.stat().st_size // 7)


def flipped_near_its_end(file: Path) -> None:
    flip(file, file.stat().st_size - 10)


def look(path: Path) -> object:
    """All that can be read of a memory; None where it says in one line why not."""
    memory = opened(path)
    try:
        with memory.reading():
            replay = plan(memory, "new", list(rows_of("new", 40)), budget=10)
            read = {info.name: inputs(memory, info.name) for info in memory.tasks()}
            return replay.plan, [row.example for row in replay.rows()], read, memory.stages()
    except MemoryStateError as error:
        return None if len(str(error)) < 600 and "\n" not in str(error) else error


MORE = [flipped_near_its_start, flipped_near_its_end] if FULL else []


@pytest.mark.parametrize("damage", [flipped, truncated, emptied, removed, *MORE])
def test_a_damaged_file_is_named_or_changes_nothing_and_can_be_repaired(path, tmp_path, damage):
    opened(path).log_stage({"name": "a", "tasks": []})
    sound = look(path)
    files = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file() and file.stat().st_size]
    assert len(files) > 30
    row, refused = Row(f"a file {damage.__name__.replace('_', ' ')}", "each file of a memory in turn"), 0
    for number, name in enumerate(files):
        broken = tmp_path / str(number)
        shutil.copytree(path, broken)
        damage(broken / name)
        seen = look(broken)
        assert seen in (sound, None), name
        healthy = not opened(broken).verify().problems
        if healthy:  # what no one reads, or is computed anew
            assert seen == sound, name
        assert opened(broken).verify(repair=True).problems == (), name
        works(opened(broken))
        shutil.rmtree(broken)
        row.tried, row.survived, refused = row.tried + 1, row.survived + 1, refused + (seen is None)
    row.write(f"{refused} refused in one line, {row.tried - refused} read with the same result; all repaired")


def test_a_removal_leaves_the_marks_of_those_who_write(path):
    memory = opened(path)
    with memory.reading():
        identifier = memory._store.versions.begin()
        memory._store.commit(Commit("remove", "a"), since=memory.state())
        assert (path / "writing" / identifier).exists()
