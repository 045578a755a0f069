"""Distances that stay in the memory: computed once, the same in every plan, and gone with a removed task."""

import lance
import pytest

from inscl.memory.kept_distances import KeptDistances
from inscl.memory.memory import Memory
from inscl.replay import views
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, flip, rows_of
from test_memory import every_byte

NAMES = ("a", "b", "c")


def opened(path) -> Memory:
    return Memory(path, encoder=WordEncoder(), tagger=WordTagger())


@pytest.fixture
def path(tmp_path):
    for name in NAMES:
        opened(tmp_path / "m").add(name, rows_of(name, instructions=8))
    return tmp_path / "m"


@pytest.fixture
def computed(monkeypatch):
    """How many distances have been computed."""
    found = []

    def wasserstein(*arguments):
        found.append(arguments)
        return whole(*arguments)

    whole = views.wasserstein
    monkeypatch.setattr(views, "wasserstein", wasserstein)
    return found


def table(path):
    (found,) = (path / "cache").glob("*-distances.lance")
    return found


def test_nobody_computes_a_distance_again_and_plans_stay_as_they_were(path, computed):
    made = [plan(opened(path), name, earlier=NAMES).plan for name in NAMES]
    assert len(computed) == 6
    again = opened(path)  # as a new process would
    assert [plan(again, name, earlier=NAMES).plan for name in NAMES] == made
    assert len(computed) == 6
    assert len({part.distance for one in made for part in one.tasks}) > 1
    unremembered = [plan(opened(path), "d", list(rows_of("d"))).plan for _ in range(2)]
    assert unremembered[0] == unremembered[1]
    assert len(computed) == 9


def test_other_weights_content_or_methods_have_other_distances(path, computed, monkeypatch):
    made = plan(opened(path), "c").plan
    plan(opened(path), "c", weights="uniform")
    assert len(computed) == 4
    monkeypatch.setattr(views, "METHOD", 0)
    assert plan(opened(path), "c").plan == made
    assert len(computed) == 6
    opened(path).add("a", rows_of("a", 90, instructions=8), append=True)
    monkeypatch.undo()
    assert plan(opened(path), "c").plan.tasks[0].distance != made.tasks[0].distance


def test_who_is_interrupted_keeps_what_was_done(path):
    infos = opened(path).tasks()

    def measure(numbers):
        yield 0.25
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KeptDistances(str(path / "cache"), "e")(["frequency"], infos[:2], infos[2], measure)
    asked: list[int] = []

    def half(numbers):
        asked.extend(numbers)
        return [0.5 for _ in numbers]

    kept = KeptDistances(str(path / "cache"), "e")
    assert kept(["frequency"], infos[:2], infos[2], half) == [0.25, 0.5]
    assert asked == [1]
    assert KeptDistances(str(path / "cache"), "e")([], infos[:2], infos[2], half) == [0.5, 0.5]


def test_a_removed_task_is_not_left_in_them(path, computed):
    for name in NAMES:
        plan(opened(path), name, earlier=NAMES)
    keys = {info.name: KeptDistances.key(info) for info in opened(path).tasks()}
    assert keys["b"] in every_byte(table(path))
    opened(path).remove("b")
    assert keys["b"] not in every_byte(table(path))
    assert lance.dataset(str(table(path))).count_rows() == 2
    plan(opened(path), "c")
    assert len(computed) == 6
    assert opened(path).verify().problems == ()


def test_a_flipped_byte_changes_no_plan_and_repair_mends_it(path, computed, caplog):
    made = plan(opened(path), "c").plan
    assert opened(path).verify().problems == ()
    (file,) = table(path).rglob("data/*.lance")
    first = lance.dataset(str(table(path))).to_table()["first"][0].as_py()
    flip(file, file.read_bytes().index(first) + 3)
    assert any("distances.lance 1 rows changed" in problem for problem in opened(path).verify().problems)
    assert plan(opened(path), "c").plan == made
    assert len(computed) == 3  # only what was hit
    assert opened(path).verify(repair=True).problems == ()
    assert plan(opened(path), "c").plan == made
    assert len(computed) == 3


def test_a_lost_table_is_made_again_and_a_broken_one_only_warns(path, computed, caplog):
    made = plan(opened(path), "c").plan
    for file in table(path).rglob("data/*.lance"):
        file.write_bytes(file.read_bytes()[:40])
    assert plan(opened(path), "c").plan == made
    assert "the cache of distances could not be read" in caplog.text
    assert len(computed) == 4
