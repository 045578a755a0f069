"""Six small tasks, written for the demo and generated from a seed.

Each takes a short text and wants a short answer in a form of its own, so that a model trained on one task is
wrong on the others unless it remembers them. The inputs look alike on purpose: three tasks read a sentence,
three a list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from inscl.data.example import SPLITS, Example, Split

Rng = np.random.Generator
_Pair = tuple[str, str]  # an input and its answer, or an instruction and its answer
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class _DemoTask:
    """How a task may be worded, and how one input with its answer is made."""

    instructions: tuple[str, ...]
    make: Callable[[Rng], _Pair]

    def say(self, turn: int, answer: str) -> _Pair:
        """Instruction and answer of a row; the instructions take turns."""
        return self.instructions[turn % len(self.instructions)], answer


def demo_tasks(seed: int = 0, *, train: int = 120, dev: int = 20, test: int = 60) -> dict[str, list[Example]]:
    """Make the six demo tasks.

    Every row carries its side of the split. No input occurs twice, within a task or across tasks. The
    instructions of a task take turns, so that each side holds all of them evenly. Held-out rows are drawn
    first: with the same seed, `train` may change and the test and dev rows stay.

    Parameters
    ----------
    seed : int
        Other seeds give other rows of the same tasks.
    train, dev, test : int
        Rows on each side of each task; together at most 500.

    Returns
    -------
    dict of str to list of Example
        The tasks by name, in the order of the demo's stream; each task's training rows come first.

    Raises
    ------
    ValueError
        If a side is negative, or the three are more than the vocabulary gives.

    Examples
    --------
    >>> tasks = demo_tasks(seed=0)
    >>> list(tasks)
    ['review_opinion', 'reverse_words', 'record_field', 'smaller_unit', 'passive_voice', 'price_list']
    >>> tasks["smaller_unit"][0].instruction
    'Convert the measure in the sentence to the next smaller unit.'
    """
    sizes: dict[Split, int] = {"test": test, "dev": dev, "train": train}
    if min(sizes.values()) < 0 or sum(sizes.values()) > 500:
        raise ValueError(f"A demo task has 0 to 500 rows on its three sides together, got {sizes}.")
    return {
        name: rows_of_sides(sizes, task.make, task.say, np.random.default_rng([seed, number]))
        for number, (name, task) in enumerate(TASKS.items())
    }


def rows_of_sides(
    sizes: Mapping[Split, int], make: Callable[[Rng], tuple[str, _Made]], say: Callable[[int, _Made], _Pair], rng: Rng
) -> list[Example]:
    """The rows of one task, with distinct inputs, training rows first: `make` is called until there are enough.

    Parameters
    ----------
    sizes : mapping from side to int
        Rows of each side, in the order in which they are drawn.
    make : callable
        An input, and what its answer is told from.
    say : callable
        Instruction and answer of a side's row, from its place among them and what `make` gave.
    rng : numpy.random.Generator
    """
    made: dict[str, _Made] = {}
    while len(made) < sum(sizes.values()):
        text, told = make(rng)
        made[text] = told
    remaining = iter(made.items())
    sides: dict[Split, list[Example]] = {}
    for split, size in sizes.items():
        sides[split] = []
        # `zip` asks the range first: when that ends, no row is lost.
        for turn, (text, told) in zip(range(size), remaining, strict=False):
            instruction, answer = say(turn, told)
            sides[split].append(Example(instruction, text, (answer,), split=split))
    return [row for split in SPLITS for row in sides[split]]


def split_words(words: str) -> tuple[str, ...]:
    """Words of a vocabulary, written in one line."""
    return tuple(words.split())


def draw(rng: Rng, items: Sequence[str]) -> str:
    """One of the items."""
    return items[int(rng.integers(len(items)))]


def draw_several(rng: Rng, items: Sequence[str], count: int) -> list[str]:
    """`count` different items in random order."""
    return [items[int(i)] for i in rng.permutation(len(items))[:count]]


# --- review_opinion: is the writer pleased?

_OPINIONS = {  # thing: (praise, complaint)
    "soup": ("tasty delicious", "cold bland"),
    "waiter": ("friendly helpful", "rude careless"),
    "room": ("bright tidy", "dirty damp"),
    "bed": ("comfortable soft", "hard broken"),
    "film": ("moving funny", "boring silly"),
    "music": ("lovely beautiful", "awful loud"),
    "garden": ("pretty peaceful", "neglected ugly"),
    "bus": ("punctual clean", "late crowded"),
    "guide": ("cheerful patient", "grumpy impatient"),
    "coffee": ("excellent fresh", "weak stale"),
    "view": ("wonderful splendid", "disappointing poor"),
    "staff": ("kind attentive", "unfriendly lazy"),
}
_REVIEWS = (
    "The {} was {} and the {} was {}.",
    "We found the {} {} and the {} {}.",
    "They said the {} was {} and the {} {}.",
)


def review(rng: Rng) -> tuple[str, bool]:
    """Two things, both praised or both complained of, and whether it is the latter."""
    bad = int(rng.integers(2))
    first, second = draw_several(rng, list(_OPINIONS), 2)
    adjectives = [draw(rng, _OPINIONS[thing][bad].split()) for thing in (first, second)]
    return draw(rng, _REVIEWS).format(first, adjectives[0], second, adjectives[1]), bool(bad)


def _review_opinion(rng: Rng) -> _Pair:
    text, bad = review(rng)
    return text, ("negative" if bad else "positive")


# --- reverse_words: write a list from its end

_WORDS = split_words(
    "apple arrow basket bridge candle castle desk dragon engine elbow forest finger garden guitar hammer "
    "honey island jacket jungle kettle kite ladder lemon mirror mountain needle nest orange oven pencil "
    "pillow queen quilt rabbit ribbon saddle summer table tiger umbrella uncle valley violin window zebra"
)


def _reverse_words(rng: Rng) -> _Pair:
    """Four different words."""
    words = draw_several(rng, _WORDS, 4)
    return ", ".join(words), " < ".join(reversed(words))


# --- record_field: read one field of a record

_NAMES = split_words("Ada Bruno Clara David Elena Felix Greta Hugo Irene Jonas Karin Lucas Maria Noah Olga Peter")
_CITIES = split_words("Athens Berlin Cairo Dublin Helsinki Lisbon London Madrid Oslo Paris Prague Rome Vienna Warsaw")
_JOBS = split_words("baker carpenter dentist farmer gardener lawyer nurse painter pilot plumber singer tailor teacher")
_COLOURS = split_words("black blue brown green grey orange pink purple red white yellow")


def _record_field(rng: Rng) -> _Pair:
    """A record of three fields in random order, and the name of one of them."""
    values = {
        "name": draw(rng, _NAMES),
        "city": draw(rng, _CITIES),
        "job": draw(rng, _JOBS),
        "colour": draw(rng, _COLOURS),
    }
    fields = draw_several(rng, list(values), 3)
    asked = draw(rng, fields)
    record = "; ".join(f"{field} = {values[field]}" for field in fields)
    return f"{record}. Field: {asked}", f"[{values[asked]}]"


# --- smaller_unit: convert a measure to the next smaller unit

_UNITS = {  # unit: (next smaller unit, how many of them)
    "kilometres": ("metres", 1000),
    "metres": ("centimetres", 100),
    "kilograms": ("grams", 1000),
    "euros": ("cents", 100),
}
_MEASURES = {  # unit: sentences about something that is measured so
    "kilometres": ("The road is {} long.", "The lake is {} away.", "The race is {} long."),
    "metres": ("The rope is {} long.", "The wall is {} wide.", "The tower is {} high."),
    "kilograms": ("The parcel weighs {}.", "The dog weighs {}.", "The stone weighs {}."),
    "euros": ("The ticket costs {}.", "The lamp costs {}.", "The coat costs {}."),
}


def _smaller_unit(rng: Rng) -> _Pair:
    """A sentence with a whole number of 2 to 99 units."""
    unit = draw(rng, list(_UNITS))
    smaller, factor = _UNITS[unit]
    number = int(rng.integers(2, 100))
    sentence = draw(rng, _MEASURES[unit]).format(f"{number} {unit}")
    return sentence, f"{number * factor} {smaller}"


# --- passive_voice: rewrite a sentence in the passive

_PEOPLE = split_words(
    "baker boy cook dancer doctor driver farmer gardener girl guard judge nurse painter pilot sailor singer "
    "student teacher waiter writer"
)
_ACTIONS = (  # past tense, past participle, things it is done to; a thing in -s is plural
    ("broke", "broken", ("cup", "chair", "windows")),
    ("built", "built", ("boat", "shed", "walls")),
    ("carried", "carried", ("box", "ladder", "bags")),
    ("chose", "chosen", ("song", "colour", "flowers")),
    ("cleaned", "cleaned", ("floor", "kitchen", "shoes")),
    ("closed", "closed", ("gate", "door", "shutters")),
    ("drew", "drawn", ("map", "horse", "circles")),
    ("found", "found", ("key", "coin", "gloves")),
    ("hid", "hidden", ("letter", "ring", "sweets")),
    ("lost", "lost", ("ball", "wallet", "papers")),
    ("opened", "opened", ("tin", "drawer", "envelopes")),
    ("painted", "painted", ("fence", "bench", "doors")),
    ("sold", "sold", ("bicycle", "clock", "tickets")),
    ("stole", "stolen", ("car", "necklace", "plates")),
    ("threw", "thrown", ("rope", "hat", "snowballs")),
    ("washed", "washed", ("bowl", "blanket", "towels")),
    ("wrote", "written", ("story", "note", "poems")),
)


def _passive_voice(rng: Rng) -> _Pair:
    """A person did something to one thing or to several."""
    past, participle, things = _ACTIONS[int(rng.integers(len(_ACTIONS)))]
    person, thing = draw(rng, _PEOPLE), draw(rng, things)
    be = "were" if thing.endswith("s") else "was"
    return f"The {person} {past} the {thing}.", f"The {thing} {be} {participle} by the {person}."


# --- price_list: answer from a small table

_GOODS = split_words("bread butter cheese coffee eggs flour honey jam milk pasta pepper rice salt soap sugar tea water")


def _price_list(rng: Rng) -> _Pair:
    """Three goods with different prices of 2 to 49 coins, and one of them."""
    goods = draw_several(rng, _GOODS, 3)
    prices = [int(i) + 2 for i in rng.permutation(48)[:3]]
    asked = int(rng.integers(3))
    table = " | ".join(f"{good} {price}" for good, price in zip(goods, prices, strict=True))
    return f"{table} | wanted: {goods[asked]}", f"pay {prices[asked]} coins"


TASKS: dict[str, _DemoTask] = {
    "review_opinion": _DemoTask(
        (
            "Is the opinion in this review positive or negative?",
            "Label the review: positive or negative.",
            "Decide whether the guest was pleased. Answer positive or negative.",
            "Classify the sentiment as positive or negative.",
            "Does the text praise or complain? Reply positive or negative.",
        ),
        _review_opinion,
    ),
    "reverse_words": _DemoTask(
        (
            "Write the words in reverse order, joined by <.",
            "Reverse this list, with < between the words.",
            "Start with the last word and end with the first; separate them with <.",
            "Turn the list around, using < as the separator.",
            "List the words backwards with < signs.",
        ),
        _reverse_words,
    ),
    "record_field": _DemoTask(
        (
            "Extract the requested field of the record, in square brackets.",
            "Give the value of the named field between [ and ].",
            "Look up the field in this record; answer in brackets.",
            "What does the record say for the field at the end? Use brackets.",
            "Copy the value that belongs to the field name, inside [ ].",
        ),
        _record_field,
    ),
    "smaller_unit": _DemoTask(
        (
            "Convert the measure in the sentence to the next smaller unit.",
            "Express the quantity in the unit one step smaller.",
            "How much is that in the next smaller unit?",
            "Rewrite the amount in a finer unit; give the number and the unit.",
            "State the measurement again, using the next unit down.",
        ),
        _smaller_unit,
    ),
    "passive_voice": _DemoTask(
        (
            "Rewrite the sentence in the passive voice.",
            "Turn this active sentence into a passive one.",
            "Say the same in the passive, naming who did it at the end.",
            "Change the verb from active to passive.",
            "Make the object of the sentence its subject.",
        ),
        _passive_voice,
    ),
    "price_list": _DemoTask(
        (
            "Read the price table and say what to pay for the wanted item.",
            "How many coins does the wanted item cost?",
            "Find the wanted article in the table and tell its price.",
            "A customer asks for one item. State the amount due.",
            "Use the prices to answer what the buyer owes.",
        ),
        _price_list,
    ),
}
