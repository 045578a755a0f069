"""What other trainers read: their records, and the part of their configuration that uses the file.

Each trains on the answers alone, and on plain rows in the form of `inscl.data.template`, so that a model trained
elsewhere is asked in our evaluation exactly as it was trained. docs/other-trainers.md says where a trainer cannot.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from inscl.data.chat_form import to_messages
from inscl.data.example import Message
from inscl.data.mixture import MixtureRow
from inscl.data.records import Record, Shape, tools_as_json, trl_records
from inscl.data.template import render
from inscl.errors import InsclError
from inscl.export.tokens import SpecialTokens

_Beside = dict[str, str]  # what is added to the data file's name -> text of the file
_CALL_TAGS = {"observation_tag": "tool", "function_tag": "function_call"}
SUFFIXES = (".trl.yaml", ".axolotl.yaml", ".dataset_info.json", ".llamafactory.yaml")  # all there are


@dataclass(frozen=True)
class _Format:
    """How a mixture is written for one trainer.

    Attributes
    ----------
    records : callable
        From the rows, and the model's special tokens where they are known, to the lines of the data file.
    settings : callable
        From the data file's path and the shape of the rows to the files beside it.
    """

    records: Callable[[Sequence[MixtureRow], SpecialTokens | None], Iterable[Record]]
    settings: Callable[[Path, Shape], _Beside] = lambda path, shape: {}


def _trl_settings(path: Path, shape: Shape) -> _Beside:
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


def _axolotl_records(rows: Sequence[MixtureRow]) -> Iterator[Record]:
    """Plain rows as prompt and completion, chats as messages."""
    if not Shape.of(rows).chat:
        return trl_records(rows)
    return (
        {"messages": _openai_messages(row, ("training", False)), **tools_as_json(row), **row.origin} for row in rows
    )


def _axolotl_settings(path: Path, shape: Shape) -> _Beside:
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
        **({"field_tools": "tools"} if shape.tools else {}),
        **({"message_field_training": "training"} if shape.marked else {}),
    }
    return {
        ".axolotl.yaml": _yaml(
            "Axolotl: merge into your configuration. `path` counts from where axolotl starts.",
            {
                "datasets": [{"path": path.as_posix(), "ds_type": "json", **(turns if shape.chat else plain)}],
                "train_on_inputs": False,
                "val_set_size": 0,
            },
        )
    }


def _llamafactory_records(rows: Sequence[MixtureRow], tokens: SpecialTokens | None) -> Iterator[Record]:
    """Plain rows as prompt and completion with the model's special tokens, chats as messages.

    Raises
    ------
    InsclError
        For plain rows without `tokens`; for a conversation that LLaMA-Factory would leave out.
    """
    if Shape.of(rows).chat:
        _refuse_what_is_left_out(rows)
        return ({"messages": _sharegpt_turns(row), **tools_as_json(row), **row.origin} for row in rows)
    if tokens is None:
        raise InsclError(
            "LLaMA-Factory adds no end-of-text token to plain rows, so the file must hold the model's. Name the model "
            "with --model."
        )
    return (_with_tokens(row, tokens) for row in rows)


def _llamafactory_settings(path: Path, shape: Shape) -> _Beside:
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
        "columns": {"messages": "messages", **({"tools": "tools"} if shape.tools else {})},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
            **_CALL_TAGS,
        },
    }
    plain = {"formatting": "alpaca", "columns": {"prompt": "prompt", "response": "completion"}}
    entry = {name: {"file_name": path.name, **(turns if shape.chat else plain)}}
    note = f"LLaMA-Factory: merge into your training file, and {path.name}.dataset_info.json into dataset_info.json."
    if shape.chat:
        note += "\n`template` is left out: the tokenizer's own chat template is taken. Name your model's, if any."
    keys = {
        "stage": "sft",
        "dataset_dir": path.parent.as_posix(),
        "dataset": name,
        **({} if shape.chat else {"template": "empty"}),
        "train_on_prompt": False,
        "mask_history": False,
        "val_size": 0,
    }
    return {
        ".dataset_info.json": json.dumps(entry, ensure_ascii=False, indent=2) + "\n",
        ".llamafactory.yaml": _yaml(note, keys),
    }


def _message_records(rows: Sequence[MixtureRow]) -> Iterator[Record]:
    """Rows as conversations, whatever their form, in OpenAI's own words."""
    for row in rows:
        tools = {"tools": [dict(tool) for tool in row.example.tools]} if row.example.tools else {}
        yield {"messages": _openai_messages(row, ("weight", 0)), **tools, **row.origin}


def _openai_messages(row: MixtureRow, untrained: tuple[str, object]) -> list[Record]:
    """The row as a conversation in which arguments of calls are text, and turns not to train carry a mark."""
    mark, value = untrained
    return [
        {
            **{name: held for name, held in turn.items() if name != "train"},
            **_calls_as_json(turn),
            **({} if turn.get("train", True) else {mark: value}),
        }
        for turn in to_messages(row.example)
    ]


def _calls_as_json(message: Message) -> Record:
    if "tool_calls" not in message:
        return {}
    return {
        "tool_calls": [{**call, "function": _arguments_as_json(call["function"])} for call in message["tool_calls"]]
    }


def _arguments_as_json(function: Message) -> Record:
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**function, "arguments": text}


def _with_tokens(row: MixtureRow, tokens: SpecialTokens) -> Record:
    prompt, completion = render(row.example)
    return {"prompt": tokens.begin + prompt, "completion": completion + tokens.end, **row.origin}


def _sharegpt_turns(row: MixtureRow) -> list[Record]:
    """The turns with calls as turns of their own role, as JSON."""
    return [_sharegpt_turn(turn) for turn in to_messages(row.example)]


def _sharegpt_turn(turn: Message) -> Record:
    if "tool_calls" not in turn:
        return {"role": turn["role"], "content": turn["content"]}
    calls = [call["function"] for call in turn["tool_calls"]]
    return {"role": "function_call", "content": json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)}


def _refuse_what_is_left_out(rows: Sequence[MixtureRow]) -> None:
    """LLaMA-Factory skips a conversation unless, after a system turn, what asks and what answers take turns."""
    reasons: dict[str, Callable[[MixtureRow], bool]] = {
        "in which user and assistant do not take turns": lambda row: not _alternates(row),
        "with words beside a call": lambda row: any(
            turn.get("tool_calls") and turn["content"] for turn in to_messages(row.example)
        ),
        "with turns that are not to be trained, for which it has no mark": lambda row: Shape.of([row]).marked,
    }
    for reason, applies in reasons.items():
        if odd := Counter(row.task for row in rows if applies(row)):
            found = ", ".join(f"{n} of task '{task}'" for task, n in odd.items())
            raise InsclError(
                f"LLaMA-Factory leaves out conversations {reason}: {found}. Take --format axolotl, trl or messages, or "
                "mend the data."
            )


def _alternates(row: MixtureRow) -> bool:
    roles = [turn["role"] for turn in _sharegpt_turns(row)]
    turns = roles[1:] if roles[0] == "system" else roles
    asking, answering = ("user", "tool"), ("assistant", "function_call")
    pairs = zip(turns[::2], turns[1::2], strict=False)
    return len(turns) > 1 and len(turns) % 2 == 0 and all(a in asking and b in answering for a, b in pairs)


def _yaml(note: str, keys: dict[str, object]) -> str:
    comment = "".join(f"# {line}\n" for line in note.split("\n"))
    return comment + yaml.safe_dump(keys, sort_keys=False, allow_unicode=True, width=1000)


MIXTURE_FORMATS: Mapping[str, _Format] = {
    "trl": _Format(lambda rows, _: trl_records(rows), _trl_settings),
    "axolotl": _Format(lambda rows, _: _axolotl_records(rows), _axolotl_settings),
    "llamafactory": _Format(_llamafactory_records, _llamafactory_settings),
    "messages": _Format(lambda rows, _: _message_records(rows)),
    "inscl": _Format(lambda rows, _: (row.record() for row in rows)),
}
