"""The scores of a stage, sent to the trackers that hold its loss: trackio, MLflow, W&B, TensorBoard.

A stage is scored when its training is over and its trackers are closed, perhaps by another call of the same command.
So training notes in ``tracking.json`` where its tracker runs are, and `Tracked.send` goes on with these. Without a
tracker there is no such file, and nothing is imported or sent.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from inscl.errors import ConfigError, require
from inscl.files import write_json
from inscl.suggest import suggest

_logger = logging.getLogger(__name__)

_FILE = "tracking.json"
PROJECT = "inscl"  # of trackio, if `training` names none
TENSORBOARD = "tensorboard"  # folder of its files in a stage's
# Fields of `training` that say where the loss is shown, and nothing about the model.
TRACKER_FIELDS = frozenset(
    {"report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"}
)

_TrackedRun = dict[str, str | None]  # what a tracker needs to go on with a run


@dataclass(frozen=True)
class Tracked:
    """Where the loss of a training was logged.

    Attributes
    ----------
    places : mapping from tracker to what it needs to go on with its run
    step : int
        Steps trained so far.
    sent : str
        Hash of the scores that were sent last.
    """

    places: Mapping[str, _TrackedRun] = field(default_factory=dict)
    step: int = 0
    sent: str = ""

    @classmethod
    def just_opened(cls, report_to: str | Sequence[str] | None, tensorboard: Path | None, step: int = 0) -> "Tracked":
        """Where the runs are that a trainer has just opened.

        Parameters
        ----------
        report_to : str or sequence of str, optional
            Trackers, as the trainer names them; those that are not known here are left out.
        tensorboard : Path, optional
            Where TensorBoard's files go.
        step : int
            Steps trained so far.
        """
        found: dict[str, _TrackedRun] = {"tensorboard": {"log_dir": str(tensorboard)}} if tensorboard else {}
        for name, find in _FINDERS.items():
            if name in (report_to or ()):
                try:
                    found[name] = find()
                except Exception as error:
                    _logger.warning("no run of %s was found, so it gets no scores: %s", name, error)
        return cls(found, step)

    @classmethod
    def read(cls, folder: Path) -> "Tracked":
        """What a stage's folder says; no places where nothing was tracked."""
        try:
            return cls(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return cls()

    def write(self, folder: Path) -> None:
        """Note it in a stage's folder."""
        write_json(folder / _FILE, vars(self))

    def log(self, metrics: Mapping[str, float], step: int) -> bool:
        """Log metrics at a step in these runs, which have ended, or are open still.

        Returns
        -------
        bool
            Whether all went through. A tracker that fails is told in the log: the scores themselves are safe elsewhere.
        """
        fine = True
        for name, place in self.places.items():
            try:
                with redirect_stdout(sys.stderr):  # what trackers say is no result of ours
                    _LOGGERS[name](place, metrics, step)
            except Exception as error:
                fine = False
                reason = str(error).strip().split("\n")[0] or type(error).__name__
                _logger.warning("the scores could not be sent to %s: %s", name, reason)
        return fine

    @classmethod
    def send(cls, folder: Path, metrics: Mapping[str, float]) -> None:
        """Send a stage's metrics to its trackers, once.

        Parameters
        ----------
        folder : Path
            The stage's folder; without ``tracking.json`` in it nothing happens.
        metrics : mapping from name to float
            The same metrics are not sent again.
        """
        tracked = cls.read(folder)
        digest = blake2b(json.dumps(dict(metrics), sort_keys=True).encode(), digest_size=16).hexdigest()
        if tracked.places and digest != tracked.sent and tracked.log(metrics, tracked.step):
            cls(tracked.places, tracked.step, digest).write(folder)


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


def _in_trackio() -> _TrackedRun:
    trackio = import_module("trackio")
    run = trackio.context_vars.current_run.get()
    return {"project": run.project, "name": run.name, "space_id": trackio.context_vars.current_space_id.get()}


def _in_mlflow() -> _TrackedRun:
    return {"run_id": import_module("mlflow").active_run().info.run_id}


def _in_wandb() -> _TrackedRun:
    run = import_module("wandb").run
    return {"id": run.id, "project": run.project, "entity": run.entity or None}


def _to_trackio(place: _TrackedRun, metrics: Mapping[str, float], step: int) -> None:
    trackio = import_module("trackio")
    trackio.init(**place, resume="allow")
    trackio.log({**metrics, "train/global_step": step})
    trackio.finish()


def _to_mlflow(place: _TrackedRun, metrics: Mapping[str, float], step: int) -> None:
    client = import_module("mlflow").MlflowClient()
    for name, value in metrics.items():
        client.log_metric(place["run_id"], name, value, step=step)


def _to_wandb(place: _TrackedRun, metrics: Mapping[str, float], step: int) -> None:
    wandb = import_module("wandb")
    if wandb.run is not None and wandb.run.id == place["id"]:
        wandb.log({**metrics, "train/global_step": step})
        return
    with wandb.init(**place, resume="allow", reinit="create_new") as run:
        run.log({**metrics, "train/global_step": step})


def _to_tensorboard(place: _TrackedRun, metrics: Mapping[str, float], step: int) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(log_dir=place["log_dir"]) as writer:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)


_FINDERS: dict[str, Callable[[], _TrackedRun]] = {"trackio": _in_trackio, "mlflow": _in_mlflow, "wandb": _in_wandb}
_LOGGERS: dict[str, Callable[[_TrackedRun, Mapping[str, float], int], None]] = {
    "trackio": _to_trackio,
    "mlflow": _to_mlflow,
    "wandb": _to_wandb,
    "tensorboard": _to_tensorboard,
}
