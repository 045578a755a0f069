"""The split by hash of the input: properties, and a second implementation of the rule on plain integers."""

from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inscl.data.example import Example
from inscl.data.split import DEV, TEST, TRAIN, UNSET, Assignment, Keys, Shares, Sides, assign_sides, distinct_keys
from inscl.errors import DataError

SHARES = st.sampled_from([Shares(), Shares(0.25, 0.25), Shares(0.05, 0.6), Shares(0.0, 0.2), Shares(0.1, 0.0)])
# Few distinct inputs, so that rows share them; from all over the range, so that all sides occur.
INPUTS = st.lists(st.integers(0, 11), min_size=1, max_size=30)
ASKED = st.sampled_from([UNSET, UNSET, UNSET, UNSET, TRAIN, DEV, TEST])


def keys_of(texts: list[object]) -> list[bytes]:
    return [Example("Do.", f"input {text}").input_key for text in texts]


def as_keys(keys: list[bytes]) -> Keys:
    halves = [[int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")] for key in keys]
    return np.array(halves, np.uint64).reshape(-1, 2)


def unset(n: int) -> Sides:
    return np.full(n, UNSET, np.int8)


def assign(texts: list[object], asked: list[int] | None = None, **options: object) -> Assignment:
    sides = unset(len(texts)) if asked is None else np.array(asked, np.int8)
    return assign_sides(as_keys(keys_of(texts)), sides, **options)


def rule(key: bytes, shares: Shares) -> int:
    """The documented rule in exact arithmetic: the first 8 bytes as a fraction of 2^64; test lowest, then dev."""
    position = Fraction(int.from_bytes(key[:8], "big"), 2**64)
    test, dev = Fraction(str(shares.test)), Fraction(str(shares.dev))
    return TEST if position < test else DEV if position < test + dev else TRAIN


@pytest.mark.parametrize("shares", [Shares(), Shares(0.25, 0.25), Shares(0.0, 0.2), Shares(0.1, 0.0), Shares(0.0, 0.0)])
def test_the_threshold_rule_agrees_with_exact_arithmetic(shares):
    texts = list(range(20_000))
    assert assign(texts, shares=shares).sides.tolist() == [rule(key, shares) for key in keys_of(texts)]


def test_keys_at_the_thresholds_and_ends():
    shares = Shares(0.25, 0.5)  # exact in binary
    places = [0, 2**63 - 2**20, 2**63, 3 * 2**62 - 2**20, 3 * 2**62, 2**64 - 1]
    keys = np.array([[place, 0] for place in places], np.uint64)
    assert assign_sides(keys, unset(6), shares=shares).sides.tolist() == [TEST, TEST, DEV, DEV, TRAIN, TRAIN]


@pytest.mark.parametrize("shares", [Shares(), Shares(0.05, 0.45)])
def test_the_shares_are_met_to_within_chance(shares):
    n = 20_000
    sides = assign([f"text {i}" for i in range(n)], shares=shares).sides
    wanted = {TRAIN: 1 - shares.dev - shares.test, DEV: shares.dev, TEST: shares.test}
    for side, share in wanted.items():
        assert abs((sides == side).sum() - n * share) < 5 * sqrt(n * share * (1 - share)), side


@given(INPUTS, SHARES, st.randoms())
def test_equal_inputs_share_a_side_and_the_order_of_rows_changes_nothing(texts, shares, dice):
    done = assign(texts, shares=shares)
    by_text = dict(zip(texts, done.sides.tolist(), strict=True))
    assert [by_text[text] for text in texts] == done.sides.tolist()
    order = list(range(len(texts)))
    dice.shuffle(order)
    again = assign([texts[i] for i in order], shares=shares)
    assert again.sides.tolist() == [done.sides[i] for i in order]
    assert again.moved == done.moved


@given(st.lists(st.tuples(st.integers(0, 11), ASKED), min_size=1, max_size=30), st.randoms())
def test_with_sides_asked_for_too_the_order_changes_nothing(rows, dice):
    texts, asked = map(list, zip(*rows, strict=True))
    done = assign(texts, asked)
    order = list(range(len(rows)))
    dice.shuffle(order)
    again = assign([texts[i] for i in order], [asked[i] for i in order])
    assert again.sides.tolist() == [done.sides[i] for i in order]
    assert again.moved == done.moved


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 40), ASKED), min_size=1, max_size=24), st.integers(1, 4), SHARES)
def test_no_row_changes_side_while_a_task_grows(rows, steps, shares):
    """Rows arrive in portions; the sides reached are asked for again and `moved` is handed on, as a memory does."""
    size = -(-len(rows) // steps)
    sides: list[int] = []
    moved: dict[str, int] = {}
    given_sides: frozenset[int] = frozenset()
    for start in range(0, len(rows), size):
        fresh = rows[start : start + size]
        given_sides |= {side for _, side in fresh if side in (DEV, TEST)}
        texts = [text for text, _ in rows[: start + size]]
        done = assign(texts, sides + [side for _, side in fresh], shares=shares, given=given_sides, moved=moved)
        assert done.sides[: len(sides)].tolist() == sides
        assert moved.items() <= done.moved.items()
        sides, moved = done.sides.tolist(), done.moved


@given(INPUTS, SHARES)
def test_rows_added_without_sides_stay_with_their_input(texts, shares):
    """Growing by hash alone, inputs that were not moved stand where the rule puts them."""
    done = assign(texts, shares=shares)
    if len(set(texts)) < 3:
        assert set(done.sides.tolist()) == {TRAIN}
        return
    for key, side in zip(keys_of(texts), done.sides.tolist(), strict=True):
        assert side == done.moved.get(key.hex(), rule(key, shares))


@given(st.lists(st.integers(), min_size=3, max_size=40, unique=True), SHARES)
def test_with_three_distinct_inputs_no_wanted_side_is_empty(texts, shares):
    done = assign(texts, shares=shares)
    wanted = {TRAIN} | ({DEV} if shares.dev else set()) | ({TEST} if shares.test else set())
    assert set(done.sides.tolist()) == wanted
    assert len(done.moved) <= 2


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        # Test is empty: the input nearest to the middle of its range (0.1) moves there.
        ([0.25, 0.21, 0.7, 0.9], [DEV, TEST, TRAIN, TRAIN]),
        # Dev is empty: the nearest to 0.25 is the one at 0.31.
        ([0.1, 0.05, 0.31, 0.9], [TEST, TEST, DEV, TRAIN]),
        # Training is empty: the highest moves.
        ([0.01, 0.15, 0.22, 0.29], [TEST, TEST, DEV, TRAIN]),
        # A side is never emptied to fill another: the only dev input stays although it is the nearest to 0.1.
        ([0.201, 0.6, 0.5], [DEV, TRAIN, TEST]),
    ],
)
def test_the_nearest_input_moves_to_an_empty_side(places, expected):
    keys = np.array([[int(place * 2**64), n] for n, place in enumerate(places)], np.uint64)
    done = assign_sides(keys, unset(len(places)))
    assert done.sides.tolist() == expected
    hashed = [TEST if p < 0.2 else DEV if p < 0.3 else TRAIN for p in places]
    moved = {f"{int(k[0]):016x}{int(k[1]):016x}": s for k, s, h in zip(keys, expected, hashed, strict=True) if s != h}
    assert done.moved == moved


@given(st.lists(st.tuples(st.integers(0, 11), ASKED), min_size=1, max_size=30))
def test_sides_asked_for_are_respected_and_equal_inputs_follow(rows):
    texts, asked = map(list, zip(*rows, strict=True))
    sides = assign(texts, asked).sides.tolist()
    fixed: dict[int, set[int]] = {}
    for text, side in rows:
        if side != UNSET:
            fixed.setdefault(text, set()).add(side)
    for (text, side), got in zip(rows, sides, strict=True):
        if side != UNSET:
            assert got == side
        elif text in fixed:
            assert got == max(fixed[text])  # of several, the one that is held out furthest


@pytest.mark.parametrize("supplied", [{TEST}, {DEV}, {DEV, TEST}])
def test_nothing_is_hashed_into_a_side_the_user_supplied(supplied):
    texts = list(range(600))
    asked = [min(supplied), max(supplied)] + [UNSET] * 598
    done = assign(texts, asked, given=frozenset(supplied))
    assert not set(done.sides[2:].tolist()) & supplied
    hashed = [TRAIN if (side := rule(key, Shares())) in supplied else side for key in keys_of(texts)]
    assert done.sides[2:].tolist() == hashed[2:]


@pytest.mark.parametrize("side", [DEV, TEST])
def test_with_two_inputs_what_is_free_trains_beside_a_supplied_side(side):
    """Whatever the free input hashes to: without it there would be nothing to train on."""
    for text in range(200):
        assert assign([text, "held"], [UNSET, side], given=frozenset({side})).sides.tolist() == [TRAIN, side]


def test_an_empty_task_has_no_sides():
    done = assign([])
    assert done.sides.tolist() == []
    assert done.moved == {}


def test_arguments_are_left_as_they_are():
    keys, asked, moved = as_keys(keys_of(list(range(9)))), unset(9), {"0" * 32: TEST}
    before = keys.copy(), asked.copy(), dict(moved)
    assign_sides(keys, asked, moved=moved)
    assert (keys == before[0]).all()
    assert (asked == before[1]).all()
    assert moved == before[2]


@pytest.mark.parametrize("text", ["70/10", "70/10/30", "a/b/c", "", "nan/10/20", "inf/-inf/100", "100/10/-10"])
def test_impossible_splits_are_refused(text):
    with pytest.raises(DataError, match=r"such as 70/10/20|wanted two numbers of at least 0"):
        Shares.parse(text)


def test_a_split_is_written_in_percent():
    assert Shares.parse("70/10/20") == Shares()
    assert Shares.parse("100/0/0") == Shares(0.0, 0.0)
    assert Shares.parse("79.5/.5/20") == Shares(0.005, 0.2)


def test_dev_may_take_what_test_leaves_only_if_something_trains():
    with pytest.raises(DataError, match=r"dev 0\.5 and test 0\.5; wanted two numbers"):
        Shares(0.5, 0.5)
    with pytest.raises(DataError, match="dev nan"):
        Shares(float("nan"), 0.2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_distinct_keys_are_those_that_numpy_finds(pairs):
    keys = np.array(pairs, np.uint64).reshape(-1, 2)
    distinct, row_of = distinct_keys(keys)
    expected, inverse = np.unique(keys, axis=0, return_inverse=True)
    assert np.array_equal(distinct, expected)
    assert np.array_equal(row_of, inverse.reshape(-1))
