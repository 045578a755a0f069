"""Options that several commands share: each is declared here, once, with its default, and what it asks for is made.

A command takes a group of them as one parameter (see `inscl.cli.application.command`).
"""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inscl.cli.printing import remark
from inscl.errors import ConfigError, DataError, PlanError, short
from inscl.suggest import suggest

if TYPE_CHECKING:
    from inscl.data.readers import ReadReport
    from inscl.engine import Engine
    from inscl.evaluation.server import Server
    from inscl.llm.client import Asker
    from inscl.memory.memory import Memory
    from inscl.replay.budget import Budget
    from inscl.training.config import StageConfig


@dataclass(frozen=True)
class OutputOptions:
    """What a command says."""

    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.")] = False

    def remark(self, message: str) -> None:
        """A line on standard error, unless the command is to be quiet."""
        if not self.quiet:
            remark(message)

    def read(self, report: "ReadReport | None") -> None:
        """What was kept of some data and what was not, if any were read."""
        if report is None or self.quiet:
            return

        remark(report.drops)
        if ignored := report.unused:
            remark(ignored)


# --- The memory.


@dataclass(frozen=True)
class MemoryOptions:
    """Which memory."""

    memory: Annotated[
        str, typer.Option("--memory", envvar="INSCL_MEMORY", help="Folder or object-store URI of the memory.")
    ] = "memory"

    def open(self, *, quiet: bool = False) -> "Memory":
        """The memory, which need not exist, with progress and notices on standard error."""
        return _open_memory(self.memory, getattr(self, "encoder", None), getattr(self, "engine", _LOCAL), quiet)


EncoderOption = Annotated[
    str | None, typer.Option("--encoder", envvar="INSCL_ENCODER", help="Sentence encoder: Hub id or folder.")
]


@dataclass(frozen=True)
class EncodingOptions(MemoryOptions):
    """Which memory, and who encodes what it does not know yet."""

    encoder: EncoderOption = None


_LOCAL = "local"
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        envvar="INSCL_ENGINE",
        metavar="ENGINE",
        help="Who works: local, or a cluster of Ray, as ray or ray:HOST:PORT (docs/scale.md).",
    ),
]


@dataclass(frozen=True)
class WorkingOptions(EncodingOptions):
    """Which memory, who encodes, and on which machines that, tagging and distances are done."""

    engine: EngineOption = _LOCAL


def engine_of(text: str, workers: int | None = None) -> "Engine | None":
    """The engine that `--engine` names; None for what is done without one."""
    name, _, address = text.partition(":")
    if name == "ray":
        from inscl.engine.cluster import Ray

        return Ray(address or None, workers)
    if text != _LOCAL:
        raise ConfigError(f"`--engine` must be local, ray or ray:HOST:PORT, got '{short(text, 80)}'.")
    return None


def _open_memory(path: str, encoder: str | None = None, engine: str = _LOCAL, quiet: bool = False) -> "Memory":
    """The memory at `path`, with progress and notices on standard error."""
    from inscl.memory.encoder import SentenceEncoder
    from inscl.memory.memory import Memory

    def track(steps: Sequence[int]) -> Iterable[int]:
        if quiet or len(steps) < 2 or not sys.stderr.isatty():
            return steps
        from rich.console import Console
        from rich.progress import track as bar

        return bar(steps, description="encoding", console=Console(stderr=True), transient=True)

    return Memory(
        path,
        encoder=SentenceEncoder(encoder) if encoder else None,
        engine=engine_of(engine),
        notice=(lambda message: None) if quiet else remark,
        track=track,
    )


def complete_task(ctx: typer.Context, incomplete: str) -> list[str]:
    """Remembered tasks that begin so, for a shell's completion.

    A shell puts what it is given on the command line as it stands. Names are strangers' text, so those with a
    character that a shell could act on (a space, a quote, `$`) are left out.
    """
    try:
        names = [info.name for info in _open_memory(ctx.params.get("memory") or "memory", quiet=True).tasks()]
    except Exception:  # a shell that completes has no place for a message
        return []
    return [name for name in names if name.startswith(incomplete) and re.fullmatch(r"\w[\w./@+,-]*", name)]


TaskArgument = Annotated[str, typer.Argument(help="Name of the task.", autocompletion=complete_task)]


# --- The data of a task.


def _complete_format(incomplete: str) -> list[str]:
    from inscl.data.readers import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


def _known_format(name: str | None) -> str | None:
    if name is not None:
        from inscl.data.readers import FORMATS

        if name not in FORMATS:
            raise DataError(
                f"There is no format '{name}' to read; wanted one of {', '.join(FORMATS)}.{suggest(name, FORMATS)}"
            )
    return name


@dataclass(frozen=True)
class DataOptions:
    """How the data of a task are read and split."""

    categories: Annotated[
        str | None,
        typer.Option("--categories", help="Category map of a Super-NaturalInstructions checkout; NAME is a category."),
    ] = None
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Format of DATA (jsonl, alpaca, messages, sharegpt, superni, …); else detected.",
            callback=_known_format,
            autocompletion=_complete_format,
        ),
    ] = None
    instruction_field: Annotated[
        str | None,
        typer.Option("--instruction-field", help="Field (in chats: system or user) that is the instruction."),
    ] = None
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and count lines that do not parse.")] = False
    preferred: Annotated[
        bool,
        typer.Option("--preferred", help="Take the preferred answers of preference data, which is refused otherwise."),
    ] = False
    max_mib: Annotated[
        int | None,
        typer.Option("--max-mib", min=1, help="Most MiB of one record, and what a file may expand to. [default: 64]"),
    ] = None
    tags: Annotated[str | None, typer.Option("--tags", help="File with your own tags: instruction → tags.")] = None
    dev: Annotated[str | None, typer.Option("--dev", help="File of rows to choose by, instead of a hashed share.")] = (
        None
    )
    test: Annotated[
        str | None, typer.Option("--test", help="File of rows to report on, instead of a hashed share.")
    ] = None
    split: Annotated[str, typer.Option("--split", help="Shares train/dev/test of the hashed split, in percent.")] = (
        "70/10/20"
    )

    def source(self, data: list[str], name: str) -> str | list[str]:
        """What is to be read: of a checkout with a category map, the files of the category `name`."""
        if self.categories is None:
            return _as_source(data)
        from inscl.data.superni import superni_files

        found = superni_files(data[0], self.categories)
        if name not in found:
            hint = suggest(name, found) or f" It has {', '.join(found)}."
            raise DataError(f"The category map '{self.categories}' has no category '{name}'.{hint}")
        return [str(file) for file in found[name]]

    def arguments(self) -> dict[str, Any]:
        """The arguments of the same names of `Memory.add`, `plan` and `learn`."""
        from inscl.data.split import Shares
        from inscl.tags import read_tags

        names = ("format", "instruction_field", "skip_bad", "preferred", "max_mib", "dev", "test")
        return {
            "tags": None if self.tags is None else read_tags(self.tags),
            "shares": Shares.parse(self.split),
            **{name: value for name in names if (value := getattr(self, name))},
        }


def _as_source(data: list[str]) -> str | list[str]:
    """One path or Hub id, or several paths."""
    return data[0] if len(data) == 1 else data


# --- Replay.


@dataclass(frozen=True)
class ReplayOptions:
    """How much to replay, and how it is chosen."""

    budget: Annotated[
        str | None, typer.Option("--budget", help="Examples to replay: 200, or 5% of the new rows. [default: 20%]")
    ] = None
    budget_per_task: Annotated[
        str | None, typer.Option("--budget-per-task", help="The same for each earlier task.")
    ] = None
    budget_tokens: Annotated[
        int | None, typer.Option("--budget-tokens", help="Tokens to replay in all (estimated).")
    ] = None
    general: Annotated[
        str | None,
        typer.Option(
            "--general",
            help="Share of the replay for general tasks, such as 10%; where there is none, for inscl's own.",
        ),
    ] = None
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            help="none, random, inscl, inscl-mean, inscl-density, dynamic, insinfo, proportional, prototype-data, "
            "prototype-instruction, diverse-instruction, rotate, steady, inscl-rotate, rgd or surprise; parts follow "
            "with +, as in inscl+carry.",
        ),
    ] = "inscl"
    seed: Annotated[int, typer.Option("--seed", help="Seed of every draw.")] = 0
    weights: Annotated[str, typer.Option("--weights", help="Of instructions in a task: frequency or uniform.")] = (
        "frequency"
    )

    def arguments(self) -> dict[str, Any]:
        """The arguments of the same names of `plan` and `learn`."""
        from inscl.replay.budget import general_share

        general = None if self.general is None else general_share(self.general)
        names = ("strategy", "seed", "weights")
        return {"budget": self._budget(), "general": general, **{name: getattr(self, name) for name in names}}

    def _budget(self) -> "Budget | None":
        """The budget of the three options, of which at most one may be given; None where none is."""
        from inscl.replay.budget import Budget

        total, per_task, tokens = self.budget, self.budget_per_task, self.budget_tokens
        if sum(option is not None for option in (total, per_task, tokens)) > 1:
            raise PlanError("Give only one of --budget, --budget-per-task and --budget-tokens.")
        if tokens is not None:
            return Budget(tokens, "tokens", per_task=False)
        if total is not None:
            return Budget.parse(total)
        return None if per_task is None else Budget.parse(per_task, per_task=True)


# --- Training and scoring.

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML with how to train and score: training, peft, batch_size, scorer, …"),
]
TestRowsOption = Annotated[
    int, typer.Option("--test-rows", min=0, help="Most test rows of each task to score; 0: all.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, help="Models trained side by side, each in a process of its own.")
]


def stage_settings(file: Path | None, **changes: object) -> "StageConfig":
    """The settings of a stage from a file, and what options change of them."""
    from inscl.settings import read_text
    from inscl.training.config import stage_config

    return stage_config("" if file is None else read_text(file), name=str(file or "stage.yaml"), **changes)


# --- Servers.

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="OpenAI-compatible server to ask, such as http://localhost:8000/v1. The key comes from OPENAI_API_KEY.",
    ),
]


def asked_of(server: str, model: str | None) -> "Server":
    """The server to ask for a model's answers, which needs the name of the model."""
    from inscl.evaluation.server import Server

    if model is None:
        raise ConfigError("`--server` needs the name of a model that the server knows: inscl evaluate MODEL --server …")
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"`--server` must be an address such as http://localhost:8000/v1, got {server!r}.")
    return Server(server, model)


@dataclass(frozen=True)
class AskingOptions:
    """A server to put many questions to, and how."""

    server: ServerOption = None
    workers: Annotated[int, typer.Option("--workers", min=1, help="Questions on their way at once.")] = 8
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one attempt.")] = 60.0
    key_variable: Annotated[str, typer.Option("--key-variable", help="Environment variable that holds the key.")] = (
        "OPENAI_API_KEY"
    )
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="Setting not to send: temperature, max_tokens or response_format."),
    ] = None

    @property
    def address(self) -> str | None:
        """The server that was named, here or in the environment."""
        return self.server or os.environ.get("OPENAI_BASE_URL") or None

    def asker(self, url: str, model: str, store: Path | None, most_tokens: int) -> "Asker":
        """Who asks a model of the server at `url`."""
        from inscl.llm.client import Asker

        return Asker(
            url,
            model,
            store,
            workers=self.workers,
            timeout=self.timeout,
            most_tokens=most_tokens,
            key_variable=self.key_variable,
            without=self.without or (),
        )
