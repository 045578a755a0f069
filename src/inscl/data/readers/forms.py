"""From one record to one `Example`: the forms that instruction data come in.

A form is told by the fields of a record. `convert` gives the example, or raises `UnusableError` with the
reason; all examples are made by `make_example`, so that the same checks hold for every form.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inscl.data.example import Example, Message, Split

Numbered = tuple[int, Any]  # (line or record number, record)
Turn = tuple[str, str]  # (role, content)

FORMS = ("alpaca", "prompt-completion", "messages", "sharegpt", "superni")
FIELDS = "fields"  # our own fields; reported under the name of the file's type

INSTRUCTION = ("instruction", "definition")  # the first that is there counts
INPUT = ("input", "inputs", "context")  # the same
OUTPUTS = (
    "outputs",
    "output",
    "references",
    "targets",
    "response",
)  # all that are there count, in this order
CHAT = ("messages", "conversations")
CHAT_FORMS = ("messages", "sharegpt", "prompt-completion")
COLUMNS = frozenset((*INSTRUCTION, *INPUT, *OUTPUTS, *CHAT, "prompt", "completion", "system", "tags", "split"))
COLUMNS |= {"Definition", "Instances"}

_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}
_SPLITS: dict[str, Split] = {
    "train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test",
}  # fmt: skip


class UnusableError(Exception):
    """A record that parses but cannot become an example; the text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the caller asked for, and what only the data as a whole can tell.

    Attributes
    ----------
    instruction_field : str, optional
        The field that holds the instruction; in chat data "system" and "user" name a role.
    split : "train", "dev" or "test", optional
        The side of every example, whatever its record says.
    several_systems : bool
        Whether the chat data hold at least two distinct system messages.
    """

    instruction_field: str | None = None
    split: Split | None = None
    several_systems: bool = False


def detect_form(record: object, instruction_field: str | None = None) -> str | None:
    """Name of the form that the fields of a record tell, or None.

    >>> detect_form({"prompt": "2 + 2", "completion": "4"})
    'prompt-completion'
    >>> detect_form({"text": "no instruction here"}) is None
    True
    """
    if isinstance(record, Example):
        return FIELDS
    if not isinstance(record, Mapping):
        return None
    has = {name for name, value in record.items() if value is not None}
    if {"Definition", "Instances"} <= has:
        return "superni"
    if "messages" in has:
        return "messages"
    if "conversations" in has:
        return "sharegpt"
    if {"prompt", "completion"} <= has:
        return "prompt-completion"
    if {"instruction", "output"} <= has and not has & {"outputs", "references", "tags", "split"}:
        return "alpaca"
    return FIELDS if has.intersection(INSTRUCTION) or instruction_field in has else None


def is_chat(record: object) -> bool:
    """Whether the record is a conversation."""
    if not isinstance(record, Mapping):
        return False
    return any(record.get(name) is not None for name in CHAT) or isinstance(record.get("prompt"), list)


def expand_tasks(records: Iterable[Numbered]) -> Iterator[Numbered]:
    """The instances of Super-NaturalInstructions tasks as records of our own fields, numbered per task."""
    for number, task in records:
        instances = task.get("Instances") if isinstance(task, Mapping) else None
        if not isinstance(instances, list):
            yield number, None
            continue
        definition = task.get("Definition")
        for index, instance in enumerate(instances, start=1):
            if isinstance(instance, Mapping):
                yield index, {"definition": definition, **instance}
            else:
                yield index, instance


def convert(record: Any, form: str, reading: Reading) -> Example:
    """The example of a record.

    Raises
    ------
    UnusableError
        If the record cannot be used, with the reason.
    """
    if isinstance(record, Example):
        return make_example(
            record.instruction, record.input, list(record.outputs),
            messages=record.messages, tags=record.tags, split=reading.split or record.split,
        )  # fmt: skip
    if record is None and form == "superni":
        raise UnusableError("not a Super-NaturalInstructions task: no `Instances`")
    if not isinstance(record, (dict, Mapping)):  # asking for a dict first is much faster
        raise UnusableError("not an object with named fields")
    tags = _tags(record.get("tags"))
    split = reading.split or _split(record.get("split"))
    if form in ("messages", "sharegpt") or (form == "prompt-completion" and is_chat(record)):
        instruction, body, outputs, messages = _from_chat(record, reading)
        return make_example(instruction, body, outputs, messages=messages, tags=tags, split=split)
    instruction, body, outputs = _from_fields(record, form, reading.instruction_field)
    return make_example(instruction, body, outputs, tags=tags, split=split)


def make_example(
    instruction: str,
    body: str,
    outputs: list[str],
    *,
    messages: tuple[Message, ...] | None = None,
    tags: tuple[str, ...] | None = None,
    split: Split | None = None,
) -> Example:
    """The one place where examples are made: nothing blank, no output twice, text that UTF-8 holds."""
    if not instruction or instruction.isspace():
        raise UnusableError("blank instruction")
    if not outputs:
        raise UnusableError("no output")
    kept = tuple(dict.fromkeys([output for output in outputs if output and not output.isspace()]))
    if not kept:
        raise UnusableError("blank output")
    texts = [instruction, body, *kept, *(tags or ())]
    if messages is not None:
        texts += [message["content"] for message in messages]
    for text in texts:
        if not (text.isascii() or _is_whole(text)):
            raise UnusableError("text with half a surrogate pair, which UTF-8 cannot hold")
    return Example(instruction, body, kept, messages, tags, split)


def system_message(record: object) -> str | None:
    """The first system message of a chat record that is not blank; None where there is none to be read."""
    if not (isinstance(record, Mapping) and is_chat(record)):
        return None
    try:
        turns = _turns(record)
    except UnusableError:
        return None
    return next((content for role, content in turns if role == "system"), None)


def _from_fields(record: Mapping[str, Any], form: str, field: str | None) -> tuple[str, str, list[str]]:
    prompt_completion = form == "prompt-completion"
    names = ("prompt",) if prompt_completion else INSTRUCTION
    instruction = _instruction(record, names)
    body = "" if prompt_completion else _text(record, INPUT)
    if field is not None and field not in names:  # what was the instruction is now part of the input
        body = "\n\n".join(text for text in (instruction, body) if text and field not in INPUT)
        instruction = _instruction(record, (field,))
    if instruction is None:
        raise UnusableError("no instruction")
    return instruction, body, _outputs(record, ("completion",) if prompt_completion else OUTPUTS)


def _instruction(record: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """A text, or the first entry of a list: its entries are wordings of one instruction."""
    for name in names:
        value = record.get(name)
        if isinstance(value, list):
            value = value[0] if value else None
        if value is not None:
            return _checked(value, name)
    return None


def _text(record: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = record.get(name)
        if value is not None:
            return _checked(value, name)
    return ""


def _outputs(record: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    outputs: list[str] = []
    for name in names:
        value = record.get(name)
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            outputs.extend(_checked(item, name) for item in value)
        else:
            outputs.append(_checked(value, name))
    return outputs


def _checked(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise UnusableError(f"`{name}` holds {type(value).__name__}, not text")
    return value


def _from_chat(record: Mapping[str, Any], reading: Reading) -> tuple[str, str, list[str], tuple[Message, ...]]:
    turns = _turns(record)
    answers = [index for index, (role, _) in enumerate(turns) if role == "assistant"]
    if not answers:
        raise UnusableError("no assistant turn")
    before, (_, answer) = turns[: answers[-1]], turns[answers[-1]]
    instruction, at = _chat_instruction(record, before, reading)
    # A system message that all conversations share says nothing about this one; it stays in `messages`.
    rest = [
        turn for index, turn in enumerate(before) if index != at and (turn[0] != "system" or reading.several_systems)
    ]
    messages = tuple({"role": role, "content": content} for role, content in turns[: answers[-1] + 1])
    return instruction, render_turns(rest), [answer], messages


def _chat_instruction(record: Mapping[str, Any], before: list[Turn], reading: Reading) -> tuple[str, int | None]:
    """The instruction, and which turn it is (None where it comes from a field beside the conversation)."""
    field = reading.instruction_field
    if field not in (None, "system", "user"):
        instruction = _instruction(record, (field,))
        if instruction is None:
            raise UnusableError("no instruction")
        return instruction, None
    roles = ("system", "user") if reading.several_systems else ("user",)
    for wanted in roles if field is None else (field,):
        for index, (role, content) in enumerate(before):
            if role == wanted:
                return content, index
    raise UnusableError("no instruction")


def render_turns(turns: list[Turn]) -> str:
    """The turns as plain text; a single user turn is just its text.

    >>> render_turns([("user", "Hello"), ("assistant", "Hi")])
    'user: Hello\\n\\nassistant: Hi'
    """
    if len(turns) == 1 and turns[0][0] == "user":
        return turns[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in turns)


def _turns(record: Mapping[str, Any]) -> list[Turn]:
    """The conversation of a record as (role, content), blank system messages left out."""
    turns: list[Turn] = []
    name = next((name for name in CHAT if record.get(name) is not None), None)
    if name is not None:
        turns = _turn_list(record[name], name)
    elif isinstance(record.get("prompt"), list):
        completion = record.get("completion")
        turns = _turn_list(record["prompt"], "prompt")
        if isinstance(completion, str):
            turns.append(("assistant", completion))
        elif completion is not None:
            turns += _turn_list(completion, "completion")
    system = record.get("system")
    if isinstance(system, str) and system.strip() and all(role != "system" for role, _ in turns):
        turns.insert(0, ("system", system))
    return turns


def _turn_list(value: object, name: str) -> list[Turn]:
    if not isinstance(value, (list, tuple)):
        raise UnusableError(f"`{name}` holds {type(value).__name__}, not a list of turns")
    turns: list[Turn] = []
    for item in value:
        if not isinstance(item, Mapping):
            raise UnusableError(f"`{name}` holds a turn that is {type(item).__name__}, not an object")
        role = item.get("role")
        role, content = (role, item.get("content")) if role is not None else (item.get("from"), item.get("value"))
        if not (isinstance(role, str) and isinstance(content, str)):
            raise UnusableError(f"`{name}` holds a turn without a role and a text")
        role = _ROLES.get(role, role)
        if role != "system" or content.strip():
            turns.append((role, content))
    return turns


def _tags(value: object) -> tuple[str, ...] | None:
    """Tags from a list or a comma separated text; None where nothing is said, () for an empty list."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)) or not all(isinstance(tag, str) for tag in value):
        raise UnusableError("`tags` holds neither a text nor a list of texts")
    return tuple(dict.fromkeys(tag.strip() for tag in value if tag.strip()))


def _split(value: object) -> Split | None:
    if value is None or value == "":
        return None
    side = _SPLITS.get(value.strip().lower()) if isinstance(value, str) else None
    if side is None:
        raise UnusableError("unknown `split` (known: train, dev, validation, test)")
    return side


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
