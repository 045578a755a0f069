"""Small stand-ins that tests share: an encoder and a tagger that need no model, and made-up rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from inscl.tags.clean import MergedTags, TagSpace


def flip(file: Path, at: int) -> None:
    """Change one byte of a file."""
    raw = bytearray(file.read_bytes())
    raw[at] ^= 0x10
    file.write_bytes(raw)


def merge_tags(
    tag_sets: Sequence[Iterable[str]], embed: Callable[[list[str]], np.ndarray], **options: float
) -> MergedTags:
    """The tags of one pool alone, merged in a space that has met no other."""
    return TagSpace(embed, **options).merge(tag_sets)


def conversation(system: str, *turns: str) -> tuple[dict[str, str], ...]:
    """Messages: the system's, then the user's and the assistant's in turns."""
    said = [{"role": "assistant" if i % 2 else "user", "content": turn} for i, turn in enumerate(turns)]
    return ({"role": "system", "content": system}, *said)


class WordEncoder:
    """Bag of hashed words: equal texts have equal embeddings, texts with common words lie close."""

    identity = "words-64"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.seen += texts
        rows = np.full((len(texts), 64), 0.01, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[blake2b(word.encode(), digest_size=1).digest()[0] % 64] += 1
        return rows


class WordTagger:
    """The long words of an instruction."""

    identity = "long-words"

    def __call__(self, instructions: list[str]) -> list[list[str]]:
        return [[word for word in text.split() if len(word) > 5] for text in instructions]


VERBS = ("Summarise", "Translate", "Classify", "Rewrite", "Extract", "Describe", "Correct", "Continue")
THINGS = ("sentence", "paragraph", "invoice", "question", "program", "dialogue", "equation", "headline")


def rows_of(task: str, n: int = 60, instructions: int = 3) -> Iterator[dict[str, object]]:
    """Rows whose every text names the task, so that it can be searched for in bytes."""
    start = blake2b(task.encode(), digest_size=1).digest()[0]
    for i in range(n):
        k = i % instructions
        verb, thing = VERBS[(start + k) % 8], THINGS[(start // 8 + k // 8) % 8]
        yield {
            "instruction": f"{verb} the {thing} about {task} number{k}.",
            "input": f"{task} input {i}",
            "outputs": [f"{task} answer {i}", f"{task} other answer {i}"],
        }
