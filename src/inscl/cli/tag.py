"""inscl tag"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inscl.cli.application import command
from inscl.cli.options import AskingOptions, OutputOptions, WorkingOptions, complete_task
from inscl.cli.printing import print_json, say
from inscl.cli.view import StageProgress

if TYPE_CHECKING:
    from inscl.engine import Engine
    from inscl.llm.client import Asker
    from inscl.memory.retagging import Done, Work
    from inscl.tags.model import Tagging

_OPENAI = "https://api.openai.com/v1"  # asked only when named: instructions do not leave the machine by default

_Prices = tuple[float | None, float | None]  # per million tokens asked and answered


class _Kind(StrEnum):
    """Who tags."""

    KEYPHRASE = "keyphrase"
    SERVER = "server"
    LOCAL = "local"


@dataclass(frozen=True)
class _TaggerOptions:
    """Who tags, and how it is asked."""

    tagger: Annotated[_Kind, typer.Option("--tagger", help="Who tags.")] = _Kind.KEYPHRASE
    model: Annotated[
        str | None, typer.Option("--model", help="The server's name for it; locally a Hub id, folder or smollm2-135m.")
    ] = None
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Limit of an answer.")] = 256

    def check(self, address: str | None, *, batch: bool, dry_run: bool) -> None:
        """Say what is missing before anything is read."""
        if batch and self.tagger is not _Kind.SERVER:
            raise typer.BadParameter("--batch-out and --batch-in need --tagger server and --model.")
        if self.tagger is not _Kind.KEYPHRASE and self.model is None:
            raise typer.BadParameter(f"--tagger {self.tagger} needs --model, the name of the model that tags.")
        if self.tagger is _Kind.SERVER and address is None and not (batch or dry_run):
            raise typer.BadParameter(f"--tagger server needs --server, such as http://localhost:8000/v1 or {_OPENAI}.")

    def identity(self) -> str:
        """Who tags, as tags remember it."""
        from inscl.models.loading import identity
        from inscl.tags.keyphrase import KeyphraseTagger
        from inscl.tags.model import model_identity

        if self.tagger is _Kind.KEYPHRASE:
            return KeyphraseTagger().identity
        model = str(self.model)
        return model_identity(model if self.tagger is _Kind.SERVER else identity(model))

    def asker(self, asking: AskingOptions, store: Path | None = None) -> "Asker":
        """Who asks the server; OpenAI's where none is named, which only a batch's questions may go to."""
        return asking.asker(asking.address or _OPENAI, str(self.model), store, self.max_tokens)


@command("inscl tag --tagger server --server http://localhost:11434/v1 --model qwen3 --dry-run")
def tag(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Tasks to tag; without, all remembered ones.", autocompletion=complete_task
        ),
    ] = None,
    *,
    tagger: _TaggerOptions,
    asking: AskingOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would ask and cost; ask nothing.")] = False,
    price_in: Annotated[float | None, typer.Option("--price-in", min=0, help="Per million tokens asked.")] = None,
    price_out: Annotated[float | None, typer.Option("--price-out", min=0, help="Per million tokens answered.")] = None,
    batch_out: Annotated[
        Path | None, typer.Option("--batch-out", help="Write the questions for OpenAI's Batch API instead.")
    ] = None,
    batch_in: Annotated[Path | None, typer.Option("--batch-in", help="Take the answers from its result file.")] = None,
    memory: WorkingOptions,
    output: OutputOptions,
) -> None:
    """Tag the instructions of remembered tasks: offline, through an OpenAI-compatible server, or by a local model.

    Tags that you brought stay, and what the same tagger has tagged is not tagged again. The old tags stand until all
    new ones are there; killed in between, the same command goes on without asking twice.
    """
    from inscl.libraries import prepare_libraries
    from inscl.memory.retagging import tag_memory, work_for
    from inscl.tags.batch import write_batch

    prepare_libraries()
    tagger.check(asking.address, batch=batch_out is not None or batch_in is not None, dry_run=dry_run)
    kept, identity = memory.open(quiet=output.quiet).existing(), tagger.identity()
    if dry_run or batch_out is not None:
        work = work_for(kept, names or None, identity)
        if batch_out is not None and not dry_run:
            write_batch(batch_out, work.instructions, tagger.asker(asking))
        found = _estimate(work, tagger.tagger, (price_in, price_out))
    else:
        make = _tags_of(tagger, asking, batch_in, kept.engine, quiet=output.quiet)
        found = _summary(tag_memory(kept, names or None, identity, make), (price_in, price_out))
    if output.json:
        print_json(found)
    else:
        _print(found)


def _tags_of(
    who: _TaggerOptions, asking: AskingOptions, batch_in: Path | None, engine: "Engine", *, quiet: bool
) -> "Callable[[dict[bytes, str], Path], Tagging]":
    """What makes tags of instructions, with a file for what was answered already."""
    from inscl.tags.batch import read_batch
    from inscl.tags.keyphrase import KeyphraseTagger
    from inscl.tags.model import Tagging, tag_with

    offline, model = KeyphraseTagger(), str(who.model)

    def make(instructions: dict[bytes, str], store: Path) -> "Tagging":
        if batch_in is not None:
            return read_batch(batch_in, instructions, model, offline)
        if who.tagger is _Kind.KEYPHRASE:
            return Tagging.by(offline, instructions, engine)
        with StageProgress(quiet=quiet) as view:
            tell = view.counting("tagging")
            if who.tagger is _Kind.SERVER:
                return tag_with(who.asker(asking, store), instructions, offline, tell)
            from inscl.tags.local import LocalModel

            return tag_with(LocalModel(model, store, most_tokens=who.max_tokens), instructions, offline, tell)

    return make


def _estimate(work: "Work", tagger: _Kind, prices: _Prices) -> dict[str, Any]:
    from inscl.tags.prompt import tag_question

    tokens = 0, 0
    if tagger is not _Kind.KEYPHRASE:
        tokens = work.estimate(lambda text: tag_question(text).messages[0]["content"])
    return {
        "tagger": work.tagger,
        "questions": len(work.instructions),
        "already": work.already,
        "own": work.own,
        "tokens_in": tokens[0],
        "tokens_out": tokens[1],
        "cost": _cost(*tokens, prices),
    }


def _summary(done: "Done", prices: _Prices) -> dict[str, Any]:
    tagging = done.tagging
    return {
        "tagger": done.work.tagger,
        **{how.replace(" ", "_"): count for how, count in tagging.counts().items()},
        "reasons": tagging.reasons(),
        "left": len(done.work.instructions) - len(tagging.tagged),
        "skipped_lines": tagging.skipped,
        "already": done.work.already,
        "own": done.work.own,
        "questions": tagging.questions,
        "tokens_in": tagging.tokens_in,
        "tokens_out": tagging.tokens_out,
        "cost": _cost(tagging.tokens_in, tagging.tokens_out, prices),
        "tasks": done.tasks,
    }


def _cost(tokens_in: int, tokens_out: int, prices: _Prices) -> float | None:
    """What tokens cost, in the currency of the prices; None without prices."""
    if prices == (None, None):
        return None
    return (tokens_in * (prices[0] or 0.0) + tokens_out * (prices[1] or 0.0)) / 1e6


def _print(found: dict[str, Any]) -> None:
    cost = "" if found["cost"] is None else f", {found['cost']:.4f} at your prices"
    tokens = f"{found['tokens_in']:,} tokens in, {found['tokens_out']:,} out{cost}"
    say(f"tagger: {found['tagger']}")
    if "tasks" in found:
        _print_tagged(found, tokens)
    else:
        say(f"to ask: {found['questions']:,} questions, about {tokens}")
    alone = (("own", "with your own tags"), ("already", "already tagged by it"))
    if kept := [f"{found[name]:,} {what}" for name, what in alone if found[name]]:
        say(f"left alone: {', '.join(kept)}")


def _print_tagged(found: dict[str, Any], tokens: str) -> None:
    """What was done, where something was."""
    repaired = f" ({found['repaired']:,} after a repair)" if found["repaired"] else ""
    instead = f", {found['fell_back']:,} by the offline tagger instead" if found["fell_back"] else ""
    say(f"tagged: {found['tagged'] + found['repaired']:,} instructions{repaired}{instead}")
    for reason, count in found["reasons"].items():
        say(f"  instead {count:,}: {reason}")
    for reason, count in found["skipped_lines"].items():
        say(f"  lines left out {count:,}: {reason}")
    if found["left"]:
        say(f"left as they were: {found['left']:,} instructions that the file does not answer")
    if found["questions"]:
        say(f"asked: {found['questions']:,} questions, {tokens}")
    say(f"changed: {', '.join(found['tasks']) or 'no task'}")
