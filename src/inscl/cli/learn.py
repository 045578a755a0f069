"""inscl learn"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inscl.cli.application import command
from inscl.cli.evaluate import score_of
from inscl.cli.options import (
    ConfigOption,
    DataOptions,
    EncodingOptions,
    OutputOptions,
    ReplayOptions,
    TestRowsOption,
    stage_settings,
)
from inscl.cli.plan import print_plan
from inscl.cli.printing import print_json, print_table, remark, say, score_cells

if TYPE_CHECKING:
    from inscl.replay.plan import Plan
    from inscl.replay.planner import Replay
    from inscl.stages.learn import Learnt
    from inscl.training.config import StageConfig


@dataclass(frozen=True)
class _TrainingOptions:
    """How to train and score."""

    config: ConfigOption = None
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the mixture. [default: 3]")] = None
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate. [default: 2e-5]")] = None
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Rows of a step over all devices. [default: 32]")
    ] = None
    test_rows: TestRowsOption = 200

    def settings(self) -> "StageConfig":
        """The settings of the file, changed by the options."""
        given = {"num_train_epochs": self.epochs, "learning_rate": self.lr}
        training = {key: value for key, value in given.items() if value}
        return stage_settings(self.config, batch_size=self.batch_size, training=training)


@command("inscl learn billing invoices.jsonl --model smollm2-135m --budget 200")
def learn(
    name: Annotated[str, typer.Argument(help="Name of the new task.")],
    data: Annotated[list[str], typer.Argument(help="Its data, as for `inscl add`.")],
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Hub id, folder or smollm2-135m. [default: model of the last finished stage]"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the new model. [default: models/NAME]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and the cost; train nothing.")] = False,
    show_row: Annotated[
        bool, typer.Option("--show-row", help="Show one row of each form, token by token, as it is trained.")
    ] = False,
    replay: ReplayOptions,
    training: _TrainingOptions,
    reading: DataOptions,
    memory: EncodingOptions,
    output: OutputOptions,
) -> None:
    """One stage: plan, mix, train, score old and new tasks, remember. The same command goes on if interrupted."""
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    settings = training.settings()
    options = replay.arguments() | reading.arguments()
    source = reading.source(data, name)
    if dry_run:
        with _planned(memory, output, name, source, options) as made:
            if show_row:
                _show_rows(made, model)
            _print_cost(made.plan, settings, output.json)
        return
    from inscl.cli.view import StageProgress
    from inscl.stages.learn import learn as learn_stage

    with StageProgress(quiet=output.quiet) as view:
        done = learn_stage(
            memory.open(quiet=output.quiet),
            name,
            source,
            model=model,
            out=out,
            config=settings,
            test_rows=training.test_rows or None,
            say=output.remark,
            show=remark if show_row else (lambda line: None),
            progress=view.show,
            **options,
        )
    if output.json:
        print_json(_as_json(done, settings))
    else:
        _print_learnt(done, settings)


@contextmanager
def _planned(
    memory: EncodingOptions, output: OutputOptions, name: str, source: Any, options: Mapping[str, Any]
) -> "Iterator[Replay]":
    """What the stage would train on, as long as the context lasts."""
    from inscl.replay.planner import plan

    kept = memory.open(quiet=output.quiet)
    with TemporaryDirectory(prefix="inscl-") as empty:  # stands for a memory that the first task has yet to make
        seen = kept if kept.tasks() else replace(memory, memory=empty).open(quiet=output.quiet)
        made = plan(seen, name, source, **options)
        output.read(made.report)
        yield made


def _show_rows(replay: "Replay", model: str | None) -> None:
    from inscl.stages.learn import checked_rows

    for row in checked_rows(replay, model or replay.memory.last_model()):
        for line in row.lines():
            remark(line)


def _print_cost(made: "Plan", settings: "StageConfig", json: bool) -> None:
    epochs = float(settings.training.get("num_train_epochs", 3))
    rows, tokens = made.new.rows + made.count, made.new.tokens + made.tokens
    steps = int(settings.training.get("max_steps", -1))
    if steps < 1:
        steps = math.ceil(epochs * math.ceil(rows / settings.batch_size))
    if json:
        print_json({"plan": made.to_dict(), "rows": rows, "steps": steps, "tokens": round(tokens * epochs)})
        return
    print_plan(made)
    say(
        f"Training: {epochs:g} epochs, {steps:,} steps of {settings.batch_size} rows, about {tokens * epochs:,.0f} "
        "tokens. Nothing was trained or changed."
    )


def _print_learnt(done: "Learnt", settings: "StageConfig") -> None:
    """What changed, task by task."""
    heads = [("task", "left"), ("before", "right"), ("after", "right"), ("change", "right"), ("95 % interval", "right")]
    rows = []
    for task, after in done.after.items():
        before, now = done.before[task].mean(settings.scorer), after.estimate(settings.scorer)
        label = f"{task} (new)" if task == done.plan.name else task
        shown, interval = score_cells(now)
        rows.append((label, f"{100 * before:.1f}", shown, f"{100 * (now.mean - before):+.1f}", interval, now.n))
    print_table([*heads, ("rows", "right")], rows, title=f"{settings.scorer} x 100 on test rows")
    record = done.record
    say(
        f"Trained on {done.plan.new.rows:,} new and {done.plan.count:,} replayed rows: {record['tokens']:,} tokens, "
        f"{record['steps']:,} steps, {record['seconds']:,.0f} s."
    )
    cut, left_out = (sum(record.get(key, {}).values()) for key in ("truncated", "skipped"))
    if cut or left_out:
        say(f"note: {cut:,} rows lost the end of their input, {left_out:,} did not fit and were left out")
    say(f"Model: {done.folder}; '{done.plan.name}' is remembered. The next `inscl learn` starts from here.")


def _as_json(done: "Learnt", settings: "StageConfig") -> dict[str, Any]:
    return {
        "name": done.plan.name,
        "model": str(done.folder),
        "continued": done.continued,
        "replayed": done.plan.count,
        "before": {task: score_of(scores, settings.scorer) for task, scores in done.before.items()},
        "after": {task: score_of(scores, settings.scorer) for task, scores in done.after.items()},
        "training": {key: value for key, value in done.record.items() if key != "losses"},
    }
