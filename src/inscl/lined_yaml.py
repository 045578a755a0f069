"""YAML with the line of every value, so that a problem can be shown where it stands.

Two departures from PyYAML's safe loading: ``1e-4`` is a number (as in YAML 1.2; PyYAML reads a text), and a
key that occurs twice is a problem and not a silent loss.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from inscl.errors import ConfigError

Place = tuple[str | int, ...]  # the keys and indices that lead to a value


@dataclass(frozen=True)
class LinedYaml:
    """What a YAML text says, and where.

    Attributes
    ----------
    data : the value of the document
    lines : mapping from place (all its parts as text) to the line of that entry, counted from 1
    repeated : places of keys that occur again, with the line of the repeat
    """

    data: Any
    lines: dict[tuple[str, ...], int]
    repeated: list[tuple[Place, int]]

    def line_of(self, place: Place) -> int:
        """Line of the entry, or of the nearest one around it."""
        inner = tuple(map(str, place))
        while inner and inner not in self.lines:
            inner = inner[:-1]
        return self.lines.get(inner, 1)


def read_yaml(text: str) -> LinedYaml:
    """Read one YAML document.

    Raises
    ------
    ConfigError
        If the text is not YAML; the message names the line.

    Examples
    --------
    >>> source = read_yaml("a: 1\\nb:\\n- 1e-4\\n")
    >>> source.data, source.line_of(("b", 0))
    ({'a': 1, 'b': [0.0001]}, 3)
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return LinedYaml(None, {}, [])
        lines: dict[tuple[str, ...], int] = {}
        repeated: list[tuple[Place, int]] = []
        for place, line in _walk(node, (), set()):
            if place in lines:
                repeated.append((place, line))
            lines[place] = line
        return LinedYaml(loader.construct_document(node), lines, repeated)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"line {line}: this is not YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"this is not YAML: {str(error).splitlines()[0]}.") from error
    except RecursionError as error:
        raise ConfigError("this is nested too deeply to be read.") from error


def _walk(node: yaml.Node, place: tuple[str, ...], seen: set[int]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every entry below a node with its line: of a mapping's entry, the line of its key."""
    if id(node) in seen:  # an alias of what was walked already, perhaps of itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _walk(value, inner, seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*place, str(i)), value.start_mark.line + 1
            yield from _walk(value, (*place, str(i)), seen)


class _Loader(yaml.SafeLoader):
    """The safe loader, with YAML 1.2's numbers."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
