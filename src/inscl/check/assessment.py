"""What one model scored on the remembered tasks, row by row, and the places it can be read from.

An assessment is made by `assess`, kept in one JSON file, or found in the folder of a finished stage. Its rows carry
what was asked and which answers count, so that another model can be compared on exactly these.
"""

import json
import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from inscl.core.scoring import SCORERS
from inscl.data.example import Example
from inscl.data.mixture import MixtureRow
from inscl.data.row_check import check_rows
from inscl.errors import DataError, InsclError, first_line
from inscl.evaluation.evaluate import answer_limit, predict
from inscl.evaluation.perplexity import Perplexity
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.scores import RowScores, row_key
from inscl.evaluation.server import Server
from inscl.experiments.run_folder import RunFolder, run_of
from inscl.files import whole_file
from inscl.memory.memory import Memory
from inscl.memory.task import Task
from inscl.models.loading import RECORD, LoadedModel, load, load_tokenizer, resolve
from inscl.models.precision import choose_dtype, ready
from inscl.provenance import versions
from inscl.stages.folder import StageFolder, read_json
from inscl.stages.learn import REQUEST, TEST_ROWS, StageProgress
from inscl.stages.trainer import ANSWERS_LOOKED_AT
from inscl.training.config import StageConfig, stage_config

_MARK = "inscl_scores"  # the key by which a file of ours is known, and its version
SETTINGS = ("scorer", "max_length", "max_new_tokens", "dtype")  # what of a stage's settings bears on scores
_ANSWERS = ".answers"  # after a file's name: the folder of the answers behind it


@dataclass(frozen=True)
class Assessment:
    """Scores of one model.

    Attributes
    ----------
    model : str
        What was asked for.
    identity : str
        What the weights were: a stage's fingerprint, or a name.
    settings : mapping
        The fields of `SETTINGS`, as they were used.
    tasks : mapping from task to RowScores
        With keys.
    perplexity : Perplexity, optional
        None where nothing but answers could be had.
    versions : mapping from package to version
    """

    model: str
    identity: str
    settings: Mapping[str, Any]
    tasks: Mapping[str, RowScores]
    perplexity: Perplexity | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def asked(self) -> dict[str, set[str]]:
        """Per task the first halves of its rows' keys: what was asked."""
        return {task: {key.split("-")[0] for key in rows.keys} for task, rows in self.tasks.items()}

    def config(self) -> StageConfig:
        """The settings of a stage that scores in the same way."""
        known: dict[str, Any] = {key: self.settings.get(key) for key in SETTINGS}
        return stage_config(name=f"the settings of {self.model}", **known)

    def with_perplexity(self, dtype: str) -> Self:
        """The same with the perplexity of the general text, taken now if its stage still has the model."""
        model = _known(self.model)
        if self.perplexity is not None or not (Path(model) / RECORD).exists():
            return self
        return replace(self, perplexity=Perplexity.of(_loaded(model, choose_dtype(dtype))))

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON holds."""
        return {_MARK: 1, **asdict(self), "tasks": {task: rows.to_dict() for task, rows in self.tasks.items()}}

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            json.dump(self.to_dict(), file, ensure_ascii=False)


def assess(
    memory: Memory,
    model: str | Path | Server,
    *,
    config: StageConfig = StageConfig(),
    test_rows: int | None = TEST_ROWS,
    only: Mapping[str, Collection[str]] | None = None,
    general: bool = True,
    out: Path | None = None,
    progress: StageProgress = lambda doing, done, total, loss: None,
) -> Assessment:
    """Score a model on the test rows of every remembered task.

    Parameters
    ----------
    memory : Memory
    model : str, Path or Server
        What answers; see `inscl.models.loading.resolve`.
    config : StageConfig
        Its fields in `SETTINGS` say how.
    test_rows : int, optional
        Most test rows of a task; None takes all.
    only : mapping from task to collection of str, optional
        Score just these rows, by the first halves of their keys (`Assessment.asked`), and no others.
    general : bool
        Whether to take the perplexity of the bundled text too; a server gives none.
    out : Path, optional
        Write the assessment to this file. The answers go beside it as they come, so that the same call after an
        interruption goes on; where the file is there already, it is removed and everything is answered anew.
    progress : callable, optional
        Told what is done, how much, of how much.

    Raises
    ------
    InsclError
        If there is nothing to score, or the model cannot be loaded or reached.
    """
    tasks = _rows(memory, test_rows, only)
    chat = any(info.form == "chat" for info in memory.tasks())
    source: Server | LoadedModel
    if isinstance(model, Server):
        source, tokenizer = model, None
    else:
        config = config.model_copy(update={"dtype": choose_dtype(config.dtype)})
        rows = [MixtureRow(task, row) for task, examples in tasks.items() for row in examples]
        check_rows(rows, load_tokenizer(_known(model)), chat=chat)
        source = _loaded(_known(model), config.dtype)
        tokenizer = source.tokenizer
    limits = {task: config.max_new_tokens or _limit(memory.task(task), tokenizer, chat) for task in tasks}
    found = predict(
        source,
        tasks,
        max_new_tokens=limits,
        max_length=config.max_length,
        chat=chat,
        dtype=config.dtype,
        out=_place_of_answers(out),
        progress=lambda done, total: progress("score", done, total, None),
    )
    made = Assessment(
        model=source.model if isinstance(source, Server) else str(model),
        identity=source.identity,
        settings=config.model_dump(include=set(SETTINGS)),
        tasks={task: RowScores.of(answers, config.scorer) for task, answers in found.items()},
        perplexity=None if isinstance(source, Server) or not general else Perplexity.of(source),
        versions=versions(),
    )
    if out is not None:
        made.write(out)
    return made


def _place_of_answers(out: Path | None) -> Path | None:
    """The folder of the answers beside an assessment; where that is finished, both are removed to begin anew."""
    if out is None:
        return None
    kept = out.with_name(out.name + _ANSWERS)
    if out.exists():
        shutil.rmtree(kept, ignore_errors=True)
        out.unlink()
    return kept


def read_assessment(place: str | Path) -> Assessment:
    """The assessment in a file, or in the folder of a finished stage of `learn` or of a run.

    Raises
    ------
    DataError
        If there is none, or it is damaged.
    """
    path = Path(place)
    if path.is_file():
        return _read_file(path)
    stage = StageFolder.at(path)
    if stage is not None:
        return _of_stage(stage)
    if (run := RunFolder(path)).exists:
        stages = [stage.path.name for stage in run.scored()]
        listed = f" It has {', '.join(stages)}." if stages else ""
        raise DataError(f"'{place}' is a whole run. Name one of its stages, such as {path / 'stages'}/STAGE.{listed}")
    raise DataError(
        f"'{place}' is neither a file of scores (inscl evaluate --out FILE) nor the folder of a finished stage. "
        "Give one of these."
    )


def _rows(
    memory: Memory, test_rows: int | None, only: Mapping[str, Collection[str]] | None
) -> dict[str, list[Example]]:
    """The rows to score, per task that has any."""
    names = [info.name for info in memory.existing().tasks() if info.rows["test"] and not info.general]
    if only is None:
        tasks = {name: memory.task(name).sample("test", test_rows) for name in names}
    else:
        tasks = {name: _asked_rows(memory.task(name), only[name]) for name in names if name in only}
    if found := {name: rows for name, rows in tasks.items() if rows}:
        return found
    if only is None:
        raise InsclError(f"No task of the memory at '{memory.path}' has test rows, so there is nothing to score.")
    raise InsclError(
        f"The memory at '{memory.path}' holds none of the test rows that the reference was scored on (its tasks: "
        f"{', '.join(only)}). Name the memory they came from with --memory, or score the reference anew."
    )


def _asked_rows(task: Task, keys: Collection[str]) -> list[Example]:
    """The test rows of a task that ask what these first halves of keys stand for."""

    def asked(row: Example) -> str:
        return row_key(row.instruction, row.input, row.outputs).split("-")[0]

    return [row for row in task.sample("test", None) if asked(row) in keys]


def _limit(task: Task, tokenizer: Any, chat: bool) -> int:
    """Most tokens of an answer; without a tokenizer two bytes are taken for a token, which is rarely too few."""
    answers = task.sample("train", ANSWERS_LOOKED_AT) or task.sample("test", ANSWERS_LOOKED_AT)
    return answer_limit(answers, tokenizer or _half_bytes, chat=chat)


def _half_bytes(text: str, **_: object) -> dict[str, range]:
    return {"input_ids": range(8 + len(text.encode()) // 2)}


def _known(model: str | Path) -> str:
    """The model's name; the folder of a run's stage stands for the model in it."""
    stage = StageFolder(Path(model))
    return str(stage.model if stage.scored and stage.model.is_dir() else model)


def _loaded(model: str, dtype: str) -> LoadedModel:
    """The model, known by the state of its weights, so that a later training in the same folder is another model."""
    loaded = ready(load(model), dtype)
    place = Path(resolve(model))
    if loaded.identity == model and place.is_dir():
        stats = [path.stat() for path in sorted(place.rglob("*.safetensors"))]
        loaded.identity = " ".join([model, *(f"{stat.st_size}-{stat.st_mtime_ns}" for stat in stats)])
    return loaded


def _read_file(path: Path) -> Assessment:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.get(_MARK) != 1:
            raise KeyError(_MARK)
        tasks = {task: _from_file(task, rows) for task, rows in plain["tasks"].items()}
        general = None if plain["perplexity"] is None else Perplexity(**plain["perplexity"])
        return Assessment(
            plain["model"], plain["identity"], plain["settings"], tasks, general, plain.get("versions", {})
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InsclError):
            raise
        raise DataError(
            f"'{path}' is no file of scores that this version reads ({type(error).__name__}: {first_line(error)}). "
            "Write one with `inscl evaluate MODEL --out FILE`."
        ) from error


def _from_file(task: str, plain: Mapping[str, Any]) -> RowScores:
    """What a file holds of a task; looked at as it stands there, so that the scores at fault can be named."""
    _check_scores(task, plain["rows"], len(plain["instructions"]), len(plain["keys"]))
    return RowScores.from_dict(plain)


def _checked(task: str, rows: RowScores) -> RowScores:
    """Scores of one row each, between 0 and 1."""
    _check_scores(task, rows.rows, rows.n, len(rows.keys))
    return rows


def _check_scores(task: str, scores: Mapping[str, Sequence[Any]], n: int, n_keys: int) -> None:
    for name, values in scores.items():
        good = all(isinstance(v, int | float) and math.isfinite(v) and (v <= 1 or name == "loss") for v in values)
        if not good or not len(values) == n == n_keys or (values and min(values) < 0):
            raise DataError(
                f"The scores '{name}' of task '{task}' are not one number between 0 and 1 for each of its {n} "
                "rows. Write the file anew with `inscl evaluate MODEL --out FILE`."
            )


def _of_stage(stage: StageFolder) -> Assessment:
    """What a stage scored; its rows' keys come from its answers."""
    folder, scored = stage.path, stage.scores()
    if not scored:
        raise DataError(f"The stage in '{folder}' has scored nothing yet. Finish it by running its command again.")
    answered = stage.answer_sets()
    tasks = {task: _checked(task, _with_keys(task, rows, answered.get(task, []))) for task, rows in scored.items()}
    return Assessment(str(folder), str(folder), _settings(folder), tasks)


def _with_keys(task: str, rows: RowScores, answered: Sequence[Sequence[Prediction]]) -> RowScores:
    """The scores with the keys of the answers that they are the scores of: one set of several in the folder."""
    if rows.keys:
        return rows
    scorer = next(name for name in rows.rows if name in SCORERS)
    for answers in answered:
        again = RowScores.of(answers, scorer)
        if again.instructions == list(rows.instructions) and again.rows[scorer] == list(rows.rows[scorer]):
            return replace(rows, keys=again.keys)
    raise DataError(
        f"The answers behind the scores of task '{task}' are not beside them, so its rows are not known. Score the "
        "model anew with `inscl evaluate MODEL --out FILE`, and compare with that."
    )


def _settings(folder: Path) -> dict[str, Any]:
    """How a stage scored, as it or its run recorded."""
    run = run_of(folder)
    known = read_json(folder / REQUEST) or (run.record if run else {})
    settings = {key: known.get("config", {}).get(key) for key in SETTINGS}
    return {**settings, "dtype": known.get("dtype") or settings["dtype"]} if known else {}
