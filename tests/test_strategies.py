"""How strategies become known: ours, those a script adds, those of an installed package."""

import sys
from importlib.metadata import entry_points

import pytest

from inscl import add_strategy, plan
from inscl.errors import PlanError
from inscl.memory.memory import Memory
from inscl.replay.registry import GROUP, Strategies, Strategy
from inscl.replay.strategies import STRATEGIES, at_random, equally
from support import WordEncoder, WordTagger, rows_of

MINE = Strategy("mine", lambda stage: [2.0**place for place in range(len(stage.earlier))], at_random)


@pytest.fixture(autouse=True)
def none_added(monkeypatch):
    monkeypatch.setattr(STRATEGIES, "_added", {})


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package beside inscl that brings three strategies, one of them broken, and one that is none."""
    (tmp_path / "our_replay.py").write_text(
        "from inscl import Strategy\nfrom inscl.replay.strategies import at_random, equally\n"
        "EVEN = Strategy('even', equally, at_random)\nNONE = 3\n"
    )
    info = tmp_path / "our_replay-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-replay\nVersion: 1.0\n")
    lines = ["even = our_replay:EVEN", "gone = our_replay:GONE", "three = our_replay:NONE", "random = our_replay:EVEN"]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("our_replay", None)


def test_a_strategy_that_was_added_is_planned_by(tmp_path):
    add_strategy("mine", MINE)
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    for name in ("a", "b"):
        memory.add(name, rows_of(name, 60))
    made = plan(memory, "c", rows_of("c", 60), budget=30, strategy="mine").plan
    assert [task.count for task in made.tasks] == [10, 20]
    assert "mine" in STRATEGIES
    assert list(STRATEGIES)[-1] == "mine"
    add_strategy("mine", Strategy("another", None, at_random))  # a cell that is run again
    assert STRATEGIES["mine"].about == "another"


@pytest.mark.parametrize(
    ("name", "strategy", "message"),
    [
        ("random", MINE, "'random' comes with inscl"),
        ("a+b", MINE, "wanted up to 60 small letters"),
        ("../x", MINE, "cannot be called"),
        ("", MINE, "cannot be called"),
        ("mine", MINE.budget, "is a function; wanted an `inscl.Strategy`"),
    ],
)
def test_what_cannot_be_added_is_refused(name, strategy, message):
    with pytest.raises(PlanError, match=message):
        add_strategy(name, strategy)
    assert len(STRATEGIES) == len(list(STRATEGIES))


def test_an_installed_package_brings_strategies(package):
    known = Strategies({"random": Strategy("ours", equally, at_random)})
    assert {entry.name for entry in entry_points(group=GROUP)} >= {"even", "random"}
    assert list(known) == ["random", "even", "gone", "three"]
    assert known.named("even").about == "even"
    assert known["random"].about == "ours"  # nobody takes the name of one of ours
    with pytest.raises(PlanError, match="'gone' cannot be loaded from our_replay:GONE"):
        known.named("gone")
    with pytest.raises(PlanError, match=r"'three' .* is a int; wanted an"):
        known.named("three")


def test_an_unknown_strategy_is_answered_with_those_there_are():
    with pytest.raises(PlanError, match=r"no strategy 'randm'; wanted one of none, random, .* Did you mean 'random'"):
        STRATEGIES.named("randm")
    assert "randm" not in STRATEGIES
    with pytest.raises(KeyError):
        STRATEGIES["randm"]
