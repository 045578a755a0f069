"""The application `inscl`: its commands in their order, and how a function becomes one of them."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperGroup

from inscl.cli.printing import say

# The order of `inscl --help`; a test finds a command that stands in no section.
HEADINGS = {
    "Try it": ("demo",),
    "The memory": ("add", "pool", "tag", "survey", "tasks", "show", "remove", "verify"),
    "One stage": ("plan", "mix", "learn", "evaluate", "check"),
    "Experiments": ("run", "watch", "forgetting", "report"),
    "Share": ("push", "pull"),
    "Trouble": ("doctor",),
}
# Spellings of earlier releases, which still work and stand in no help.
_OLD_COMMANDS = {"tags": "survey"}
_OLD_OPTIONS = {"base-url": "server", "compare": "against"}

_Verb = TypeVar("_Verb", bound=Callable[..., int | None])


class _Headings(TyperGroup):
    """The commands in the order in which they are used, under headings."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, _OLD_COMMANDS.get(cmd_name, cmd_name))

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for names in HEADINGS.values() for name in names if name in self.commands]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        width = max(len(name) for name in names)
        for heading, part in HEADINGS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(n.ljust(width), _first_sentence(self.commands[n].help or "")) for n in part if n in names]
                )


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


app = typer.Typer(
    name="inscl",
    cls=_Headings,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"token_normalize_func": lambda name: _OLD_OPTIONS.get(name, name)},
    help="Keep fine-tuning one language model on new instruction data without losing what it already does.\n\n"
    "Example: inscl add support tickets.jsonl",
)


def _version(asked: bool) -> None:
    if asked:
        from inscl import __version__

        say(f"inscl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""


def command(example: str) -> Callable[[_Verb], _Verb]:
    """Make a function a command of its name, whose help ends with an example.

    A parameter whose type is a dataclass stands for one option per field, so that commands share options and their
    defaults by taking the same dataclass (see `inscl.cli.options`).
    """

    def register(verb: _Verb) -> _Verb:
        app.command(epilog=f"Example: {example}")(_with_options_apart(verb))
        return verb

    return register


def _with_options_apart(verb: Callable[..., int | None]) -> Callable[..., int | None]:
    """The function with every option a parameter of its own, as Typer wants it."""
    given = inspect.signature(verb).parameters.values()
    groups: dict[str, Any] = {
        parameter.name: parameter.annotation for parameter in given if is_dataclass(parameter.annotation)
    }

    @wraps(verb)
    def call(**values: Any) -> int | None:
        made = {
            name: group(**{option.name: values.pop(option.name) for option in fields(group)})
            for name, group in groups.items()
        }
        return verb(**values, **made)

    apart = [option for parameter in given for option in _apart(parameter)]
    call.__signature__ = inspect.Signature(apart)  # type: ignore[attr-defined]  # `inspect` looks for it
    return call


def _apart(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """The parameter, by name alone; of a dataclass, one for each field."""
    if not is_dataclass(parameter.annotation):
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    types = get_type_hints(parameter.annotation, include_extras=True)
    for option in fields(parameter.annotation):
        yield inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=types[option.name]
        )
