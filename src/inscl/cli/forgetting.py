"""inscl forgetting"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inscl.cli.application import command
from inscl.cli.options import AskingOptions, EncoderOption, OutputOptions
from inscl.cli.printing import print_json, print_table, remark, say, shorten
from inscl.cli.view import StageProgress

if TYPE_CHECKING:
    from inscl.core.stats import Estimate
    from inscl.experiments.results import TableRow
    from inscl.forgetting.analysis import Analysis, ForgettingLine
    from inscl.llm.client import Asker

_REPLIES = "judge_replies.jsonl"  # in the run's folder
_ANSWER_TOKENS = 200  # a verdict is one short JSON object
_WIDTH = 100  # of an example's line


@command("inscl forgetting runs/first --examples 3")
def forgetting(
    run: Annotated[Path, typer.Argument(help="Folder of an `inscl run` or `inscl demo`.")],
    *,
    judge: Annotated[str, typer.Option("--judge", help="Who judges the answers: offline or server.")] = "offline",
    model: Annotated[str | None, typer.Option("--model", help="Model on that server.")] = None,
    asking: AskingOptions,
    ever_right: Annotated[
        float, typer.Option("--ever-right", help="A row was right with a best earlier score of at least this.")
    ] = 0.5,
    drop: Annotated[
        float, typer.Option("--drop", help="It is forgotten when its score lies at least this much lower now.")
    ] = 0.3,
    stage: Annotated[
        str, typer.Option("--stage", help="Judge the forgotten rows of the last stage or of all of them.")
    ] = "last",
    examples: Annotated[int, typer.Option("--examples", min=0, help="Examples to show of each task.")] = 2,
    encoder: EncoderOption = None,
    output: OutputOptions,
) -> None:
    """Tell what a run's models forgot, and whether they still attempt it.

    Writes forgetting.parquet, forgetting.csv and forgotten.parquet into the run's folder.
    """
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.forgetting.analysis import analyse
    from inscl.forgetting.rates import ForgettingRule
    from inscl.memory.encoder import SentenceEncoder

    rule = ForgettingRule(ever_right=ever_right, drop=drop)
    with StageProgress(quiet=output.quiet) as view:
        found = analyse(
            run,
            judge=_judge(judge, run, model, asking),
            rule=rule,
            stage=stage,  # type: ignore[arg-type]  # it is checked there
            encoder=SentenceEncoder(encoder) if encoder else None,
            progress=view.counting("judging"),
        )
    found.write()
    for note in found.notes:
        remark(f"note: {note}")
    if output.json:
        print_json(found.to_dict(examples))
    else:
        _print_analysis(found, examples)
    output.remark(
        f"every rate: {run / 'forgetting.parquet'} and forgetting.csv; every forgotten row: forgotten.parquet"
    )


def _judge(name: str, run: Path, model: str | None, asking: AskingOptions) -> "Asker | None":
    """Who asks the server that judges; None is the offline judge."""
    from inscl.errors import ConfigError

    if name == "offline":
        if asking.server or model:
            raise ConfigError("`--server` and `--model` belong to `--judge server`; the offline judge asks nobody.")
        return None
    if name != "server":
        raise ConfigError(f"`--judge` must be offline or server, got {name!r}.")
    if not (asking.address and model):
        raise ConfigError(
            "`--judge server` needs `--server` and `--model`, such as http://localhost:8000/v1 and its model."
        )
    return asking.asker(asking.address, model, run / _REPLIES, _ANSWER_TOKENS)


def _print_analysis(found: "Analysis", examples: int) -> None:
    """Rates per task and strategy, then examples."""
    several = any(line.streams > 1 for line in found.lines)
    columns = [("task", "left"), ("strategy", "left"), *([("streams", "right")] if several else [])]
    columns += [("forgotten", "right"), ("per cent (95 %)", "right"), ("unrelated", "right")]
    print_table(columns, [_cells(line, several) for line in found.lines])
    say(_legend(found))
    for line in found.lines:
        if line.task is None and line.forgotten and line.forgotten.count:
            say(f"{_strategy(line)}: {_reasons(line)}")
    for task, rows in found.examples(examples).items():
        say(f"\n{shorten(task, _WIDTH)}")
        for row in rows:
            say(_example(row))


def _cells(line: "ForgettingLine", several: bool) -> tuple[object, ...]:
    lost, other = line.forgotten, line.unrelated
    return (
        "all" if line.task is None else line.task,
        _strategy(line),
        *([line.streams] if several else []),
        _count(lost) or "0 of 0",
        _per_cent(lost),
        _count(other),
    )


def _strategy(line: "ForgettingLine") -> str:
    return " ".join(filter(None, [line.strategy, line.budget]))


def _reasons(line: "ForgettingLine") -> str:
    counts = {**line.reasons, **({"not judged": line.not_judged} if line.not_judged else {})}
    return ", ".join(f"{n} {reason}" for reason, n in counts.items())


def _count(share: "Estimate | None") -> str:
    return "" if share is None else f"{share.count} of {share.n}"


def _per_cent(share: "Estimate | None") -> str:
    if share is None or share.ends is None:
        return ""
    spread = f"{100 * share.ends[0]:.0f} … {100 * share.ends[1]:.0f}" if share.enough else "too few to tell"
    return f"{100 * share.mean:.0f} ({spread})"


def _legend(found: "Analysis") -> str:
    rule = found.rule
    return (
        f"forgotten: rows once right (score of at least {rule.ever_right:g} at an earlier stage) that score at least "
        f"{rule.drop:g} lower at the last stage, of all once right. unrelated: of these, answers that do not attempt "
        f"the task (judge: {found.judge})."
    )


def _example(row: "TableRow") -> str:
    where = " ".join(filter(None, [row["strategy"], row["budget"], f"seed {row['seed']}, stage {row['stage']}"]))
    verdict = f"{row['kind'] or 'not judged'}: {row['reason']}"
    lines = [f"  {where}, {verdict}"]
    for name in ("instruction", "input", "reference", "once", "now"):
        text = "(not kept)" if row[name] is None else shorten(row[name], _WIDTH) or "(empty)"
        lines.append(f"    {name:<11} {text}")
    return "\n".join(lines)
