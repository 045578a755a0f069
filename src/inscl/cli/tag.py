"""inscl tag"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inscl.cli.app import (
    EncoderOption,
    JsonOption,
    MemoryOption,
    QuietOption,
    app,
    open_memory,
    print_json,
    remark,
    say,
)

if TYPE_CHECKING:
    from inscl.memory.retagging import Done, Work
    from inscl.tags.model import Tagging

OPENAI = "https://api.openai.com/v1"  # asked only when named: instructions do not leave the machine by default
SECONDS_BETWEEN_LINES = 30.0

Progress = Callable[[int, int], None]


class Kind(StrEnum):
    """Who tags."""

    KEYPHRASE = "keyphrase"
    SERVER = "server"
    LOCAL = "local"


@app.command(epilog="Example: inscl tag --tagger server --base-url http://localhost:11434/v1 --model qwen3 --dry-run")
def tag(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Tasks to tag; without, all remembered ones.")
    ] = None,
    tagger: Annotated[Kind, typer.Option("--tagger", help="Who tags.")] = Kind.KEYPHRASE,
    base_url: Annotated[
        str | None, typer.Option("--base-url", envvar="OPENAI_BASE_URL", help=f"Server, such as {OPENAI}.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The server's name for it; locally a Hub id, folder or smollm2-135m.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Questions on their way at once.")] = 8,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one attempt.")] = 60.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Limit of an answer.")] = 256,
    key_variable: Annotated[
        str, typer.Option("--key-variable", help="Environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="Setting not to send: temperature, max_tokens or response_format."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would ask and cost; ask nothing.")] = False,
    price_in: Annotated[float | None, typer.Option("--price-in", min=0, help="Per million tokens asked.")] = None,
    price_out: Annotated[float | None, typer.Option("--price-out", min=0, help="Per million tokens answered.")] = None,
    batch_out: Annotated[
        Path | None, typer.Option("--batch-out", help="Write the questions for OpenAI's Batch API instead.")
    ] = None,
    batch_in: Annotated[Path | None, typer.Option("--batch-in", help="Take the answers from its result file.")] = None,
    memory: MemoryOption = "memory",
    encoder: EncoderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tag the instructions of remembered tasks: offline, through an OpenAI-compatible server, or by a local model.

    Tags that you brought stay, and what the same tagger has tagged is not tagged again. The old tags stand until all
    new ones are there; killed in between, the same command goes on without asking twice.
    """
    from inscl.libraries import prepare_libraries
    from inscl.llm.client import Asker
    from inscl.memory.retagging import tag_memory, work_for
    from inscl.tags.batch import read_batch, write_batch
    from inscl.tags.keyphrase import KeyphraseTagger
    from inscl.tags.model import model_identity, tag_offline, tag_with

    prepare_libraries()
    batch = batch_out is not None or batch_in is not None
    _check(tagger, base_url, model, batch=batch, dry_run=dry_run)
    kept, offline = open_memory(memory, encoder, quiet).existing(), KeyphraseTagger()
    identity = offline.identity if tagger is Kind.KEYPHRASE else model_identity(_identity(tagger, str(model)))
    prices = price_in, price_out

    def asker(store: Path | None = None) -> Asker:
        return Asker(
            base_url or OPENAI,
            str(model),
            store,
            workers=workers,
            timeout=timeout,
            most_tokens=max_tokens,
            key_variable=key_variable,
            without=without or (),
        )

    def make(instructions: dict[bytes, str], store: Path) -> "Tagging":
        if batch_in is not None:
            return read_batch(batch_in, instructions, str(model), offline)
        if tagger is Kind.KEYPHRASE:
            return tag_offline(offline, instructions)
        with _progress(quiet) as tell:
            if tagger is Kind.SERVER:
                return tag_with(asker(store), instructions, offline, tell)
            from inscl.tags.local import LocalModel

            return tag_with(LocalModel(str(model), store, most_tokens=max_tokens), instructions, offline, tell)

    if dry_run or batch_out is not None:
        work = work_for(kept, names or None, identity)
        if batch_out is not None and not dry_run:
            write_batch(batch_out, work.instructions, asker())
        _print(_estimate(work, tagger, prices), json)
        return
    _print(_summary(tag_memory(kept, names or None, identity, make), prices), json)


def _check(tagger: Kind, base_url: str | None, model: str | None, *, batch: bool, dry_run: bool) -> None:
    """Say what is missing before anything is read."""
    if batch and tagger is not Kind.SERVER:
        raise typer.BadParameter("--batch-out and --batch-in need --tagger server and --model.")
    if tagger is not Kind.KEYPHRASE and model is None:
        raise typer.BadParameter(f"--tagger {tagger} needs --model, the name of the model that tags.")
    if tagger is Kind.SERVER and base_url is None and not (batch or dry_run):
        raise typer.BadParameter(f"--tagger server needs --base-url, such as http://localhost:8000/v1 or {OPENAI}.")


def _identity(tagger: Kind, model: str) -> str:
    if tagger is Kind.SERVER:
        return model
    from inscl.models.loading import identity

    return identity(model)


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress | None]:
    """A bar in a terminal, else a line now and then."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress as Bars

        with Bars(console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task("tagging")
            yield lambda done, total: bars.update(bar, completed=done, total=total)
    else:
        said = [time.monotonic()]

        def tell(done: int, total: int) -> None:
            if time.monotonic() - said[0] >= SECONDS_BETWEEN_LINES:
                said[0] = time.monotonic()
                remark(f"asked {done:,} of {total:,}")

        yield tell


def _estimate(work: "Work", tagger: Kind, prices: tuple[float | None, float | None]) -> dict[str, Any]:
    from inscl.tags.prompt import tag_question

    tokens = 0, 0
    if tagger is not Kind.KEYPHRASE:
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


def _summary(done: "Done", prices: tuple[float | None, float | None]) -> dict[str, Any]:
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


def _cost(tokens_in: int, tokens_out: int, prices: tuple[float | None, float | None]) -> float | None:
    """What tokens cost, in the currency of the prices; None without prices."""
    if prices == (None, None):
        return None
    return (tokens_in * (prices[0] or 0.0) + tokens_out * (prices[1] or 0.0)) / 1e6


def _print(found: dict[str, Any], json: bool) -> None:
    if json:
        print_json(found)
        return
    cost = "" if found["cost"] is None else f", {found['cost']:.4f} at your prices"
    tokens = f"{found['tokens_in']:,} tokens in, {found['tokens_out']:,} out{cost}"
    kept = [
        f"{found[name]:,} {what}"
        for name, what in (("own", "with your own tags"), ("already", "already tagged by it"))
        if found[name]
    ]
    say(f"tagger: {found['tagger']}")
    if "tasks" not in found:
        say(f"to ask: {found['questions']:,} questions, about {tokens}")
    else:
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
    if kept:
        say(f"left alone: {', '.join(kept)}")
