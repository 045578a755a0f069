"""InsInfo and its variants against hand sums, exact fractions and scikit-learn."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

import inscl.core.insinfo
from inscl.core.insinfo import density_insinfo, insinfo, mean_insinfo

collections = st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=6), max_size=12)


def test_by_hand():
    tags = [["news", "rewrite"], ["news"], ["news", "code", "rewrite"], []]
    news, rewrite, code = math.log(4 / 3), math.log(4 / 2), math.log(4 / 1)
    assert insinfo(tags) == pytest.approx([news + rewrite, news, news + code + rewrite, 0.0], abs=1e-15)


def test_the_pool_counts_other_instructions():
    assert insinfo([["code"]], pool=[["code"], ["news"], ["code"], []]) == pytest.approx([math.log(2)])


@given(collections, collections)
def test_is_the_logarithm_of_an_exact_product(tags, others):
    pool = tags + others
    for instruction, score in zip(tags, insinfo(tags, pool), strict=True):
        exact = Fraction(1)
        for tag in set(instruction):
            exact *= Fraction(len(pool), sum(tag in other for other in pool))
        assert score == pytest.approx(math.log(exact), abs=1e-12)
        assert score >= 0


@given(collections, st.randoms(use_true_random=False))
@pytest.mark.parametrize("score", [insinfo, mean_insinfo])
def test_neither_order_nor_repetition_changes_a_bit(score, tags, random):
    mixed = [random.sample(instruction, len(instruction)) + instruction for instruction in tags]
    pool = random.sample(mixed, len(mixed))
    assert score(mixed, pool) == score(tags)


def test_the_sum_is_rounded_once():
    """Each of 60 tags with a frequency of its own: a plain sum would depend on the order in which a set yields."""
    tags = [[str(t) for t in range(60) if t >= i] for i in range(60)]
    expected = [math.fsum(math.log(60 / (t + 1)) for t in range(i, 60)) for i in range(60)]
    assert insinfo(tags) == expected


def test_repeated_tags_never_make_it_negative():
    """Counted with repetition, f_t would be 3 of N = 2."""
    assert insinfo([["a", "a", "a"], ["b"]]) == pytest.approx([math.log(2), math.log(2)])


@pytest.mark.parametrize(
    ("tags", "pool", "expected"),
    [
        ([], None, []),
        ([], [["a"]], []),
        ([[]], None, [0.0]),  # no tags
        ([["a"]], None, [0.0]),  # one instruction: its tags are in all of one
        ([["a"], ["a"]], None, [0.0, 0.0]),  # a tag that everyone carries says nothing
    ],
)
def test_edges(tags, pool, expected):
    assert insinfo(tags, pool) == expected


@pytest.mark.parametrize("score", [insinfo, mean_insinfo])
def test_a_tag_that_the_pool_lacks_is_an_error(score):
    with pytest.raises(ValueError, match=r"2 tags are not in `pool`, the first 'x'"):
        score([["a", "x"], ["y"]], pool=[["a"]])


@pytest.mark.parametrize("score", [insinfo, mean_insinfo])
@pytest.mark.parametrize(("tags", "pool", "name"), [(["news"], None, "pool"), ([["a"]], [["a"], "news"], "pool")])
def test_a_string_is_not_a_collection_of_tags(score, tags, pool, name):
    with pytest.raises(ValueError, match=rf"`{name}\[\d\]` must be a collection of tags, got the string 'news'"):
        score(tags, pool)


# ---------------------------------------------------------------- rarity per tag


def test_the_mean_by_hand():
    tags = [["news", "rewrite"], ["news"], ["news", "code", "rewrite"], []]
    news, rewrite, code = math.log(4 / 3), math.log(4 / 2), math.log(4 / 1)
    average = (3 * news + 2 * rewrite + code) / 6
    expected = [
        (average + news + rewrite) / 3,
        (average + news) / 2,
        (average + news + code + rewrite) / 4,
        average,  # no tags: of it nothing is known
    ]
    assert mean_insinfo(tags) == pytest.approx(expected, abs=1e-15)


@given(collections, collections)
def test_the_mean_is_the_logarithm_of_an_exact_product(tags, others):
    pool = [set(instruction) for instruction in tags + others]
    carried = [tag for instruction in pool for tag in instruction]
    rarity = {tag: Fraction(len(pool), carried.count(tag)) for tag in carried}
    average = math.log(math.prod(rarity[tag] for tag in carried)) / len(carried) if carried else 0
    for instruction, score in zip(tags, mean_insinfo(tags, pool), strict=True):
        product = math.prod((rarity[tag] for tag in set(instruction)), start=Fraction(1))
        assert score == pytest.approx((average + math.log(product)) / (1 + len(set(instruction))), abs=1e-12)
        assert 0 <= score <= math.log(max(1, len(pool))) + 1e-12


@given(collections, st.integers(2, 4))
@pytest.mark.parametrize("score", [insinfo, mean_insinfo])
def test_a_pool_that_holds_everything_several_times_says_the_same(score, tags, times):
    assert score(tags, tags * times) == pytest.approx(score(tags), abs=1e-12)


def test_the_mean_does_not_grow_with_the_number_of_tags(rng):
    """Tags drawn at random from one list: the sum ranks instructions by their number, the mean does not."""
    sizes = rng.integers(1, 20, size=2000)
    tags = [rng.integers(0, 200, size=n).tolist() for n in sizes]
    tags = [[str(tag) for tag in instruction] for instruction in tags]
    assert spearmanr(insinfo(tags), sizes).statistic > 0.99
    assert abs(spearmanr(mean_insinfo(tags), sizes).statistic) < 0.05


def test_one_odd_tag_does_not_lead_the_ranking():
    """In the plain mean the first instruction would stand above the second, which carries three rare tags of four."""
    common = [["a", "b"]] * 20
    one, several = mean_insinfo([["odd"], ["x", "y", "z", "a"], *common])[:2]
    assert several < math.log(22)
    assert (one, several) == pytest.approx(((average := _average(common)) / 2 + math.log(22) / 2, several))
    assert one < 0.6 * math.log(22) < several
    assert average < 0.5


def _average(common: list[list[str]]) -> float:
    """Average rarity of the pool above: 21 times "a", 20 times "b" and four tags of one instruction each."""
    assert len(common) == 20
    return (21 * math.log(22 / 21) + 20 * math.log(22 / 20) + 4 * math.log(22)) / 45


@pytest.mark.parametrize(
    ("tags", "pool", "expected"),
    [
        ([], None, []),
        ([], [["a"]], []),
        ([[], []], None, [0.0, 0.0]),  # no tag in the whole pool
        ([["a"]], None, [0.0]),
        ([["a", "b"], ["b", "a"]], None, [0.0, 0.0]),  # every tag on every instruction
        ([["a"], ["b"]], None, [math.log(2), math.log(2)]),  # equally rare: all the same
    ],
)
def test_edges_of_the_mean(tags, pool, expected):
    assert mean_insinfo(tags, pool) == pytest.approx(expected)


# ---------------------------------------------------------------- density, without tags


@st.composite
def embeddings(draw):
    """Unit rows in half precision, as they are stored; some of them twice."""
    seed, n, d = draw(st.integers(0, 10**6)), draw(st.integers(1, 40)), draw(st.integers(2, 6))
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d))
    rows = rows[rng.integers(0, n, size=n)] if draw(st.booleans()) else rows
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@given(embeddings(), st.integers(1, 8))
def test_density_agrees_with_scikit_learn(rows, neighbours):
    k = min(neighbours, len(rows) - 1)
    expected = np.zeros(len(rows))
    if k:
        # Asked without points, it leaves each point itself out.
        found = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(rows.astype(float))
        expected = found.kneighbors()[0].mean(axis=1)
    assert density_insinfo(rows, neighbours) == pytest.approx(expected, abs=1e-9)


def test_density_by_hand():
    """At 0, 60 and 180 degrees: cosines 1/2, -1/2 and -1."""
    angles = np.deg2rad([0, 60, 180])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert density_insinfo(rows, 1) == pytest.approx([0.5, 0.5, 1.5])
    assert density_insinfo(rows, 2) == pytest.approx([1.25, 1.0, 1.75])
    assert density_insinfo(rows) == density_insinfo(rows, 2)  # all others where there are fewer


@given(embeddings(), st.integers(1, 8), st.randoms(use_true_random=False))
def test_order_changes_no_bit_of_the_density(rows, neighbours, random):
    order = random.sample(range(len(rows)), len(rows))
    scores = density_insinfo(rows, neighbours)
    assert density_insinfo(rows[order], neighbours) == [scores[i] for i in order]
    assert all(0 <= score <= 2 for score in scores)


@given(embeddings(), st.integers(-3, 3))
def test_length_says_nothing_about_density(rows, exponent):
    scaled = rows.astype(np.float64) * 2.0**exponent  # in half precision the smallest numbers would lose bits
    assert density_insinfo(scaled) == pytest.approx(density_insinfo(rows), abs=1e-9)


@given(embeddings(), st.integers(1, 5))
def test_what_has_enough_copies_says_nothing(rows, neighbours):
    copies = np.concatenate([rows] * (neighbours + 1))
    assert density_insinfo(copies, neighbours) == pytest.approx([0] * len(copies), abs=1e-12)


def test_blocks_change_no_bit_and_keep_memory_small(rng, monkeypatch):
    rows = rng.normal(size=(1500, 8)).astype(np.float16)
    whole = density_insinfo(rows)
    monkeypatch.setattr(inscl.core.insinfo, "_BLOCK", 1500 * 7)  # 1500 is no multiple of 7 rows
    tracemalloc.start()
    parts = density_insinfo(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert parts == whole
    assert peak < 2 * 2**20  # one matrix of all distances would take 18 MB


@pytest.mark.parametrize(
    ("rows", "neighbours", "message"),
    [
        ([1.0, 2.0], 5, r"must be a matrix with one row per instruction, got shape \(2,\)"),
        ([[1.0, 0.0], [0.0, 0.0]], 5, "without zero-norm rows"),
        ([[1.0, float("nan")]], 5, "must be finite"),
        ([[1.0, float("inf")]], 5, "must be finite"),
        ([[1.0, 0.0]], 0, "`neighbours` must be at least 1, got 0"),
    ],
)
def test_impossible_embeddings_are_errors(rows, neighbours, message):
    with pytest.raises(ValueError, match=message):
        density_insinfo(rows, neighbours)


def test_one_instruction_or_none_has_no_neighbour():
    assert density_insinfo(np.zeros((0, 3))) == []
    assert density_insinfo([[1.0, 2.0]]) == [0.0]
