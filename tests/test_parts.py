"""Parts of a strategy: what each puts into plan, mixture and training."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.data.example import Example
from inscl.data.mixture import MixtureRow, in_time, read_mixture, write_mixture
from inscl.errors import DataError, PlanError
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.scores import RowScores
from inscl.memory.memory import Memory
from inscl.memory.task import estimate_tokens
from inscl.replay.parts import _MOST_WEIGHT
from inscl.replay.plan import Plan
from inscl.replay.planner import plan
from inscl.replay.registry import Strategy
from inscl.replay.strategies import STRATEGIES, at_random, equally
from inscl.stages.folder import StageFolder
from inscl.stages.own import with_own_answers
from inscl.stages.trainer import _as_asked
from inscl.training.batches import order_of_steps
from inscl.training.config import stage_config
from support import WordEncoder, WordTagger, rows_of


@pytest.fixture
def memory(tmp_path):
    memory = Memory(tmp_path / "memory", encoder=WordEncoder(), tagger=WordTagger())
    for name in ("letters", "numbers"):
        memory.add(name, rows_of(name, 200))
    return memory


def made_with(memory, strategy, **more):
    return plan(memory, "weather", rows_of("weather", 100), strategy=strategy, **{"budget": 20, **more})


def held_by_replay(replay) -> float:
    """Share of the loss on replayed rows, recounted from the mixture's own rows."""
    sums = Counter()
    for row in replay.rows():
        sums[row.replayed] += row.weight * estimate_tokens(row.example.outputs[0])
    return sums[True] / sum(sums.values())


@pytest.mark.parametrize("share", [0.2, 0.3, 0.4])
def test_balanced_rows_hold_their_share_of_the_loss(memory, share):
    replay = made_with(memory, f"random+balance={share}", budget=16)
    (weight,) = {task.weight for task in replay.plan.tasks}
    assert 1 < weight < _MOST_WEIGHT
    assert held_by_replay(replay) == pytest.approx(share, abs=1e-6)
    assert any(f"counts {weight:.4g} times" in note for note in replay.plan.notes)


def test_a_weight_is_between_1_and_4(memory):
    assert {task.weight for task in made_with(memory, "random+balance", budget=1).plan.tasks} == {4.0}
    assert {task.weight for task in made_with(memory, "random+balance", budget=200).plan.tasks} == {1.0}
    assert held_by_replay(made_with(memory, "random+balance", budget=200)) > 0.2
    assert {task.weight for task in made_with(memory, "random+balance", budget=0).plan.tasks} == {4.0}


@given(st.lists(st.sampled_from([0.0, 0.3, 0.5]), max_size=40))
def test_what_waits_comes_after_all_that_is_over_by_then(after):
    order = in_time(after)
    n = len(after)
    assert sorted(order) == list(range(n))
    places = {place: i for i, place in enumerate(order)}
    for waiting in (place for place in range(n) if after[place]):
        early = [place for place in range(n) if not after[place] and place / n < after[waiting]]
        assert all(places[place] < places[waiting] for place in early)
    for wait in set(after):  # among themselves they stay in order
        alike = [place for place in order if after[place] == wait]
        assert alike == sorted(alike)


def test_late_rows_are_seen_as_often_and_late():
    after = [0.5 if i % 4 == 0 else 0.0 for i in range(40)]
    settings = {"batch_size": 7, "epochs": 3, "max_steps": -1, "seed": 3}
    plain, late = order_of_steps([1] * 40, **settings), order_of_steps([1] * 40, **settings, after=after)
    assert [len(step) for step in late] == [len(step) for step in plain]
    assert Counter(i for step in late for i in step) == Counter(range(40)) + Counter(range(40)) + Counter(range(40))
    flat = [i for step in late for i in step]
    first = next(place for place, i in enumerate(flat) if after[i])
    assert 0.35 < first / len(flat) < 0.55  # half of the 90 early ones, of 120
    assert order_of_steps([1] * 40, **settings, after=[0.0] * 40) == plain


def test_late_rows_carry_their_time_into_the_mixture(memory, tmp_path):
    replay = made_with(memory, "rotate+late=0.6+kl=0.3")
    rows = replay.rows()
    assert {(row.replayed, row.after, row.soft) for row in rows} == {(True, 0.6, 0.3), (False, 0.0, 0.0)}
    first = next(i for i, row in enumerate(rows) if row.replayed)
    assert first > 0.4 * len(rows)
    write_mixture(tmp_path / "mixture.jsonl", rows)
    assert read_mixture(tmp_path / "mixture.jsonl") == rows
    plain = made_with(memory, "rotate").rows()
    assert Counter(row.example.input for row in rows) == Counter(row.example.input for row in plain)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        *(("after", value, "at least 0 and below 1") for value in (-0.1, 1.0, "nan")),
        *(("soft", value, "at least 0 and at most 1") for value in (-0.1, 1.5, "nan")),
    ],
)
def test_impossible_fields_of_a_row_are_refused(tmp_path, field, value, wanted):
    row = {"task": "a", "replayed": True, "instruction": "a", "input": "", "outputs": ["b"], field: value}
    (tmp_path / "mixture.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"line 1: .*{field} must be {wanted}"):
        read_mixture(tmp_path / "mixture.jsonl")


class AskedTrainer:
    """Notes what it was asked."""

    def __init__(self):
        self.asked = []

    def train(self, mixture, start, out, *, seed, progress, **more):
        self.asked.append(more)
        return {"seconds": 1.0}


def prepared(folder, replay):
    folder.path.mkdir()
    replay.plan.write(folder.path / "plan.json")
    folder.mix(replay.rows(), chat=False)


def test_what_a_strategy_asks_reaches_the_training(memory, tmp_path):
    trainer = AskedTrainer()
    for n, strategy in enumerate(("random+interpolate=0.3+late", "random", "none+interpolate")):
        folder = StageFolder(tmp_path / str(n))
        prepared(folder, made_with(memory, strategy))
        folder.train(trainer, "start", seed=0, progress=lambda *_: None)
    assert trainer.asked == [{"asked": {"interpolate": 0.3, "late": 0.5}}, {}, {"asked": {"interpolate": 0.2}}]


class AnsweringTrainer(AskedTrainer):
    """Answers the rows of one task rightly in words of its own, and the other's wrongly or without an end."""

    def __init__(self):
        super().__init__()
        self.questions = 0

    def score(self, model, tasks, out, *, progress):
        found = {}
        for task, rows in tasks.items():
            self.questions += len(rows)
            found[task] = [
                Prediction(task, row.instruction, row.input, list(row.outputs), *self.answer(task, i, row.outputs))
                for i, row in enumerate(rows)
            ]
            Prediction.write(out / f"{task}.jsonl", found[task])
        return {task: RowScores.of(rows, "rouge_l") for task, rows in found.items()}

    def answer(self, task, i, outputs):
        if task == "letters":
            return f" {outputs[1].upper()} ", False
        return ("no idea", False) if i % 2 else (outputs[0], True)


@pytest.mark.parametrize("chat", [False, True])
def test_right_and_whole_answers_of_the_model_are_replayed(memory, tmp_path, chat):
    trainer, folder, replay = AnsweringTrainer(), StageFolder(tmp_path / "stage"), made_with(memory, "random+own=0.8")
    folder.prepare(lambda: replay, chat, trainer, "start", lambda *_: None)
    given = {(row.task, row.example.input): row.example.outputs for row in replay.rows()}
    mixed = read_mixture(folder.path / "mixture.jsonl")
    assert len(mixed) == len(given)
    for row in mixed:
        expected = given[row.task, row.example.input]
        if row.task == "letters":
            expected = (expected[1].upper(),)
        assert row.example.outputs == expected
        assert not chat or row.example.messages[-1]["content"] == expected[0]
    answering = folder.read()["answering"]
    assert answering["own"] == sum(row.task == "letters" for row in mixed)
    assert trainer.questions == replay.plan.count  # not the new task's rows
    record = folder.train(trainer, "start", seed=0, progress=lambda *_: None)
    assert record["seconds"] == pytest.approx(1 + answering["seconds"])
    assert answering["seconds"] > 0


def test_a_chat_keeps_its_turns_and_ends_with_the_models_answer():
    turns = ({"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"})
    chat = MixtureRow("a", Example("2 + 2?", "", ("4",), messages=turns), replayed=True)
    said = Prediction("a", "2 + 2?", "", ["4"], "four")
    (own,) = with_own_answers([chat], {"a": RowScores({"rouge_l": [0.9]}, ["x"])}, {"a": [said]}, 0.8)
    assert own.example.messages == (turns[0], {"role": "assistant", "content": "four"})
    assert own.example.outputs == ("four",)


def test_answers_that_are_gone_leave_the_given_ones():
    row = MixtureRow("a", Example("Add.", "1 1", ("2",)), replayed=True)
    assert with_own_answers([row], {"a": RowScores({"rouge_l": [1.0]}, ["x"])}, {}, 0.8) == [row]


def test_nothing_is_answered_unless_the_strategy_asks(memory, tmp_path):
    trainer = AnsweringTrainer()
    for n, strategy in enumerate(("random", "none+own")):
        replay = made_with(memory, strategy)
        assert StageFolder(tmp_path / str(n)).rows(replay, trainer, "start", lambda *_: None) == replay.rows()
    assert trainer.questions == 0


def test_what_is_asked_takes_the_place_of_the_setting():
    config = stage_config("protect: {interpolate: 0.1, ema: 0.5}")
    assert _as_asked(config, {}) == config
    changed = _as_asked(config, {"interpolate": 0.3, "late": 0.5})
    assert (changed.protect.interpolate, changed.protect.ema) == (0.3, 0.5)
    assert config.protect.interpolate == 0.1


def test_nothing_is_asked_where_there_is_no_earlier_task(tmp_path):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    assert made_with(memory, "rotate+interpolate").plan.training == {}


def test_parts_follow_each_other_and_stand_in_plan_and_notes(memory, tmp_path):
    made = made_with(memory, "inscl+carry+balance=0.4+interpolate").plan
    assert made.training == {"interpolate": 0.2}
    assert made.tasks[0].carried is not None
    assert made.tasks[0].weight > 1
    assert any(note.startswith("of the training: ") and "(0.2)" in note for note in made.notes)
    made.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == made
    plain = made_with(memory, "inscl").plan
    assert "training" not in plain.to_dict()
    assert [task.instructions for task in made_with(memory, "inscl+late").plan.tasks] == [
        task.instructions for task in plain.tasks
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("random+balance=0.6", r"wants a number above 0, at most 0.5, got '0.6'. Write '\+balance=0.2', say"),
        ("random+balance=0", "wants a number above 0"),
        ("random+balance=nan", "wants a number above 0"),
        ("random+late=1", "at most 0.95"),
        ("random+interpolate=-0.1", "wants a number above 0"),
    ],
)
def test_impossible_numbers_are_told(name, message):
    with pytest.raises(PlanError, match=message):
        STRATEGIES.named(name)


def test_a_strategy_that_asks_for_an_unknown_part_is_told(monkeypatch):
    monkeypatch.setattr(STRATEGIES, "_added", {})
    STRATEGIES.add("mine", Strategy("mine", equally, at_random, training={"foo": 1.0}))
    with pytest.raises(PlanError, match="'mine' asks training for 'foo'; wanted one of carry, "):
        STRATEGIES.named("mine")
