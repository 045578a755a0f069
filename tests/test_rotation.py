"""What rotates: laws of coverage over stages, counts against a loop of single steps, representatives by brute force."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.core.rotation import _LOOKED_AT, _ROWS_LOOKED_AT, representatives, rotate
from inscl.core.selection import insinfo

SHAPES = st.lists(st.integers(0, 5), min_size=1, max_size=9).filter(any)


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4))


def taken(counts, times, budget, seed=0, **looks):
    n = sum(counts)
    instructions, rows = vectors(len(counts), 1), vectors(n, 2)
    asked = looks.get("asked", [])

    def embed_rows(numbers):
        asked.extend(numbers.tolist())
        return rows[numbers]

    return rotate(counts, times, lambda i: instructions[i], embed_rows, budget, np.random.default_rng(seed))


def instruction_of(counts):
    return np.repeat(np.arange(len(counts)), counts)


@given(SHAPES, st.integers(1, 12), st.integers(0, 3))
def test_after_a_round_of_stages_every_instruction_has_been_replayed_and_none_twice_before(counts, budget, seed):
    n = sum(map(bool, counts))
    of, times = instruction_of(counts), np.zeros(sum(counts), dtype=int)
    for stage in range(-(-n // budget)):
        rows = taken(counts, times, budget, seed + stage)
        assert len(rows) == len(set(rows.tolist())) == min(budget, sum(counts))
        assert (np.diff(rows) > 0).all()
        times[rows] += 1
        if (stage + 1) * budget <= n:
            assert Counter(of[times > 0].tolist()).most_common(1)[0][1] == 1
    assert set(of[times > 0].tolist()) == set(of.tolist())


@given(st.integers(1, 7), st.integers(1, 6), st.integers(1, 5))
def test_no_row_returns_before_all_rows_have_been_seen(instructions, rows_each, budget):
    counts = [rows_each] * instructions
    times = np.zeros(sum(counts), dtype=int)
    for stage in range(2 * sum(counts) // budget):
        times[taken(counts, times, budget, stage)] += 1
        assert times.max() - times.min() <= 1


@given(SHAPES, st.data())
def test_counts_are_those_of_single_steps(counts, data):
    """An independent way: one row after another, to the instruction with the least that has a row left."""
    times = np.array(data.draw(st.lists(st.integers(0, 4), min_size=sum(counts), max_size=sum(counts))), dtype=int)
    budget = data.draw(st.integers(0, sum(counts) + 2))
    of = instruction_of(counts)
    chosen = Counter(of[taken(counts, times, budget)].tolist())
    have = [int(times[of == i].sum()) for i in range(len(counts))]
    got = [0] * len(counts)
    for _ in range(min(budget, sum(counts))):
        open_ones = [i for i in range(len(counts)) if got[i] < counts[i]]
        got[min(open_ones, key=lambda i: have[i] + got[i])] += 1
    # Who of the equals got the last ones is free; how many stand at each level is not.
    assert sorted(h + chosen[i] for i, h in enumerate(have)) == sorted(h + g for h, g in zip(have, got, strict=True))
    assert all(chosen[i] <= count for i, count in enumerate(counts))


@given(SHAPES, st.data())
def test_within_an_instruction_the_rows_replayed_least_come_first(counts, data):
    times = np.array(data.draw(st.lists(st.integers(0, 4), min_size=sum(counts), max_size=sum(counts))), dtype=int)
    rows = taken(counts, times, data.draw(st.integers(0, sum(counts))))
    of = instruction_of(counts)
    for i in range(len(counts)):
        mine = times[of == i]
        chosen = times[rows[of[rows] == i]]
        assert sorted(chosen.tolist()) == sorted(mine.tolist())[: len(chosen)]


def test_equal_arguments_give_equal_rows_and_the_seed_decides_between_equal_gains():
    counts, times = [6] * 5, np.zeros(30, dtype=int)
    first = taken(counts, times, 4)
    np.random.seed(1)  # noqa: NPY002  (the global state must not matter)
    assert taken(counts, times, 4).tolist() == first.tolist()
    same = np.ones((30, 3))
    draws = {
        tuple(rotate(counts, times, lambda i: same[i], lambda r: same[r], 2, np.random.default_rng(s)))
        for s in range(20)
    }
    assert len(draws) > 5


def test_rows_are_embedded_only_where_the_budget_ends_among_equals():
    asked: list[int] = []
    taken([2, 2], np.array([0, 1, 1, 0]), 2, asked=asked)
    assert asked == []
    taken([2, 2], np.zeros(4, dtype=int), 1, asked=asked)
    assert sorted(asked) in ([0, 1], [2, 3])


def test_of_very_many_equals_some_are_looked_at():
    asked: list[int] = []
    rows = taken([5 * _LOOKED_AT], np.zeros(5 * _LOOKED_AT, dtype=int), _LOOKED_AT + 3, asked=asked)
    assert len(set(rows.tolist())) == _LOOKED_AT + 3
    assert len(asked) == _LOOKED_AT


def test_every_choice_adds_most():
    """Against the definition: of the candidates left, the one with the highest weighted sum of similarities."""
    for seed in range(30):
        points = vectors(9, seed)
        weights = np.random.default_rng(seed).integers(1, 5, 9)
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        there = [7, 8]
        for choice in representatives(points, 7, 3, weights):
            value = {
                c: sum(w * max((1 + unit[p] @ unit[s]) / 2 for s in [*there, c]) for p, w in enumerate(weights))
                for c in range(7)
                if c not in there
            }
            assert value[choice] == pytest.approx(max(value.values()), abs=1e-5 * weights.sum())
            there.append(choice)


def test_greedy_is_as_good_as_it_must_be():
    """Of a monotone submodular sum, greedy reaches 1 - 1/e of the best (Nemhauser et al.), here by brute force."""

    def value(unit, chosen):
        return sum(max((1 + p @ unit[c]) / 2 for c in chosen) for p in unit)

    ratios = []
    for seed in range(30):
        points = vectors(8, seed)
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        best = max(value(unit, chosen) for chosen in combinations(range(8), 3))
        ratios.append(value(unit, representatives(points, 8, 3)) / best)
    assert min(ratios) >= 1 - 1 / np.e
    assert max(ratios) <= 1 + 1e-12


def test_times_must_be_those_of_the_rows():
    with pytest.raises(ValueError, match="for each of the 3 rows"):
        rotate([1, 2], [0, 0], vectors(2).take, vectors(3).take, 1, np.random.default_rng(0))


def test_insinfo_discounted_by_what_was_replayed_goes_round_in_proportion():
    """Highest score per replayed row first: D'Hondt's apportionment, which is proportional."""
    counts, scores = [9, 9, 9], [6.0, 3.0, 1.0]
    times = np.zeros(27, dtype=int)
    order = []
    for stage in range(10):
        row = insinfo(counts, scores, 1, np.random.default_rng(stage), times)
        times[row] += 1
        order.append(int(row[0]) // 9)
    assert Counter(order) == {0: 6, 1: 3, 2: 1}
    assert times.max() == 1  # within an instruction no row returns while others were not seen
    assert (
        insinfo(counts, scores, 1, np.random.default_rng(0)).tolist()
        == insinfo(counts, scores, 1, np.random.default_rng(0), None).tolist()
    )


def test_few_rows_are_encoded_where_few_are_wanted():
    asked: list[int] = []
    assert len(taken([400, 300], np.zeros(700, dtype=int), 2, asked=asked)) == 2
    assert len(asked) == 2 * _ROWS_LOOKED_AT
