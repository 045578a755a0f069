"""The page of one learnt stage, against what `learn` gave and recounts of its files."""

import json
from pathlib import Path
from shutil import copytree

import pytest

from inscl.cli import main
from inscl.errors import InsclError
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.scores import RowScores
from inscl.report.figures import loss_figure, trend_figure
from inscl.report.page import write_stage_report
from inscl.report.stage import StageFacts
from inscl.stages.folder import SCORES
from inscl.stages.learn import REQUEST
from test_learn import StageTrainer, learn_month

HOSTILE = "<script>alert(1)</script>"


class AnsweringTrainer(StageTrainer):
    """Writes answers: right in the model that learns a task, and every other one wrong two stages later."""

    def train(self, mixture, start, out, *, seed, progress):
        record = super().train(mixture, start, out, seed=seed, progress=progress)
        record = {**record, "steps": 3, "losses": [3.0, 2.0, 1.5]}
        (out / "stage.json").write_text(json.dumps(record))
        return record

    def score(self, model, tasks, out, *, progress):
        found = {}
        for task, rows in tasks.items():
            lost = task == "may" and Path(model).name == "july"
            said = [HOSTILE if lost and i % 2 else row.outputs[0] for i, row in enumerate(rows)]
            answers = [
                Prediction(task, row.instruction, row.input, list(row.outputs), answer)
                for row, answer in zip(rows, said, strict=True)
            ]
            Prediction.write(out / f"{task}.jsonl", answers)
            found[task] = RowScores.of(answers, "rouge_l")
        return found


def three_months(folder: Path):
    """Three stages; the third loses every other answer of the first."""
    done = [learn_month(folder, "may", AnsweringTrainer(), model="base")]
    return [*done, *(learn_month(folder, name, AnsweringTrainer()) for name in ("june", "july"))]


@pytest.fixture(scope="module")
def months(tmp_path_factory):
    return three_months(tmp_path_factory.mktemp("months"))


def test_a_stage_tells_what_learn_told(months):
    july = months[-1]
    facts = StageFacts.of(july.folder)
    assert [month.name for month in facts.months] == ["may", "june", "july"]
    assert [month.scores for month in facts.months] == [
        {task: pytest.approx(100 * rows.mean("rouge_l")) for task, rows in done.after.items()} for done in months
    ]
    for task in facts.tasks:
        before, after = (100 * of[task.task].mean("rouge_l") for of in (july.before, july.after))
        assert (task.before, task.after.mean, task.change.mean) == pytest.approx((before, after, after - before))
        assert task.new == (task.task == "july")
    assert facts.finished
    assert facts.plan.count == july.plan.count


def test_lost_answers_are_those_that_became_wrong(months):
    july = months[-1]
    facts = StageFacts.of(july.folder)
    n = july.after["may"].n
    assert len(facts.lost) == n // 2
    assert {example.now for example in facts.lost} == {HOSTILE}
    assert all(example.once == example.reference and example.best == 100 for example in facts.lost)
    assert not facts.gained


def test_the_trend_counts_what_is_kept(months):
    facts = StageFacts.of(months[-1].folder)
    lost = facts.months[-1].scores["may"] < 80
    assert trend_figure(facts).finding == f"Earlier tasks after ‘july’: {2 - lost} of 2 kept."
    assert [(row[1], row[2]) for row in trend_figure(facts).rows] == [("may", "1"), ("june", "2")]
    assert trend_figure(StageFacts.of(months[0].folder)) is None
    assert loss_figure(facts).rows[-1] == ("3", "1.5000")


def test_the_page_shows_answers_as_text_and_the_command_says_where_it_is(months, tmp_path, capsys):
    assert main(["report", str(months[-1].folder), "--out", str(tmp_path), "--figures", "svg"]) == 0
    assert str(tmp_path / "index.html") in capsys.readouterr().out
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"trend.svg", "shares.svg", "loss.svg"}


def test_a_stage_is_reported_alone(months, capsys):
    assert main(["report", *(str(done.folder) for done in months)]) == 2
    assert "is a stage. Report it alone." in capsys.readouterr().err


def test_a_stage_that_has_not_scored_says_how_to_go_on(tmp_path, months):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / REQUEST).write_bytes((months[0].folder / REQUEST).read_bytes())
    with pytest.raises(InsclError, match=r"has not scored its model yet.*inscl learn"):
        write_stage_report(begun, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (REQUEST, lambda known: known.pop("name")),
        (REQUEST, lambda known: known.update(config={})),
        (REQUEST, lambda known: known.update(start=3)),
        (SCORES, lambda known: known.pop("before")),
        (SCORES, lambda known: known["before"].pop("may")),
        (SCORES, lambda known: known["before"]["may"]["rows"].pop("rouge_l")),
        (SCORES, lambda known: known["test"].update(may=3)),
    ],
)
def test_a_damaged_stage_is_one_line_that_names_the_file(months, tmp_path, capsys, name, change):
    stage = tmp_path / "july"
    copytree(months[-1].folder, stage)
    known = json.loads((stage / name).read_text())
    change(known)
    (stage / name).write_text(json.dumps(known))
    assert main(["report", str(stage), "--out", str(tmp_path / "page")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} is damaged" in line
    assert not (tmp_path / "page").exists()


def test_a_chain_that_was_moved_is_found_beside_the_stage(months, tmp_path):
    moved = tmp_path / "models"
    months[0].folder.parent.rename(moved)
    try:
        assert [month.name for month in StageFacts.of(moved / "july").months] == ["may", "june", "july"]
    finally:
        moved.rename(months[0].folder.parent)
