"""Selectors: laws that hold for every one of them, then what each promises."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inscl.core import selection as select
from inscl.core.budget import apportion


def unit(rng, n, d=8):
    points = rng.normal(size=(n, d))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def generator(seed=0):
    return np.random.default_rng(seed)


def call(name, counts, budget, seed=0):
    """Any selector on made-up scores and embeddings that depend on nothing but `counts`."""
    rng, n = generator(1), len(counts)
    points = rng.integers(-1, 2, (n, 3)) + np.array([0.0, 0.0, 1.5])  # many repeated rows
    if name == "random":
        return select.random(counts, budget, generator(seed))
    if name == "insinfo":
        return select.insinfo(counts, rng.integers(0, 3, n).tolist(), budget, generator(seed))
    if name == "prototype_data":
        return select.prototype_data(np.repeat(points, counts, axis=0), budget, seed)
    if name == "prototype_instruction":
        return select.prototype_instruction(counts, points, budget, generator(seed))
    return select.diverse_instruction(counts, points, unit(rng, 4, 3), budget, generator(seed))


SELECTORS = ["random", "insinfo", "prototype_data", "prototype_instruction", "diverse_instruction"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SELECTORS)
@settings(max_examples=25)
@given(counts=st.lists(st.integers(0, 6), max_size=12), budget=st.integers(0, 50), seed=st.integers(0, 9))
def test_laws(name, counts, budget, seed):
    rows = call(name, counts, budget, seed)
    assert rows.dtype == np.int64
    assert len(rows) == min(budget, sum(counts))  # over-ask is capped
    assert all(a < b for a, b in pairwise(rows.tolist()))  # ascending, distinct
    assert rows.size == 0 or (rows[0] >= 0 and rows[-1] < sum(counts))
    np.testing.assert_array_equal(rows, call(name, counts, budget, seed))  # repeatable


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("budget", [-1, 2.0, True])
def test_the_budget_is_a_count(name, budget):
    with pytest.raises(ValueError, match="`budget` must be an integer of at least 0"):
        call(name, [2, 3], budget)


def test_random_draws_every_row_alike():
    drawn = np.bincount(np.concatenate([select.random([1, 9], 3, generator(s)) for s in range(4000)]))
    np.testing.assert_allclose(drawn / 4000, 0.3, atol=0.04)


def per_instruction(counts, rows):
    """How many of the rows belong to each instruction, counted one by one."""
    owner = [i for i, count in enumerate(counts) for _ in range(count)]
    assert all(0 <= row < len(owner) for row in rows)
    return [sum(owner[row] == i for row in rows) for i in range(len(counts))]


def test_insinfo_shares_in_proportion_with_one_each():
    counts, scores = [50, 50, 2, 50], [1.0, 5.0, 9.0, 0.0]
    rows = select.insinfo(counts, scores, 20, generator())
    assert per_instruction(counts, rows) == apportion(scores, 20, capacities=counts, minimum=1) == [3, 14, 2, 1]


@pytest.mark.parametrize(
    ("counts", "scores", "budget", "expected"),
    [
        ([5, 5, 5], [1, 3, 2], 2, [0, 1, 1]),  # fewer than instructions: the top ones, one each
        ([5, 5, 5], [2, 2, 2], 2, [1, 1, 0]),  # ties to the earlier
        ([5, 0, 5], [1, 9, 2], 1, [0, 0, 1]),  # an instruction without rows gives none
        ([5, 0, 5], [1, 9, 2], 2, [1, 0, 1]),  # nor does it count as one that wants a row
        ([5, 5, 5], [0, 0, 0], 7, [3, 2, 2]),  # all zero: equal shares
        ([1, 5, 5], [100, 1, 1], 7, [1, 3, 3]),  # overdrawn: capped and shared out again
        ([2, 1], [1, 1], 99, [2, 1]),
        ([4], [0.0], 3, [3]),  # one instruction
        ([], [], 3, []),
    ],
)
def test_insinfo_cases(counts, scores, budget, expected):
    assert per_instruction(counts, select.insinfo(counts, scores, budget, generator())) == expected


def test_insinfo_draws_at_random_within_an_instruction():
    seen = {tuple(select.insinfo([3, 10], [1, 1], 2, generator(seed))) for seed in range(300)}
    assert {first for first, _ in seen} == {0, 1, 2}
    assert {second for _, second in seen} == set(range(3, 13))


def test_insinfo_wants_a_score_for_every_instruction():
    with pytest.raises(ValueError, match="`scores` must have one entry per instruction: 2, got 1"):
        select.insinfo([1, 2], [1.0], 1, generator())


def test_prototype_data_takes_one_row_of_each_cluster(rng):
    """Five tight clusters far apart; the row nearest the mean of each is known without k-means."""
    centres = np.eye(5)
    points = np.concatenate([centre + 0.05 * rng.normal(size=(8, 5)) for centre in centres])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    groups = points.reshape(5, 8, 5)
    expected = [
        8 * i + int(np.linalg.norm(group - group.mean(axis=0), axis=1).argmin()) for i, group in enumerate(groups)
    ]
    assert select.prototype_data(points * rng.uniform(1, 9, (40, 1)), 5, seed=3).tolist() == expected


def test_prototype_data_gives_distinct_rows_where_centroids_coincide():
    points = np.repeat([[1.0, 0.0], [0.0, 1.0]], 4, axis=0)
    rows = select.prototype_data(points, 5, seed=0)
    assert len(set(rows.tolist())) == 5


def test_prototype_data_does_not_depend_on_the_number_of_threads(tmp_path, rng):
    np.save(tmp_path / "points.npy", rng.normal(size=(1200, 16)).astype(np.float32))
    code = (
        "import sys, numpy as np; from inscl.core.selection import prototype_data;"
        "print(prototype_data(np.load(sys.argv[1]), 20, seed=0).tolist())"
    )
    rows = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "points.npy")],
            env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(rows) == 1


def three_groups(rng):
    """Twelve instructions in three tight groups of four; the first of each lies in its middle."""
    middles = np.eye(3)[:, None, :]
    tangent = np.array([[0, 0, 0], [1, 0, 0], [-0.5, 0.8, 0], [-0.5, -0.8, 0]]) * 0.05
    groups = []
    for i in range(3):
        rotated = np.roll(tangent, i + 1, axis=1)  # orthogonal to the middle
        groups.append(middles[i] + rotated)
    return np.concatenate(groups)


def test_prototype_instruction_draws_from_the_middle_of_each_group(rng):
    counts = [4] * 12
    owners = {
        i
        for seed in range(5)
        for i in np.flatnonzero(
            per_instruction(counts, select.prototype_instruction(counts, three_groups(rng), 6, generator(seed)))
        ).tolist()
    }
    assert owners == {0, 4, 8}


def test_prototype_instruction_gives_a_tight_group_no_more_than_its_prototype(rng):
    points = three_groups(rng)
    points[1:4] = points[0] + 0.1 * (points[1:4] - points[0])  # all nearer a centroid than other prototypes
    points[[4, 8]] += 0.02 * np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    rows = select.prototype_instruction([4] * 12, points, 12, generator())
    assert np.flatnonzero(per_instruction([4] * 12, rows)).tolist()[1:] == [4, 8]


def test_prototype_instruction_goes_on_with_the_next_nearest(rng):
    counts = [1] * 12
    points = three_groups(rng)
    points[5] = points[4] + 0.1 * (points[5] - points[4])  # nearer the middle of its group than any other
    rows = select.prototype_instruction(counts, points, 4, generator())
    assert 5 in rows.tolist()
    assert len(rows) == 4


@pytest.mark.parametrize("n", [1, 2])
def test_prototype_instruction_with_one_or_two_instructions(n):
    counts = [3] * n
    rows = select.prototype_instruction(counts, np.eye(3)[:n], 3 * n - 1, generator())
    assert sorted(per_instruction(counts, rows)) == ([2] if n == 1 else [2, 3])


def test_prototype_instruction_chooses_clusters_on_a_sample_of_many(monkeypatch, rng):
    monkeypatch.setattr(select, "_SILHOUETTE_SAMPLE", 9)
    rows = select.prototype_instruction([2] * 12, three_groups(rng), 6, generator())
    assert len(rows) == 6


def test_diverse_instruction_takes_the_least_similar_first():
    new = [[1.0, 0.0], [0.8, 0.6]]
    points = [[1.0, 0.0], [0.0, -3.0], [-1.0, 0.0], [0.0, 1.0]]  # sums of cosines: 1.8, -0.6, -1.8, 0.6
    counts = [9, 2, 9, 9]

    def chosen(budget, limit):
        rows = select.diverse_instruction(counts, points, new, budget, generator(), per_instruction=limit)
        return per_instruction(counts, rows)

    assert chosen(4, 3) == [0, 1, 3, 0]
    assert chosen(7, 3) == [0, 2, 3, 2]
    assert chosen(11, 3) == [3, 2, 3, 3]
    assert chosen(13, 3) == [3, 2, 5, 3]  # a second round, in the same order
    assert chosen(20, 3) == [6, 2, 6, 6]
    assert chosen(99, 3) == counts


def test_diverse_instruction_shows_ten_instructions_by_default(rng):
    counts = [100] * 30
    for budget in (10, 24, 95, 200):
        rows = select.diverse_instruction(counts, unit(rng, 30), unit(rng, 5), budget, generator())
        taken = np.array(per_instruction(counts, rows))
        assert (taken > 0).sum() >= 10
        assert taken.max() == budget // 10


def test_diverse_instruction_ties_go_to_the_earlier():
    points = np.ones((4, 2))
    rows = select.diverse_instruction([5] * 4, points, [[0.0, 1.0]], 4, generator(), per_instruction=2)
    assert per_instruction([5] * 4, rows) == [2, 2, 0, 0]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: select.random([1, -1], 1, generator()), "`counts` must be"),
        (lambda: select.prototype_data([[0.0, 0.0]], 1, 0), "without zero-norm rows"),
        (lambda: select.prototype_data([[np.nan, 0.0]], 1, 0), "must be finite"),
        (lambda: select.prototype_data([1.0], 1, 0), "must be a matrix"),
        (
            lambda: select.prototype_instruction([1, 2], np.eye(3), 1, generator()),
            "one row per instruction: 2",
        ),
        (
            lambda: select.diverse_instruction([1], [[1.0]], np.empty((0, 1)), 1, generator()),
            "at least one instruction of the new task",
        ),
        (
            lambda: select.diverse_instruction([1], [[1.0]], [[1.0]], 1, generator(), per_instruction=0),
            "`per_instruction` must be at least 1",
        ),
    ],
)
def test_errors(run, message):
    with pytest.raises(ValueError, match=message):
        run()
