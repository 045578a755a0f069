"""Settings as frozen models, read from YAML: every problem of a file is told together, each with its line.

`inscl.training.config` and `inscl.experiments.config` say which settings there are.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from inscl.errors import ConfigError
from inscl.suggest import suggest
from inscl.yaml_text import KeyPath, LinedYaml, Problem, dotted, read_yaml


class Section(BaseModel):
    """A frozen mapping that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # What stands under a key, so that its keys can be suggested.
    nested: ClassVar[Mapping[str | int, type["Section"]]] = {}

    @classmethod
    def read(
        cls,
        text: str,
        name: str,
        more: Callable[[Mapping[str, object], LinedYaml], list[Problem]] = lambda data, source: [],
    ) -> Self:
        """Settings from YAML.

        Parameters
        ----------
        text : str
        name : str
            How a message calls the text.
        more : callable, optional
            Finds problems that single values do not show.

        Raises
        ------
        ConfigError
            If the text cannot be used: one message, with one line per problem in the order of the text.
        """
        try:
            source = read_yaml(text)
        except ConfigError as error:
            raise ConfigError(f"{name}, {error}") from error
        needed = any(field.is_required() for field in cls.model_fields.values())
        data = {} if source.data is None and not needed else source.data
        if not isinstance(data, dict):
            raise ConfigError(f"{name} wants keys and values such as `model: smollm2-135m`, got {data!r:.60}.")
        problems = list(source.problems)
        try:
            settings = cls.model_validate(data)
        except ValidationError as error:
            problems += _problems(error, source, cls)
        problems += more(data, source)
        if problems:
            problems += [(source.line_of(place), text) for place, text in cls.deeper_problems(data)]
            raise ConfigError(_together(name, problems))
        return settings

    def changed(self, name: str, **changes: object) -> Self:
        """The settings with some values changed, and checked like those of a file, which a message calls `name`.

        Raises
        ------
        ConfigError
            With a sentence per problem.
        """
        data = {name: getattr(self, name) for name in self.model_fields_set} | changes
        try:
            return self.model_validate(data)
        except ValidationError as error:
            told = [_problem(detail, LinedYaml(), type(self))[1] for detail in error.errors()]
            told += [text for _, text in self.deeper_problems(data)]
            raise ConfigError(f"{name}: {' '.join(told)}") from error

    @classmethod
    def deeper_problems(cls, data: Mapping[str, object]) -> list[tuple[KeyPath, str]]:
        """What only heavy libraries can tell; asked for where something else is wrong, so that all is told at once."""
        return []


def member(name: str, known: Collection[str]) -> str:
    """The name, where it is known.

    Raises
    ------
    ValueError
        If it is not; the message names what there is, and the nearest.
    """
    if name not in known:
        raise ValueError(f"got '{name}'; wanted one of {', '.join(known)}.{suggest(name, known)}")
    return name


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


_LARGEST = 2**32 - 1  # that every library takes for a seed
Count = Annotated[int, Field(strict=True, ge=1, le=_LARGEST)]
Natural = Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]
Fraction = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]  # one alone needs no list


def _together(name: str, problems: Collection[Problem]) -> str:
    """One message with a line per problem, in the order of the text."""
    lines = [f"  line {line}: {text}" for line, text in sorted(problems)]
    many = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
    return "\n".join([f"{name} has {many}:", *lines])


def read_text(path: str | Path) -> str:
    """The text of a file of settings.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error}.") from error


def _problems(error: ValidationError, source: LinedYaml, model: type[Section]) -> list[Problem]:
    """What pydantic found wrong. A list whose entries are wrong counts as empty too, which says nothing new."""
    told = [d for d in error.errors() if not (d["type"] == "too_short" and d["input"])]
    return [_problem(detail, source, model) for detail in told]


def _problem(detail: ErrorDetails, source: LinedYaml, model: type[Section]) -> Problem:
    """Line and text of one thing that pydantic found wrong."""
    # Tags of a union and pydantic's mark of a key are no keys of the file.
    place: KeyPath = tuple(p for p in detail["loc"] if not (p == "[key]" or str(p).startswith("<")))
    line, where = source.line_of(place), dotted(place)
    match detail["type"]:
        case "missing":
            return line, f"`{where}` is missing."
        case "extra_forbidden":
            key = detail["loc"][-1]  # of the file, whatever it begins with
            return (
                line,
                f"`{where or key}` is not known here.{suggest(str(key), _keys_at(detail['loc'], model))}",
            )
        case "value_error":
            text = str(detail["ctx"]["error"])
            return line, f"`{where}` {text}" if where and not text.startswith("`") else text
        case _:
            return line, f"`{where}` is {detail['input']!r:.60}; wanted {_wanted(detail)}."


_WANTED: dict[str, str] = {
    "int_type": "a whole number",
    "string_type": "a text",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "tuple_type": "a list",
    "too_short": "at least one entry",
    "string_too_short": "a text that is not empty",
}


def _wanted(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "greater_than_equal":
            return f"at least {context['ge']}"
        case "less_than_equal":
            return f"at most {context['le']}"
        case "literal_error":
            return f"{context['expected']}"
        case kind:
            return _WANTED.get(kind, detail["msg"])


def _keys_at(place: tuple[str | int, ...], model: type[Section]) -> list[str]:
    """Keys that were possible beside an unknown one."""
    inner = [model.nested[p] for p in place[:-1] if p in model.nested]
    return list((inner[0] if inner else model).model_fields)
