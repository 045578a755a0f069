"""The commands that README and docs tell people to type, and what they show below them. The standard library alone."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
_OURS = ("inscl", "pip", "make", "python", "torchrun", "accelerate")


@dataclass
class Command:
    """A command of a page, and the output that the page shows below it."""

    page: str
    line: int
    text: str
    output: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def blocks(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """Language, line and lines of each block of code, fenced or indented."""
    language, start, inside, held = "", 0, False, []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            if inside or held:
                yield language, start, held
            inside, language, start, held = not inside, line.strip("` "), number, []
        elif inside:
            held.append(line)
        elif re.match(r" {4}\S", line) and not held:
            language, start, held = "indented", number - 1, [line[4:]]
        elif held and (line.startswith("    ") or not line):
            held.append(line[4:])
        elif held:
            yield language, start, held
            held = []
    if held:
        yield language, start, held


def commands(page: Path) -> list[Command]:
    """The commands of a page, in its order."""
    found: list[Command] = []
    for language, start, lines in blocks(page.read_text(encoding="utf-8")):
        if language not in {"console", "bash", "sh", "shell", "", "indented"}:
            continue
        for number, line in enumerate(lines, start + 1):
            prompt = line.startswith("$ ")
            if prompt or (language != "console" and line.startswith(tuple(f"{name} " for name in _OURS))):
                found.append(Command(page.name, number, line.removeprefix("$ ")))
            elif found and language == "console":
                found[-1].output.append(line)
    return found


def plain(line: str) -> str:
    """A line of output without what may differ: numbers and spaces."""
    return " ".join(re.sub(r"[-+]?\d[\d,.]*", "#", line).split())


def shown(output: list[str]) -> list[str]:
    """The lines that must come out again: the first, and the headings of tables."""
    lines = [line for line in output if line.strip()]
    headings = [above for above, below in pairwise(lines) if set(below.strip()) == {"─"}]
    return [plain(line) for line in (*lines[:1], *headings)]
