"""Seeded mutations of bytes and of JSON values: what a stranger, a torn copy or a bad disk makes of a file."""

import copy
from random import Random
from typing import Any

# What stands where something else was wanted.
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 1e9, 10**9, -0.5, 1.0, 1e308, float("nan"), float("inf"), -float("inf"), 2**63,
    -(2**63), 10**40, "", " ", "x", "0", "-1", "\x00", "\x9b31m", "\x1b]0;x\x07", "\ud800", "../../etc/passwd", "=1+1",
    "a" * 3000, [], {}, [[]], [None], [1], ["x"], [{}], {"a": 1}, {"": []},
)  # fmt: skip
NAMES = ("", "x", "a", "name", "tasks", "rows", "role", "content", "tags", "__class__", "source", "data")
PIECES = (
    b"", b"{", b"}", b"[", b"[" * 3000, b'{"a":' * 1500, b'"', b"\\", b",", b":", b"null", b"NaN", b"1e999", b"-0",
    b"9" * 5000, b"\\ud800", b"\\u009b", b"\xff", b"\xc3", b"\x00", b"\n", b"\r", b"\t", b" ", b"\xef\xbb\xbf", b"- ",
    b"&a ", b"*a", b"!!int ", b"!!binary ", b"<<: ", b"? ", b"| ", b"2026-13-45", b"0x", b"1_0", b"#", b"%", b"---\n",
    b"'", b"=", b";", b"</think>", b"```json\n",
)  # fmt: skip


def mutated(rng: Random, value: Any) -> Any:
    """A copy of a JSON value with something in it changed, left out, put in or put in the place of another thing."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return _other(rng, value)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    new, what = copy.copy(value), rng.random()
    if what < 0.75:
        new[key] = mutated(rng, value[key])
    elif what < 0.85:
        del new[key]
    elif isinstance(new, dict):
        new[rng.choice(NAMES)] = rng.choice(ODD)
    else:
        new.insert(key, rng.choice([*ODD, *value]))
    return new


def _other(rng: Random, value: Any) -> Any:
    """Something near a value, or anything."""
    if rng.random() < 0.3 and isinstance(value, str):
        place = rng.randrange(len(value) + 1)
        return value[:place] + rng.choice(("", "x", "\x00", "\x9b", "\ud800", "'")) + value[place + rng.randrange(3) :]
    if rng.random() < 0.3 and isinstance(value, int | float):
        return rng.choice((-value, value + 1, value * 10**9, value / 7, str(value)))
    return copy.deepcopy(rng.choice(ODD))


def mutated_bytes(rng: Random, seed: bytes) -> bytes:
    """Bytes with one to three places flipped, left out, repeated, overwritten or cut off."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, length, what = rng.randrange(len(seed) + 1), rng.choice((0, 1, 2, 5, 20)), rng.random()
        if what < 0.25:
            seed = seed[:at] + bytes([rng.randrange(256)]) + seed[at + 1 :]
        elif what < 0.75:
            seed = seed[:at] + rng.choice(PIECES) + seed[at + length :]
        elif what < 0.9:
            seed = seed[:at] + seed[at : at + length] + seed[at:]
        else:
            seed = seed[:at]
    return seed
