"""A record whose fields are counted: what no reader asks for is told, so that nothing vanishes in silence."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


class UnusableError(Exception):
    """A record that parses but cannot become an example; the text is the reason."""


class Fields:
    """A record that remembers which of its fields were used.

    Parameters
    ----------
    record : mapping
    ignored : set of str
        Takes the names of what is not used, of parts of the record too.
    inside : str
        Name of the field that the record stands in, for a part of another record.
    """

    def __init__(self, record: Mapping[str, object], ignored: set[str], inside: str = "") -> None:
        self.record, self.ignored, self.inside = record, ignored, inside
        self._used: set[str] = set()

    def get(self, name: str) -> Any:
        """The value of a field, which is used from now on; None where there is none."""
        self._used.add(name)
        return self.record.get(name)

    def first(self, names: tuple[str, ...]) -> tuple[str, Any]:
        """The first of these fields that is there, and its value; the others are not used."""
        for name in names:
            if self.record.get(name) is not None:
                return name, self.get(name)
        return names[0], None

    def all(self, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        """All of these fields that are there."""
        return ((name, self.get(name)) for name in names if self.record.get(name) is not None)

    def close(self) -> None:
        """Count the fields that nobody used and that hold something."""
        for name in self.record.keys() - self._used:
            if not is_empty(self.record[name]):
                self.ignored.add(f"{self.inside}.{name}" if self.inside else str(name))


def is_empty(value: object) -> bool:
    """Whether a value says nothing: absent, blank or without entries (0 and False do say something)."""
    return value is None or (isinstance(value, str) and not value.strip()) or (_is_group(value) and not value)


def _is_group(value: object) -> bool:
    return isinstance(value, (list, tuple, dict))


def decoded(value: object) -> Any:
    """What a text holds that is a JSON list or object; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
