"""InsInfo against hand sums and exact fractions."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.insinfo import insinfo

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
def test_neither_order_nor_repetition_changes_a_bit(tags, random):
    mixed = [random.sample(instruction, len(instruction)) + instruction for instruction in tags]
    pool = random.sample(mixed, len(mixed))
    assert insinfo(mixed, pool) == insinfo(tags)


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


def test_a_tag_that_the_pool_lacks_is_an_error():
    with pytest.raises(ValueError, match=r"2 tags are not in `pool`, the first 'x'"):
        insinfo([["a", "x"], ["y"]], pool=[["a"]])


@pytest.mark.parametrize(("tags", "pool", "name"), [(["news"], None, "pool"), ([["a"]], [["a"], "news"], "pool")])
def test_a_string_is_not_a_collection_of_tags(tags, pool, name):
    with pytest.raises(ValueError, match=rf"`{name}\[\d\]` must be a collection of tags, got the string 'news'"):
        insinfo(tags, pool)
