"""Twelve tasks of twelve instructions each, generated from a seed: streams on which the choice of rows can matter.

A task is one question asked in three ways, times four forms that its answer may be wanted in. Whoever forgets a form
answers wrongly in it, and rehearsing another form does not bring it back; whoever forgets a task gets all its forms
wrong. Inputs are short and each has one right answer, so that exact match says all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from inscl.data.example import Example, Split
from inscl.demo.tasks import Rng, draw, draw_several, review, rows_of_sides, split_words

_Facts = Mapping[str, object]  # what the answer's form is filled with


@dataclass(frozen=True)
class _FormTask:
    """A question in several wordings, the forms of its answer, and how an input is made.

    Attributes
    ----------
    asks : tuple of str
        Wordings of the question.
    forms : mapping of str to str
        How the answer is wanted, as an instruction says it, to the answer with the facts' names in braces.
    make : callable
        An input and its facts.
    """

    asks: tuple[str, ...]
    forms: Mapping[str, str]
    make: Callable[[Rng], tuple[str, _Facts]]

    @property
    def instructions(self) -> list[tuple[str, str]]:
        """Every instruction with the form of its answer; the forms take turns."""
        return [(f"{ask} {said}", form) for ask, (said, form) in product(self.asks, self.forms.items())]

    def say(self, turn: int, facts: _Facts) -> tuple[str, str]:
        """Instruction and answer of a row."""
        instructions = self.instructions
        instruction, form = instructions[turn % len(instructions)]
        return instruction, form.format_map(facts)


def form_tasks(seed: int = 0, *, train: int = 72, dev: int = 24, test: int = 48) -> dict[str, list[Example]]:
    """Make the twelve tasks.

    Every row carries its side. No input occurs twice in a task, and the twelve instructions of a task take turns, so
    that each side holds all of them evenly. With the same seed, `train` may change and the test and dev rows stay.

    Parameters
    ----------
    seed, train, dev, test
        As for `inscl.demo.tasks.demo_tasks`; the three sides together are at most 400.

    Returns
    -------
    dict of str to list of Example
        The tasks by name; each task's training rows come first.

    Examples
    --------
    >>> rows = form_tasks(seed=0)["price"]
    >>> print(rows[0].instruction, rows[0].input, rows[0].outputs, sep="\\n")
    What does the wanted item cost? Answer as a sum of coins.
    tea 40 | pepper 7 | flour 33 | wanted: pepper
    ('7 coins',)
    """
    sizes: dict[Split, int] = {"test": test, "dev": dev, "train": train}
    if min(sizes.values()) < 0 or sum(sizes.values()) > 400:
        raise ValueError(f"A task has 0 to 400 rows on its three sides together, got {sizes}.")
    return {
        name: rows_of_sides(sizes, task.make, task.say, np.random.default_rng([seed, 100 + number]))
        for number, (name, task) in enumerate(FORM_TASKS.items())
    }


_NAMES = split_words("Ada Bruno Clara David Elena Felix Greta Hugo Irene Jonas Karin Lucas Maria Noah Olga Peter")
_CITIES = split_words("Athens Berlin Cairo Dublin Lisbon London Madrid Oslo Paris Prague Rome Vienna Warsaw")
_JOBS = split_words("baker farmer gardener lawyer nurse painter pilot singer tailor teacher")
_GOODS = split_words("bread butter cheese coffee flour honey milk pasta pepper rice salt soap sugar tea water")
_COLOURS = split_words("black blue brown green grey pink purple red white yellow")
_DAYS = split_words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_EVENTS = split_words("concert lecture match meeting parade party show trial tour wedding")
_THINGS = {
    "animal": split_words("bear cat cow dog duck fox goat horse lion mouse pig rabbit sheep tiger wolf"),
    "tool": split_words("axe chisel drill file hammer knife ladder nail needle pliers rake saw scissors spade wrench"),
    "fruit": split_words("apple banana cherry date fig grape lemon lime mango melon orange peach pear plum strawberry"),
    "clothing": split_words("belt boot cap coat dress glove hat jacket scarf shirt shoe skirt sock sweater tie"),
}
_FLAVOURS = split_words("big clean cold dark dry heavy new old small soft strange warm wet young")
_TRIPS = split_words("bus car ferry plane ship taxi train tram truck van")


def _opinion(rng: Rng) -> tuple[str, _Facts]:
    text, bad = review(rng)
    names = ("word", "mood", "stars", "verdict")
    values = ("negative", "unhappy", 1, "avoid") if bad else ("positive", "happy", 5, "recommend")
    return text, dict(zip(names, values, strict=True))


def _price(rng: Rng) -> tuple[str, _Facts]:
    goods = draw_several(rng, _GOODS, 3)
    prices = [int(i) + 2 for i in rng.permutation(48)[:3]]
    asked = int(rng.integers(3))
    table = " | ".join(f"{good} {price}" for good, price in zip(goods, prices, strict=True))
    return f"{table} | wanted: {goods[asked]}", {"price": prices[asked], "good": goods[asked]}


def _kind(rng: Rng) -> tuple[str, _Facts]:
    kind = draw(rng, list(_THINGS))
    thing, flavour, colour = draw(rng, _THINGS[kind]), draw(rng, _FLAVOURS), draw(rng, _COLOURS)
    return f"a {flavour} {colour} {thing}", {"kind": kind, "code": kind[0].upper(), "thing": thing}


def _person(rng: Rng) -> tuple[str, _Facts]:
    name, job, city = draw(rng, _NAMES), draw(rng, _JOBS), draw(rng, _CITIES)
    return f"{name} works as a {job} in {city}.", {"name": name, "job": job, "city": city}


def _event(rng: Rng) -> tuple[str, _Facts]:
    event, day, hour = draw(rng, _EVENTS), draw(rng, _DAYS), int(rng.integers(1, 13))
    return f"The {event} starts on {day} at {hour} o'clock.", {"event": event, "day": day, "hour": hour}


def _older(rng: Rng) -> tuple[str, _Facts]:
    first, second = draw_several(rng, _NAMES, 2)
    low, high = sorted(int(i) + 10 for i in rng.permutation(80)[:2])
    ages = (low, high) if rng.integers(2) else (high, low)
    older, younger = (first, second) if ages[0] > ages[1] else (second, first)
    return f"{first} is {ages[0]} and {second} is {ages[1]}.", {"older": older, "younger": younger, "age": high}


def _list_end(rng: Rng) -> tuple[str, _Facts]:
    words = draw_several(rng, [*_GOODS, *_TRIPS], 4)
    return ", ".join(words), {"first": words[0], "last": words[-1]}


def _travel(rng: Rng) -> tuple[str, _Facts]:
    start, goal = draw_several(rng, _CITIES, 2)
    by = draw(rng, _TRIPS)
    return f"from {start} to {goal} by {by}", {"start": start, "goal": goal, "by": by}


def _colour(rng: Rng) -> tuple[str, _Facts]:
    kind = draw(rng, list(_THINGS))
    colour, thing = draw(rng, _COLOURS), draw(rng, _THINGS[kind])
    return f"{draw(rng, _NAMES)} bought a {colour} {thing}.", {"colour": colour, "thing": thing}


def _order(rng: Rng) -> tuple[str, _Facts]:
    name, good = draw(rng, _NAMES), draw(rng, _GOODS)
    number = int(rng.integers(2, 30))
    return f"{name} orders {number} boxes of {good}", {"name": name, "good": good, "number": number}


def _meeting(rng: Rng) -> tuple[str, _Facts]:
    host, guest = draw_several(rng, _NAMES, 2)
    day = draw(rng, _DAYS)
    return f"On {day} {host} invites {guest} to dinner.", {"host": host, "guest": guest, "day": day}


def _room(rng: Rng) -> tuple[str, _Facts]:
    room, floor = int(rng.integers(1, 10)), int(rng.integers(1, 10))
    thing = draw(rng, _THINGS["tool"])
    return f"The {thing} is in room {room} on floor {floor}.", {"room": room, "floor": floor, "thing": thing}


FORM_TASKS: Mapping[str, _FormTask] = {
    "opinion": _FormTask(
        ("Is the guest pleased?", "Classify the sentiment of this review.", "Does the text praise or complain?"),
        {
            "Say positive or negative.": "{word}",
            "Say happy or unhappy, with an exclamation mark.": "{mood}!",
            "Give one or five stars as a number out of five.": "{stars}/5",
            "Say recommend or avoid, after a dash.": "- {verdict}",
        },
        _opinion,
    ),
    "price": _FormTask(
        ("What does the wanted item cost?", "Read the table and find the price.", "How much must the buyer pay?"),
        {
            "Answer as a sum of coins.": "{price} coins",
            "Put the number in round brackets.": "({price})",
            "Name the item, then the number after an equals sign.": "{good}={price}",
            "Write a short bill with the word total.": "total: {price}",
        },
        _price,
    ),
    "kind": _FormTask(
        ("What kind of thing is this?", "Sort the object into its category.", "Animal, tool, fruit or clothing?"),
        {
            "Answer in one word.": "{kind}",
            "Give the first letter of the category only.": "{code}",
            "Write the object, an arrow and the category.": "{thing} -> {kind}",
            "Answer with a hashtag.": "#{kind}",
        },
        _kind,
    ),
    "person": _FormTask(
        ("Who is described here?", "Turn the sentence into a card.", "Extract the details of this worker."),
        {
            "Put name and job on either side of a slash.": "{name}/{job}",
            "Give the city in square brackets.": "[{city}]",
            "Begin with Dear, as a letter would.": "Dear {name},",
            "Say the job and the city, joined by @.": "{job}@{city}",
        },
        _person,
    ),
    "event": _FormTask(
        ("When does it begin?", "Make a calendar entry.", "Note the date of this appointment."),
        {
            "Give the day and the hour, separated by a comma.": "{day}, {hour}",
            "Give the hour with h behind it.": "{hour}h",
            "Write the event and the day with a plus between.": "{event} + {day}",
            "Give the day in quotation marks.": '"{day}"',
        },
        _event,
    ),
    "older": _FormTask(
        ("Compare the two ages.", "Which of the two people was born first?", "Look at how old they are."),
        {
            "Name the older one only.": "{older}",
            "Write the older one, a greater-than sign and the younger one.": "{older} > {younger}",
            "Give the higher age in years.": "{age} years",
            "Tell who is younger with the word junior.": "junior {younger}",
        },
        _older,
    ),
    "list_end": _FormTask(
        ("Look at the ends of this list.", "Take the outer words of the enumeration.", "Shorten the list of words."),
        {
            "Keep the first word and write etc. behind it.": "{first} etc.",
            "Give the last word in curly brackets.": "{{{last}}}",
            "Write the first and the last word with three dots between.": "{first}...{last}",
            "Write the last word, then the first, with & between.": "{last} & {first}",
        },
        _list_end,
    ),
    "travel": _FormTask(
        ("Where does the journey go?", "Write a ticket for this trip.", "Summarise the route."),
        {
            "Use to between the two cities, the goal last, in angle brackets.": "<{start} to {goal}>",
            "Say how they travel, after the word via.": "via {by}",
            "Name the goal with an exclamation mark.": "{goal}!",
            "Name the start after the word leaving.": "leaving {start}",
        },
        _travel,
    ),
    "colour": _FormTask(
        ("What was bought?", "Describe the purchase.", "Look for the object and its colour."),
        {
            "Give the colour between asterisks.": "*{colour}*",
            "Give the object and its colour with a colon between.": "{thing}: {colour}",
            "Name the object after the word one.": "one {thing}",
            "Write the colour twice.": "{colour} {colour}",
        },
        _colour,
    ),
    "order": _FormTask(
        ("Enter the order.", "What shall be delivered?", "Take down what the customer wants."),
        {
            "Give the number, an x and the product.": "{number} x {good}",
            "Give the customer and the number with a bar between.": "{name} | {number}",
            "Name the product with a question mark.": "{good}?",
            "Write box and the number after a hyphen.": "box-{number}",
        },
        _order,
    ),
    "meeting": _FormTask(
        ("Who meets whom?", "Note the invitation.", "Tell about the two people at dinner."),
        {
            "Give host and guest with a tilde between.": "{host} ~ {guest}",
            "Name the guest after the word guest.": "guest {guest}",
            "Give the day only, with a full stop.": "{day}.",
            "Name the host and the day, with a comma between.": "{host}, {day}",
        },
        _meeting,
    ),
    "room": _FormTask(
        ("Where can the thing be found?", "Give directions to the object.", "Locate the item in the house."),
        {
            "Write the floor and the room with a dot between.": "{floor}.{room}",
            "Name the room only, with R before it.": "R{room}",
            "Name the thing and the floor, with at between.": "{thing} at {floor}",
            "Say floor in capitals and its number.": "FLOOR {floor}",
        },
        _room,
    ),
}
