"""The map of a plan's instructions, against scikit-learn's principal components and the plan's own distances."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from inscl.cli import main
from inscl.errors import PlanError
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
from inscl.report import instruction_map
from inscl.report.figures import map_figure
from inscl.report.figures.draw import fit, width_of
from inscl.report.instruction_map import InstructionMap
from support import WordEncoder, WordTagger, rows_of


@pytest.fixture
def memory(tmp_path):
    memory = Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())
    for name in ("a", "b"):
        memory.add(name, rows_of(name))
    return memory


@pytest.fixture
def made(memory, tmp_path):
    data = tmp_path / "new.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of("new")))
    return plan(memory, "new", str(data), budget=6).plan


def test_places_are_the_principal_components(memory, made):
    found = InstructionMap.of(made, memory)
    texts = [i.text for task in (found.new, *found.earlier) for i in task.instructions]
    places = [(i.x, i.y) for task in (found.new, *found.earlier) for i in task.instructions]
    pca = PCA(2).fit(vectors := memory.encode(texts).vectors.astype(float))
    assert np.abs(places) == pytest.approx(np.abs(pca.transform(vectors)), abs=1e-6)
    assert found.spread == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-9)
    assert InstructionMap.of(made, memory) == found


def test_what_is_drawn_is_what_the_plan_replays(memory, made):
    found = InstructionMap.of(made, memory)
    assert found.new.name == "new"
    assert [(task.name, task.distance) for task in found.earlier] == [(t.name, t.distance) for t in made.tasks]
    for task, planned in zip(found.earlier, made.tasks, strict=True):
        assert sum(i.chosen for i in task.instructions) == planned.count
        assert sum(i.rows for i in task.instructions) == planned.available
        assert 0.5 < sum(move.share for move in task.moves) <= 1 + 1e-9


def test_moves_cost_the_distance_of_the_plan(memory, made, monkeypatch):
    monkeypatch.setattr(instruction_map, "_LEAST_MOVED", 0.0)
    found = InstructionMap.of(made, memory)
    new = memory.encode([i.text for i in found.new.instructions]).vectors.astype(float)
    for task in found.earlier:
        old = memory.encode([i.text for i in task.instructions]).vectors.astype(float)
        pairs = [(old[move.start], new[move.end]) for move in task.moves]
        cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs]
        cost = sum(move.share * (1 - cosine) for move, cosine in zip(task.moves, cosines, strict=True))
        assert cost == pytest.approx(task.distance, abs=1e-6)


def test_a_full_map_draws_the_replayed_ones_and_says_what_is_left_out(memory, made, monkeypatch):
    monkeypatch.setattr(instruction_map, "_MOST_INSTRUCTIONS", 4)
    monkeypatch.setattr(instruction_map, "_MOST_TASKS", 1)
    found = InstructionMap.of(made, memory)
    (task,) = found.earlier
    replayed = sum(i.count > 0 for planned in made.tasks if planned.name == task.name for i in planned.instructions)
    assert found.left_out == 1
    assert len(task.instructions) == 2 < task.all_instructions
    assert sum(i.chosen > 0 for i in task.instructions) == min(2, replayed)
    assert "1 tasks are not drawn" in map_figure(found).finding


def test_a_task_that_changed_is_told_and_one_that_is_gone_left_out(memory, made):
    memory.remove("b")
    assert [task.name for task in InstructionMap.of(made, memory).earlier] == ["a"]
    memory.add("a", rows_of("other"))
    with pytest.raises(PlanError, match="'a' is no longer what the plan was made from"):
        InstructionMap.of(made, memory)
    assert InstructionMap.of(replace(made, tasks=()), memory) is None


def test_the_command_draws_the_map_where_it_can(tmp_path, capsys):
    for name in ("a", "new"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(name, 12)))
    place, file = str(tmp_path / "memory"), str(tmp_path / "plan.json")
    assert main(["add", "a", str(tmp_path / "a.jsonl"), "--memory", place]) == 0
    assert main(["plan", "new", str(tmp_path / "new.jsonl"), "--memory", place, "--budget", "4", "--out", file]) == 0
    page = tmp_path / "plan-report" / "index.html"
    assert main(["report", file, "--memory", place, "--figures", "svg"]) == 0
    assert "Where the instructions lie" in page.read_text()
    assert (tmp_path / "plan-report" / "figures" / "map.svg").exists()
    capsys.readouterr()
    assert main(["report", file, "--memory", str(tmp_path / "nowhere"), "--figures", "svg"]) == 0
    assert "no map of the instructions" in capsys.readouterr().err
    assert "Where the instructions lie" not in page.read_text()
    assert not (tmp_path / "plan-report" / "figures" / "map.svg").exists()


@given(st.text(st.characters(codec="utf-8"), max_size=60), st.integers(12, 400))
def test_a_text_is_cut_where_one_more_character_would_not_fit(text, width):
    whole, cut = " ".join(text.split()), fit(text, width)
    assert width_of(cut) <= width
    if cut != whole:
        kept = cut.removesuffix("…")
        assert whole.startswith(kept)
        more = len(kept) + 1 + (whole[len(kept)] == " ")
        assert width_of(whole[:more] + "…") > width
