"""The everyday instructions that come with inscl: what any assistant can do, for whoever has no general data.

They are of our own writing, under inscl's licence, and lie beside this module as JSON lines.
"""

import json
from functools import cache
from importlib.resources import files

from inscl.data.example import Example


@cache
def everyday() -> tuple[Example, ...]:
    """All of them, in the order of the file."""
    lines = files("inscl.data").joinpath("everyday.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(_example(**json.loads(line)) for line in lines)


def _example(instruction: str, output: str, input: str = "") -> Example:
    return Example(instruction=instruction, input=input, outputs=(output,))
