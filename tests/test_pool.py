"""A model's own answers as general data, from a tiny model."""

import json
from contextlib import suppress
from types import SimpleNamespace

import pytest

import tiny
from inscl.cli import main
from inscl.data.everyday import everyday
from inscl.data.example import Example
from inscl.data.readers import read_examples
from inscl.errors import DataError
from inscl.evaluation import pool as module
from inscl.evaluation.answering import Asked
from inscl.evaluation.pool import read_prompts, write_pool
from inscl.evaluation.predictions import Prediction


def answering(monkeypatch, answer):
    """Stand in for the model: `answer` gives each prompt's text and whether it was cut."""
    asked = []

    def predict(source, tasks, **options):
        asked.append((tasks, options))
        return {
            name: [Prediction(name, row.instruction, row.input, [], *answer(row)) for row in rows]
            for name, rows in tasks.items()
        }

    monkeypatch.setattr(module, "predict", predict)
    monkeypatch.setattr(module, "load", lambda model: SimpleNamespace(tokenizer=tiny.template_tokenizer()))
    return asked


def test_finished_answers_are_written_and_the_others_counted(tmp_path, monkeypatch):
    rows = everyday()
    texts = {rows[0].instruction: ("cut off", True), rows[1].instruction: ("  ", False)}
    asked = answering(monkeypatch, lambda row: texts.get(row.instruction, (f" to {row.instruction}\n", False)))
    done = write_pool("model", tmp_path / "pool.jsonl")
    assert (done.rows, done.unfinished, done.empty) == (118, 1, 1)
    found = list(read_examples(str(tmp_path / "pool.jsonl")))
    assert [(row.instruction, row.input) for row in found] == [(row.instruction, row.input) for row in rows[2:]]
    assert found[0].outputs == (f"to {rows[2].instruction}",)
    assert sum(len(rows) for tasks, _ in asked for rows in tasks.values()) == 120
    assert all(options["chat"] for _, options in asked)


def test_nothing_to_use_writes_nothing(tmp_path, monkeypatch):
    answering(monkeypatch, lambda row: ("…", True))
    with pytest.raises(DataError, match="None of the 120 answers"):
        write_pool("model", tmp_path / "pool.jsonl")
    assert not (tmp_path / "pool.jsonl").exists()


def test_prompts_are_lines_or_json_lines(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text('Say hello.\n\n{"instruction": "Add.", "input": "1 + 1"}\n{"prompt": "Sing."}\n')
    assert [(row.instruction, row.input) for row in read_prompts(file)] == [
        ("Say hello.", ""),
        ("Add.", "1 + 1"),
        ("Sing.", ""),
    ]


@pytest.mark.parametrize("text", ["", '{"input": "x"}', "{", '{"instruction": 3}'])
def test_what_is_no_prompt_is_told(tmp_path, text):
    file = tmp_path / "prompts.txt"
    file.write_text(text)
    with pytest.raises(DataError, match="prompt"):
        read_prompts(file)


def test_what_was_answered_before_a_kill_is_not_asked_again(tmp_path, monkeypatch):
    model = tiny.save_model(tmp_path / "model")
    prompts = [Example(f"Say {i}.") for i in range(40)]  # answered 16, 16 and 8 at a time
    real, asked = Asked.ask_model, []

    def ask(self, model, tasks, *rest):
        asked.append(sum(map(len, tasks.values())))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(self, model, tasks, *rest)

    monkeypatch.setattr(Asked, "ask_model", ask)
    with pytest.raises(KeyboardInterrupt):
        write_pool(model, tmp_path / "pool.jsonl", prompts, max_new_tokens=2)
    assert len(list((tmp_path / "pool.jsonl.answers").iterdir())) == 1
    with suppress(DataError):  # a model of random weights may finish no answer
        write_pool(model, tmp_path / "pool.jsonl", prompts, max_new_tokens=2)
    assert asked == [16, 16, 16, 8]


def test_a_tiny_model_answers_and_an_interrupted_call_goes_on(tmp_path, monkeypatch, capsys):
    model = tiny.save_model(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("Say hello.\nCount to three.\n")
    words = ["pool", str(model), "--prompts", str(tmp_path / "prompts.txt"), "--max-new-tokens", "4", "--json"]
    code = main([*words, "--out", str(tmp_path / "pool.jsonl")])
    out = capsys.readouterr()
    kept = list((tmp_path / "pool.jsonl.answers").iterdir())
    assert len(kept) == 1
    if code:  # a model of random weights may finish no answer
        assert "not finished within 4 tokens" in out.err
    else:
        assert json.loads(out.out)["rows"] > 0
    monkeypatch.setattr("inscl.evaluation.evaluate._answerer", None)  # what was answered is not asked again
    assert main([*words, "--out", str(tmp_path / "pool.jsonl")]) == code
