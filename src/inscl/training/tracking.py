"""The scores of a stage, sent to the trackers that hold its loss: trackio, MLflow, W&B, TensorBoard.

A stage is scored when its training is over and its trackers are closed, perhaps by another call of the same command.
So training notes in ``tracking.json`` where its tracker runs are, and `send` goes on with these. Without a tracker
there is no such file, and nothing is imported or sent.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from inscl.errors import ConfigError, require
from inscl.evaluation.scores import RowScores
from inscl.suggest import suggest
from inscl.training.checkpoints import write_json

logger = logging.getLogger(__name__)

FILE = "tracking.json"
PROJECT = "inscl"  # of trackio, if `training` names none
TENSORBOARD = "tensorboard"  # folder of its files in a stage's
# Fields of `training` that say where the loss is shown, and nothing about the model.
FIELDS = frozenset(
    {"report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"}
)
_LONGEST = 80  # characters of a task's name in the name of a metric

Place = dict[str, Any]  # what a tracker needs to go on with a run


@dataclass(frozen=True)
class Tracked:
    """Where the loss of a training was logged.

    Attributes
    ----------
    places : mapping from tracker to Place
    step : int
        Steps trained so far.
    sent : str
        Hash of the scores that were sent last.
    """

    places: Mapping[str, Place] = field(default_factory=dict)
    step: int = 0
    sent: str = ""

    @classmethod
    def read(cls, folder: Path) -> "Tracked":
        """What a stage's folder says; no places where nothing was tracked."""
        try:
            return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return cls()

    def write(self, folder: Path) -> None:
        """Note it in a stage's folder."""
        write_json(folder / FILE, vars(self))


def check_trackers(report_to: str | Sequence[str] | None) -> None:
    """Refuse a tracker that is unknown or not installed, before anything is computed.

    Raises
    ------
    ConfigError
        That names it, and how to get it.
    """
    named = [report_to] if isinstance(report_to, str) else report_to or ()
    if not named:
        return
    trackers = require("transformers.integrations.integration_utils", extra="train", purpose="Tracking")
    known = [*trackers.INTEGRATION_TO_CALLBACK, "all", "none"]
    for name in named:
        if name not in known:
            raise ConfigError(f"`report_to`: got '{name}'; wanted one of {', '.join(known)}.{suggest(name, known)}")
        if name in _LOGGERS and find_spec(name) is None:
            raise ConfigError(f"`report_to`: {name} is not installed. Run `pip install {name}`.")


def open_runs(report_to: Sequence[str], tensorboard: Path | None) -> dict[str, Place]:
    """Where the runs are that a trainer has just opened.

    Parameters
    ----------
    report_to : sequence of str
        Trackers, as the trainer names them; those that are not known here are left out.
    tensorboard : Path, optional
        Where TensorBoard's files go.
    """
    found: dict[str, Place] = {"tensorboard": {"log_dir": str(tensorboard)}} if tensorboard else {}
    for name in report_to:
        if name in _FINDERS:
            try:
                found[name] = _FINDERS[name]()
            except Exception as error:
                logger.warning("no run of %s was found, so it gets no scores: %s", name, error)
    return found


def log(places: Mapping[str, Place], metrics: Mapping[str, float], step: int) -> bool:
    """Log metrics at a step in runs that have ended, or are open still.

    Returns
    -------
    bool
        Whether all went through. A tracker that fails is told in the log: the scores themselves are safe elsewhere.
    """
    fine = True
    for name, place in places.items():
        try:
            with redirect_stdout(sys.stderr):  # what trackers say is no result of ours
                _LOGGERS[name](place, metrics, step)
        except Exception as error:
            fine = False
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            logger.warning("the scores could not be sent to %s: %s", name, reason)
    return fine


def send(folder: Path, metrics: Mapping[str, float]) -> None:
    """Send a stage's metrics to its trackers, once.

    Parameters
    ----------
    folder : Path
        The stage's folder; without ``tracking.json`` in it nothing happens.
    metrics : mapping from name to float
        The same metrics are not sent again.
    """
    tracked = Tracked.read(folder)
    digest = blake2b(json.dumps(dict(metrics), sort_keys=True).encode(), digest_size=16).hexdigest()
    if tracked.places and digest != tracked.sent and log(tracked.places, metrics, tracked.step):
        Tracked(tracked.places, tracked.step, digest).write(folder)


def task_metrics(scores: Mapping[str, RowScores]) -> dict[str, float]:
    """Mean of every score of every task, by a name that all trackers take."""
    return {
        f"task/{metric_name(task)}/{score}": rows.mean(score) for task, rows in scores.items() for score in rows.rows
    }


def metric_name(task: str) -> str:
    """A task's name as part of a metric's: letters, digits, ``_``, ``-``, ``.`` and spaces.

    A name that had to be changed ends in a hash of it, so that different tasks stay apart.

    >>> metric_name("Closed QA"), metric_name("a/b")
    ('Closed QA', 'a_b-82badf67')
    """
    safe = re.sub(r"[^0-9A-Za-z_\-. ]", "_", task)[:_LONGEST].strip()
    if safe == task and safe.strip("."):
        return safe
    return f"{safe.strip('.')}-{blake2b(task.encode(), digest_size=4).hexdigest()}"


def metrics_so_far(
    stages: Sequence[Mapping[str, Any]], scores: Mapping[str, float], newest: str, scorer: str
) -> dict[str, float]:
    """What a memory's log tells of a new stage: average performance, and what the earlier tasks lost or gained.

    Parameters
    ----------
    stages : sequence of mapping
        The log, from `inscl.memory.memory.Memory.stages`.
    scores : mapping from task to float
        Of the stage's model.
    newest : str
        The task it has just learnt.
    scorer : str
        What made the scores; logged scores of another scorer do not count.

    Returns
    -------
    dict of str to float
        ``average_performance``; with an earlier task ``backward_transfer`` and ``forgetting``, as in docs/method.md,
        over the tasks that were scored when they were learnt.

    Examples
    --------
    >>> log = [{"name": "a", "scorer": "rouge_l", "tasks": [{"name": "a", "score": 0.5}]}]
    >>> metrics_so_far(log, {"a": 0.25, "b": 1.0}, "b", "rouge_l")
    {'average_performance': 0.625, 'backward_transfer': -0.25, 'forgetting': 0.25}
    """
    found = {"average_performance": fmean(scores.values())} if scores else {}
    learnt: dict[str, float] = {}
    best: dict[str, float] = {}
    for stage in stages:
        for task in stage.get("tasks", ()) if stage.get("scorer") == scorer else ():
            if "score" in task and task["name"] != newest:
                if task["name"] == stage["name"]:
                    learnt[task["name"]] = best[task["name"]] = task["score"]
                elif task["name"] in best:
                    best[task["name"]] = max(best[task["name"]], task["score"])
    earlier = [task for task in scores if task in learnt]
    if earlier:
        found["backward_transfer"] = fmean(scores[task] - learnt[task] for task in earlier)
        found["forgetting"] = fmean(best[task] - scores[task] for task in earlier)
    return found


def _in_trackio() -> Place:
    trackio = import_module("trackio")
    run = trackio.context_vars.current_run.get()
    return {"project": run.project, "name": run.name, "space_id": trackio.context_vars.current_space_id.get()}


def _in_mlflow() -> Place:
    return {"run_id": import_module("mlflow").active_run().info.run_id}


def _in_wandb() -> Place:
    run = import_module("wandb").run
    return {"id": run.id, "project": run.project, "entity": run.entity or None}


def _to_trackio(place: Place, metrics: Mapping[str, float], step: int) -> None:
    trackio = import_module("trackio")
    trackio.init(**place, resume="allow")
    trackio.log({**metrics, "train/global_step": step})
    trackio.finish()


def _to_mlflow(place: Place, metrics: Mapping[str, float], step: int) -> None:
    client = import_module("mlflow").MlflowClient()
    for name, value in metrics.items():
        client.log_metric(place["run_id"], name, value, step=step)


def _to_wandb(place: Place, metrics: Mapping[str, float], step: int) -> None:
    wandb = import_module("wandb")
    if wandb.run is not None and wandb.run.id == place["id"]:
        wandb.log({**metrics, "train/global_step": step})
        return
    with wandb.init(**place, resume="allow", reinit="create_new") as run:
        run.log({**metrics, "train/global_step": step})


def _to_tensorboard(place: Place, metrics: Mapping[str, float], step: int) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(log_dir=place["log_dir"]) as writer:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)


_FINDERS: dict[str, Callable[[], Place]] = {"trackio": _in_trackio, "mlflow": _in_mlflow, "wandb": _in_wandb}
_LOGGERS: dict[str, Callable[[Place, Mapping[str, float], int], None]] = {
    "trackio": _to_trackio,
    "mlflow": _to_mlflow,
    "wandb": _to_wandb,
    "tensorboard": _to_tensorboard,
}


def tensorboard_folder(args: Any) -> Path | None:
    """Where a plain trainer has TensorBoard's files: what the environment says, or the newest of its runs."""
    if "tensorboard" not in args.report_to:
        return None
    if chosen := os.environ.get("TENSORBOARD_LOGGING_DIR"):
        return Path(chosen).expanduser()
    runs = [path for path in Path(args.output_dir, "runs").glob("*") if path.is_dir()]
    return max(runs, key=lambda path: path.stat().st_mtime_ns, default=None)
