"""inscl learn"""

import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inscl.cli.app import (
    DevOption,
    EncoderOption,
    FieldOption,
    FormatOption,
    JsonOption,
    MaxMibOption,
    MemoryOption,
    PreferredOption,
    QuietOption,
    SkipBadOption,
    SplitOption,
    TagsOption,
    TestOption,
    app,
    as_source,
    open_memory,
    print_json,
    print_table,
    remark,
    say,
    table_of,
    tell_read,
)
from inscl.cli.plan import (
    BudgetOption,
    PerTaskOption,
    SeedOption,
    StrategyOption,
    TokensOption,
    parse_budget,
    print_plan,
)

if TYPE_CHECKING:
    from inscl.evaluation.scores import RowScores
    from inscl.replay.plan import Plan
    from inscl.replay.planner import Replay
    from inscl.stages.learn import Learnt
    from inscl.training.config import StageConfig

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML with how to train and score: training, peft, batch_size, scorer, …"),
]
TestRowsOption = Annotated[
    int, typer.Option("--test-rows", min=0, help="Most test rows of each task to score; 0: all.")
]


@app.command(epilog="Example: inscl learn billing invoices.jsonl --model smollm2-135m --budget 200")
def learn(
    name: Annotated[str, typer.Argument(help="Name of the new task.")],
    data: Annotated[list[str], typer.Argument(help="Its data, as for `inscl add`.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Hub id, folder or smollm2-135m. [default: model of the last finished stage]"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the new model. [default: models/NAME]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and the cost; train nothing.")] = False,
    show_row: Annotated[
        bool, typer.Option("--show-row", help="Show one row of each form, token by token, as it is trained.")
    ] = False,
    budget: BudgetOption = None,
    budget_per_task: PerTaskOption = None,
    budget_tokens: TokensOption = None,
    strategy: StrategyOption = "inscl",
    seed: SeedOption = 0,
    weights: Annotated[
        str, typer.Option("--weights", help="Of instructions in a task: frequency or uniform.")
    ] = "frequency",
    config: ConfigOption = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the mixture. [default: 3]")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate. [default: 2e-5]")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Rows of a step over all devices. [default: 32]")
    ] = None,
    test_rows: TestRowsOption = 200,
    format: FormatOption = None,
    instruction_field: FieldOption = None,
    skip_bad: SkipBadOption = False,
    preferred: PreferredOption = False,
    max_mib: MaxMibOption = None,
    tags: TagsOption = None,
    dev: DevOption = None,
    test: TestOption = None,
    split: SplitOption = "70/10/20",
    memory: MemoryOption = "memory",
    encoder: EncoderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """One stage: plan, mix, train, score old and new tasks, remember. The same command goes on if interrupted."""
    from inscl.cli.view import StageView
    from inscl.libraries import prepare_libraries

    prepare_libraries()
    from inscl.data.split import Shares
    from inscl.tags import read_tags

    training = {key: value for key, value in {"num_train_epochs": epochs, "learning_rate": lr}.items() if value}
    settings = read_settings(config, batch_size=batch_size, training=training)
    options: dict[str, Any] = {
        "budget": parse_budget(budget, budget_per_task, budget_tokens),
        "strategy": strategy,
        "seed": seed,
        "weights": weights,
        "tags": None if tags is None else read_tags(tags),
        "shares": Shares.parse(split),
    }
    reading = {
        "format": format,
        "instruction_field": instruction_field,
        "skip_bad": skip_bad,
        "preferred": preferred,
        "max_mib": max_mib,
        "dev": dev,
        "test": test,
    }
    options |= {key: value for key, value in reading.items() if value}
    kept, source = open_memory(memory, encoder, quiet), as_source(data)
    if dry_run:
        from inscl.replay.planner import plan as make_plan

        with TemporaryDirectory(prefix="inscl-") as empty:  # stands for a memory that the first task has yet to make
            seen = kept if kept.tasks() else open_memory(empty, encoder, quiet)
            replay = make_plan(seen, name, source, **options)
            if replay.report is not None and not quiet:
                tell_read(replay.report)
            if show_row:
                _show_rows(replay, model)
            _print_dry_run(replay.plan, settings, json)
        return
    from inscl.stages.learn import learn as learn_stage

    with StageView(quiet=quiet) as view:
        done = learn_stage(
            kept,
            name,
            source,
            model=model,
            out=out,
            config=settings,
            test_rows=test_rows or None,
            say=(lambda message: None) if quiet else remark,
            show=remark if show_row else (lambda line: None),
            progress=view.show,
            **options,
        )
    if json:
        print_json(_as_json(done, settings))
    else:
        _print_learnt(done, settings)


def read_settings(file: Path | None, **changes: Any) -> "StageConfig":
    """The settings of a stage from a file, and what options change of them."""
    from inscl.settings import read_text
    from inscl.training.config import stage_config

    return stage_config("" if file is None else read_text(file), name=str(file or "stage.yaml"), **changes)


def _show_rows(replay: "Replay", model: str | None) -> None:
    from inscl.stages.learn import checked_rows, last_model

    for row in checked_rows(replay, model or last_model(replay.memory)):
        for line in row.lines():
            remark(line)


def _print_dry_run(made: "Plan", settings: "StageConfig", json: bool) -> None:
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
        before, now = done.before[task].mean(settings.scorer), score_of(after, settings.scorer)
        label = f"{task} (new)" if task == done.plan.name else task
        change = f"{100 * (now['score'] - before):+.1f}"
        rows.append((label, percent_text(before), percent_text(now["score"]), change, interval_text(now), now["n"]))
    print_table(table_of([*heads, ("rows", "right")], rows, title=f"{settings.scorer} x 100 on test rows"))
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


def score_of(scores: "RowScores", scorer: str) -> Mapping[str, Any]:
    main = scores.estimate(scorer)
    others = {score: scores.mean(score) for score in scores.rows if score != scorer}
    return {"score": main.mean, "low": main.low, "high": main.high, "n": main.n, "capped": scores.capped, **others}


def percent_text(value: float) -> str:
    return f"{100 * value:.1f}"


def interval_text(cell: Mapping[str, Any]) -> str:
    return f"{percent_text(cell['low'])} … {percent_text(cell['high'])}"
