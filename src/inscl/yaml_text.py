"""YAML 1.2 with the line of every value, so that a problem can be shown where it stands.

`ruamel.yaml` reads the text; what it found becomes plain data here. A key that occurs twice, a value that is not what
it is marked as, or a mark that nobody knows is a problem with a line, beside all others. A date is a text.
"""

import warnings
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from inscl.errors import ConfigError

KeyPath = tuple[str | int, ...]  # the keys and indices that lead to a value
Problem = tuple[int, str]  # line and text

_LONGEST = 300_000  # characters
_DEEPEST = 50
_MOST_VALUES = 100_000  # aliases counted as often as they stand
_TAG, _MERGE = "tag:yaml.org,2002:", "tag:yaml.org,2002:merge"


@dataclass
class LinedYaml:
    """What a YAML text says, and where.

    Attributes
    ----------
    data : the value of the document
    lines : mapping from place (all its parts as text) to the line of that entry, counted from 1
    problems : list of Problem
        What was read but cannot be meant.
    """

    data: Any = None
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, place: KeyPath) -> int:
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
        If the text is not YAML, or beyond all bounds; the message names the line.

    Examples
    --------
    >>> source = read_yaml("a: 1\\nb:\\n- 1e-4\\n")
    >>> source.data, source.line_of(("b", 0))
    ({'a': 1, 'b': [0.0001]}, 3)
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"this has {len(text):,} characters; wanted at most {_LONGEST:,}.")
    reader = YAML(typ="safe", pure=True)
    reader.Composer = _Composer
    found = LinedYaml()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML allows it: the nearest one above counts
            node = reader.compose(text)
        if node is not None:
            found.data = _Builder(found, reader.constructor).value(node, ())
    except MarkedYAMLError as error:
        raise ConfigError(f"line {_line(error, text)}: this is not YAML: {error.problem or error.context}.") from error
    except YAMLError as error:
        raise ConfigError(f"this is not YAML: {str(error).splitlines()[0]}.") from error
    return found


def dotted(place: KeyPath) -> str:
    """A place as it is said in a message.

    >>> dotted(("budgets", 0, "tokens"))
    'budgets[0].tokens'
    """
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).removeprefix(".")


def _line(error: MarkedYAMLError, text: str) -> int:
    """Line of an error; what is never closed is told where it begins, and not at the end of the text."""
    end = len(text.rstrip())
    marks = sorted(filter(None, (error.problem_mark, error.context_mark)), key=lambda mark: mark.index >= end)
    return int(marks[0].line) + 1 if marks else 1


class _Composer(Composer):
    """Stops at nesting that no configuration needs, before it costs time."""

    depth = 0

    def compose_node(self, parent: object, index: object) -> Any:
        self.depth += 1
        if self.depth > _DEEPEST:
            mark = self.parser.peek_event().start_mark
            raise MarkedYAMLError(problem="it is nested too deeply to be read", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Builder:
    """Turns nodes into plain data, and notes lines and problems on the way."""

    def __init__(self, found: LinedYaml, constructor: object) -> None:
        self.found, self.constructor = found, constructor
        self.values = 0
        self.around: list[Node] = []  # the nodes that the one at hand stands in

    def value(self, node: Node, place: KeyPath) -> Any:
        self.values += 1
        if self.values > _MOST_VALUES:
            raise MarkedYAMLError(problem=f"it has more than {_MOST_VALUES:,} values", problem_mark=node.start_mark)
        if node in self.around:
            return self.problem(node, f"`{dotted(place)}`: an alias stands inside what it stands for.")
        kind = str(node.tag).removeprefix(_TAG)
        if kind not in _KINDS[type(node)]:
            return self.problem(node, f"this is not YAML: could not determine a constructor for the tag '{node.tag}'.")
        if isinstance(node, ScalarNode):
            return self.scalar(node, kind, place)
        self.around.append(node)
        try:
            return self.mapping(node, place) if isinstance(node, MappingNode) else self.sequence(node, place)
        finally:
            self.around.pop()

    def problem(self, node: Node, text: str) -> None:
        self.found.problems.append((node.start_mark.line + 1, text))

    def scalar(self, node: ScalarNode, kind: str, place: KeyPath) -> Any:
        if kind in ("str", "timestamp"):
            return node.value
        try:
            return getattr(self.constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, KeyError, IndexError):
            self.problem(node, f"`{dotted(place)}` is {node.value!r:.60}, which is no {kind}.")

    def sequence(self, node: Node, place: KeyPath) -> list[Any]:
        return [self.entry((*place, i), child, child) for i, child in enumerate(node.value)]

    def mapping(self, node: Node, place: KeyPath) -> dict[Any, Any]:
        merged: dict[object, object] = {}
        own: dict[object, object] = {}
        for key_node, child in node.value:
            if key_node.tag == _MERGE:
                merged = {**self.merged(child, place), **merged}
                continue
            key = self.value(key_node, place)
            if not isinstance(key, Hashable):
                self.problem(key_node, "this is not YAML: found unhashable key.")
            elif key in own:
                self.problem(key_node, f"`{dotted((*place, str(key)))}` stands twice; keep one.")
            else:
                own[key] = self.entry((*place, str(key)), key_node, child)
        return {**merged, **own}

    def merged(self, node: Node, place: KeyPath) -> dict[Any, Any]:
        """What ``<<`` brings: a mapping, or several of which the first ones count more."""
        parts = self.value(node, place)
        listed = parts if isinstance(parts, list) else [parts]
        if not all(isinstance(part, dict) for part in listed):
            self.problem(node, f"`{dotted((*place, '<<'))}` wants keys and values.")
            return {}
        return {key: value for part in reversed(listed) for key, value in part.items()}

    def entry(self, place: KeyPath, shown: Node, node: Node) -> Any:
        """A value inside another; `shown` is where it stands for a reader."""
        self.found.lines[tuple(map(str, place))] = shown.start_mark.line + 1
        return self.value(node, place)


_KINDS: dict[type[Node], tuple[str, ...]] = {
    ScalarNode: ("null", "bool", "int", "float", "str", "timestamp"),
    SequenceNode: ("seq",),
    MappingNode: ("map",),
}
