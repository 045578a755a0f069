"""What other trainers read: their records, and the part of their configuration that uses the file.

Each trains on the answers alone, and on plain rows in the form of `inscl.data.template`, so that a model trained
elsewhere is asked in our evaluation exactly as it was trained. docs/other-trainers.md says where a trainer cannot.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from inscl.data.mixture import MixtureRow
from inscl.data.records import Record, is_chat, messages_of, origin, trl_records
from inscl.data.template import render
from inscl.errors import InsclError
from inscl.export.tokens import SpecialTokens

Settings = dict[str, str]  # what is added to the data file's name -> text of the file
SUFFIXES = (".trl.yaml", ".axolotl.yaml", ".dataset_info.json", ".llamafactory.yaml")  # all there are


def trl_settings(path: Path, chat: bool) -> Settings:
    """For ``trl sft --config``."""
    return {
        ".trl.yaml": _yaml(
            "TRL: merge into the file of `trl sft --config`. `data_files` counts from where trl starts.",
            {
                "datasets": [{"path": "json", "data_files": path.as_posix(), "split": "train"}],
                "completion_only_loss": True,
            },
        )
    }


def axolotl_records(rows: Sequence[MixtureRow]) -> Iterator[Record]:
    """Plain rows as prompt and completion, chats as messages."""
    if not is_chat(rows):
        return trl_records(rows)
    return ({"messages": messages_of(row), **origin(row)} for row in rows)


def axolotl_settings(path: Path, chat: bool) -> Settings:
    """The `datasets` of a configuration, and what keeps the loss on the answers and every row in training."""
    # A prompt format of our own, not `input_output`: that one leaves begin and end tokens to the data.
    plain = {
        "type": {
            "field_instruction": "prompt",
            "field_output": "completion",
            "format": "{instruction}",
            "no_input_format": "{instruction}",
        }
    }
    turns = {
        "type": "chat_template",
        "field_messages": "messages",
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }
    return {
        ".axolotl.yaml": _yaml(
            "Axolotl: merge into your configuration. `path` counts from where axolotl starts.",
            {
                "datasets": [{"path": path.as_posix(), "ds_type": "json", **(turns if chat else plain)}],
                "train_on_inputs": False,
                "val_set_size": 0,
            },
        )
    }


def llamafactory_records(rows: Sequence[MixtureRow], tokens: SpecialTokens | None) -> Iterator[Record]:
    """Plain rows as prompt and completion with the model's special tokens, chats as messages.

    Raises
    ------
    InsclError
        For plain rows without `tokens`; for a conversation that LLaMA-Factory would leave out.
    """
    if is_chat(rows):
        _refuse_what_is_left_out(rows)
        return ({"messages": messages_of(row), **origin(row)} for row in rows)
    if tokens is None:
        raise InsclError(
            "LLaMA-Factory adds no end-of-text token to plain rows, so the file must hold the model's. Name the model "
            "with --model."
        )
    return (_with_tokens(row, tokens) for row in rows)


def llamafactory_settings(path: Path, chat: bool) -> Settings:
    """The entry for ``dataset_info.json``, and the keys of the training file.

    Raises
    ------
    InsclError
        If the file's name does not tell that it is JSON lines.
    """
    if path.suffix not in (".jsonl", ".json"):
        raise InsclError(f"LLaMA-Factory knows a file by its ending and '{path.name}' has another; end it in .jsonl.")
    name = re.sub(r"[^\w.-]", "_", path.stem)
    turns = {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
    plain = {"formatting": "alpaca", "columns": {"prompt": "prompt", "response": "completion"}}
    entry = {name: {"file_name": path.name, **(turns if chat else plain)}}
    note = f"LLaMA-Factory: merge into your training file, and {path.name}.dataset_info.json into dataset_info.json."
    if chat:
        note += "\n`template` is left out: the tokenizer's own chat template is taken. Name your model's, if any."
    keys = {
        "stage": "sft",
        "dataset_dir": path.parent.as_posix(),
        "dataset": name,
        **({} if chat else {"template": "empty"}),
        "train_on_prompt": False,
        "mask_history": False,
        "val_size": 0,
    }
    return {
        ".dataset_info.json": json.dumps(entry, ensure_ascii=False, indent=2) + "\n",
        ".llamafactory.yaml": _yaml(note, keys),
    }


def _with_tokens(row: MixtureRow, tokens: SpecialTokens) -> Record:
    prompt, completion = render(row.example)
    return {"prompt": tokens.begin + prompt, "completion": completion + tokens.end, **origin(row)}


def _refuse_what_is_left_out(rows: Sequence[MixtureRow]) -> None:
    """LLaMA-Factory skips a conversation unless, after a system turn, user and assistant take turns."""
    odd = Counter(row.task for row in rows if not _alternates([turn["role"] for turn in messages_of(row)]))
    if odd:
        found = ", ".join(f"{n} of task '{task}'" for task, n in odd.items())
        raise InsclError(
            f"LLaMA-Factory leaves out conversations in which user and assistant do not take turns: {found}. Take "
            "--format axolotl, trl or messages, or mend the data."
        )


def _alternates(roles: Sequence[str]) -> bool:
    turns = list(roles[1:] if roles[0] == "system" else roles)
    return len(turns) > 1 and turns == ["user", "assistant"] * (len(turns) // 2)


def _yaml(note: str, keys: dict[str, Any]) -> str:
    comment = "".join(f"# {line}\n" for line in note.split("\n"))
    return comment + yaml.safe_dump(keys, sort_keys=False, allow_unicode=True, width=1000)
