"""Comparisons of strategies: paired by stream, counted by order, and true for all that are shown at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from inscl.core.stats import Estimate
from inscl.experiments.comparison import Comparison, Contender, FinalRows, _adjusted, comparisons
from inscl.experiments.equal_tokens import gains_at_equal_tokens
from inscl.experiments.run_folder import RunFolder
from inscl.experiments.summary import Summary
from report_runs import made_run

PLACES = [(f"order {i}", i) for i in range(8)]


def contender(label, finals, budget="4 per task"):
    finals = dict(zip(PLACES, finals, strict=False))
    return Contender(label=label, strategy=label, budget=budget, finals=finals, rows={})


def test_every_pair_is_compared_once_and_p_holds_for_all_of_them(rng):
    """SciPy's paired t-test, and Holm's steps by hand, are the oracle."""
    finals = {"none": rng.normal(60, 2, 8), "random": rng.normal(63, 2, 8), "inscl": rng.normal(63.5, 2, 8)}
    found = comparisons([contender(name, values) for name, values in finals.items()])
    assert [(c.line, c.baseline) for c in found] == [("random", "none"), ("inscl", "none"), ("inscl", "random")]
    raw = [ttest_rel(finals[c.line], finals[c.baseline]).pvalue for c in found]
    assert [c.paired.p for c in found] == pytest.approx(raw)
    least, middle, most = np.sort(raw)
    steps = np.minimum(1, np.maximum.accumulate([3 * least, 2 * middle, most]))
    assert sorted(c.p for c in found) == pytest.approx(steps.tolist())
    for c in found:
        assert c.counts == (c.p <= 0.05)
        assert c.of(c.baseline).mean == -c.paired.mean


def test_a_budget_is_compared_with_its_own_and_with_none_wherever_none_stands():
    few, many = contender("inscl", [1, 2, 3], "4 per task"), contender("random", [1, 3, 2], "9 per task")
    none = contender("none", [0, 0, 1], "")
    for order in ([none, few, many], [few, many, none]):
        pairs = {frozenset((c.line, c.baseline)) for c in comparisons(order)}
        assert pairs == {frozenset(("none", "inscl")), frozenset(("none", "random"))}


def test_seeds_of_one_order_are_one():
    """Three orders with four equal seeds each tell as much as three streams, and not as twelve."""
    effects = [1.0, 4.0, 2.5]
    many = {(f"order {i}", seed): effect for i, effect in enumerate(effects) for seed in range(4)}
    a = Contender(label="a", strategy="a", budget="", finals=many, rows={})
    b = Contender(label="b", strategy="b", budget="", finals=dict.fromkeys(many, 0.0), rows={})
    (found,) = comparisons([b, a])
    (three,) = comparisons([contender("b", [0, 0, 0]), contender("a", effects)])
    assert found.paired.ends == pytest.approx(three.paired.ends)
    assert (found.paired.n, found.paired.clusters) == (12, 3)


@given(st.lists(st.floats(0, 1) | st.none(), max_size=8))
def test_adjusting_never_makes_a_p_value_smaller(raw):
    shown = [Comparison(line="a", baseline="b", paired=Estimate(mean=1.0, n=9, over="streams", p=p)) for p in raw]
    for before, after in zip(shown, _adjusted(shown), strict=True):
        assert (after.p is None) == (before.paired.p is None)
        assert after.p is None or after.p >= before.paired.p
        assert after.counts == (after.p is not None and after.p <= 0.05)


def test_few_streams_never_count():
    (found,) = comparisons([contender("a", [0.0, 0.0]), contender("b", [9.0, 9.001])])
    assert found.p < 0.05
    assert not found.counts


def test_rows_of_one_instruction_are_one_for_a_stream():
    """Four rows of each instruction that agree say no more than one of each."""
    scores = [100.0, 0.0, 100.0, 50.0, 100.0]
    single = FinalRows({"t": scores}, {"t": list("abcde")}).estimate()
    many = FinalRows({"t": np.repeat(scores, 4).tolist()}, {"t": np.repeat(list("abcde"), 4).tolist()}).estimate()
    assert many.ends == pytest.approx(single.ends)
    assert (many.n, many.clusters) == (20, 5)


def test_gains_at_equal_tokens_are_read_between_the_stages(tmp_path):
    """With equal tokens everywhere nothing changes; who takes twice as many is read where it had as many."""
    run = RunFolder.read(made_run(tmp_path / "run", strategies=("none", "inscl")))
    finals = {row["strategy"]: row["value"] for row in run.rows if row["metric"] == "relative_gain_final"}
    assert {key.strategy: gain for key, gain in gains_at_equal_tokens(run.rows).items()} == pytest.approx(finals)
    dearer = [
        {**row, "value": 2 * row["value"]} if (row["strategy"], row["metric"]) == ("inscl", "tokens") else row
        for row in run.rows
    ]
    found = {key.strategy: gain for key, gain in gains_at_equal_tokens(dearer).items()}
    assert found["none"] == pytest.approx(finals["none"])
    mine = [row for row in run.rows if (row["strategy"], row["metric"]) == ("inscl", "relative_gain")]
    by_stage = {row["stage"]: row["value"] for row in mine}
    # 1100, 1200, 1300 and 1400 tokens, twice: with 5,000 it stands 400 of 2,600 past its second stage.
    assert found["inscl"] == pytest.approx(by_stage[2] + (by_stage[3] - by_stage[2]) * 400 / 2600)
    lines = {line.strategy: line for line in Summary.of(run.table).lines}
    assert lines["inscl"].gain_equal_tokens == pytest.approx(finals["inscl"])


def test_what_is_kept_of_joint_training(tmp_path):
    """Per cent of joint training's scores on the earlier tasks, from the rows themselves."""
    folder = made_run(tmp_path / "run", joint=True, rows=40)
    (folder / "results.parquet").unlink()
    run = RunFolder.read(folder)
    (joint,) = [stage.scores() for stage in run.scored() if stage.path.name.startswith("joint")]
    shares = {row["strategy"]: row["value"] for row in run.rows if row["metric"] == "share_of_joint"}
    for stream in run.streams:
        last = stream.stages[-1].scores
        ratios = [last[task].mean("rouge_l") / joint[task].mean("rouge_l") for task in stream.tasks[:-1]]
        assert shares[stream.key.strategy] == pytest.approx(100 * np.mean(ratios))
    (gain,) = [r["value"] for r in run.rows if (r["strategy"], r["metric"]) == ("joint", "relative_gain_final")]
    experts = {row["task"]: row["value"] for row in run.rows if row["metric"] == "expert"}
    assert gain == pytest.approx(100 * np.mean([joint[task].mean("rouge_l") / experts[task] for task in experts]))
