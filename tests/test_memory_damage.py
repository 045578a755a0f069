"""A damaged memory: nothing is lost that was whole, and what is damaged is named in one line."""

import shutil
from pathlib import Path

import pytest

from inscl.errors import MemoryStateError
from inscl.memory.memory import Memory
from support import WordEncoder, WordTagger, rows_of


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
    "verify": lambda memory: memory.verify(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_catalogue_is_refused_and_no_task_is_deleted(path, damage, verb):
    damage(path)
    before = sorted((path / "tasks").rglob("*"))
    with pytest.raises(MemoryStateError, match=r"damaged|cannot be read") as caught:
        VERBS[verb](opened(path))
    assert "\n" not in str(caught.value)
    assert sorted((path / "tasks").rglob("*")) == before


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
        memory._commit(late.live["b"], since=late)
    assert [info.name for info in opened(path).tasks()] == ["a"]
