"""Tags: reading, tagging, cleaning and merging."""

import json
import os
import subprocess
import sys
import tracemalloc
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from inscl.data.example import instruction_key
from inscl.errors import ConfigError, DataError
from inscl.tags import Tagger, read_tags
from inscl.tags.clean import TagSpace, _dbscan, _normalise_tag, clean_tags, radius_for
from inscl.tags.keyphrase import KeyphraseTagger
from support import merge_tags


def embedding(vectors):
    """An encoder that looks vectors up."""
    return lambda tags: np.array([vectors[tag] for tag in tags])


def random_pool(rng, n_tags, n_sets, dimensions=3):
    names = [f"t{k:03d}" for k in rng.permutation(1000)[:n_tags]]
    vectors = dict(zip(names, rng.normal(size=(n_tags, dimensions)), strict=True))
    sets = [set(rng.choice(names, size=min(n_tags, 4))) for _ in range(n_sets)]
    return sets, embedding(vectors)


# --- one tag


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Text Classification", "text classification"),
        ("multiple-choice  QUESTIONS!", "multiple choice question"),
        ("answers\tgiven (3)", "answer give"),
        ("", ""),
        ("42 -- 🙂❤️", ""),  # the emoji's variation selector is a mark, but there is no letter
        ("классификация ТЕКСТА", "классификация текста"),
        ("भाषा पहचान", "भाषा पहचान"),  # vowel signs are marks
        ("تصنيف النصوص", "تصنيف النصوص"),
        ("การจำแนก", unicodedata.normalize("NFC", "การจำแนก")),
        ("文本分类", "文本分类"),
        ("می‌خواهم", "می‌خواهم"),  # the zero-width joiner is spelling
        ("cafe\u0301", "café"),  # composed
    ],
)
def test_tag_is_normalised(raw, clean):
    assert _normalise_tag(raw) == clean


def test_lemmas_follow_the_language():
    assert _normalise_tag("Häuser", "de") == "haus"
    assert _normalise_tag("Häuser", "de-AT") == "haus"
    assert _normalise_tag("Questions", "xx") == "questions"  # unknown language: no lemmas


@given(st.text(), st.sampled_from(["en", "de", "hi", "th", ""]))
def test_normalised_tag_is_tidy_and_keeps_words(raw, language):
    clean = _normalise_tag(raw, language)
    assert clean == " ".join(clean.split())
    assert all(unicodedata.category(c)[0] in "LM" or c in " \u200c\u200d" for c in clean)
    assert bool(clean) == any(map(str.isalpha, raw))


def test_non_latin_tags_stay_apart():
    tags = ["классификация", "перевод", "翻译", "分类", "अनुवाद", "ترجمة"]
    assert len(clean_tags(tags)) == 6


def test_clean_tags_are_a_sorted_set():
    assert clean_tags(["question", "Questions", "!", "answer"]) == ("answer", "question")


# --- merging


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 6), st.floats(0.001, 0.6))
@settings(max_examples=200)
def test_labels_agree_with_scikit_learn(seed, n, min_samples, radius):
    sets, embed = random_pool(np.random.default_rng(seed), n, 20)
    tags = sorted({tag for tags in sets for tag in tags})
    expected = DBSCAN(eps=radius, min_samples=min_samples, metric="cosine").fit_predict(embed(tags))
    space = TagSpace(embed, radius=radius, min_samples=min_samples)
    merged = space.merge(sets)
    labels = _dbscan(len(tags), lambda: space._neighbours(np.arange(len(tags))), min_samples)
    assert labels.tolist() == expected.tolist()

    frequency = Counter(tag for tags in sets for tag in tags)
    for tag, label in zip(tags, expected, strict=True):
        cluster = [t for t, other in zip(tags, expected, strict=True) if other == label]
        wanted = tag if label < 0 else min(cluster, key=lambda t: (-frequency[t], t))
        assert merged.names[tag] == wanted
    assert merged.n_tags == len(tags)
    assert merged.n_clusters == len(set(expected) - {-1})
    assert merged.n_merged == len(tags) - len(set(merged.names.values()))


@given(st.integers(0, 10**6))
@settings(max_examples=50)
def test_order_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    sets, embed = random_pool(rng, 40, 15)
    merged = merge_tags(sets, embed, radius=0.1, min_samples=3)
    order = rng.permutation(len(sets))
    shuffled = merge_tags([list(sets[k])[::-1] for k in order], embed, radius=0.1, min_samples=3)
    assert shuffled.names == merged.names
    assert shuffled.tag_sets == tuple(merged.tag_sets[k] for k in order)


@given(st.integers(0, 10**6), st.integers(0, 3))
@settings(max_examples=50)
def test_growing_pools_equal_one_shot(seed, remembered):
    """Whatever was merged before, and also where the neighbours are too many to remember."""
    rng = np.random.default_rng(seed)
    sets, embed = random_pool(rng, 60, 24)
    space = TagSpace(embed, radius=0.1, min_samples=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inscl.tags.clean._REMEMBERED", remembered)
        for pool in (sets[:5], sets[:12], sets, sets[6:10]):
            assert space.merge(pool) == merge_tags(pool, embed, radius=0.1, min_samples=3)


def test_each_tag_is_embedded_once(rng):
    sets, embed = random_pool(rng, 60, 24)
    seen = Counter()

    def counting(tags):
        seen.update(tags)
        return embed(tags)

    space = TagSpace(counting, radius=0.1)
    for end in (3, 10, 24, 24):
        space.merge(sets[:end])
    assert set(seen.values()) == {1}


def test_every_cluster_is_merged_the_last_one_too():
    vectors = {"a": (1, 0), "a2": (1, 0.01), "z": (0, 1), "z2": (0.01, 1)}
    merged = merge_tags([set(vectors)], embedding(vectors), radius=0.05, min_samples=2)
    assert merged.n_clusters == 2
    assert merged.tag_sets == (frozenset({"a", "z"}),)


def test_repeated_tags_count_once_per_instruction():
    """Merged or written twice, a tag is in an instruction once: f_t never exceeds N."""
    vectors = {"a": (1, 0), "a2": (1, 0.01), "b": (0, 1)}
    merged = merge_tags([["a2", "a2", "a2", "a"], ["a"], ["a", "b"]], embedding(vectors), radius=0.05, min_samples=2)
    assert merged.names["a2"] == "a"  # three instructions against one
    assert max(Counter(tag for tags in merged.tag_sets for tag in tags).values()) == len(merged.tag_sets)


def test_name_is_the_most_frequent_tag_ties_alphabetical():
    vectors = {"b": (1, 0), "a": (1, 0.01), "c": (1, 0.02)}
    assert set(merge_tags([{"b", "c"}, {"a", "c"}], embedding(vectors), radius=0.1).names.values()) == {"c"}
    assert set(merge_tags([{"b"}, {"a"}, {"c"}], embedding(vectors), radius=0.1).names.values()) == {"a"}


def test_half_precision_and_scale_of_rows_do_not_matter(rng):
    sets, embed = random_pool(rng, 30, 10)
    small = merge_tags(sets, lambda tags: (7 * embed(tags)).astype(np.float16), radius=0.1)
    assert small.names == merge_tags(sets, embed, radius=0.1).names


def test_warning_only_when_nothing_merges():
    vectors = {"a": (1, 0), "b": (0, 1)}
    apart = merge_tags([{"a"}, {"b"}], embedding(vectors), radius=0.1)
    assert "No two of the 2 tags" in apart.warning
    assert "\n" not in apart.warning
    assert merge_tags([{"a"}, {"b"}], embedding(vectors), radius=1.1).warning == ""


def test_tags_that_the_encoder_cannot_read_are_reported():
    """all-MiniLM-L6-v2 gives every Thai word the same vector: DBSCAN makes one tag of them, but not in silence."""
    vectors = {"a": (1, 0), "แปล": (0, 1), "สรุป": (0, 1.0001), "จำแนก": (0, 1)}
    merged = merge_tags([set(vectors)], embedding(vectors))
    assert merged.alike == ("จำแนก", "สรุป", "แปล")
    assert "cannot tell 3 of the 4 tags apart" in merged.warning
    assert merge_tags([{"a", "แปล", "สรุป"}], embedding(vectors)).warning == ""  # two may well be synonyms


def test_nothing_to_merge():
    def never(tags):
        raise AssertionError("there is nothing to embed")

    merged = merge_tags([set(), ()], never)
    assert (merged.tag_sets, merged.n_tags, merged.warning) == ((frozenset(), frozenset()), 0, "")
    assert merge_tags([], never).tag_sets == ()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((3, 4)), "one row per tag"),
        (np.ones(2), "one row per tag"),
        (np.array([[1.0, 0], [np.nan, 1]]), "tag 'b' is zero or not finite"),
        (np.zeros((2, 2)), "tag 'a' is zero or not finite"),
    ],
)
def test_bad_embeddings_are_named(vectors, message):
    with pytest.raises(DataError, match=message):
        merge_tags([{"a", "b"}], lambda tags: vectors)


def test_encoder_must_not_change():
    space = TagSpace(lambda tags: np.ones((len(tags), len(tags[0]))))
    space.merge([{"a"}])
    with pytest.raises(DataError, match="2 dimensions after 1"):
        space.merge([{"aa"}])


def test_settings_are_checked():
    with pytest.raises(DataError, match="radius"):
        merge_tags([], embedding({}), radius=3)
    with pytest.raises(DataError, match="min_samples"):
        merge_tags([], embedding({}), min_samples=0)


@pytest.mark.parametrize("radius", [0.16, 2.0])
def test_memory_does_not_grow_with_the_square(rng, radius):
    """6,000 tags have 36 million pairs; at radius 2 all of them are neighbours."""
    n = 6_000
    vectors = rng.normal(size=(n, 16)).astype(np.float16)
    tags = [f"{k:05d}" for k in range(n)]
    tracemalloc.start()
    merged = merge_tags([tags], lambda wanted: vectors[[int(tag) for tag in wanted]], radius=radius)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert merged.n_tags == n
    assert peak < 4 * n * n  # one float32 matrix would take as much


def test_radius_belongs_to_an_encoder():
    assert radius_for("sentence-transformers/all-MiniLM-L6-v2") == radius_for("all-MiniLM-L6-v2@1f2e")
    assert radius_for("other") is None


# --- the offline tagger


def test_tagger_is_a_tagger_and_names_itself():
    tagger: Tagger = KeyphraseTagger(language="de", max_tags=3)
    assert tagger.identity.startswith("yake ")
    assert "language=de max_tags=3 max_words=2" in tagger.identity
    assert tagger.identity != KeyphraseTagger().identity


def test_tags_do_not_depend_on_the_company():
    texts = ["Classify the sentiment of a movie review.", "Translate the English sentence into German."]
    tagger = KeyphraseTagger()
    together = tagger([*texts, texts[0]])
    assert together == [*tagger(texts), *KeyphraseTagger()(texts[:1])]
    assert all(0 < len(tags) <= 8 for tags in together)


@pytest.mark.parametrize(
    "text",
    [
        *("", " \n", "🙂🎉", "\ud800", "\x00", "...", "1 2 3", "a"),
        *("将文本分类", "จัดประเภทข้อความ", "صنف النص", "भावना पहचानें"),
    ],
)
def test_odd_texts_never_crash(text):
    (tags,) = KeyphraseTagger()([text])
    assert all(isinstance(tag, str) for tag in tags)
    assert bool(clean_tags(tags)) == (len(text) > 1 and any(map(str.isalpha, text)))


def test_a_megabyte_is_read_in_bounded_time():
    text = "Classify the sentiment of this review. " * 26_000
    assert KeyphraseTagger()([text]) == KeyphraseTagger()([text[:8_000]])


def test_other_languages_have_their_stop_words():
    (tags,) = KeyphraseTagger(language="de")(["Fasse den Text in einem Satz zusammen und gib die Stimmung an."])
    assert not {"den", "einem", "und", "die"} & set(tags)
    assert KeyphraseTagger(language="xx")(["Ĉu vi parolas Esperanton?"])[0]


def test_tags_repeat_in_any_process():
    texts = ["Classify the sentiment of a movie review. Answer positive or negative.", "Sum the list of integers."]
    code = (
        "import json, sys; from inscl.tags.keyphrase import KeyphraseTagger; "
        "print(json.dumps(KeyphraseTagger()(json.loads(sys.argv[1]))))"
    )
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(texts)], env=environment, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == KeyphraseTagger()(texts)


def test_tagger_settings_are_checked():
    with pytest.raises(ConfigError, match="got 0 and 2"):
        KeyphraseTagger(max_tags=0)


def test_importing_tags_is_light():
    code = "import sys, inscl.tags, inscl.tags.keyphrase, inscl.tags.clean; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"yake", "sklearn", "simplemma", "torch", "scipy"} & set(loaded)


def test_real_definitions_have_tags(real_data):
    files = sorted((real_data / "tasks").glob("*.json"))[::20]
    texts = [json.loads(file.read_text(encoding="utf-8"))["Definition"][0] for file in files]
    sets = [clean_tags(tags) for tags in KeyphraseTagger()(texts)]
    assert all(1 <= len(tags) <= 8 for tags in sets)


# --- users' own tags


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        '{"instruction": "Sum up.", "tags": ["a", "b"]}\n\n{"instruction": "Täg  it", "tags": [], "id": 3}\n',
        '{"Sum up.": ["a", "b"], "Täg it": []}',
        '\ufeff{\n"Sum up.": ["a", "b"],\n"Täg it": []\n}',
    ],
)
def test_tags_are_read(tmp_path, text):
    expected = {instruction_key("Sum up."): ("a", "b"), instruction_key("Täg it"): ()}
    assert read_tags(write(tmp_path / "latest.json", text)) == expected


def test_one_line_is_json_lines(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"instruction": "x\u2028y", "tags": ["a"]}')
    assert read_tags(path) == {instruction_key("x y"): ("a",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no tags"),
        ("{}", "holds no tags"),
        ("not json", "line 1 is not JSON"),
        ('{"instruction": "a", "tags": []}\n{"instruction":', "line 2 is not JSON"),
        ('["a"]', "line 1: wanted an object"),
        ('{"instruction": "a", "tags": "b"}', "`tags` must be a list of texts"),
        ('{"a": [1]}', "`tags` must be a list of texts"),
        ('{"instruction": " ", "tags": ["b"]}', "not blank"),
        ('{"instruction": "a", "tags": ["b"]}\n{"instruction": "a ", "tags": ["c"]}', "line 2: .*other tags"),
    ],
)
def test_bad_tag_files_say_what_is_wrong(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_tags(write(tmp_path / "t", text))


def test_unreadable_tag_files(tmp_path):
    with pytest.raises(DataError, match="Cannot read tags"):
        read_tags(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="UTF-8"):
        read_tags(tmp_path / "bytes")
