"""Mixtures for trainers: exactly the rows, in files that appear whole, in the form that TRL takes."""

import json
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inscl.errors import InsclError
from inscl.example import Example
from inscl.export import FORMATS, is_chat, to_dataset, write_file
from inscl.mixture import MixtureRow, read_mixture
from inscl.template import render, to_messages

CHAT = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "So long"},
)
PLAIN = [
    MixtureRow("sums", Example("Add.", "1 and 2", ("3", "three"))),
    MixtureRow("sums", Example("Add.", "", ("nothing",)), replayed=True),
    MixtureRow("été", Example("Dis « oui ».", "\u2028 non \n", ("oui",)), replayed=True, weight=0.5),
]
MIXED = [*PLAIN, MixtureRow("talk", Example("Be brief.", "Hi\nHello\nBye", ("So long",), CHAT))]


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_trl_plain_rows_are_prompt_and_completion(tmp_path):
    done = write_file(PLAIN, tmp_path / "mix.jsonl")
    expected = [
        {"prompt": "Instruction:\nAdd.\n\nInput:\n1 and 2\n\nAnswer:\n", "completion": "3"},
        {"prompt": "Instruction:\nAdd.\n\nAnswer:\n", "completion": "nothing"},
        {"prompt": "Instruction:\nDis « oui ».\n\nInput:\nnon\n\nAnswer:\n", "completion": "oui"},
    ]
    tasks = [("sums", False), ("sums", True), ("été", True)]
    assert lines_of(tmp_path / "mix.jsonl") == [
        {**row, "task": task, "replayed": replayed} for row, (task, replayed) in zip(expected, tasks, strict=True)
    ]
    assert (done.rows, done.replayed) == (3, 2)
    assert done.checksum == blake2b((tmp_path / "mix.jsonl").read_bytes(), digest_size=16).hexdigest()


def test_one_chat_row_makes_all_rows_chat(tmp_path):
    assert is_chat(MIXED)
    assert not is_chat(PLAIN)
    write_file(MIXED, tmp_path / "mix.jsonl")
    found = lines_of(tmp_path / "mix.jsonl")
    assert found[0]["prompt"] == [{"role": "user", "content": "Add.\n\n1 and 2"}]
    assert found[0]["completion"] == [{"role": "assistant", "content": "3"}]
    assert found[3]["prompt"] == [dict(message) for message in CHAT[:4]]
    assert found[3]["completion"] == [dict(CHAT[4])]
    # Whatever the order of the rows.
    write_file(MIXED[::-1], tmp_path / "mix.jsonl")
    assert lines_of(tmp_path / "mix.jsonl") == found[::-1]


@pytest.mark.parametrize("rows", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_the_file_and_the_dataset_say_the_same(tmp_path, rows):
    write_file(rows, tmp_path / "mix.jsonl")
    dataset = to_dataset(rows)
    assert dataset.to_list() == lines_of(tmp_path / "mix.jsonl")
    assert sorted(dataset.column_names) == ["completion", "prompt", "replayed", "task"]
    from datasets import load_dataset

    loaded = load_dataset("json", data_files=str(tmp_path / "mix.jsonl"), split="train", cache_dir=str(tmp_path / "c"))
    assert loaded.to_list() == dataset.to_list()


@pytest.mark.parametrize("rows", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_messages_are_whole_conversations(tmp_path, rows):
    write_file(rows, tmp_path / "mix.jsonl", "messages")
    for row, record in zip(rows, lines_of(tmp_path / "mix.jsonl"), strict=True):
        assert record["messages"] == [dict(message) for message in to_messages(row.example)]
        assert record["messages"][-1]["role"] == "assistant"
        assert (record["task"], record["replayed"]) == (row.task, row.replayed)


@pytest.mark.parametrize("rows", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_our_own_format_is_read_back_whole(tmp_path, rows):
    write_file(rows, tmp_path / "mix.jsonl", "inscl")
    assert read_mixture(tmp_path / "mix.jsonl") == rows


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(
    st.builds(
        MixtureRow,
        task=TEXT,
        example=st.builds(Example, TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3).map(tuple)),
        replayed=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_every_format_has_exactly_the_rows(tmp_path, rows):
    for name in FORMATS:
        done = write_file(rows, tmp_path / name, name)
        assert (done.rows, done.replayed) == (len(rows), sum(row.replayed for row in rows))
        found = lines_of(tmp_path / name)
        for row, record in zip_longest(rows, found):
            assert (record["task"], record["replayed"]) == (row.task, row.replayed)
    assert [(r["prompt"], r["completion"]) for r in lines_of(tmp_path / "trl")] == [render(r.example) for r in rows]
    assert read_mixture(tmp_path / "inscl") == rows


def test_writing_again_gives_the_same_bytes(tmp_path):
    checksums = {write_file(MIXED, tmp_path / str(n)).checksum for n in range(2)}
    assert len(checksums) == 1


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(InsclError, match="no format 'alpaca'; wanted one of trl, messages, inscl"):
        write_file(PLAIN, tmp_path / "mix.jsonl", "alpaca")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(InsclError, match=r"cannot be written to .*No such file or directory"):
        write_file(PLAIN, tmp_path / "none" / "mix.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InsclError, match="cannot be written to"):
        write_file(PLAIN, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_file_appears_whole_or_not_at_all(tmp_path, monkeypatch, failure):
    path = tmp_path / "mix.jsonl"
    write_file(PLAIN, path)
    before = path.read_bytes()
    dumps, written = json.dumps, []

    def failing(*arguments: object, **keywords: object) -> str:
        if written:
            raise failure
        written.append(1)
        return dumps(*arguments, **keywords)

    monkeypatch.setattr("inscl.export.json.dumps", failing)
    with pytest.raises((InsclError, KeyboardInterrupt)):
        write_file(MIXED, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("rows", [PLAIN * 3, MIXED * 3], ids=["plain", "mixed"])
def test_trl_takes_the_dataset_as_it_is(tmp_path, rows):
    pytest.importorskip("trl", reason="trl (extra `train`) is not installed")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from tiny import save_model

    folder = save_model(tmp_path / "model")
    settings = SFTConfig(output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, max_length=256, bf16=False)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        args=settings,
        train_dataset=to_dataset(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    assert len(trainer.train_dataset) == len(rows)
    batch = next(iter(trainer.get_train_dataloader()))
    # The loss covers the completions and nothing of the prompts.
    trained = batch["labels"] != -100
    assert trained.any(dim=1).all()
    assert not trained[:, 0].any()
