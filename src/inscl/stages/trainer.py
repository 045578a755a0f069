"""Trains and scores models for runs and for `learn`, and keeps the last one in memory for what comes next.

A stage's model is trained, then scored, then trained on: it is read from disk only where another one is wanted.
Whether a model comes from memory or from disk changes nothing: both have the same weights in the same form.
Where a command was launched as several processes, the others hold the same model, and train the same stages.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inscl.data.example import Example
from inscl.errors import require
from inscl.evaluation.evaluate import Prediction, answer_limit, generate_and_score
from inscl.evaluation.scores import RowScores
from inscl.experiments.config import Protect, StreamConfig
from inscl.models.loading import RECORD, LoadedModel, load
from inscl.stages.folder import Tell
from inscl.training import adapters, ranks
from inscl.training.adapters import Adapter, mode_of
from inscl.training.fields import checked
from inscl.training.stage import StageRecord
from inscl.training.tracking import check_trackers
from inscl.training.train import train_stage

ANSWERS_LOOKED_AT = 1000  # training answers from which a task's longest answer is taken


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """How a stage trains and scores; fields as in `StreamConfig`, with `dtype` already chosen."""

    training: Mapping[str, Any] = field(default_factory=dict)
    peft: Mapping[str, Any] | None = None
    protect: Protect = field(default_factory=Protect)
    adapter: Adapter = "continue"
    batch_size: int = 32
    max_length: int = 1024
    padding_free: bool = False
    max_new_tokens: int | None = None
    scorer: str = "rouge_l"
    dtype: str = "float32"

    @classmethod
    def of(cls, config: StreamConfig, dtype: str) -> "StageSettings":
        """Those of a run."""
        training = dict(config.training)
        if config.report_to:
            training["report_to"] = list(config.report_to)
        return cls(
            training=training,
            peft=config.peft,
            protect=config.protect,
            adapter=config.adapter,
            batch_size=config.batch_size,
            max_length=config.max_length,
            padding_free=config.padding_free,
            max_new_tokens=config.max_new_tokens,
            scorer=config.scorer,
            dtype=dtype,
        )


def check_training(training: Mapping[str, Any], peft: Mapping[str, Any] | None) -> None:
    """Refuse a field of `training` that is none, or ours, and a bad `peft`, before anything is computed.

    Raises
    ------
    ConfigError
        That names all such fields.
    """
    if peft is not None:
        adapters.configuration(peft)
    sft = require("trl", extra="train", purpose="Training")
    checked(training, set(sft.SFTConfig.__dataclass_fields__))


class ModelWorker:
    """The real worker: TRL trains, our generation answers.

    Parameters
    ----------
    settings : StageSettings
    answers : callable
        Training rows of a task by name, from which the most tokens of its answers are taken.
    chat : callable
        Whether rows are asked in chat form.
    """

    def __init__(
        self, settings: StageSettings, answers: Callable[[str], Sequence[Example]], chat: Callable[[], bool]
    ) -> None:
        check_trackers(settings.training.get("report_to"))
        self.settings, self._answers, self._chat = settings, answers, chat
        self._limits: dict[str, int] = {}
        self._held: tuple[str, LoadedModel] | None = None

    def train(self, mixture: Path, start: str | Path, out: Path, *, seed: int, tell: Tell) -> Mapping[str, Any]:
        """Train a stage in `out`; the record of a finished one is read."""
        if (out / RECORD).exists():
            return dict(json.loads((out / RECORD).read_text(encoding="utf-8")))
        ranks.post(
            {
                "settings": {**vars(self.settings), "protect": self.settings.protect.model_dump()},
                "mixture": str(mixture),
                "start": str(start),
                "out": str(out),
                "seed": seed,
                "held": self._holds(start),
            }
        )
        return asdict(self._train(mixture, start, out, seed, tell))

    def join(self, job: Mapping[str, Any]) -> None:
        """Take part in a stage that the first process trains, from the same weights in the same form."""
        protect = Protect(**job["settings"]["protect"])
        self.settings = StageSettings(**{**job["settings"], "protect": protect})
        if not job["held"]:
            self._held = None
        self._train(Path(job["mixture"]), job["start"], Path(job["out"]), job["seed"], None)

    def _train(self, mixture: Path, start: str | Path, out: Path, seed: int, tell: Tell | None) -> StageRecord:
        s = self.settings
        model = self._load(start)
        self._held = None  # its weights are about to change
        record = train_stage(
            mixture,
            model,
            out,
            training=s.training,
            peft=s.peft,
            batch_size=s.batch_size,
            max_length=s.max_length,
            padding_free=s.padding_free,
            seed=seed,
            adapter=s.adapter,
            dtype=s.dtype,
            progress=tell,
            tracks=mixture.parent,
            **s.protect.model_dump(),
        )
        self._held = str(out), model
        return record

    def score(
        self, model: str | Path, tasks: Mapping[str, Sequence[Example]], out: Path, *, tell: Tell
    ) -> dict[str, RowScores]:
        """Answer and score the rows of each task."""
        loaded = self._load(model)
        generate_and_score(
            loaded,
            tasks,
            max_new_tokens={task: self._limit(task, loaded.tokenizer) for task in tasks},
            max_length=self.settings.max_length,
            chat=self._chat(),
            scorer=self.settings.scorer,
            out=out,
            dtype=self.settings.dtype,
            progress=lambda done, total: tell(done, total, None),
        )
        return predicted(out, tasks, self.settings.scorer)

    def _limit(self, task: str, tokenizer: Any) -> int:
        if self.settings.max_new_tokens is not None:
            return self.settings.max_new_tokens
        if task not in self._limits:
            self._limits[task] = answer_limit(self._answers(task), tokenizer, chat=self._chat())
        return self._limits[task]

    def _load(self, model: str | Path) -> LoadedModel:
        if self._held is None or not self._holds(model):
            self._held = None  # two models at once may not fit
            s = self.settings
            goes_on = s.peft is not None and mode_of(s.peft, s.adapter) == "continue"
            # The weights under an adapter that is trained on are never changed, so half precision is enough.
            dtype = "bfloat16" if goes_on and s.dtype == "bfloat16" else "float32"
            self._held = str(model), load(model, dtype=dtype, merge=not goes_on)
        return self._held[1]

    def _holds(self, model: str | Path) -> bool:
        return self._held is not None and self._held[0] == str(model)


def follow() -> int:
    """What every process but the first does under ``torchrun`` or ``accelerate launch``; the exit code."""
    worker = ModelWorker(StageSettings(), answers=lambda task: (), chat=lambda: False)
    return ranks.follow(worker.join)


def predicted(folder: Path, tasks: Mapping[str, Sequence[Example]], scorer: str) -> dict[str, RowScores]:
    """Row scores of the predictions that lie in a folder.

    Parameters
    ----------
    folder : Path
        Where `generate_and_score` left a file per task.
    tasks : mapping from task to sequence of Example
        The rows that were asked.
    scorer : str
        Name of the scorer beside exact match.
    """
    files = {}
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
        with path.open(encoding="utf-8") as lines:
            rows = [Prediction(**json.loads(line)) for line in lines]
        files[_asked(rows[0].task, rows)] = rows
    return {task: RowScores.of(files[_asked(task, examples)], scorer) for task, examples in tasks.items()}


def _asked(task: str, rows: Sequence[Prediction] | Sequence[Example]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What tells the predictions of one set of rows from another."""
    return task, tuple((row.instruction, row.input) for row in rows)
