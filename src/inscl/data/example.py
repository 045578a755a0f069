"""One training example, and the keys by which texts and examples are known.

A key is a 128-bit BLAKE2b hash of normalised content: the same content has the same key in every task, file,
process and machine. Keys order things wherever an order must not depend on how the data arrived.
"""

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

Message = Mapping[str, Any]
"""One turn: `role` and `content`, a text (blank where the turn is a call); and where there is one, `tool_calls` as chat
templates take them, `tool_call_id` and `name` of a tool's result, and `train`: False of a turn that is context only."""

Tool = Mapping[str, Any]
"""The definition of a tool: ``{"type": "function", "function": {"name", "description", "parameters"}}``."""

_BESIDE = ("tool_calls", "tool_call_id", "name", "train")  # what a message may hold beside its role and content


@dataclass(frozen=True, slots=True)
class Example:
    """What to do, what to do it to, and the accepted answers.

    Attributes
    ----------
    instruction : str
        What to do. Never blank.
    input : str
        What to do it to; may be empty. In chat data: the turns before the last answer that are not the instruction.
    outputs : tuple of str
        One or more accepted answers; training uses the first. In chat data: the last assistant turn, calls as JSON.
    messages : tuple of Message, optional
        The whole conversation, where the data came in chat form; it ends with the answer.
    tags : tuple of str, optional
        Intention tags the user brought for this instruction.
    split : "train", "dev" or "test", optional
        The side the user chose for this row; None leaves it to the hash of the input.
    tools : tuple of Tool, optional
        The tools that the conversation may call.
    """

    instruction: str
    input: str = ""
    outputs: tuple[str, ...] = ()
    messages: tuple[Message, ...] | None = None
    tags: tuple[str, ...] | None = None
    split: Split | None = None
    tools: tuple[Tool, ...] | None = None

    @property
    def key(self) -> bytes:
        """Key of the whole example; equal keys are exact duplicates (the user's tags and split do not count)."""
        chat = "" if self.messages is None else dump_chat(self.messages, self.tools)
        return key_of("example", normalise(self.instruction), self.input, chat, *self.outputs)

    @property
    def input_key(self) -> bytes:
        """Key by which it takes its side of the split: that of its input, or its instruction where it has none.

        Of a conversation it is all that stands before the answer (but a system message that all conversations share).
        """
        instruction, body = normalise(self.instruction), normalise(self.input)
        if self.messages is not None and body:
            return key_of("chat", instruction, body)
        return key_of("input", body or instruction)


def normalise(text: str) -> str:
    """Text as it is compared: NFC, runs of white space as one space, trimmed.

    >>> normalise("  two\\n words ")
    'two words'
    """
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


def key_of(*parts: str) -> bytes:
    """128-bit key of a sequence of texts; ("ab", "c") and ("a", "bc") differ.

    >>> key_of("ab", "c") == key_of("a", "bc")
    False
    """
    whole = b"".join([_counted(part.encode("utf-8", "surrogatepass")) for part in parts])
    return blake2b(whole, digest_size=16).digest()


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def instruction_key(instruction: str) -> bytes:
    """Key of an instruction: two instructions that differ in white space only are one."""
    return key_of("instruction", normalise(instruction))


def plain_keys(
    instructions: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[list[bytes], list[bytes]]:
    """`Example.key` and `Example.input_key` of many rows that are no chats, in a third of the time.

    >>> row = Example("Add.", "2 + 2", ("4",))
    >>> plain_keys([row.instruction], [row.input], ["4"]) == ([row.key], [row.input_key])
    True
    """
    known: dict[str, bytes] = {}
    keys, input_keys = [], []
    no_chat, example_begins, input_begins = _counted(b""), _counted(b"example"), _counted(b"input")
    for instruction, body, output in zip(instructions, inputs, outputs, strict=True):
        asked = known.get(instruction)
        if asked is None:
            asked = known[instruction] = _counted(normalise(instruction).encode())
        given = _counted(normalise(body).encode()) if body and not body.isspace() else asked
        whole = b"".join((example_begins, asked, _counted(body.encode()), no_chat, _counted(output.encode())))
        keys.append(blake2b(whole, digest_size=16).digest())
        input_keys.append(blake2b(input_begins + given, digest_size=16).digest())
    return keys, input_keys


def dump_chat(messages: Iterable[Message], tools: Iterable[Tool] | None = None) -> str:
    """A conversation as canonical JSON: its turns, or an object with its tools and its turns."""
    turns = [
        {"role": m["role"], "content": m["content"], **{name: m[name] for name in _BESIDE if name in m}}
        for m in messages
    ]
    return json.dumps({"tools": list(tools), "messages": turns} if tools else turns, ensure_ascii=False)


def load_chat(text: str) -> tuple[tuple[Message, ...], tuple[Tool, ...] | None]:
    """The turns and tools that `dump_chat` wrote."""
    found = json.loads(text)
    if isinstance(found, list):
        return tuple(found), None
    return tuple(found["messages"]), tuple(found["tools"])


def said(message: Message) -> str:
    """A turn as plain text: its content, and each call as a line of JSON.

    >>> call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    >>> said({"role": "assistant", "content": "", "tool_calls": [call]})
    '{"name": "add", "arguments": {"a": 1}}'
    """
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join([message["content"], *calls] if message["content"] else calls)


def render_turns(turns: Sequence[Message]) -> str:
    """The turns as plain text; a single user turn is just its text.

    >>> render_turns([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}])
    'user: Hello\\n\\nassistant: Hi'
    """
    if len(turns) == 1 and turns[0]["role"] == "user":
        return said(turns[0])
    return "\n\n".join(f"{turn['role']}: {said(turn)}" for turn in turns)
