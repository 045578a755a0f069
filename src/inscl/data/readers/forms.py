"""From one record to one `Example`: the forms that instruction data come in.

A form is told by the fields of a record. `convert` gives the example, or raises `UnusableError` with the
reason; all examples are made by `_make_example`, so that the same checks hold for every form.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from inscl.data.example import Example, Message, Split, Tool, dump_chat, render_turns, said
from inscl.data.readers.fields import Fields, UnusableError, decoded, is_empty
from inscl.data.readers.preference import LABELS, PAIR, PICTURES, is_preference, preferred, refuse_pictures
from inscl.data.readers.turns import CHAT, SYSTEM, TOOLS, read_tools, read_turns, says_turns

Numbered = tuple[int, Any]  # (line or record number, record)

FORMS = ("alpaca", "prompt-completion", "messages", "sharegpt", "superni")
FIELDS = "fields"  # our own fields; reported under the name of the file's type

_INSTRUCTION = ("instruction", "definition", "question")  # the first that is there counts
_INPUT = ("input", "inputs", "context")  # the same
_OUTPUTS = (
    "outputs",
    "output",
    "references",
    "targets",
    "response",
)  # all that are there count, in this order
COLUMNS = frozenset((*_INSTRUCTION, *_INPUT, *_OUTPUTS, *CHAT, *SYSTEM, *TOOLS, *PAIR, *LABELS, *PICTURES))
COLUMNS |= {"prompt", "completion", "history", "tags", "split", "Definition", "Instances"}

_CHAT_FORMS = ("messages", "sharegpt")
_ALPACA = frozenset(("instruction", "output"))
# Most records have none of these fields, and asking for all at once is fast.
_OTHER_KINDS = frozenset((*PAIR, *LABELS, *PICTURES))
_BARE = {"instruction", "input", "output"}  # what most records have, and nothing else that is read
_TURNS = frozenset((*CHAT, *PAIR))
_MAY_BE_CHAT = _TURNS | {*SYSTEM, *TOOLS, "history", "prompt"}
_TASK = ("Definition", "Instances")
_TELLING: tuple[tuple[str, Callable[[Set[str]], bool]], ...] = (  # what the fields that hold something tell, in order
    ("superni", lambda has: has >= set(_TASK)),
    ("messages", lambda has: "messages" in has),
    ("sharegpt", lambda has: "conversations" in has),
    ("prompt-completion", lambda has: "prompt" in has and not has.isdisjoint(("completion", *PAIR))),
    ("alpaca", lambda has: has >= _ALPACA and has.isdisjoint(("outputs", "references", "tags", "split"))),
    ("messages", lambda has: has >= set(PAIR)),
)
_SPLITS: dict[str, Split] = {
    "train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test",
}  # fmt: skip


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
    preferred : bool
        Whether preference data give their preferred answers.
    """

    instruction_field: str | None = None
    split: Split | None = None
    several_systems: bool = False
    preferred: bool = False


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
    for form, tells in _TELLING:
        if tells(has):
            return form
    if "question" in has and has.isdisjoint(_OUTPUTS):  # of another kind, unless an answer we know stands beside it
        has.remove("question")
    return FIELDS if has.intersection(_INSTRUCTION) or instruction_field in has else None


def is_conversation(record: object) -> bool:
    """Whether the record is a conversation, or becomes one: a row with a system message, a history or tools."""
    if not isinstance(record, (dict, Mapping)) or _MAY_BE_CHAT.isdisjoint(record):
        return False
    if any(record.get(name) is not None for name in CHAT) or set(PAIR) <= record.keys():
        return True
    return any(not is_empty(record.get(name)) for name in (*SYSTEM, *TOOLS, "history")) or _is_turns(record)


def form_of(record: object, form: str, instruction_field: str | None) -> str:
    """The form of a record in data of a form: its own, where one is a conversation and the other is not."""
    if form not in _CHAT_FORMS and isinstance(record, dict) and _TURNS.isdisjoint(record):
        return form
    own = detect_form(record, instruction_field)
    return form if own is None or (own in _CHAT_FORMS) == (form in _CHAT_FORMS) else own


def expand_tasks(records: Iterable[Numbered], ignored: set[str]) -> Iterator[Numbered]:
    """The instances of Super-NaturalInstructions tasks as records of our own fields, numbered per task.

    `ignored` takes the names of what the tasks hold beside definition and instances.
    """
    for number, task in records:
        instances = task.get("Instances") if isinstance(task, Mapping) else None
        if not isinstance(instances, list):
            yield number, None
            continue
        definition = task.get("Definition")
        ignored.update(name for name, value in task.items() if name not in _TASK and not is_empty(value))
        for index, instance in enumerate(instances, start=1):
            if isinstance(instance, Mapping):
                yield index, {"definition": definition, **instance}
            else:
                yield index, instance


def convert(record: object, form: str, reading: Reading, ignored: set[str] | None = None) -> Example:
    """The example of a record.

    Parameters
    ----------
    record : mapping or Example
    form : str
    reading : Reading
    ignored : set of str, optional
        Takes the names of the fields that hold something and are not used.

    Raises
    ------
    UnusableError
        If the record cannot be used, with the reason.
    """
    if isinstance(record, Example):
        return _make_example(
            record.instruction, record.input, list(record.outputs), messages=record.messages, tags=record.tags,
            split=reading.split or record.split, tools=record.tools,
        )  # fmt: skip
    if record is None and form == "superni":
        raise UnusableError("not a Super-NaturalInstructions task: no `Instances`")
    if not isinstance(record, (dict, Mapping)):  # asking for a dict first is much faster
        raise UnusableError("not an object with named fields")
    ignored = set() if ignored is None else ignored
    if reads_bare(form, reading) and is_bare(record):
        ignored.update([str(name) for name in record.keys() - _BARE if not is_empty(record[name])])
        return _make_example(record["instruction"], record["input"], [record["output"]], split=reading.split)
    if not _OTHER_KINDS.isdisjoint(record):
        record, form = _instruction_data(record, form, reading)
    return _converted(Fields(record, ignored), form, reading)


def _converted(fields: Fields, form: str, reading: Reading) -> Example:
    """The example of a record of instruction data."""
    tags = _tags(fields.get("tags"))
    split = reading.split or _split(fields.get("split"))
    chat = form in _CHAT_FORMS or (form == "prompt-completion" and _is_turns(fields.record))
    try:
        found = _from_chat(fields, reading) if chat else _from_fields(fields, form, reading)
        example = _make_example(found.instruction, found.body, found.outputs, tags=tags, split=split,
                               messages=found.messages, tools=found.tools)  # fmt: skip
    except RecursionError:
        raise UnusableError("nested too deeply") from None
    fields.close()
    return example


def is_bare(record: object) -> bool:
    """Whether a record is three texts and columns that nobody reads, so that nothing else need be asked."""
    return (
        isinstance(record, dict)
        and record.keys() >= _BARE
        and COLUMNS.isdisjoint(record.keys() - _BARE)
        and type(record["instruction"]) is type(record["input"]) is type(record["output"]) is str
    )


def reads_bare(form: str | None, reading: Reading) -> bool:
    """Whether bare records of a form are read as they are; None stands for whatever their fields tell."""
    return form in (None, "alpaca", FIELDS) and reading.instruction_field is None


def _instruction_data(record: Mapping[str, object], form: str, reading: Reading) -> tuple[Mapping[str, Any], str]:
    """A record that may be of another kind than instruction data, as such, and its form.

    Raises
    ------
    UnusableError
        If it holds pictures, or preferences that nobody asked for.
    """
    if is_preference(record):
        if not reading.preferred:
            raise UnusableError("preference data, not instructions: take the preferred answers with --preferred")
        record = preferred(record)
        form = form_of(record, form, reading.instruction_field)
    refuse_pictures(record)
    return record, form


def _make_example(
    instruction: str,
    body: str,
    outputs: list[str],
    *,
    messages: tuple[Message, ...] | None = None,
    tags: tuple[str, ...] | None = None,
    split: Split | None = None,
    tools: tuple[Tool, ...] | None = None,
) -> Example:
    """The one place where examples are made: nothing blank, no output twice, text that UTF-8 holds."""
    if not instruction or instruction.isspace():
        raise UnusableError("blank instruction")
    if not outputs:
        raise UnusableError("no output")
    kept = tuple(dict.fromkeys([output for output in outputs if output and not output.isspace()]))
    if not kept:
        raise UnusableError("blank output")
    text = "".join([instruction, body, *kept, *(tags or ()), dump_chat(messages, tools) if messages else ""])
    if not (text.isascii() or _is_whole(text)):
        raise UnusableError("text with half a surrogate pair, which UTF-8 cannot hold")
    return Example(instruction, body, kept, messages, tags, split, tools)


def system_message(record: object) -> str | None:
    """The first system message of a chat record that is not blank; None where there is none to be read."""
    if not (isinstance(record, Mapping) and is_conversation(record)):
        return None
    try:
        turns = _turns(Fields(record, set()))
    except (UnusableError, RecursionError):
        return None
    return next((turn["content"] for turn in turns if turn["role"] == "system"), None)


@dataclass(frozen=True)
class _Found:
    """What an example is made of."""

    instruction: str
    body: str
    outputs: list[str]
    messages: tuple[Message, ...] | None = None
    tools: tuple[Tool, ...] | None = None


def _is_turns(record: Mapping[str, object]) -> bool:
    """Whether the prompt of a record is a conversation."""
    prompt = record.get("prompt")
    return isinstance(prompt, list) or (isinstance(prompt, str) and prompt.startswith("[") and says_turns(prompt))


def _from_fields(fields: Fields, form: str, reading: Reading) -> _Found:
    field, prompt_completion = reading.instruction_field, form == "prompt-completion"
    names = ("prompt",) if prompt_completion else _INSTRUCTION
    instruction = _instruction(fields, names)
    body = "" if prompt_completion else _text(fields, _INPUT)
    if field is not None and field not in names:  # what was the instruction is now part of the input
        body = _paragraphs(instruction, body) if field not in _INPUT else ""
        instruction = _instruction(fields, (field,))
    if instruction is None:
        raise UnusableError("no instruction")
    found = _Found(instruction, body, _outputs(fields, ("completion",) if prompt_completion else _OUTPUTS))
    return found if _MAY_BE_CHAT.isdisjoint(fields.record) else _following(fields, found, reading)


def _following(fields: Fields, found: _Found, reading: Reading) -> _Found:
    """A row as the conversation that it is the end of; as it is, where it follows nothing and has no tools."""
    before, tools = _before(fields), read_tools(fields)
    if not before and tools is None:
        return found
    body, asked = found.body, _paragraphs(found.instruction.strip(), found.body.strip())
    answer = next((output for output in found.outputs if output.strip()), "")
    messages = (*before, _message("user", asked), _message("assistant", answer))
    rest = [turn for turn in before if turn["role"] != "system" or reading.several_systems]
    if rest:
        body = render_turns([*rest, _message("user", body)] if body.strip() else rest)
    return replace(found, body=body, messages=messages, tools=tools)


def _paragraphs(*texts: str | None) -> str:
    """Texts one below the other, the empty ones left out."""
    return "\n\n".join(text for text in texts if text)


def _before(fields: Fields) -> list[Message]:
    """The turns that a row says it follows: its system message and its history."""
    turns = _system(fields)
    name, history = "history", decoded(fields.get("history"))
    if is_empty(history):
        return turns
    if says_turns(history):
        return turns + read_turns(history, name, fields.ignored)
    if not isinstance(history, (list, tuple)) or not all(isinstance(pair, (list, tuple)) for pair in history):
        raise UnusableError(f"`{name}` holds {type(history).__name__}, not pairs of a question and its answer")
    for pair in history:
        for role, text in zip(("user", "assistant"), pair, strict=False):
            turns.append(_message(role, _text_of(text, name)))
        if len(pair) != 2:
            raise UnusableError(f"`{name}` holds an entry of {len(pair)} texts, not a question and its answer")
    return turns


def _system(fields: Fields) -> list[Message]:
    """The system message beside a row, as a turn."""
    names = tuple(name for name in SYSTEM if not is_empty(fields.record.get(name)))
    if not names:
        return []
    name, system = fields.first(names)
    return [_message("system", _text_of(system, name))]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _instruction(fields: Fields, names: tuple[str, ...]) -> str | None:
    """A text, or the first entry of a list: its entries are wordings of one instruction."""
    name, value = fields.first(names)
    if isinstance(value, list):
        if len(value) > 1:
            fields.ignored.add(f"{name} (all but the first wording)")
        value = value[0] if value else None
    return None if value is None else _text_of(value, name)


def _text(fields: Fields, names: tuple[str, ...]) -> str:
    name, value = fields.first(names)
    return "" if value is None else _text_of(value, name)


def _outputs(fields: Fields, names: tuple[str, ...]) -> list[str]:
    outputs: list[str] = []
    for name, value in fields.all(names):
        if isinstance(value, (list, tuple)):
            outputs.extend(_text_of(item, name) for item in value)
        else:
            outputs.append(_text_of(value, name))
    return outputs


def _from_chat(fields: Fields, reading: Reading) -> _Found:
    turns, tools = _turns(fields), read_tools(fields)
    assistant = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    answers = [index for index in assistant if turns[index].get("train", True)]
    if not answers:
        raise UnusableError("no assistant turn that is to be trained" if assistant else "no assistant turn")
    before, answer = turns[: answers[-1]], turns[answers[-1]]
    if len(turns) > answers[-1] + 1:
        fields.ignored.add("turns after the last answer")
    instruction, at = _chat_instruction(fields, before, reading)
    # A system message that all conversations share says nothing about this one; it stays in `messages`.
    rest = [
        turn
        for index, turn in enumerate(before)
        if index != at and (turn["role"] != "system" or reading.several_systems)
    ]
    return _Found(instruction, render_turns(rest), [said(answer)], (*before, answer), tools)


def _chat_instruction(fields: Fields, before: Sequence[Message], reading: Reading) -> tuple[str, int | None]:
    """The instruction, and which turn it is (None where it comes from a field beside the conversation)."""
    field = reading.instruction_field
    if field not in (None, "system", "user"):
        instruction = _instruction(fields, (field,))
        if instruction is None:
            raise UnusableError("no instruction")
        return instruction, None
    roles = ("system", "user") if reading.several_systems else ("user",)
    for wanted in roles if field is None else (field,):
        for index, turn in enumerate(before):
            if turn["role"] == wanted:
                return turn["content"], index
    raise UnusableError("no instruction")


def _turns(fields: Fields) -> list[Message]:
    """The conversation of a record, blank system messages left out."""
    turns: list[Message] = []
    name, value = fields.first(CHAT)
    if value is not None:
        turns = read_turns(value, name, fields.ignored)
    elif _is_turns(fields.record):
        turns = read_turns(fields.get("prompt"), "prompt", fields.ignored) + _completion(fields)
    elif is_conversation(fields.record):
        return _before(fields)
    if all(turn["role"] != "system" for turn in turns):
        turns = _system(fields) + turns
    return turns


def _completion(fields: Fields) -> list[Message]:
    value = fields.get("completion")
    if value is None:
        return []
    if isinstance(value, str) and not says_turns(value):
        return [_message("assistant", value)]
    return read_turns([value] if isinstance(value, Mapping) else value, "completion", fields.ignored)


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


def _text_of(value: object, name: str) -> str:
    """A text, or the reason why it is none."""
    if not isinstance(value, str):
        raise UnusableError(f"`{name}` holds {type(value).__name__}, not text")
    return value
