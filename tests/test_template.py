"""Prompts, labels and truncation, token by token, and against TRL's own preparation of the same text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from inscl.data.chat_form import to_messages
from inscl.data.example import Example
from inscl.data.mixture import MixtureRow, read_mixture, write_mixture
from inscl.data.template import IGNORED, prompt_ids, render, tokenise
from inscl.errors import DataError
from support import conversation

TOKENIZER = tiny.tokenizer()
CHAT = Example(
    "Say the word again.",
    "earlier turns",
    ("three",),
    messages=conversation("Say the word again.", "one", "one", "three", "three"),
)


def trained_text(tokens):
    return [TOKENIZER.decode([i]) for i, label in zip(tokens.input_ids, tokens.labels, strict=True) if label != IGNORED]


def test_a_plain_row_trains_the_answer_and_the_end():
    tokens = tokenise(Example("Say the word again.", "one", ("two three",)), TOKENIZER, max_length=99, chat=False)
    assert TOKENIZER.decode(tokens.input_ids) == (
        "Instruction:\nSay the word again.\n\nInput:\none\n\nAnswer:\ntwo three<|im_end|>"
    )
    assert "".join(trained_text(tokens)) == "two three<|im_end|>"
    assert all(label in (IGNORED, i) for i, label in zip(tokens.input_ids, tokens.labels, strict=True))


def test_every_assistant_turn_trains_with_its_end_and_nothing_else():
    tokens = tokenise(CHAT, TOKENIZER, max_length=999, chat=True)
    assert TOKENIZER.decode(tokens.input_ids) == TOKENIZER.apply_chat_template(to_messages(CHAT), tokenize=False)
    assert "".join(trained_text(tokens)) == "one<|im_end|>three<|im_end|>"
    spans = "".join("x" if label != IGNORED else "." for label in tokens.labels).split(".")
    assert len([span for span in spans if span]) == 2  # two unbroken stretches


def test_a_plain_row_in_chat_form_gets_the_template_of_the_tokenizer():
    tokens = tokenise(Example("Count.", "a b", ("2",)), TOKENIZER, max_length=99, chat=True)
    assert TOKENIZER.decode(tokens.input_ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nCount.\n\na b<|im_end|>\n"
        "<|im_start|>assistant\n2<|im_end|>\n"
    )
    assert "".join(trained_text(tokens)) == "2<|im_end|>"


@given(st.text(max_size=40), st.text(min_size=1, max_size=20), st.booleans())
def test_generation_starts_from_what_was_trained(given_input, answer, chat):
    example = Example("Say the word again.", given_input, (answer,))
    tokens = tokenise(example, TOKENIZER, max_length=999, chat=chat)
    prompt = prompt_ids(example, TOKENIZER, max_length=999, chat=chat).ids
    assert tokens.input_ids[: len(prompt)] == prompt
    assert set(tokens.labels[: len(prompt)]) == {IGNORED}
    assert tokens.labels[len(prompt)] != IGNORED


@pytest.mark.parametrize("chat", [False, True])
def test_truncation_eats_the_end_of_the_input_only(chat):
    example = Example("Say the word again.", "one two three four " * 50, ("five",))
    tokens = tokenise(example, TOKENIZER, max_length=100, chat=chat)
    text = TOKENIZER.decode(tokens.input_ids)
    assert tokens.truncated
    assert 95 <= len(tokens.input_ids) <= 100  # as much of the input as fits
    assert "Say the word again.\n\n" in text
    assert "one two" in text
    assert "".join(trained_text(tokens)) == "five<|im_end|>"


def test_in_a_conversation_the_oldest_turns_are_cut_first():
    long = tuple({**m, "content": m["content"] * 60} if m["role"] == "user" else m for m in CHAT.messages)
    tokens = tokenise(
        Example("Say the word again.", "", ("three",), messages=long), TOKENIZER, max_length=180, chat=True
    )
    text = TOKENIZER.decode(tokens.input_ids)
    assert tokens.truncated
    assert text.count("Say the word again.") == 1
    assert text.count("<|im_start|>user\n<|im_end|>") == 1  # the first question is gone, the last one is not
    assert text.count("three") > 20
    assert "".join(trained_text(tokens)) == "one<|im_end|>three<|im_end|>"


def test_a_row_that_cannot_fit_is_left_to_the_caller():
    example = Example("Say the word again.", "x", ("one two three four " * 50,))
    assert tokenise(example, TOKENIZER, max_length=60, chat=False) is None
    assert prompt_ids(example, TOKENIZER, max_length=5, chat=False).truncated


def test_a_template_that_rewrites_earlier_turns_trains_the_last():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{{ '' if m['role'] == 'assistant' and not loop.last else m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokens = tokenise(CHAT, tokenizer, max_length=999, chat=True)
    assert "".join(trained_text(tokens)) == "three<|im_end|>"


def test_a_conversation_must_end_with_an_answer():
    with pytest.raises(DataError, match="must end with an assistant turn"):
        tokenise(Example("x", messages=CHAT.messages[:-1]), TOKENIZER, max_length=99, chat=True)


def test_a_missing_chat_template_is_said():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        tokenise(CHAT, tokenizer, max_length=99, chat=True)


def test_trl_makes_the_same_labels_from_the_rendered_columns(tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    rows = [row.example for row in tiny.mixture_rows()]
    columns = [render(example)._asdict() for example in rows]
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny.save_model(tmp_path / "model")),
        args=SFTConfig(str(tmp_path / "out"), use_cpu=True, bf16=False, report_to="none", max_length=512),
        train_dataset=Dataset.from_list(columns),
        processing_class=TOKENIZER,
    )
    for example, theirs in zip(rows, trainer.train_dataset, strict=True):
        ours = tokenise(example, TOKENIZER, max_length=512, chat=False)
        assert (ours.input_ids, ours.labels) == (theirs["input_ids"], theirs["labels"])


def test_a_mixture_comes_back_as_it_was_written(tmp_path):
    rows = [*tiny.mixture_rows(4), MixtureRow("chat\n<b>", CHAT, replayed=True, weight=0.5)]
    write_mixture(tmp_path / "m.jsonl", rows)
    assert read_mixture(tmp_path / "m.jsonl") == rows
    first = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])
    assert set(first) == {"task", "replayed", "instruction", "input", "outputs"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"task": "a"}', "line 1: not a row"),
        ("no json", "line 1: not a row"),
        ('{"task":"a","replayed":false,"instruction":"i","input":"","outputs":[]}', "it has no output"),
        ('{"task":"a","replayed":false,"instruction":"i","input":"","outputs":["x"],"weight":-1}', "weight must be"),
    ],
)
def test_a_bad_mixture_names_its_line(tmp_path, text, message):
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read_mixture(tmp_path / "m.jsonl")
