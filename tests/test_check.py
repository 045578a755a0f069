"""The gate: outcomes against SciPy and recounts by hand, its error rates by simulation, and what CI systems read."""

import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem, ttest_1samp

from inscl.check.assessment import Assessment, read_assessment
from inscl.check.comparison import _GENERAL, compare_assessments, drop_estimate
from inscl.check.formats import junit, markdown
from inscl.check.gate import check
from inscl.check.result import Tolerance
from inscl.errors import ConfigError, DataError, InsclError
from inscl.evaluation.evaluate import Prediction
from inscl.evaluation.perplexity import Perplexity
from inscl.evaluation.scores import RowScores, row_key

LIMITS = Tolerance()
HOSTILE = "<script>alert(1)</script> | `x` \x1b[31m ]]> &"
KEYS = [f"{i:016x}-{i:016x}" for i in range(500)]


def scores_of(values, instructions=None) -> RowScores:
    values = [float(v) for v in values]
    return RowScores({"rouge_l": values}, instructions or ["i"] * len(values), 0, KEYS[: len(values)])


def assessment(perplexity=None, name="model", **tasks) -> Assessment:
    made = {task: rows if isinstance(rows, RowScores) else scores_of(rows) for task, rows in tasks.items()}
    return Assessment(name, name, {"scorer": "rouge_l"}, made, perplexity)


def finding_of(verdict, name):
    return next(finding for finding in verdict.findings if finding.name == name)


def noisy(rng, n=500, lost=0.0):
    """Scores of two equally good models, of which the second then loses a share of its answers."""
    right = np.where(rng.random(n) < 0.1, rng.beta(2, 2, n), rng.choice([0.01, 0.99], n, p=[0.1, 0.9]))
    credit = rng.choice([0, 0.4], n)
    old, new = (np.where(rng.random(n) < right, 1.0, credit) for _ in range(2))
    return old, np.where(rng.random(n) < lost, 0.0, new)


def test_the_estimate_is_scipys_on_the_rows_and_two_more(rng):
    drops = rng.choice([-1, 0, 0, 0, 0.5, 1], 60)
    estimate, n, unit = drop_estimate(drops, ["one"] * 60)
    other = ttest_1samp([*drops, 1, -1], 0.02, alternative="greater")
    assert estimate.p_above(0.02) == pytest.approx(other.pvalue, rel=1e-9)
    assert estimate.low(0.01) == pytest.approx(other.confidence_interval(0.99).low, rel=1e-9)
    assert (n, unit) == (60, "rows")


def test_many_instructions_are_the_sample_and_few_are_not(rng):
    """Ten rows that are one row each: forty instructions of equal rows carry forty observations."""
    drops = rng.choice([0.0, 0.5], 40)
    wide, n, unit = drop_estimate(np.repeat(drops, 10), np.repeat(np.arange(40), 10))
    assert (n, unit) == (40, "instructions")
    assert wide.error == pytest.approx(sem(drops), rel=0.02)  # two rows of 402 are made up
    assert drop_estimate(np.repeat(drops[:9], 10), np.repeat(np.arange(9), 10))[1:] == (90, "rows")
    lopsided = [0] * 391 + list(range(1, 10))  # ten instructions, but nearly all rows have the first
    assert drop_estimate(np.repeat(drops, 10), lopsided)[2] == "rows"


def test_the_three_outcomes():
    rng = np.random.default_rng(1)
    old, new = noisy(rng)
    _, worse = noisy(rng, lost=0.2)
    verdict = compare_assessments(
        assessment(same=old, lost=old, few=[1.0] * 5), assessment(same=new, lost=worse, few=[1, 1, 1, 1, 0])
    )
    assert [finding.outcome for finding in verdict.findings] == ["pass", "fail", "cannot tell"]
    assert verdict.outcome == "fail"
    lost = finding_of(verdict, "lost")
    assert lost.change.before - lost.change.after == pytest.approx(lost.change.worse)
    assert lost.change.low > 2
    assert re.fullmatch(r"a drop of \d+\.\d points, at least \d+\.\d; 2 are allowed", lost.reason(verdict.limits))
    few = finding_of(verdict, "few")
    assert few.change.detectable > 10
    assert few.reason(verdict.limits).startswith("too few rows (5): a drop of 20.0 points was measured and up to ")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 3))
def test_a_task_fails_just_where_its_bound_says_so(values, tasks):
    """Adjusted p-values and Holm's bounds are two ways to say the same."""
    rng = np.random.default_rng(len(values))
    old = {f"t{i}": rng.random(40) for i in range(tasks)}
    new = {name: np.clip(rows - rng.choice([0, 0.3]), 0, 1) for name, rows in old.items()}
    verdict = compare_assessments(assessment(v=values, **old), assessment(v=[0.0] * len(values), **new))
    for finding in verdict.findings:
        assert (finding.outcome == "fail") == (finding.change.low > 2) == (finding.change.p <= 0.05)


def test_a_better_model_passes_and_equal_rows_are_not_certain():
    """Five equal losses have no spread at all: the error must not be taken for 0."""
    assert compare_assessments(assessment(t=[0.0] * 500), assessment(t=[1.0] * 500)).outcome == "pass"
    five = finding_of(compare_assessments(assessment(t=[0.5] * 5), assessment(t=[0.4] * 5)), "t")
    assert five.outcome == "cannot tell"


def test_rows_are_matched_by_what_was_asked_and_changed_ones_are_named():
    old, new = scores_of([1] * 6), scores_of([1] * 6)
    answers_changed = KEYS[0][:16] + "-" + "f" * 16
    new = replace(new, keys=[answers_changed, *reversed(KEYS[1:5]), KEYS[77]], rows={"rouge_l": [0, 1, 1, 1, 0, 0]})
    finding = compare_assessments(assessment(t=old, gone=[1, 1]), assessment(t=new)).findings[0]
    assert (finding.rows, finding.changed, finding.missing) == (4, 1, 1)
    assert finding.change.worse == pytest.approx(25)  # only the row with the second key is another now
    verdict = compare_assessments(assessment(t=old, gone=[1, 1]), assessment(t=new))
    gone = finding_of(verdict, "gone")
    assert (gone.outcome, gone.rows, gone.missing) == ("cannot tell", 0, 2)
    assert gone.reason(verdict.limits) == "none of its 2 rows can be compared"
    with pytest.raises(InsclError, match="there is nothing to compare"):
        compare_assessments(assessment(t=old), assessment(other=old))


def test_a_key_holds_what_was_asked_and_what_is_accepted():
    assert row_key("Add  it.", "1", ["2"]) == row_key("Add it.", "1", ["2"])
    keys = {row_key("Add", "1", ["2"]), row_key("Add", "1", ["2", "two"]), row_key("Add", "", ["2"])}
    assert len({key.split("-")[0] for key in keys}) == 2
    assert len(keys) == 3


def test_the_perplexity_is_one_more_member_of_the_family(rng):
    tokens = [20] * 60
    nll = rng.normal(60, 10, 60)
    old = Perplexity("text", nll.tolist(), tokens)
    rows = [1.0] * 200
    for rise, outcome in ((0.0, "pass"), (0.30, "fail")):
        new = Perplexity("text", (nll + 20 * math.log1p(rise) + rng.normal(0, 0.5, 60)).tolist(), tokens)
        verdict = compare_assessments(assessment(old, t=rows), assessment(new, t=rows))
        found = finding_of(verdict, _GENERAL)
        assert found.outcome == outcome
        assert found.change.after == pytest.approx(new.value, rel=1e-9)
        assert found.change.worse == pytest.approx(100 * (new.value / old.value - 1), rel=1e-9)
    assert (
        compare_assessments(assessment(old, t=rows), assessment(new, t=rows), Tolerance(max_rise=None)).outcome
        == "pass"
    )
    without = compare_assessments(assessment(old, t=rows), assessment(None, t=rows))
    assert "general ability was not looked at" in without.remarks[0]
    other = compare_assessments(assessment(old, t=rows), assessment(replace(new, text="other"), t=rows))
    assert "different texts" in other.remarks[0]


def test_error_rates_of_whole_releases():
    """16 tasks of 500 rows: a planted drop of 10 points fails, equal models do not (benchmarks/gate.py does more)."""
    found = alarms = 0
    releases = 60
    for seed in range(releases):
        rng = np.random.default_rng(seed)
        drawn = {f"task {i}": noisy(rng, lost=0.1 / 0.86 if i == 0 else 0.0) for i in range(16)}
        verdict = compare_assessments(
            assessment(**{name: old for name, (old, _) in drawn.items()}),
            assessment(**{name: new for name, (_, new) in drawn.items()}),
        )
        found += verdict.findings[0].outcome == "fail"
        alarms += any(finding.outcome == "fail" for finding in verdict.findings[1:])
    assert found >= 58  # 99 in 100: at most two misses in 60 with a probability of 0.98
    assert alarms <= 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"alpha": 0.7}, "`alpha` must lie between 0 and 0.5"),
        ({"max_drop": -1}, "`max-drop` must be points from 0 to 100"),
        ({"max_drop": float("nan")}, "`max-drop` must be points"),
        ({"max_drop": 5, "notice": 5}, r"`notice` must be more points than `max-drop` \(5\), got 5"),
        ({"max_rise": -3}, "`max-perplexity-rise` must be percent"),
    ],
)
def test_limits_that_make_no_sense(limits, message):
    with pytest.raises(ConfigError, match=message):
        Tolerance(**limits)


def test_a_score_that_one_side_lacks():
    with pytest.raises(InsclError, match="The reference 'model' has no score 'exact_match' on task 't'; it"):
        compare_assessments(assessment(t=[1]), assessment(t=[1]), score="exact_match")


def hostile_verdict():
    rows = {HOSTILE: [1.0] * 200, "fine": [1.0] * 200, "few": [1.0, 0.0]}
    verdict = compare_assessments(assessment(**rows, name=HOSTILE), assessment(**{**rows, HOSTILE: [0.0] * 200}))
    assert [finding.outcome for finding in verdict.findings] == ["fail", "pass", "cannot tell"]
    return replace(verdict, remarks=(HOSTILE,))


def test_junit_holds_a_case_per_task_and_strangers_text_as_text():
    root = ElementTree.fromstring(junit(hostile_verdict()))
    suite = root.find("testsuite")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [HOSTILE.replace("\x1b", "\ufffd"), "fine", "few"]
    assert [case[0].tag for case in cases] == ["failure", "system-out", "skipped"]
    for element in (root, suite):
        assert [element.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["3", "1", "0", "1"]


def test_junit_is_read_by_another_parser():
    junitparser = pytest.importorskip("junitparser", reason="junitparser is not installed")
    (suite,) = junitparser.JUnitXml.fromstring(junit(hostile_verdict()).encode())
    assert [type(case.result[0]).__name__ if case.result else "" for case in suite] == ["Failure", "", "Skipped"]


def test_markdown_shows_strangers_text_as_text():
    text = markdown(hostile_verdict())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 8  # no cell is split
    assert "<script>" not in text
    assert "\x1b" not in text
    assert r"&lt;script&gt;alert(1)&lt;/script&gt; \| \`x\`" in text
    assert "❌ fail" in rows[2]


def test_json_holds_the_verdict():
    plain = json.loads(json.dumps(hostile_verdict().to_dict(), allow_nan=False))
    assert plain["outcome"] == "fail"
    assert plain["limits"]["notice"] == 10
    assert plain["findings"][2]["reason"].startswith("too few rows (2)")


def test_a_file_gives_back_what_was_written(tmp_path):
    made = assessment(Perplexity("t", [20.0, 30.0], [4, 5]), t=scores_of([0, 0.5, 1]), **{HOSTILE: [1.0]})
    made.write(tmp_path / "deep" / "scores.json")
    assert read_assessment(tmp_path / "deep" / "scores.json") == made


@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{}", '{"inscl_scores": 2}', '{"inscl_scores": 1, "tasks": {"t": 3}}', "\x00", '{"inscl_scores": 1}'],
)
def test_a_file_that_is_none_of_ours(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"x.json' is no file of scores that this version reads .*inscl evaluate"):
        read_assessment(tmp_path / "x.json")


@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan"), "1", None])
def test_a_file_with_scores_that_cannot_be(tmp_path, bad):
    made = assessment(t=[0.5, 1]).to_dict()
    made["tasks"]["t"]["rows"]["rouge_l"][0] = bad
    (tmp_path / "x.json").write_text(json.dumps(made))
    with pytest.raises(DataError, match="The scores 'rouge_l' of task 't' are not one number between 0 and 1"):
        read_assessment(tmp_path / "x.json")


@pytest.mark.parametrize("bad", ["1", None, [1]])
def test_row_scores_are_numbers_wherever_they_are_read(bad):
    plain = scores_of([0.5, 1]).to_dict()
    assert RowScores.from_dict(json.loads(json.dumps(plain))) == scores_of([0.5, 1])
    plain["rows"]["rouge_l"][0] = bad
    with pytest.raises(ValueError, match="rouge_l"):
        RowScores.from_dict(plain)


def stage_at(folder, task="t", answers=("a", "b"), scored=(1.0, 0.0)):
    """A finished stage as an earlier version left it: without keys beside the scores."""
    rows = [Prediction(task, "Say.", f"row {i}", ["a"], said, False, False, None, 0) for i, said in enumerate(answers)]
    made = RowScores.of(rows, "rouge_l")
    plain = {**made.to_dict(), "rows": {"rouge_l": list(scored), "exact_match": list(scored)}}
    del plain["keys"]
    (folder / "predictions" / "test").mkdir(parents=True)
    lines = [json.dumps({name: getattr(row, name) for name in Prediction.__slots__}) for row in rows]
    (folder / "predictions" / "test" / "x.jsonl").write_text("\n".join(lines))
    (folder / "scores.json").write_text(json.dumps({"test": {task: plain}}))
    return made


def test_a_stage_gives_the_scores_of_its_answers(tmp_path):
    made = stage_at(tmp_path / "models" / "june")
    found = read_assessment(tmp_path / "models" / "june")
    assert found.tasks["t"] == made
    assert (tmp_path / "models" / "june" / "model").mkdir() is None
    assert read_assessment(tmp_path / "models" / "june" / "model").tasks["t"] == made


def test_two_finished_stages_are_compared_without_asking(tmp_path):
    said = ["a"] * 60
    stage_at(tmp_path / "june", answers=said, scored=[1.0] * 60)
    stage_at(tmp_path / "july", answers=["b"] * 60, scored=[0.0] * 60)
    verdict = check(tmp_path / "july", read_assessment(tmp_path / "june"), None)
    assert (verdict.outcome, verdict.findings[0].rows) == ("fail", 60)
    stage_at(tmp_path / "few", answers=["b"] * 50, scored=[0.0] * 50)
    with pytest.raises(AttributeError):  # not all rows were answered, so the memory is looked at, which is none
        check(tmp_path / "few", read_assessment(tmp_path / "june"), None)


def test_a_stage_whose_answers_are_others(tmp_path):
    stage_at(tmp_path, scored=(1.0, 1.0))
    with pytest.raises(DataError, match="The answers behind the scores of task 't' are not beside them"):
        read_assessment(tmp_path)


def test_places_without_scores(tmp_path):
    with pytest.raises(DataError, match=r"neither a file of scores .* nor the folder of a finished stage"):
        read_assessment(tmp_path / "nothing")
    (tmp_path / "run.json").write_text("{}")
    stage_at(tmp_path / "stages" / "none-01")
    with pytest.raises(DataError, match=r"is a whole run. Name one of its stages, .* It has none-01"):
        read_assessment(tmp_path)
    (tmp_path / "scores.json").write_text('{"trained": {}}')
    with pytest.raises(DataError, match="has scored nothing yet"):
        read_assessment(tmp_path)


def test_reasons_fit_what_was_measured():
    """A gain is called one, and what passes with more than is allowed says why."""
    rng = np.random.default_rng(4)
    old = rng.random(12)
    gained = finding_of(compare_assessments(assessment(t=old), assessment(t=np.minimum(old + 0.03, 1))), "t")
    assert gained.outcome == "cannot tell"
    assert re.match(
        r"too few rows \(12\): a gain of \d\.\d points was measured and a drop of up to", gained.reason(LIMITS)
    )
    drops = np.array([0.2, -0.12] * 50)
    passed = finding_of(compare_assessments(assessment(t=[0.5] * 100), assessment(t=0.5 - drops)), "t")
    assert passed.outcome == "pass"
    assert passed.over(LIMITS)
    assert passed.reason(LIMITS).startswith("a drop of 4.0 points was measured, more than the 2 allowed")
    text = Perplexity("text", [60.0 + i % 7 for i in range(60)], [20] * 60)
    worse = replace(text, nll=[n + 20 * math.log1p(0.058) + (2 if i % 2 else -2) for i, n in enumerate(text.nll)])
    rows = [1.0] * 200
    general = finding_of(compare_assessments(assessment(text, t=rows), assessment(worse, t=rows)), _GENERAL)
    assert general.outcome == "pass"
    assert general.reason(LIMITS).startswith("a rise of 5.8 % was measured, more than the 5 allowed")


@pytest.mark.parametrize(("lost", "outcome"), [(1, "pass"), (3, "fail")])
def test_so_many_more_rows_as_are_told_decide(lost, outcome):
    """The same sample over and over keeps mean and spread: with a tenth more it is decided, with a third not yet."""
    sample = np.array([1.0] * lost + [0.0] * (24 - lost))

    def checked(n):
        drops = np.resize(sample, n)
        return finding_of(compare_assessments(assessment(t=[1.0] * n), assessment(t=1 - drops)), "t")

    few = checked(24)
    assert few.outcome == "cannot tell"
    needed = few.change.units + few.change.more
    assert f"about {few.change.more} more rows would decide" in few.reason(LIMITS)
    assert checked(24 * math.ceil(1.1 * needed / 24)).outcome == outcome
    assert checked(24 * max(1, needed // 72)).outcome == "cannot tell"
    assert checked(24 * math.ceil(1.1 * needed / 24)).change.more == 0


def test_undecided_counts_as_is_asked(tmp_path):
    few = assessment(t=[1.0] * 5), assessment(t=[1, 1, 1, 1, 0])
    for undecided, cleared, tag in (("pass", True, "skipped"), ("fail", False, "failure")):
        result = compare_assessments(*few, Tolerance(undecided=undecided))
        assert (result.outcome, result.cleared) == ("cannot tell", cleared)
        assert next(ElementTree.fromstring(junit(result)).iter("testcase")).find(tag) is not None
    with pytest.raises(ConfigError, match="`undecided` must be pass or fail"):
        Tolerance(undecided="maybe")
