"""One training example, and the keys by which texts and examples are known.

A key is a 128-bit BLAKE2b hash of normalised content: the same content has the same key in every task, file,
process and machine. Keys order things wherever an order must not depend on how the data arrived.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant" | ..., "content": text}


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
        One or more accepted answers; training uses the first. In chat data: the last assistant turn.
    messages : tuple of {"role", "content"}, optional
        The whole conversation, where the data came in chat form.
    tags : tuple of str, optional
        Intention tags the user brought for this instruction.
    split : "train", "dev" or "test", optional
        The side the user chose for this row; None leaves it to the hash of the input.
    """

    instruction: str
    input: str = ""
    outputs: tuple[str, ...] = ()
    messages: tuple[Message, ...] | None = None
    tags: tuple[str, ...] | None = None
    split: Split | None = None


def normalise(text: str) -> str:
    """Text as it is compared: NFC, runs of white space as one space, trimmed.

    >>> normalise("  two\\n words ")
    'two words'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def key_of(*parts: str) -> bytes:
    """128-bit key of a sequence of texts; ("ab", "c") and ("a", "bc") differ.

    >>> key_of("ab", "c") == key_of("a", "bc")
    False
    """
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def instruction_key(instruction: str) -> bytes:
    """Key of an instruction: two instructions that differ in white space only are one."""
    return key_of("instruction", normalise(instruction))


def input_key(example: Example) -> bytes:
    """Key by which an example takes its side of the split: its input, or its instruction where it has none."""
    return key_of("input", normalise(example.input) or normalise(example.instruction))


def example_key(example: Example) -> bytes:
    """Key of the whole example; equal keys are exact duplicates (the user's tags and split do not count)."""
    chat = "" if example.messages is None else dump_messages(example.messages)
    return key_of("example", normalise(example.instruction), example.input, chat, *example.outputs)


def dump_messages(messages: Sequence[Message]) -> str:
    """The conversation as canonical JSON."""
    return json.dumps([{"role": m["role"], "content": m["content"]} for m in messages], ensure_ascii=False)
