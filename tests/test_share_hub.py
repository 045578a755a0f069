"""Sharing through a dataset of the Hub: its own client against a small Hub on this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hub_server import TOKEN, Hub, running
from inscl.cli import main
from inscl.errors import InsclError
from inscl.memory.memory import Memory
from inscl.sharing.share import pull, push
from support import rows_of
from test_learn import memory_at
from test_share import memory_of

constants = pytest.importorskip("huggingface_hub.constants", reason="pip install 'inscl[hub]'")
disable_progress_bars = pytest.importorskip("huggingface_hub.utils").disable_progress_bars
PLACE = "hf://datasets/team/memory"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that the client takes for the Hub."""
    with running() as server, disable_progress_bars():  # the client may be loaded, and does not look again
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("{")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.address}/{{{template[2]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def memory(tmp_path) -> Memory:
    return memory_of(tmp_path / "memory", "billing", "support")


def test_a_memory_goes_and_comes_back_in_one_commit(hub, memory, tmp_path):
    assert push(memory.path, PLACE).files == 5
    dataset = hub.datasets["team/memory"]
    assert dataset.private
    assert len(dataset.commits) == 2
    assert pull(PLACE, tmp_path / "there").kind == "memory"
    assert memory_at(tmp_path / "there").tasks() == memory.tasks()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["memory", "there"]


def test_a_second_push_sends_what_changed_and_takes_away_what_was_removed(hub, memory, tmp_path):
    push(memory.path, PLACE)
    first = set(hub.sent)
    hub.sent.clear()
    push(memory.path, PLACE)
    assert hub.sent == []
    memory.add("more", rows_of("more", 30))
    memory.remove("billing")
    push(memory.path, PLACE)
    assert sorted(name for name in hub.sent if name.endswith(".parquet")) == sorted(
        name for name in hub.datasets["team/memory"].files if name not in first and name.endswith(".parquet")
    )
    assert len([name for name in hub.sent if name.endswith(".parquet")]) == 2
    pull(PLACE, tmp_path / "there")
    assert [info.name for info in memory_at(tmp_path / "there").tasks()] == ["support", "more"]
    everything = b"".join(hub.datasets["team/memory"].files.values())
    assert b"billing" not in everything


def test_an_older_commit_can_be_pulled(hub, memory, tmp_path):
    push(memory.path, PLACE)
    commit = hub.datasets["team/memory"].sha()
    memory.remove("billing")
    push(memory.path, PLACE)
    pull(f"{PLACE}@{commit}", tmp_path / "there")
    assert [info.name for info in memory_at(tmp_path / "there").tasks()] == ["billing", "support"]


def test_a_public_dataset_needs_the_word(hub, memory):
    push(memory.path, PLACE, public=True)
    assert not hub.datasets["team/memory"].private
    before = len(hub.datasets["team/memory"].commits)
    with pytest.raises(InsclError, match="is public: all would see"):
        push(memory.path, PLACE)
    assert len(hub.datasets["team/memory"].commits) == before


def test_another_dataset_is_not_overwritten(hub, memory):
    push(memory.path, PLACE)
    hub.datasets["team/memory"].files["train.csv"] = b"a,b"
    with pytest.raises(InsclError, match=r"none of inscl's \(train\.csv\)"):
        push(memory.path, PLACE)


@pytest.mark.parametrize("how", ["longer", "changed", "gone", "no list", "a long list"])
def test_a_strangers_dataset_is_refused_and_no_more_is_fetched_than_was_said(hub, memory, tmp_path, how):
    push(memory.path, PLACE)
    files = hub.datasets["team/memory"].files
    name = next(name for name in files if name.endswith("examples.parquet"))
    if how == "longer":
        files[name] += b"x" * 1000
    elif how == "changed":
        files[name] = files[name][:-1] + b"x"
    elif how == "gone":
        del files[name]
    elif how == "no list":
        del files["inscl.json"]
    else:
        files["inscl.json"] += b" " * (64 * 2**20)
    with pytest.raises(InsclError):
        pull(PLACE, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    if how in ("longer", "gone", "no list", "a long list"):
        assert name not in hub.fetched


def told(capsys, *words: str) -> str:
    """The one line that a command ends with."""
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert TOKEN not in err
    return err


def test_what_the_hub_refuses_is_one_line(hub, memory, tmp_path, capsys, monkeypatch):
    there = str(tmp_path / "there")
    assert "Check the name" in told(capsys, "pull", PLACE, there)
    push(memory.path, PLACE)
    assert "follows after @" in told(capsys, "pull", f"{PLACE}@nowhere", there)
    monkeypatch.setenv("HF_TOKEN", "hf_of-somebody-else")
    assert "HF_TOKEN" in told(capsys, "push", memory.path, PLACE)
    hub.refuses = 403
    assert "the right to write" in told(capsys, "push", memory.path, PLACE)
    for address in ("hf://team/memory", "hf://datasets/memory", "hf://datasets/a/b/c", "hf://datasets/a/../b"):
        assert "hf://datasets/OWNER/NAME" in told(capsys, "push", memory.path, address)


def test_a_hub_out_of_reach_is_one_line(memory, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "Check the network" in told(capsys, "push", memory.path, PLACE)
    assert "Check the network" in told(capsys, "pull", PLACE, str(tmp_path / "there"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in told(capsys, "push", memory.path, PLACE)


def test_the_commands_say_where_it_went_and_nothing_else(hub: Hub, memory, tmp_path):
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path),
    }
    place = Path(tmp_path / "there")
    for words, wanted in (
        (["push", memory.path, PLACE], rf"pushed a memory: 5 files, [\d,]+ bytes, in {PLACE}\n"),
        (["push", memory.path, PLACE], rf"pushed a memory: 5 files, [\d,]+ bytes, in {PLACE}\n"),
        (["pull", PLACE, str(place)], rf"pulled a memory: 5 files, [\d,]+ bytes, in {place}\n"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "inscl", *words], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(wanted, done.stdout)
        assert done.stderr == ""
    assert json.loads((tmp_path / "there" / "catalogue.head").read_bytes().split(b"\n")[0])["rows"] == 2
    assert f"inscl pull {PLACE} memory" in hub.datasets["team/memory"].files["README.md"].decode()
