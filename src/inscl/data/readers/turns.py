"""Conversations in the dialects they come in, as messages and tools: calls, results, parts, and turns not to train."""

import json
from collections.abc import Mapping
from typing import Any

from inscl.data.example import Message, Tool
from inscl.data.readers.fields import Fields, UnusableError, decoded, is_empty

CHAT = ("messages", "conversations")
SYSTEM = ("system", "system_prompt")
TOOLS = ("tools", "functions")

_ROLES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "observation": "tool", "function": "tool", "tool_response": "tool", "function_response": "tool",
    "function_call": "assistant", "tool_call": "assistant",
}  # fmt: skip
_PLAIN_TURN = {"role", "content"}
_KNOWN = ("system", "user", "assistant")
_CALLS = ("function_call", "tool_call")  # roles whose text is a call
_FLAGS = ("weight", "train", "training", "loss")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = (None, "text", "input_text", "output_text")


def read_turns(value: object, name: str, ignored: set[str]) -> list[Message]:
    """The turns of a conversation; blank system messages are left out.

    Parameters
    ----------
    value : list of objects, object of lists, or their JSON
    name : str
        The field it stands in.
    ignored : set of str
        Takes the names of what the turns hold beside what is kept.

    Raises
    ------
    UnusableError
        If it is no conversation, or one that holds more than text.
    """
    value = decoded(value)
    if isinstance(value, Mapping) and value and all(isinstance(column, (list, tuple)) for column in value.values()):
        value = _rows_of(value)
    if not isinstance(value, (list, tuple)):
        raise UnusableError(f"`{name}` holds {type(value).__name__}, not a list of turns")
    turns = [_turn(item, name, ignored) for item in value]
    return [turn for turn in turns if turn["role"] != "system" or turn["content"].strip()]


def read_tools(fields: Fields) -> tuple[Tool, ...] | None:
    """The tools a conversation may call, each as a template takes it; None where there are none."""
    name, value = fields.first(TOOLS)
    if is_empty(value):
        return None
    found = decoded(value)
    found = [found] if isinstance(found, Mapping) else found
    tools = [_tool(item) for item in found] if isinstance(found, (list, tuple)) else [None]
    if None in tools:
        fields.ignored.add(f"{name} (no list of definitions)")
        return None
    return tuple(tool for tool in tools if tool is not None) or None


def says_turns(value: object) -> bool:
    """Whether a value (or the JSON in it) is a list of turns."""
    value = decoded(value)
    return isinstance(value, list) and bool(value) and all(isinstance(x, Mapping) and _role_of(x) for x in value)


def _rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turns from an object of lists, as some tables hold them."""
    length = max(len(column) for column in columns.values())
    return [{name: column[i] for name, column in columns.items() if i < len(column)} for i in range(length)]


def _role_of(item: Mapping[str, object]) -> object:
    return item.get("role") if item.get("role") is not None else item.get("from")


def _turn(item: object, name: str, ignored: set[str]) -> Message:
    if not isinstance(item, Mapping):
        raise UnusableError(f"`{name}` holds a turn that is {type(item).__name__}, not an object")
    if item.keys() == _PLAIN_TURN and type(item["role"]) is type(item["content"]) is str and item["role"] in _KNOWN:
        return {"role": item["role"], "content": item["content"]}
    fields = Fields(item, ignored, name)
    _, named = fields.first(("role", "from"))
    _, content = fields.first(("content", "value"))
    if not isinstance(named, str):
        raise UnusableError(f"`{name}` holds a turn without a role and a text")
    role = _ROLES.get(named, named)
    calls = _calls(fields)
    if named in _CALLS:
        calls, content = calls + _calls_in(content), ""
    beside = _result_of(fields) if role == "tool" else {}
    text = _content(content, name, blank=bool(calls) or role == "tool", result=role == "tool")
    if role == "assistant":
        text = _with_reasoning(fields, text)
    message: dict[str, object] = {"role": role, "content": text, **({"tool_calls": calls} if calls else {}), **beside}
    if not _is_trained(fields, role):
        message["train"] = False
    fields.close()
    return message


def _content(value: object, name: str, *, blank: bool, result: bool) -> str:
    if value is None and blank:
        return ""
    if isinstance(value, Mapping) and "text" in value:
        value = [value]
    if isinstance(value, (list, tuple)) and not (result and not all(map(_is_part, value))):
        return "\n".join(_part(part, name) for part in value)
    if result and not isinstance(value, str):  # a tool's result as it came
        return json.dumps(value, ensure_ascii=False, default=str)
    if not isinstance(value, str):
        raise UnusableError(f"`{name}` holds a turn without a role and a text")
    return value


def _is_part(part: object) -> bool:
    return isinstance(part, str) or (isinstance(part, Mapping) and ("text" in part or "type" in part))


def _part(part: object, name: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise UnusableError(f"`{name}` with a part that is not text ({str(kind)[:40]!r}); only text can be trained")


def _with_reasoning(fields: Fields, text: str) -> str:
    """An answer after its reasoning trace, in the marks that reasoning models write it in."""
    name, trace = fields.first(_REASONING)
    if is_empty(trace):
        return text
    if not isinstance(trace, str):
        fields.ignored.add(f"{fields.inside}.{name}")
        return text
    return f"<think>\n{trace.strip()}\n</think>\n\n{text}"


def _calls(fields: Fields) -> list[dict[str, Any]]:
    found: list[dict[str, object]] = []
    for name, value in fields.all(("tool_calls", "function_call")):
        value = decoded(value)
        if is_empty(value):
            continue
        items = [value] if isinstance(value, Mapping) else value
        if not isinstance(items, (list, tuple)):
            raise UnusableError(f"`{name}` holds {type(value).__name__}, not calls")
        found += [_call(item, fields.ignored) for item in items]
    return found


def _calls_in(content: object) -> list[dict[str, Any]]:
    """The calls in the text of a ShareGPT turn."""
    found = decoded(content)
    items = [found] if isinstance(found, Mapping) else found
    if not isinstance(items, list) or not items:
        raise UnusableError("a `function_call` turn that is not JSON")
    return [_call(item, set()) for item in items]


def _call(item: object, ignored: set[str]) -> dict[str, Any]:
    inner = item.get("function") if isinstance(item, Mapping) else None
    outer = Fields(item if isinstance(item, Mapping) else {}, ignored, "tool_calls")
    part = Fields(outer.get("function"), ignored, "tool_calls.function") if isinstance(inner, Mapping) else outer
    name = part.get("name")
    _, arguments = part.first(("arguments", "parameters"))
    if not (isinstance(name, str) and name.strip()):
        raise UnusableError("a call without a name")
    identifier = outer.get("id")
    outer.get("type")
    outer.close()
    if part is not outer:
        part.close()
    function = {"name": name, "arguments": {} if arguments is None else decoded(arguments)}
    return {**({"id": str(identifier)} if identifier else {}), "type": "function", "function": function}


def _result_of(fields: Fields) -> dict[str, str]:
    """Which call a tool's result answers."""
    found = {name: fields.get(name) for name in ("tool_call_id", "name")}
    return {name: value for name, value in found.items() if isinstance(value, str) and value}


def _tool(item: object) -> Tool | None:
    if not isinstance(item, Mapping):
        return None
    if isinstance(item.get("function"), Mapping):
        return dict(item) if isinstance(item["function"].get("name"), str) else None
    return {"type": "function", "function": dict(item)} if isinstance(item.get("name"), str) else None


def _is_trained(fields: Fields, role: str) -> bool:
    """Whether no flag of an assistant's turn says that it is context only."""
    said = [_flag(value, name, fields) for name, value in fields.all(_FLAGS)]
    if role != "assistant" and True in said:
        fields.ignored.add(f"{fields.inside}: a {role} turn marked to be trained")
    return role != "assistant" or False not in said


def _flag(value: object, name: str, fields: Fields) -> bool | None:
    known = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
    found = known.get(str(value).strip().lower())
    if found is None and not is_empty(value):
        fields.ignored.add(f"{fields.inside}.{name} (neither 0 nor 1)")
    return found
