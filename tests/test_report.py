"""The report: its facts against recounts that share no code with them, its words, its figures and its files."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.cli import main
from inscl.core.crossed import crossed_difference
from inscl.core.stats import Estimate
from inscl.errors import ConfigError, InsclError
from inscl.experiments.config import load_config
from inscl.experiments.run_folder import RunFolder
from inscl.experiments.summary import Summary
from inscl.replay.plan import Plan
from inscl.report import figures, summarize
from inscl.report.figures.draw import _COLOURS, RAMP, SERIES, _ticks, apart, fit, width_of
from inscl.report.figures.frontier import _Point, _unbeaten
from inscl.report.page import _to_png, write_plan_report, write_run_report
from inscl.report.plan import PlanFacts
from inscl.report.reading import open_runs
from inscl.report.verdict import verdict
from report_runs import TASKS, made_run

HOSTILE = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(2)>"
T_975 = {1: 12.706, 2: 4.303, 3: 3.182}  # the printed tables


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A finished run: three strategies, three seeds, joint training."""
    return made_run(tmp_path_factory.mktemp("three") / "three", seeds=(0, 1, 2), joint=True, rows=12)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A finished run of one stream a strategy."""
    return made_run(tmp_path_factory.mktemp("single") / "single", rows=12)


def table_of(run: Path) -> list[dict]:
    return pq.read_table(run / "results.parquet").to_pylist()


def by_strategy(run: Path, metric: str) -> dict[str, list[float]]:
    found = defaultdict(list)
    for row in table_of(run):
        if row["metric"] == metric and row["stage"] is None and row["task"] is None:
            found[row["strategy"]].append(row["value"])
    return found


# ---------------------------------------------------------------- facts


def test_lines_are_means_over_streams_with_the_tabulated_t_interval(three):
    facts = summarize(three)
    assert [line.label for line in facts.lines] == ["none", "random", "inscl"]
    for metric, name, factor in (
        ("relative_gain_final", "gain_final", 1),
        ("average_performance", "performance", 100),
        ("backward_transfer", "change", 100),
        ("forgetting", "forgetting", 100),
        ("learning", "learning", 100),
    ):
        for strategy, values in by_strategy(three, metric).items():
            if strategy == "joint":
                continue
            found = getattr(next(line for line in facts.lines if line.strategy == strategy), name)
            half = T_975[2] * stdev(values) / 3**0.5
            assert found.mean == pytest.approx(factor * fmean(values))
            assert (found.high - found.low) / 2 == pytest.approx(factor * half, rel=1e-3, abs=1e-9)
            assert (found.n, found.over) == (3, "streams")


def test_gains_per_stage_and_scores_are_those_of_the_table(three):
    facts = summarize(three)
    cells = {
        (row["strategy"], row["seed"], row["stage"], row["task"]): (row["value"], row["low"], row["high"], row["n"])
        for row in table_of(three)
        if row["metric"] == "rouge_l" and row["stage"] and row["strategy"] != "joint"
    }
    shown = {
        (stream.line, stream.seed, stage, task): (s.mean / 100, s.low / 100, s.high / 100, s.n)
        for stream in facts.streams
        for stage, scores in enumerate(stream.scores, start=1)
        for task, s in scores.items()
    }
    assert shown.keys() == cells.keys()
    assert all(shown[key] == pytest.approx(cells[key]) for key in cells)
    for line in facts.lines:
        for stage, found in line.gains.items():
            values = [
                row["value"]
                for row in table_of(three)
                if (row["strategy"], row["metric"], row["stage"]) == (line.strategy, "relative_gain", stage)
            ]
            assert found.mean == pytest.approx(fmean(values))


def test_what_became_of_a_task_is_its_last_score_minus_its_first(three):
    facts = summarize(three)
    rows = [row for row in table_of(three) if row["metric"] == "rouge_l"]
    for line in facts.lines:
        assert [fact.task for fact in line.tasks] == list(TASKS[:-1])  # the newest cannot be forgotten yet
        for j, fact in enumerate(line.tasks, start=1):
            mine = [row for row in rows if (row["strategy"], row["task"]) == (line.strategy, fact.task)]
            learnt = {row["seed"]: row["value"] for row in mine if row["stage"] == j}
            now = {row["seed"]: row["value"] for row in mine if row["stage"] == len(TASKS)}
            assert fact.learnt == pytest.approx(100 * fmean(learnt.values()))
            assert fact.change.mean == pytest.approx(100 * fmean(now[seed] - learnt[seed] for seed in now))


def test_one_stream_has_the_interval_of_its_test_rows(single):
    line = next(line for line in summarize(single).lines if line.strategy == "none")
    rows = RunFolder(single).final_rows()
    ((_, mine),) = [(key, rows) for key, rows in rows.items() if key.strategy == "none"]
    nothing = {task: [0.0] * len(values) for task, values in mine.scores.items()}
    drawn = crossed_difference([mine.scores], [nothing], instructions=mine.instructions)
    assert (line.gain_final.low, line.gain_final.high) == (drawn.low, drawn.high)
    assert line.gain_final.mean == pytest.approx(drawn.mean)
    assert line.gain_final.over == line.change.over == line.tasks[0].change.over == "test rows"
    assert line.change.low <= line.change.mean <= line.change.high
    assert line.learning.over == ""  # no interval, and none is made up


def test_final_rows_make_up_the_final_relative_gain(three):
    table = pq.read_table(three / "results.parquet")
    finals = {
        (row["strategy"], row["budget"], row["order"], row["seed"]): row["value"]
        for row in table.to_pylist()
        if row["metric"] == "relative_gain_final"
    }
    rows = RunFolder(three).final_rows()
    assert rows.keys() == finals.keys()
    assert {key: fmean(map(fmean, kept.scores.values())) for key, kept in rows.items()} == pytest.approx(finals)


def test_differences_are_paired_and_have_both_intervals(three):
    facts, finals = summarize(three), defaultdict(dict)
    for row in table_of(three):
        if row["metric"] == "relative_gain_final":
            finals[row["strategy"]][row["seed"]] = row["value"]
    assert {(d.line, d.baseline) for d in facts.differences} == {
        ("random", "none"), ("inscl", "none"), ("inscl", "random")
    }  # fmt: skip
    for d in facts.differences:
        values = [finals[d.line][seed] - finals[d.baseline][seed] for seed in range(3)]
        half = T_975[2] * stdev(values) / 3**0.5
        assert d.paired.mean == pytest.approx(fmean(values))
        assert d.paired.low == pytest.approx(fmean(values) - half, abs=0.01)
        assert d.crossed.low < d.paired.mean < d.crossed.high
    table = pq.read_table(three / "results.parquet")
    printed = Summary.of(table, RunFolder(three).final_rows()).differences
    for a, d in zip(printed, facts.differences, strict=True):  # what `inscl run` prints
        assert (a.line, a.baseline) == (d.line, d.baseline)
        assert a.paired.mean == pytest.approx(d.paired.mean)
        assert a.paired.ends == pytest.approx(d.paired.ends)
        assert a.crossed == d.crossed


def test_joint_training_is_measured_against_the_experts(three):
    (joint,) = summarize(three).joint
    rows = table_of(three)
    experts = {row["task"]: row["value"] for row in rows if row["metric"] == "expert"}
    gains = [
        100 * fmean(row["value"] / experts[row["task"]] for row in rows if row["strategy"] == "joint" and row["task"]
                    and row["seed"] == seed)
        for seed in range(3)
    ]  # fmt: skip
    assert joint.gain.mean == pytest.approx(fmean(gains))
    assert joint.gain.n == 3


def test_runs_of_one_experiment_are_pooled_and_others_stand_beside(tmp_path):
    a = made_run(tmp_path / "a", seeds=(0,))
    b = made_run(tmp_path / "b", seeds=(1, 2))
    other = made_run(tmp_path / "other", tasks=("sums", "colours"), seeds=(5,))
    whole = made_run(tmp_path / "whole", seeds=(0, 1, 2))
    pooled, at_once = summarize([a, b]), summarize(whole)
    assert [line.gain_final for line in pooled.lines] == [line.gain_final for line in at_once.lines]
    assert [d.crossed for d in pooled.differences] == [d.crossed for d in at_once.differences]
    assert any("Pooled as one experiment: 'a', 'b'" in note for note in pooled.notes)
    beside = summarize([a, other])
    assert {line.label for line in beside.lines} >= {"inscl · a", "inscl · other"}
    assert any("'other' stands beside 'a' and is not pooled with it: other settings (tasks)" in n for n in beside.notes)
    assert not {(d.line, d.baseline) for d in beside.differences} & {("inscl · other", "none · a")}
    (tmp_path / "x").mkdir()
    twice = summarize([a, a])
    assert any("both have a stream of the same strategy, budget, order and seed" in note for note in twice.notes)
    assert len({run.name for run in open_runs([a, tmp_path / "x" / ".." / "a"])}) == 2


def test_an_unfinished_run_is_shown_as_far_as_it_is(tmp_path, single):
    run = made_run(tmp_path / "half", rows=12, stages_done=3)
    facts = summarize(run)
    assert not facts.finished
    assert "9 of 12 stages are scored" in facts.notes[0]
    assert all(line.streams == 0 and line.unfinished == 1 and line.gain_final is None for line in facts.lines)
    whole = {stream.line: stream for stream in summarize(single).streams}
    for stream in facts.streams:  # what is there is what the finished run has there
        assert stream.gains == {stage: gain for stage, gain in whole[stream.line].gains.items() if stage <= 3}
        values = [{task: s.mean for task, s in scores.items()} for scores in stream.scores]
        assert values == [{task: s.mean for task, s in scores.items()} for scores in whole[stream.line].scores[:3]]
    (sentence,) = verdict(facts)
    assert "No stream has reached its last stage; the furthest has 3 stages." in sentence.words
    page = write_run_report([run], tmp_path / "report", figures=("svg",)).read_text()
    assert "is not finished" in page


def test_a_run_that_has_finished_and_grows_is_read_anew(tmp_path):
    run = made_run(tmp_path / "run")
    streams = json.loads((run / "streams.json").read_text())
    more = {**streams[0], "seed": 9}  # its stages are those of seed 0, which is all that matters here
    (run / "streams.json").write_text(json.dumps([*streams, more]))
    facts = summarize(run)
    assert {stream.seed for stream in facts.streams} == {0, 9}


def test_the_tables_of_a_run_are_enough_for_a_report(tmp_path):
    """Who publishes a run may leave out its stages: intervals over test rows are gone then, and nothing else."""
    run = made_run(tmp_path / "run")
    whole = summarize(run)
    shutil.rmtree(run / "stages")
    facts = summarize(run)
    for line, before in zip(facts.lines, whole.lines, strict=True):
        assert line.gain_final == Estimate(mean=before.gain_final.mean)
    assert facts.finished
    assert all(d.crossed is None for d in facts.differences)
    write_run_report([run], tmp_path / "report", figures=())


def test_facts_are_plain_data(three):
    plain = json.loads(json.dumps(summarize(three).to_dict()))
    assert plain["lines"][2]["label"] == "inscl"
    assert plain["runs"][0]["test_rows"] == [12, 12]
    assert plain["replay"]["distances"][0].keys() == {"task", "earlier", "distance"}


# ---------------------------------------------------------------- replay and forgotten answers


def test_budgets_and_distances_are_those_of_the_plans(single):
    facts = summarize(single)
    plans = [Plan.read(path) for path in (single / "stages").glob("inscl-*/plan.json")]
    assert {(d.task, d.earlier): d.distance for d in facts.replay.distances} == {
        (plan.name, task.name): task.distance for plan in plans for task in plan.tasks
    }
    budget = next(b for b in facts.replay.budgets if b.line == "inscl")
    assert [sum(stage.counts.values()) for stage in budget.stages] == [4, 8, 12]
    assert {b.line for b in facts.replay.budgets} == {"random", "inscl"}  # nothing is replayed by `none`


def test_the_instructions_not_chosen_are_measured_from_the_memory(tmp_path):
    from test_run import TASKS as DEMO
    from test_run import PaperTrainer, config_of, run_with

    run_with(PaperTrainer(), tmp_path / "run", config_of(budgets=[{"per_task": 2}]))
    (info,) = summarize(tmp_path / "run").replay.insinfo
    assert info.missing == ""
    plan = Plan.read(next((tmp_path / "run" / "stages").glob("inscl-*-03-*/plan.json")))
    chosen = {(t.name, i.text): (i.count, i.insinfo) for t in plan.tasks for i in t.instructions}
    assert {(i.task, i.text): (i.chosen, i.insinfo) for i in info.instructions if i.chosen} == chosen
    rest = [i for i in info.instructions if not i.chosen]
    assert len(info.instructions) == sum(task.all_instructions for task in plan.tasks) > len(chosen)
    for task in DEMO[:2]:  # the paper's rule: with so few rows, the instructions with most InsInfo
        assert min(i.insinfo for i in info.instructions if i.task == task and i.chosen) >= max(
            i.insinfo for i in rest if i.task == task
        )


def test_without_a_memory_only_the_chosen_are_shown_and_the_page_says_so(single, tmp_path):
    (info,) = summarize(single).replay.insinfo
    assert all(i.chosen for i in info.instructions)
    assert "memory cannot be read" in info.missing
    assert "only the chosen are shown" in write_run_report([single], tmp_path, figures=()).read_text()


def test_forgotten_answers_are_found_in_the_predictions(single):
    facts = summarize(single)
    run = open_runs([single])[0]
    count = 0
    for stream in run.streams:
        *earlier, last = [json.loads((f.path / "scores.json").read_text())["test"] for f in stream.folders]
        for task in stream.tasks[:-1]:
            before = [stage[task]["rows"]["rouge_l"] for stage in earlier if task in stage]
            pairs = zip(map(max, zip(*before, strict=True)), last[task]["rows"]["rouge_l"], strict=True)
            count += sum(best == 1 and after == 0 for best, after in pairs)
    assert facts.forgotten.found == count > 0
    assert all(e.once.startswith("right") and e.now == "pay 1 coin" for e in facts.forgotten.examples)
    assert facts.forgotten.judges == ()


def judged(run: Path) -> None:
    """The tables of `inscl forgetting`, with two stages of one stream."""
    place = {"run_id": run.name, "strategy": "none", "budget": "", "order": "given", "seed": 0, "task": "sums"}
    counts = {"judge": "offline", "ever_right": 10, "forgotten": 5, "related": 2, "unrelated": 3, "not_judged": 0}
    rates = [{**place, **counts, "stage": 4}, {**place, **counts, "stage": 3, "unrelated": 99}]
    row = {"row": 0, "best": 1.0, "best_stage": 1, "score": 0.0, "kind": "unrelated", "reason": "echo",
           "nearest_task": None, "instruction": "Do.", "input": "", "reference": "3", "once": "3",
           "now": IMAGE}  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rates), run / "forgetting.parquet")
    pq.write_table(pa.Table.from_pylist([{**place, **row, "stage": 4}]), run / "forgotten.parquet")


def test_kinds_of_forgetting_come_from_the_tables(tmp_path):
    run = made_run(tmp_path / "run")
    judged(run)
    found = summarize(run).forgotten
    (kind,) = found.kinds
    assert (kind.line, kind.task, kind.ever_right, kind.related, kind.unrelated) == ("none", "sums", 10, 2, 3)
    (example,) = found.examples
    assert (example.best, example.score, example.kind, example.reason) == (100, 0, "unrelated", "echo")
    page = write_run_report([run], tmp_path / "report", figures=()).read_text()
    assert "none 5 of 10, 3 of them unrelated" in page
    assert "Judged by: offline" in page
    assert "Nobody has judged" not in page


# ---------------------------------------------------------------- the verdict


def test_the_verdict_names_the_best_and_says_how_sure_it_is(three):
    facts = summarize(three)
    best = facts.best
    assert best.gain_final.mean == max(line.gain_final.mean for line in facts.lines)
    kept, forgotten, cost, certainty = verdict(facts)
    assert kept.figure == f"{best.gain_final.mean:.1f}\u00a0%"
    assert "over 3 streams" in kept.words
    assert "Without replay: " in kept.words
    assert forgotten.figure == f"{-best.change.mean:.1f} points"
    assert "trained on in a stream" in cost.words
    assert certainty.figure == "3 streams"
    assert best.label in certainty.words


def test_one_stream_is_never_called_certain(single):
    assert "One stream says little about other orders and seeds" in verdict(summarize(single))[-1].words


def test_small_runs_have_a_verdict_too(tmp_path):
    one = verdict(summarize(made_run(tmp_path / "one", tasks=("only",), strategies=("none",))))
    assert [sentence.about for sentence in one] == ["Kept", "Cost", "Certainty"]
    assert "nothing to compare it with" in one[-1].words
    run = made_run(tmp_path / "without")
    record = json.loads((run / "run.json").read_text())
    record["config"]["experts"] = None
    (run / "run.json").write_text(json.dumps(record))
    (run / "results.parquet").unlink()
    facts = summarize(run)
    assert "There are no experts to compare with" in verdict(facts)[0].words
    assert "no Relative Gain to measure a difference by" in verdict(facts)[-1].words
    assert '<section id="gain"' not in write_run_report([run], tmp_path / "report", figures=()).read_text()


def test_an_interval_around_zero_is_no_lead(three):
    facts = summarize(three)
    best = facts.best
    for low, p, words in ((-1.0, 0.2, "do not tell them apart"), (0.5, 0.02, "expect a little less")):
        ends = {True: (low, 9.0), False: (-9.0, -low)}
        shifted = [
            replace(d, p=p, paired=replace(d.paired, low=ends[mine][0], high=ends[mine][1]))
            for d in facts.differences
            for mine in [d.line == best.label]
        ]
        assert words in verdict(replace(facts, differences=tuple(shifted)))[-1].words


# ---------------------------------------------------------------- figures


def all_figures(facts) -> list[figures.Figure]:
    found = [
        *figures.score_figures(facts),
        *figures.budget_figures(facts),
        *figures.insinfo_figures(facts.replay.insinfo),
    ]
    made = (figures.headline_figure, figures.frontier_figure, figures.gain_figure, figures.change_figure)
    others = (*(figure(facts) for figure in made), figures.distance_figure(facts))
    return [*found, *[figure for figure in others if figure]]


def test_every_figure_is_sound_svg_that_says_what_it_shows(three):
    found = all_figures(summarize(three))
    assert len({figure.name for figure in found}) == len(found)
    for figure in found:
        root = ET.fromstring(figure.file())
        assert root.find("{*}desc").text == figure.finding
        marks = root.findall(".//{*}g[@class='m']")
        assert marks
        assert all(mark.find("{*}title").text for mark in marks)
        assert all(len(row) == len(figure.head) for row in figure.rows)
        for text in root.iter("{http://www.w3.org/2000/svg}text"):  # nothing is cut at the edges
            if not text.get("transform") and "end" in (text.get("class") or "").split():
                assert float(text.get("x")) - width_of(text.text, 11) >= 0, text.text
            elif not text.get("transform") and "mid" not in (text.get("class") or ""):
                assert float(text.get("x")) + width_of(text.text, 11) <= figure.width, text.text


def test_a_heat_map_shows_every_score(three):
    facts = summarize(three)
    stream = next(stream for stream in facts.streams if stream.line == "inscl" and stream.seed == 1)
    figure = next(f for f in figures.score_figures(facts) if f.choice == "inscl, seed 1")
    cells = [value for row in figure.rows for value in row[1:] if value]
    scores = [s.mean for scores in stream.scores for s in scores.values()]
    scores += [*stream.untrained.values(), *stream.experts.values()]
    assert sorted(float(cell.split()[0]) for cell in cells) == pytest.approx(sorted(scores), abs=0.06)
    assert figure.svg.count('class="m"') == len(cells)
    assert figure.filed is False  # three streams: the file is that of their mean


def test_the_headline_tells_kept_from_lost_as_the_table_does(three):
    table = [row for row in table_of(three) if row["metric"] == "rouge_l" and row["seed"] == 0 and row["stage"]]
    figure = figures.headline_figure(summarize(three))
    shown = iter(figure.rows)
    for line in ("none", "random", "inscl"):
        scores = {(row["stage"], row["task"]): 100 * row["value"] for row in table if row["strategy"] == line}
        last = max(stage for stage, _ in scores)
        earlier = {task: stage for stage, task in enumerate(TASKS, start=1) if stage < last}
        kept = [task for task, stage in earlier.items() if scores[last, task] >= 0.8 * scores[stage, task]]
        assert f"{line} kept {len(kept)} of {len(earlier)}" in figure.finding
        for _ in earlier:
            label, task, stage, then, now = next(shown)
            assert (label, int(stage)) == (line, earlier[task])
            assert (float(then), float(now)) == pytest.approx((scores[int(stage), task], scores[last, task]), abs=0.06)
    assert not list(shown)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=9))
def test_the_frontier_is_what_nothing_as_cheap_beats(pairs):
    points = [_Point(str(i), tokens, Estimate(mean=gain)) for i, (tokens, gain) in enumerate(pairs)]
    best = {(point.tokens, point.gain.mean) for point in _unbeaten(points)}
    beaten = {a for a in pairs if any(b != a and b[0] <= a[0] and b[1] >= a[1] for b in pairs)}
    assert best == set(pairs) - beaten


def test_two_streams_draw_no_interval_over_them(tmp_path):
    facts = summarize(made_run(tmp_path / "two", seeds=(0, 1)))
    assert "whisker" not in figures.change_figure(facts).svg
    assert "band" not in figures.gain_figure(facts).svg
    assert facts.lines[0].gain_final.low is not None  # the table has it
    assert "too few for an interval" in verdict(facts)[0].words
    assert "2 streams say little" in verdict(facts)[-1].words


def contrast(a: str, b: str) -> float:
    """Contrast of two colours by WCAG 2's formula."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_read(scheme):
    paper, ink = _COLOURS["paper"][scheme], _COLOURS["ink"][scheme]
    assert min(contrast(_COLOURS[name][scheme], paper) for name in ("ink", "faint")) >= 4.5
    assert min(contrast(_COLOURS[f"s{i}"][scheme], paper) for i in range(SERIES)) >= 3
    for shade in RAMP:
        assert contrast(shade[scheme], paper if shade[2] else ink) >= 4.5, shade


def test_png_is_the_figure_twice_as_large(three):
    pytest.importorskip("resvg_py", reason="PNG figures need the extra `report`")
    figure = figures.gain_figure(summarize(three))
    png = _to_png(figure.file())
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(png[16:20], "big") == 2 * figure.width


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_labels_keep_their_order_and_their_distance(places):
    moved = apart(places, 5, 0, 100)
    order = sorted(range(len(places)), key=lambda i: places[i])
    assert all(moved[b] - moved[a] >= 5 - 1e-6 for a, b in pairwise(order))
    assert max(moved) <= 100 + 1e-6


@given(st.text(max_size=60), st.floats(10, 300))
def test_text_is_cut_to_its_room(text, room):
    assert width_of(fit(text, room)) <= max(room, width_of("…"))


@given(st.floats(-1e4, 1e4), st.floats(0.01, 1e4))
def test_ticks_are_round_and_inside(low, span):
    found = _ticks(low, low + span)
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)
    assert len(found) <= 8


# ---------------------------------------------------------------- pages


def test_strangers_text_is_text(tmp_path):
    run = made_run(tmp_path / "run", tasks=(HOSTILE, "b & c", "汉字任务", "x" * 190), answer=IMAGE)
    page = write_run_report([run], tmp_path / "report", figures=("svg",))
    for file in [*(tmp_path / "report").rglob("*.html"), *(tmp_path / "report").rglob("*.svg")]:
        text = file.read_text()
        assert "<script>alert" not in text, file
        assert "<img" not in text, file
    assert "&lt;script&gt;alert(1)" in page.read_text()
    assert "&lt;img src=x" in page.read_text()
    for file in (tmp_path / "report").rglob("*.svg"):
        ET.fromstring(file.read_text())


def test_a_report_is_one_file_beside_its_figures_and_answers(three, tmp_path):
    page = write_run_report([three], tmp_path / "report", figures=("svg",))
    text = page.read_text()
    assert not any(word in text for word in ("http://", "https://", "@import", "url(h", "src="))
    assert {path.name for path in page.parent.iterdir()} == {
        "index.html", "figures", "run-1.yaml", *[f"answers-{i:02d}.html" for i in range(1, 5)]
    }  # fmt: skip
    names = {path.name for path in (page.parent / "figures").iterdir()}
    assert {"relative-gain.svg", "forgetting.svg", "distances.svg", "scores-01.svg"} <= names
    assert all(f'href="figures/{name}"' in text for name in names)
    answers = (page.parent / "answers-01.html").read_text()
    assert "<summary>Over the stages</summary>" in answers
    sections = ["verdict", "scores", "gain", "forgetting", "replay", "kinds", "tags", "provenance"]
    places = [text.index(f'<section id="{name}"') for name in sections]
    assert places == sorted(places)


def test_a_second_report_leaves_nothing_of_the_first_and_all_of_others(three, single, tmp_path):
    write_run_report([three], tmp_path, figures=("svg",))
    (tmp_path / "figures" / "mine.svg").write_text("mine")
    write_run_report([single], tmp_path, figures=())
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.svg"]


def test_the_written_configuration_repeats_the_run(single, tmp_path):
    write_run_report([single], tmp_path, figures=())
    for i in range(4):
        (tmp_path / f"{i}.jsonl").touch()
    assert load_config(tmp_path / "run-1.yaml").resolved() == json.loads((single / "run.json").read_text())["config"]


def test_a_plan_is_explained_before_anything_is_trained(single, tmp_path):
    path = next((single / "stages").glob("inscl-*-04-*/plan.json"))
    facts, plan = PlanFacts.of(path), Plan.read(path)
    assert facts.count == plan.count
    assert [task.share for task in facts.tasks] == [100 * task.share for task in plan.tasks]
    page = write_plan_report(path, tmp_path, figures=("svg",)).read_text()
    assert "would be replayed, and why" in page
    assert "12 rows" in page
    for task in plan.tasks:
        for instruction in task.instructions:
            assert instruction.text in page
    first = next((single / "stages").glob("random-*-02-*/plan.json"))
    assert "does not look at distances" in write_plan_report(first, tmp_path, figures=()).read_text()


def test_a_plan_with_an_empty_note_still_has_its_page(single, tmp_path):
    plan = json.loads(next((single / "stages").glob("inscl-*-04-*/plan.json")).read_text())
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "plan": {**plan["plan"], "notes": [""]}}))
    assert write_plan_report(tmp_path / "plan.json", tmp_path / "page", figures=()).exists()


# ---------------------------------------------------------------- the command


def test_the_command_writes_beside_the_run_and_prints_where(tmp_path, capsys):
    run = made_run(tmp_path / "run", stages_done=2)
    assert main(["report", str(run), "--figures", "svg"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{run / 'report' / 'index.html'}\n"
    assert "is not finished" in err
    plan = next((run / "stages").glob("inscl-*/plan.json"))
    assert main(["report", str(plan), "--figures", "none", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["strategy"] == "inscl"
    assert err == ""
    assert (plan.parent / "plan-report" / "index.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "'nowhere' holds no run: there is no run.json. Name a folder that `inscl run`"),
        (["nowhere.json"], "nowhere.json"),
        (["run", "--figures", "pdf"], "Figures come as svg or png, not as 'pdf'"),
        (["run", "plan.json"], "'plan.json' is a plan. Report it alone"),
        (["begun"], "has not begun its streams yet"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, monkeypatch, capsys, words, message):
    made_run(tmp_path / "run")
    begun = made_run(tmp_path / "begun")
    (begun / "streams.json").unlink()
    (tmp_path / "plan.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("inscl: ")


def test_no_streams_of_one_run_are_too_few(tmp_path):
    with pytest.raises(InsclError, match="has not finished a stage"):
        summarize(made_run(tmp_path / "run", stages_done=0))


def test_unknown_kinds_of_figures_are_refused(single, tmp_path):
    with pytest.raises(ConfigError, match="not as 'gif'"):
        write_run_report([single], tmp_path, figures=("gif",))


@pytest.mark.parametrize(("asked", "kinds"), [((), {".svg"}), (("--figures", "none"), set())])
def test_without_a_renderer_the_command_writes_svg_alone_and_says_so(
    single, tmp_path, monkeypatch, capsys, asked, kinds
):
    monkeypatch.setattr("inscl.cli.report.find_spec", lambda name: None)
    assert main(["report", str(single), "--out", str(tmp_path / "out"), *asked]) == 0
    assert {path.suffix for path in (tmp_path / "out").glob("figures/*")} == kinds
    assert ("SVG only" in capsys.readouterr().err) == (not asked)
