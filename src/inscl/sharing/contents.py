"""What is shared of a memory, a plan, a run or a stage, and what is taken of what somebody shared.

Of a run and a stage it is a list of names, so that nothing goes along that nobody thought of: no kept states, no
checkpoints, no caches, no logs, and model weights only where they are asked for.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from inscl.errors import DataError, InsclError
from inscl.evaluation.predictions import Prediction
from inscl.experiments.run_folder import PARQUET, RECORD, STREAMS, RunFolder
from inscl.files import write_json
from inscl.memory.memory import Memory
from inscl.memory.task import TaskInfo
from inscl.models.loading import RECORD as TRAINED
from inscl.replay.general import is_shipped
from inscl.replay.plan import Plan
from inscl.sharing.bundle import Kind
from inscl.stages.folder import MIXTURE, MODEL, PLAN, PREDICTIONS, SCORES, StageFolder, read_json
from inscl.stages.learn import REQUEST

_OF_A_STAGE = (PLAN, MIXTURE, SCORES, f"{PREDICTIONS}/*/*.jsonl")
_SIDES = ("before", "test", "own")  # of what was scored, as in the scores file
_OF_THE_WHOLE = ("trained", "answering", "measuring")  # what stands there beside sides and losses
_OF_A_RUN = (RECORD, STREAMS, PARQUET)  # the CSV is made of the last one anew: a stranger's may hold formulas
_WEIGHTS = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", TRAINED,
)  # fmt: skip


@dataclass(frozen=True)
class Content:
    """Something that can be shared, or has been.

    Attributes
    ----------
    kind : {"memory", "plan", "run", "stage"}
    facts : list of (what, value)
        For its card.
    tasks : list of (name, counts)
        Also for its card.
    """

    kind: Kind
    facts: list[tuple[str, str]]
    tasks: list[tuple[str, str]]


def share(source: str, target: Path, memory: Memory, *, weights: bool = False) -> Content:
    """Copy what others may have of a memory, a plan, a run or a stage into an empty folder.

    Parameters
    ----------
    source : str
        A folder, a plan's file, or the URI of a memory on an object store.
    target : Path
    memory : Memory
        Where a plan or stage came from: what it no longer holds is not shared.
    weights : bool
        Whether the models of a run or stage go, too.

    Raises
    ------
    InsclError
        If there is no such thing, or it holds rows that the memory no longer has.
    """
    kind = _kind(source)
    return _SHARE[kind](source, target / kind, memory, weights)


def look(kind: Kind, folder: Path) -> None:
    """Read what was pulled, all of it, as the commands will that use it.

    Raises
    ------
    InsclError
        If it cannot be read, or a file is in it that does not belong there.
    """
    allowed = {"plan": (PLAN,), "run": _of_a_run(weights=True), "stage": _of_a_stage(weights=True)}[kind]
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not _among(name, allowed):
            raise DataError(f"{name} is no file of a {kind}. Ask whoever pushed it to push it again.")
    _LOOK[kind](folder)


def _kind(source: str) -> Kind:
    path = Path(source)
    if path.is_file():
        return "plan"
    if (path / RECORD).is_file():
        return "run"
    return "stage" if (path / REQUEST).is_file() else "memory"


# ---------------------------------------------------------------- a memory


def _share_memory(source: str, target: Path, _memory: Memory, _weights: bool) -> Content:
    target.mkdir(parents=True)
    infos = Memory(source).write_plain(target)
    made = {"encoder": {info.encoder for info in infos}, "tagger": {who for info in infos for who in info.taggers}}
    facts = [("tasks", f"{len(infos):,}"), ("rows", f"{sum(sum(info.rows.values()) for info in infos):,}")]
    facts += [(what, ", ".join(sorted(who))) for what, who in made.items()]
    return Content("memory", facts, [(info.name, _rows(info)) for info in infos])


def _rows(info: TaskInfo) -> str:
    rows = ", ".join(f"{count:,} {side}" for side, count in info.rows.items())
    return f"{rows} rows; {info.instructions:,} instructions{'; general' if info.general else ''}"


# ---------------------------------------------------------------- a plan


def _share_plan(source: str, target: Path, memory: Memory, _weights: bool) -> Content:
    made = Plan.read(source)
    _refuse_removed(source, made, memory)
    target.mkdir(parents=True)
    made.write(target / PLAN)
    return Content("plan", _facts_of(made), _tasks_of(made))


def _facts_of(made: Plan) -> list[tuple[str, str]]:
    return [
        ("learns", made.name),
        ("strategy", f"{made.strategy}, seed {made.seed}"),
        ("budget", f"{made.total:,} {made.budget.unit}"),
        ("replays", f"{made.count:,} rows"),
    ]


def _tasks_of(made: Plan) -> list[tuple[str, str]]:
    return [(task.name, f"{task.count:,} of {task.available:,} rows replayed") for task in made.tasks]


def _refuse_removed(what: object, made: Plan, memory: Memory, new: bool = False) -> None:
    """Refuse a plan, or a stage that trained on its `new` task, of rows that the memory no longer has as they were."""
    wanted = {task.name: task.content for task in made.tasks if not is_shipped(task.name, memory)}
    wanted |= {made.name: made.new.content} if new else {}
    for name, content in wanted.items() if wanted else ():
        held = memory.existing().versions(name) if name in memory else []
        if content not in {info.content for info in held}:
            raise InsclError(
                f"'{what}' holds rows of the task '{name}' that the memory at '{memory.path}' does not "
                "have, or no longer. Name the memory it came from with --memory, or make it again."
            )


# ---------------------------------------------------------------- a stage of `learn`


def _share_stage(source: str, target: Path, memory: Memory, weights: bool) -> Content:
    folder = StageFolder(Path(source), inner="")
    request, made = read_json(folder.path / REQUEST), folder.plan()
    if made is None or not request.get("finished"):
        raise InsclError(f"The stage in '{source}' is not finished. Run the same `inscl learn` again, then push it.")
    _refuse_removed(source, made, memory, new=True)
    _copy(folder.path, target, (REQUEST, *(_WEIGHTS if weights else ())))
    _copy_stage(folder, target, {made.name, *(task.name for task in made.tasks)})
    facts = [*_facts_of(made), ("starts from", _model(str(request.get("start"))))]
    return Content("stage", [*facts, ("weights", "included" if weights else "left out")], _tasks_of(made))


def _of_a_stage(weights: bool) -> Sequence[str]:
    return (REQUEST, *_OF_A_STAGE, *(_WEIGHTS if weights else ()))


def _look_at_stage(folder: Path) -> None:
    stage = StageFolder(folder, inner="")
    if not (read_json(folder / REQUEST).get("finished") and stage.plan()):
        raise DataError(f"{REQUEST} or {PLAN} is missing. Ask whoever pushed it to push it again.")
    _look_at_scores(stage)


def _look_at_scores(stage: StageFolder) -> None:
    stage.plan()
    stage.losses()
    for side in _SIDES:
        stage.answers(side)


def _copy_stage(stage: StageFolder, target: Path, names: set[str]) -> None:
    """Copy what a stage did with the tasks named: later commands may have asked it about others."""
    _copy(stage.path, target, (PLAN, MIXTURE))
    parts = {part: {task: of for task, of in content.items() if part in _OF_THE_WHOLE or task in names}
             for part, content in stage.read().items() if part in (*_SIDES, *_OF_THE_WHOLE, "losses")}  # fmt: skip
    write_json(target / SCORES, parts)
    for side in _SIDES:
        wanted = {task: rows for task, rows in stage.answers(side).items() if task in names}
        for path in sorted((stage.path / PREDICTIONS / side).glob("*.jsonl")):
            if (rows := Prediction.read(path)) and wanted.get(rows[0].task) == rows:
                _copy(stage.path, target, [path.relative_to(stage.path).as_posix()])


# ---------------------------------------------------------------- a run


def _share_run(source: str, target: Path, _memory: Memory, weights: bool) -> Content:
    run = RunFolder.read(source)
    own = Memory(run.memory())
    held = {info.name for info in own.tasks()} if run.memory().exists() else set(run.tasks)
    if removed := set(run.tasks) - held:
        raise InsclError(
            f"The run '{source}' holds rows of the task '{min(removed)}', which its memory no longer has. Run it anew "
            "without that task."
        )
    models = [f"stages/*/{MODEL}/{name}" for name in _WEIGHTS] if weights else []
    _copy(run.path, target, [*_OF_A_RUN, *models])
    for stage in run.scored():
        _copy_stage(stage, target / stage.path.relative_to(run.path), set(run.tasks))
    done, all_stages = run.stages_done()
    config = run.config
    facts = [
        ("model", _model(config.model)),
        ("strategies", ", ".join(config.strategies)),
        ("seeds", ", ".join(map(str, config.seeds))),
        ("stages", f"{done:,} of {all_stages:,} scored"),
        ("weights", "included" if weights else "left out"),
    ]
    return Content("run", facts, [(task, "") for task in run.tasks])


def _of_a_run(weights: bool) -> Sequence[str]:
    models = [f"{MODEL}/{name}" for name in _WEIGHTS] if weights else []
    return (*_OF_A_RUN, *(f"stages/*/{name}" for name in (*_OF_A_STAGE, *models)))


def _look_at_run(folder: Path) -> None:
    run = RunFolder.read(folder)
    for stage in run.scored():
        _look_at_scores(stage)
    if run.streams:
        run.stages_done()
    if (folder / PARQUET).exists():
        run.write_table(run.table)


# ---------------------------------------------------------------- files


def _model(name: str) -> str:
    """A model's Hub id, or the last part of its folder.

    >>> _model("owner/model"), _model("/home/somebody/models/may")
    ('owner/model', 'may')
    """
    return Path(name).name if Path(name).is_absolute() else name


def _copy(source: Path, target: Path, wanted: Sequence[str]) -> None:
    """Copy the files of a folder that have wanted names; links are no files of ours."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_file() and not path.is_symlink() and _among(name, wanted):
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _among(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits a pattern, in which a star stands for one part of a path.

    >>> _among("stages/a/plan.json", ["stages/*/plan.json"]), _among("stages/a/b/plan.json", ["stages/*/plan.json"])
    (True, False)
    """
    parts = name.split("/")
    return any(
        len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))
        for wanted in (pattern.split("/") for pattern in patterns)
    )


_SHARE: dict[Kind, Callable[[str, Path, Memory, bool], Content]] = {
    "memory": _share_memory, "plan": _share_plan, "run": _share_run, "stage": _share_stage,
}  # fmt: skip
_LOOK: dict[Kind, Callable[[Path], object]] = {
    "plan": lambda folder: Plan.read(folder / PLAN), "run": _look_at_run, "stage": _look_at_stage,
}  # fmt: skip
