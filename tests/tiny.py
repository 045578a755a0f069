"""A tiny model with a real tokenizer, and small mixtures, for the tests of training and evaluation."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from inscl.data.example import Example
from inscl.data.mixture import MixtureRow, write_mixture

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    # Refuses a system message and turns that do not alternate; its turns end with another token than its texts.
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "tools": "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "parts": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for part in m['content'] %}{{ part['text'] }}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "words": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
}


def template_tokenizer(template: str | None = "chatml", *, eos: str | None = "<|im_end|>", post: str = "$A") -> Any:
    """A tokenizer with one of `TEMPLATES`, an end token or none, and what it puts around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    marks = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<eos>"]
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator([], trainers.BpeTrainer(vocab_size=300, special_tokens=marks, initial_alphabet=alphabet))
    names = [part for part in post.split() if part != "$A"]
    raw.post_processor = processors.TemplateProcessing(
        single=post, special_tokens=[(name, raw.token_to_id(name)) for name in names]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token=eos)
    made.chat_template = TEMPLATES[template] if template else None
    return made


def tokenizer() -> Any:
    """A byte-level BPE tokenizer trained on a few lines, with SmolLM2's special tokens and kind of template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    lines = ["Instruction:", "Input:", "Answer:", "Say the word again.", "Count the letters.", "one two three four"]
    raw.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def save_model(folder: Path, *, seed: int = 0, layers: int = 2) -> Path:
    """A randomly initialised Llama with few layers, without dropout."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(made),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=made.eos_token_id,
        bos_token_id=made.bos_token_id,
        pad_token_id=made.pad_token_id,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def mixture_rows(n: int = 22) -> list[MixtureRow]:
    """Rows of two tasks with answers of different lengths; every third is replayed."""
    words = ["one", "two", "three", "four", "five six", "seven, eight and nine"]
    rows = []
    for i in range(n):
        word = " ".join(words[: 1 + (i * 7) % 6])
        example = (
            Example("Say the word again.", word, (word,))
            if i % 3
            else Example("Count the letters.", f"{word} {i}", (str(len(word)),))
        )
        rows.append(MixtureRow("say" if i % 3 else "count", example, replayed=i % 3 == 0))
    return rows


def mixture_file(folder: Path, rows: list[MixtureRow] | None = None) -> Path:
    path = folder / "mixture.jsonl"
    write_mixture(path, rows or mixture_rows())
    return path


def small_stream(model: Path) -> dict[str, object]:
    """A configuration of two tasks and three strategies that a model this small runs through in seconds."""
    return {
        "tasks": {"demo": True, "only": ["review_opinion", "record_field"], "train": 16, "dev": 2, "test": 4},
        "model": str(model),
        "strategies": ["none", "random", "inscl"],
        "budgets": [{"per_task": 4}],
        "experts": None,  # of a model this small they score 0
        "test_rows": "all",
        "batch_size": 4,
        "max_new_tokens": 6,
        "dtype": "float32",
        "training": {"learning_rate": 1e-2, "num_train_epochs": 2},
    }


COSTS = {"seconds", "peak_memory"}  # what a run cost is not the same twice


def numbers(out: Path) -> list[tuple]:
    """All that a run says but its costs, to six digits: sums may come in another order after a break."""
    rows = parquet.read_table(out / "results.parquet").to_pylist()
    return sorted(
        tuple(
            f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in row.items() if key != "run_id"
        )
        for row in rows
        if row["metric"] not in COSTS
    )
