"""Tagging the instructions of a memory anew: what there is to do, doing it, and committing it at the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inscl.data.example import key_of
from inscl.memory.task import OWN_TAGS, estimate_tokens
from inscl.tags.model import Tagging

if TYPE_CHECKING:
    from inscl.memory.memory import Memory

_TOKENS_OUT = 60  # of an answer, roughly: eight tags in JSON


@dataclass(frozen=True)
class Work:
    """What a tagger has to do in a memory.

    Attributes
    ----------
    tagger : str
        Its identity.
    instructions : dict of bytes to str
        Texts by key that it has not tagged yet, each once, whichever tasks have them.
    already : int
        Distinct instructions that it has tagged.
    own : int
        Distinct instructions whose tags the user brought; they are left alone.
    """

    tagger: str
    instructions: dict[bytes, str]
    already: int
    own: int

    def estimate(self, question: Callable[[str], str]) -> tuple[int, int]:
        """Tokens in and out, roughly, of asking each instruction once."""
        tokens_in = sum(estimate_tokens(question(text)) for text in self.instructions.values())
        return tokens_in, _TOKENS_OUT * len(self.instructions)


@dataclass(frozen=True)
class Done:
    """What was done, and the tasks that it changed."""

    work: Work
    tagging: Tagging
    tasks: list[str]


def work_for(memory: "Memory", names: Sequence[str] | None, tagger: str) -> Work:
    """What a tagger has to do in some tasks (None: in all)."""
    instructions: dict[bytes, str] = {}
    already: set[bytes] = set()
    own: set[bytes] = set()
    for task in memory.open(names):
        whole = task.instructions
        for key, text, (_, by) in zip(whole.keys, whole.texts, task.tagged(), strict=True):
            if by == OWN_TAGS:
                own.add(key)
            elif by == tagger:
                already.add(key)
            else:
                instructions.setdefault(key, text)
    return Work(tagger, instructions, len(already - instructions.keys()), len(own - instructions.keys()))


def tag_memory(
    memory: "Memory", names: Sequence[str] | None, tagger: str, tag: Callable[[dict[bytes, str], Path], Tagging]
) -> Done:
    """Tag what a tagger has not tagged yet, and commit all of it at once.

    Parameters
    ----------
    memory : Memory
    names : sequence of str, optional
        Tasks; None takes all.
    tagger : str
        Identity of the tagger.
    tag : callable
        Tags instructions, given by key; may keep what it learns in the file it is given, which lies with the memory
        until the tags are committed.
    """
    memory.existing()
    store = memory.asked / f"{key_of('tagger', tagger).hex()}.jsonl"
    with memory.reading():  # a removal waits, and then finds all that was written about its task
        work = work_for(memory, names, tagger)
        tagging = tag(work.instructions, store) if work.instructions else Tagging({})
    made = {key: (one.tags, one.by) for key, one in tagging.tagged.items()}
    changed = memory.retag(made, tagger, names) if made else []
    store.unlink(missing_ok=True)
    return Done(work, tagging, [info.name for info in changed])
