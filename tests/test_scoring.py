"""Scoring against the rouge-score package, a plain dynamic programme, and the traps of the published code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from inscl.core.scoring import exact_match, longest_common_subsequence, rouge_l, superni, tokens

ORACLE = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
WORDS = st.lists(
    st.sampled_from(["the", "cats", "sitting", "ran", "a-b", "x2", "Is", "(no)", "it's", "."]), max_size=12
)


def lcs_by_table(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.text("abcd", max_size=70), st.text("abcd", max_size=70))
def test_common_subsequence_agrees_with_the_table(a, b):
    assert longest_common_subsequence(a, b) == lcs_by_table(a, b)


@given(WORDS, WORDS)
def test_rouge_l_is_rouge_score_on_ascii_text(a, b):
    a, b = " ".join(a), " ".join(b)
    expected = ORACLE.score(target=b, prediction=a)["rougeL"].fmeasure
    assert superni(a, [b]) == expected
    if tokens(a) or tokens(b):
        assert rouge_l(a, [b]) == pytest.approx(expected, abs=1e-12)


@given(st.text(max_size=30))
def test_an_answer_equals_itself_in_every_script(text):
    assert rouge_l(text, [text]) == 1.0
    assert exact_match(text, [text]) == 1.0


@given(st.text(max_size=30), st.text(max_size=30))
def test_scores_are_symmetric_and_between_0_and_1(a, b):
    assert 0 <= rouge_l(a, [b]) <= 1
    assert rouge_l(a, [b]) == pytest.approx(rouge_l(b, [a]))


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("[]", "[]", 1.0),  # no token on either side: equality decides
        ("+", "-", 0.0),
        ("да", "да", 1.0),  # rouge-score reads Latin letters only
        ("да", "нет", 0.0),
        ("−3", "3", 0.0),  # the sign is part of the number
        ("-3", "3", 0.0),
        ("-3", "-3", 1.0),
        ("-3", "−3", 1.0),  # hyphen and minus sign mean the same
        ("東京都", "東京", 0.8),  # scripts without spaces: by character
        ("नमस्ते", "नमस्ते", 1.0),  # vowel signs are no letters, yet part of the word
        ("", "x", 0.0),
    ],
)
def test_answers_without_latin_letters(prediction, reference, score):
    assert rouge_l(prediction, [reference]) == pytest.approx(score)


def test_the_package_gives_the_known_wrong_scores():
    assert (superni("да", ["да"]), superni("[]", ["[]"]), superni("-3", ["3"])) == (0.0, 0.0, 1.0)


def test_the_best_reference_counts():
    assert rouge_l("b", ["a", "b", "c"]) == 1.0
    assert exact_match("C", ["a", "b", "c."]) == 1.0


def test_exact_match_keeps_signs_and_symbols():
    assert exact_match("-3", ["3"]) == 0.0
    assert exact_match("+", ["[]"]) == 0.0
    assert exact_match("two-fold", ["twofold"]) == 1.0  # as Super-NaturalInstructions does


@pytest.mark.parametrize("references", [[], "text"])
def test_references_must_be_a_list(references):
    with pytest.raises(ValueError, match="sequence of one or more"):
        rouge_l("x", references)
