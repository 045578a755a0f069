"""One stage for a practitioner: plan from memory, mix, train, score old and new tasks, remember the task.

The stage's folder is the model itself, with what led to it beside it (see `inscl.stages.folder`); ``learn.json``
says what was asked and whether it is done. Each step leaves a file or a row that tells it was done, so the same
call after an interruption goes on, and the memory changes only when the model is there.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from inscl.data.row_check import CheckedRow, check_rows
from inscl.data.split import Shares
from inscl.errors import ConfigError
from inscl.evaluation.scores import RowScores
from inscl.files import write_json
from inscl.memory.locks import alone, is_free
from inscl.memory.memory import Memory
from inscl.models.loading import identity, load_tokenizer
from inscl.models.precision import choose_dtype
from inscl.provenance import versions
from inscl.replay.budget import DEFAULT_BUDGET, Budget
from inscl.replay.general import is_shipped, training_rows
from inscl.replay.plan import Plan
from inscl.replay.planner import Replay, plan, resume
from inscl.replay.strategies import STRATEGIES
from inscl.stages.folder import (
    MIXTURE,
    PLAN,
    PREDICTIONS,
    SCORES,
    Progress,
    StageFolder,
    Trainer,
    read_json,
)
from inscl.stages.metrics import metrics_so_far, task_metrics
from inscl.training.checkpoints import FOLDER as CHECKPOINTS
from inscl.training.config import StageConfig
from inscl.training.tracking import Tracked

REQUEST = "learn.json"
TEST_ROWS = 200  # of each task, if nothing else is asked for
_Say = Callable[[str], None]
StageProgress = Callable[[str, int, int, float | None], None]  # what is done, done, of how many, loss


@dataclass(frozen=True)
class Learnt:
    """What a stage did.

    Attributes
    ----------
    folder : Path
        The stage's folder, which is the model.
    plan : Plan
    before, after : mapping from task to RowScores
        Scores of the model it started from, and of its own, on the same test rows.
    record : mapping
        What training did and cost (see `inscl.training.stage.StageRecord`).
    continued : bool
        Whether an interrupted stage was continued.
    """

    folder: Path
    plan: Plan
    before: Mapping[str, RowScores]
    after: Mapping[str, RowScores]
    record: Mapping[str, Any] = field(default_factory=dict)
    continued: bool = False


def learn(
    memory: Memory,
    name: str,
    data: Any,
    *,
    model: str | Path | None = None,
    out: str | Path | None = None,
    budget: Budget | None = None,
    strategy: str = "inscl",
    seed: int = 0,
    weights: str = "frequency",
    general: float | None = None,
    config: StageConfig = StageConfig(),
    test_rows: int | None = TEST_ROWS,
    tags: Mapping[bytes, Any] | None = None,
    shares: Shares = Shares(),
    trainer: Trainer | None = None,
    say: _Say = lambda message: None,
    show: _Say = lambda line: None,
    progress: StageProgress = lambda doing, done, total, loss: None,
    **reading: Any,
) -> Learnt:
    """Teach a model one more task, and remember it.

    Parameters
    ----------
    memory : Memory
        What was learnt so far; it need not exist for the first task.
    name, data, tags, shares, **reading
        The new task, as in `Memory.add`.
    model : str or Path, optional
        Where to start: a Hub id, a folder, an embedded model's name. None starts from the last finished stage.
    out : path, optional
        Folder of the new model; ``models/NAME`` by default.
    budget, strategy, seed, weights, general
        As in `inscl.replay.planner.plan`.
    config : StageConfig
        How to train and score; `inscl.training.config.stage_config` reads one from YAML.
    test_rows : int, optional
        Most test rows of a task to score; None scores all.
    trainer : Trainer, optional
        Who trains and scores.
    say, show, progress : callable
        Told a remark; told one row of each form, token by token; told how far the step at hand is.

    Returns
    -------
    Learnt

    Raises
    ------
    ConfigError
        If the stage is finished already, its folder holds another one, or there is no model to start from.
    InsclError
        If training stops; the same call goes on.
    """
    folder = StageFolder(Path(out) if out else Path("models") / _folder_name(name), inner="")
    known = read_json(folder.path / REQUEST)
    start = model or known.get("start") or memory.last_model()
    asked = {
        "name": name,
        "start": str(start),
        "budget": _budget_asked(budget, known),
        "strategy": strategy,
        "seed": seed,
        "weights": weights,
        "general": general,
        "test_rows": test_rows,
        "config": config.plain(),
    }
    known = _same_request(known, asked, folder)
    if trainer is None:
        config.check()
    continued = bool(known)
    with alone(folder.path), nullcontext() if continued else _nothing_sticks(folder):
        if known and (folder.path / PLAN).exists():
            stage = _found_again(folder.path / PLAN, memory, data, shares, reading)
        else:
            _clear(folder, memory)
            options = {"general": general, "tags": tags, "shares": shares, **reading}
            stage = plan(memory, name, data, budget=budget, strategy=strategy, seed=seed, weights=weights, **options)
            known = _write_request(folder, known, asked, config, stage.plan)
        _say_how_it_begins(folder, stage, continued, say)
        if trainer is None:
            _show_rows(stage, start, show)
            trainer = _trainer(config.model_copy(update={"dtype": known["dtype"]}), memory, stage)
        done = _carry_out(folder, stage, trainer, start, test_rows, progress)
        _track(folder.path, memory, done.after, name, config.scorer)
        memory.add(name, data, tags=tags, shares=shares, **reading)
        _log(memory, done, config.scorer)
        write_json(folder.path / REQUEST, {**known, "finished": True})
        return replace(done, continued=continued)


def _carry_out(
    folder: StageFolder, stage: Replay, trainer: Trainer, start: Any, test_rows: int | None, progress: StageProgress
) -> Learnt:
    """Mix, score the model that the stage starts from, train, and score its own; what is there already is kept."""

    def step(doing: str) -> Progress:
        return lambda done, total, loss: progress(doing, done, total, loss)

    if not (folder.path / MIXTURE).exists():
        folder.mix(folder.rows(stage, trainer, start, step("answer the replayed rows")), _is_chat(stage))
    tasks = [*(stage.memory.task(task.name) for task in stage.plan.learnt), stage.new]
    asked = {task.info.name: rows for task in tasks if (rows := task.sample("test", test_rows))}
    # Answers that the earlier stage already gave to the same rows are found in its folder.
    answers = Path(start) / PREDICTIONS / "test" if (Path(start) / REQUEST).exists() else None
    asking = step("score the model it starts from")
    before = folder.score(trainer, start, asked, side="before", answers=answers, progress=asking)
    record = folder.train(trainer, start, seed=stage.plan.seed, progress=step("train"))
    if STRATEGIES[stage.plan.strategy].losses:
        folder.measure(trainer, tasks)
    after = folder.score(trainer, folder.model, asked, progress=step("score the new model"))
    return Learnt(folder.path, stage.plan, before, after, record)


def checked_rows(stage: Replay, start: str | Path) -> list[CheckedRow]:
    """One row of each form of the mixture, token by token, as the model's tokenizer has it trained.

    Raises
    ------
    InsclError
        If tokenizer or template would train a row otherwise than it is scored.
    """
    return check_rows(stage.rows(), load_tokenizer(start), chat=_is_chat(stage))


def _folder_name(name: str) -> str:
    """A task's name as the name of a folder.

    >>> _folder_name("Closed QA/2026"), _folder_name("отзывы")
    ('Closed_QA_2026', 'отзывы')
    """
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".") or "stage"


def _budget_asked(budget: Budget | None, known: Mapping[str, Any]) -> object:
    """The budget as a plain value: the one given, else that of the stage begun before, else the default."""
    return asdict(budget) if budget else known.get("budget", asdict(DEFAULT_BUDGET))


def _same_request(known: dict[str, Any], asked: Mapping[str, object], folder: StageFolder) -> dict[str, Any]:
    """What the folder was begun with, if that is what is asked now; empty for a folder in which nothing was trained."""
    path = folder.path
    if not known:
        if not is_free(path, REQUEST):
            raise ConfigError(f"'{path}' is not empty and holds no stage. Name another folder with --out.")
        return {}
    known = {**known, "config": {**StageConfig().plain(), **known["config"]}}  # an older release knew fewer settings
    changed = [key for key, value in asked.items() if known.get(key) != value]
    if changed and not _has_trained(folder):
        return {}  # the first attempt failed before it trained, and its mistake is mended now
    if changed:
        what = ", ".join(key.replace("_", " ") for key in changed)
        raise ConfigError(
            f"'{path}' holds {'a finished' if known.get('finished') else 'an unfinished'} stage with another "
            f"{what}. Repeat its command, or name another folder with --out."
        )
    if known.get("finished"):
        raise ConfigError(
            f"The stage '{asked['name']}' is finished: its model is in '{path}'. To learn it anew, name another "
            "folder with --out."
        )
    return known


def _has_trained(folder: StageFolder) -> bool:
    return folder.trained or (folder.path / CHECKPOINTS).exists()


@contextmanager
def _nothing_sticks(folder: StageFolder) -> Iterator[None]:
    """Take back what a start that failed before it trained has written, so that the mended command begins anew."""
    try:
        yield
    except Exception:
        if not _has_trained(folder):
            for left in (REQUEST, PLAN, MIXTURE, SCORES):
                (folder.path / left).unlink(missing_ok=True)
            shutil.rmtree(folder.path / PREDICTIONS, ignore_errors=True)
        raise


def _found_again(path: Path, memory: Memory, data: object, shares: Shares, reading: Mapping[str, object]) -> Replay:
    """The plan of an interrupted stage, with its data."""
    made = Plan.read(path)
    return resume(replace(made, source=made.source or {"shares": asdict(shares)}), memory, data, **reading)


def _is_chat(stage: Replay) -> bool:
    """Whether one task of the mixture is a chat, which makes all rows chats."""
    earlier = stage.memory.open([task.name for task in stage.plan.tasks if not is_shipped(task.name, stage.memory)])
    return any(info.form == "chat" for info in [stage.new.info, *(task.info for task in earlier)])


def _clear(folder: StageFolder, memory: Memory) -> None:
    """Leave nothing of an earlier attempt to plan, and make the memory's folder, so that it can be locked."""
    if "://" not in memory.path:
        Path(memory.path).mkdir(parents=True, exist_ok=True)
    for left in (PLAN, MIXTURE, SCORES):
        (folder.path / left).unlink(missing_ok=True)


def _write_request(
    folder: StageFolder, known: dict[str, Any], asked: Mapping[str, object], config: StageConfig, made: Plan
) -> dict[str, Any]:
    """Write what was asked, then the plan; a request that is there already keeps its precision and versions."""
    request = known or {**asked, "dtype": choose_dtype(config.dtype), "versions": versions()}
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(folder.path / REQUEST, request)
    made.write(folder.path / PLAN)
    return request


def _say_how_it_begins(folder: StageFolder, stage: Replay, continued: bool, say: _Say) -> None:
    """Say that an interrupted stage goes on, or what reading the new task's data left out."""
    if continued:
        say(f"going on with the unfinished stage '{stage.plan.name}' in {folder.path}")
    elif stage.report is not None:
        parts = [stage.report.drops + ";", stage.report.unused]
        say(" ".join(filter(None, parts)).rstrip(";"))


def _show_rows(stage: Replay, start: str | Path, show: _Say) -> None:
    for row in checked_rows(stage, start):
        for line in row.lines():
            show(line)


def _trainer(config: StageConfig, memory: Memory, stage: Replay) -> Trainer:
    from inscl.stages.trainer import ANSWERS_LOOKED_AT, ModelTrainer

    def answers(task: str) -> Any:
        if task == stage.plan.name:
            return stage.new.sample("train", ANSWERS_LOOKED_AT)
        return training_rows(memory, task, ANSWERS_LOOKED_AT)

    chat = _is_chat(stage)
    return ModelTrainer(config, answers=answers, chat=lambda: chat)


def _track(folder: Path, memory: Memory, scores: Mapping[str, RowScores], newest: str, scorer: str) -> None:
    """Send a stage's scores, and what they say of the earlier tasks, to the trackers that have its loss."""
    means = {task: rows.mean(scorer) for task, rows in scores.items()}
    Tracked.send(folder, task_metrics(scores) | metrics_so_far(memory.stages(), means, newest, scorer))


def _log(memory: Memory, done: Learnt, scorer: str) -> None:
    """Log the finished stage, once. What was scored stands with its task, so that removing one takes its scores."""
    fingerprint = done.record.get("fingerprint")
    if any(stage.get("fingerprint") == fingerprint for stage in memory.stages()):
        return
    losses = StageFolder(done.folder).losses()
    means = {task: _means(rows, scorer) for task, rows in done.after.items()}
    scores = {task: {**means.get(task, {}), **losses.get(task, {})} for task in {**means, **losses}}
    logged = done.plan.finished(done.folder, scorer, scores)
    memory.log_stage({**logged, "fingerprint": fingerprint, "identity": identity(done.folder)})


def _means(scores: RowScores, scorer: str) -> dict[str, float | int]:
    return {"score": scores.mean(scorer), "exact_match": scores.mean("exact_match"), "n": scores.n}
