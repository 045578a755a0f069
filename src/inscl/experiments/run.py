"""A whole experiment: tasks x budgets x orders x strategies x seeds, each model trained once, resumable anywhere.

What it leaves on disk is in `inscl.experiments.run_folder`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa

from inscl.core.orders import Order, order_of, with_seed
from inscl.data.example import Example, Split
from inscl.data.mixture import MixtureRow
from inscl.data.row_check import check_rows
from inscl.engine import Engine
from inscl.engine.processes import Processes
from inscl.errors import ConfigError, InsclError, short
from inscl.experiments.config import StreamConfig
from inscl.experiments.data import StreamData
from inscl.experiments.jobs import UNTRAINED, Job, Scored, StreamPlan, merge_scored
from inscl.experiments.results import to_table
from inscl.experiments.run_folder import FORMAT, PARQUET, RECORD, RunFolder
from inscl.experiments.workers import Chain, Follower, Piece, Step, chains_of
from inscl.memory.encoder import Encoder
from inscl.memory.locks import alone, is_free
from inscl.models.loading import load_tokenizer
from inscl.models.precision import choose_dtype
from inscl.provenance import hardware, versions
from inscl.replay.general import training_rows
from inscl.replay.log import ReplayLog
from inscl.replay.planner import Replay, plan
from inscl.replay.settings import Settings
from inscl.replay.strategies import STRATEGIES
from inscl.stages.folder import Progress, StageFolder, Trainer
from inscl.stages.metrics import task_metrics
from inscl.tags import Tagger
from inscl.training.ranks import processes
from inscl.training.tracking import Tracked

# What may change between two calls: more work of the same kind, or what is kept of it.
MAY_CHANGE = frozenset({"orders", "strategies", "budgets", "seeds", "experts", "joint", "keep", "report_to"})

_LOOKED_AT = 200  # rows of a task among which one of each form is looked for


@dataclass(frozen=True, kw_only=True)
class Event:
    """How far a run is.

    Attributes
    ----------
    job, jobs : int
        Models done, and models in all as far as they are known.
    what, task : str
        What is trained, as "inscl, seed 0"; the task at hand.
    stage, stages : int
        Of the stream; both 1 for an expert.
    doing : str
        "train" or "score".
    done, total : int
        Steps of the training, or rows scored.
    loss : float, optional
    """

    job: int
    jobs: int
    what: str
    task: str
    stage: int
    stages: int
    doing: str
    done: int
    total: int
    loss: float | None = None


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes
    ----------
    folder : Path
    table : pyarrow.Table
        Every number, with the columns of `inscl.experiments.results.SCHEMA`.
    trained, scored : int
        Models that this call trained and scored; the others were there.
    """

    folder: Path
    table: pa.Table
    trained: int
    scored: int


def run(
    config: StreamConfig,
    out: str | Path,
    *,
    workers: int = 1,
    progress: Callable[[Event], None] | None = None,
    trainer: Trainer | None = None,
    encoder: Encoder | None = None,
    tagger: Tagger | None = None,
) -> RunResult:
    """Carry out an experiment, or what is left of it.

    Parameters
    ----------
    config : StreamConfig
        From `inscl.experiments.config.load_config`.
    out : path
        Folder of the run. One that holds the same run is continued: inside a stage from its last checkpoint,
        else at the first stage that is not finished.
    workers : int
        Models trained side by side, each by a process of its own (a script that asks for more than one needs the
        usual ``if __name__ == "__main__":``). Only with the default trainer, encoder and tagger.
    progress : callable, optional
        Told of every step.
    trainer : Trainer, optional
        Who trains and scores; by default `inscl.stages.trainer.ModelTrainer`.
    encoder : Encoder, optional
        Default: what the configuration names.
    tagger : Tagger, optional

    Returns
    -------
    RunResult

    Raises
    ------
    ConfigError
        If the folder holds a run of another configuration, another command is at work in it, or an order cannot
        be made.
    InsclError
        If training stops (memory, disk, a loss that is not finite); the message names the stage, and the same
        call goes on there.
    """
    out = Path(out)
    if workers > 1 and (any((trainer, encoder, tagger)) or processes() > 1):
        raise ConfigError("Several workers need the default trainer, encoder and tagger, and no launcher.")
    _refuse_strangers(out)
    with alone(out):
        return _Run(config, out, progress=progress, trainer=trainer, encoder=encoder, tagger=tagger).go(workers)


class _Run:
    """The state of a call of `run`, and of each process that helps it."""

    def __init__(
        self,
        config: StreamConfig,
        out: Path,
        *,
        progress: Callable[[Event], None] | None = None,
        trainer: Trainer | None = None,
        encoder: Encoder | None = None,
        tagger: Tagger | None = None,
    ) -> None:
        self.config, self.out, self.progress = config, out, progress or (lambda event: None)
        self.folder = _open(config, out)
        self.data = StreamData(config, self.folder, encoder or _encoder(config), tagger)
        self.trainer = trainer or self._trainer()
        self._unseen = trainer is None
        self.jobs: dict[Job, Scored] = {}
        self.done: set[Job] = set()
        self.dropped: set[Job] = set()
        self.trained = self.scored = 0
        self.engine: Engine | None = None
        self.finished: Callable[[Job], None] = lambda job: None

    def go(self, workers: int = 1) -> RunResult:
        """All the work, in an order in which a model is there when the next one starts from it."""
        self.data.remember()
        self._note_data()
        for seed in {*self.config.seeds, *self._expert_seeds}:
            self.data.memory(seed)
        if workers == 1:
            self._do_all()
        else:
            with Processes(workers) as self.engine:
                self._do_all()
        return RunResult(self.out, self._table(), self.trained, self.scored)

    def _do_all(self) -> None:
        bounds = self._bounds()
        known = self._streams(None) if not self._curriculum else []
        self._do_bounds(bounds, known)
        streams = known
        if self._curriculum:
            streams = self._streams(self._dev_scores())
            self._do_bounds(bounds, streams)  # an expert that begins a stream is asked about the next task too
        self.folder.write_streams(streams)
        for chains in chains_of(streams, side_by_side=self.engine is not None):
            self._do_chains(chains, streams)

    # ---------------------------------------------------------------- what there is to do

    @property
    def _curriculum(self) -> bool:
        return "curriculum" in self.config.orders

    @property
    def _expert_seeds(self) -> Sequence[int]:
        return self.config.experts.seeds if self.config.experts else ()

    def _bounds(self) -> dict[Job, Scored]:
        """The untrained model, the experts, and joint training: what every stream is compared with."""
        names, most = self.data.names, self.config.test_rows.most
        bounds: dict[Job, Scored] = {UNTRAINED: dict.fromkeys(names, most)}
        for task in names:
            for seed in self._expert_seeds:
                bounds[Job.expert(task, seed)] = {task: most}
        if self.config.joint:
            for seed in self.config.seeds:
                bounds[Job.joined(names, seed)] = dict.fromkeys(names, most)
        return bounds

    def _streams(self, dev_scores: Mapping[str, float] | None) -> list[StreamPlan]:
        def orders(seed: int) -> list[tuple[Order, list[str]]]:
            named = dict.fromkeys(with_seed(order, seed) for order in self.config.orders)
            return [(order, order_of(order, self.data.names, dev_scores)) for order in named]

        return StreamPlan.all_of(self.config, orders)

    def _wanted(self, streams: Iterable[StreamPlan], bounds: Mapping[Job, Scored]) -> dict[Job, Scored]:
        stages = [pair for stream in streams for pair in stream.scored(self.config.test_rows)]
        return merge_scored([*bounds.items(), *stages])

    # ---------------------------------------------------------------- doing it

    def _do_bounds(self, bounds: Mapping[Job, Scored], streams: Sequence[StreamPlan]) -> None:
        """The upper bounds, with all that is known to be wanted of them."""
        self.jobs = self._wanted(streams, bounds)
        self.done.clear()
        self._do_chains([(Step(job),) for job in bounds], streams)

    def _do_chains(self, chains: Sequence[Chain], streams: Sequence[StreamPlan]) -> None:
        """Do chains one after another, or side by side where there are processes for them."""
        if self.engine is None:
            for chain in chains:
                self.follow(chain, streams)
            return
        pieces = [Piece(chain, self.jobs, streams) for chain in chains]
        for trained, scored in self.engine.map(self._follower, pieces, self._hear):
            self.trained, self.scored = self.trained + trained, self.scored + scored
        self.done.update(step.job for chain in chains for step in chain)
        self._tidy(streams)

    def follow(self, chain: Chain, streams: Sequence[StreamPlan]) -> None:
        """Do the jobs of a chain."""
        for step in chain:
            self._do(step.job, step.stream, step.stage)
            self.finished(step.job)
            self._tidy(streams)

    @cached_property
    def _follower(self) -> Follower:
        return Follower(partial(_Run, self.config, self.out), self.out)

    def _hear(self, said: Event | Job) -> None:
        """Note another process's job that is done; tell of its steps how far the whole run is."""
        if isinstance(said, Job):
            self.done.add(said)
        else:
            self.progress(replace(said, job=len(self.done), jobs=len(self.jobs)))

    def _folder(self, job: Job) -> StageFolder:
        return self.folder.stage(job.name)

    def _do(self, job: Job, stream: StreamPlan | None = None, stage: int = 1) -> None:
        """Train and score a model, unless that is done."""
        if job in self.done:
            return
        folder, wanted = self._folder(job), self._rows(job)
        step = self._steps(job, stream, stage)
        try:
            missing = [side for side, tasks in wanted.items() if not _has(folder, side, tasks)]
            if missing:
                self._look_at_rows()
                model = self._model(job, step("train"))
                for side in missing:
                    folder.score(self.trainer, model, wanted[side], side=side, progress=step("score"))
                self.scored += 1
        except InsclError as error:
            raise type(error)(f"{_title(job, stream)}: {error}") from error
        self._track(job, stream, stage)
        self.done.add(job)

    def _track(self, job: Job, stream: StreamPlan | None, stage: int) -> None:
        """Send a stage's scores, and what its stream comes to so far, to the trackers that have its loss."""
        folder = self._folder(job)
        if Tracked.read(folder.path).places:
            so_far = RunFolder(self.out).result_so_far(stream, stage) if stream else None
            Tracked.send(folder.path, so_far.tracked() if so_far else task_metrics(folder.scores()))

    def _rows(self, job: Job) -> dict[Split, dict[str, list[Example]]]:
        """The rows that a job's model is scored on, per side and task."""
        test = {task: self.data.rows(task, "test", limit) for task, limit in self.jobs[job].items()}
        if not (self._curriculum and len(job.learnt) == 1 and job.seed in self._expert_seeds):
            return {"test": test}
        dev = self.data.rows(job.task, "dev", self.config.test_rows.most)
        if not dev:
            raise ConfigError(f"The order 'curriculum' needs dev rows, and task '{job.task}' has none.")
        return {"test": test, "dev": {job.task: dev}}

    def _model(self, job: Job, progress: Progress) -> str | Path:
        """Where the model of a job is; it is trained if need be, and those before it that are gone."""
        if not job.learnt:
            return self.config.locate(self.config.model)
        folder = self._folder(job)
        if not folder.finished:
            start = self._model(job.start or UNTRAINED, progress)
            if job.joint:
                folder.mix(self._joint_rows(job), self.data.chat)
            else:
                folder.prepare(lambda: self._plan(job), self.data.chat, self.trainer, start, progress)
            folder.train(self.trainer, start, seed=job.seed, progress=progress)
            self.trained += 1
        if self._measures and not job.joint and job.seed in self.config.seeds:
            memory = self.data.memory(job.seed)
            folder.measure(self.trainer, map(memory.task, job.learnt))
        return folder.model

    @cached_property
    def _measures(self) -> bool:
        """Whether a strategy looks at the losses of earlier tasks."""
        return any(STRATEGIES.named(name).losses for name in self.config.strategies)

    def _look_at_rows(self) -> None:
        """Before anything is computed, one row of each form as the model's tokenizer has it, once in each process."""
        if not self._unseen:
            return
        self._unseen = False
        rows = [MixtureRow(task, row) for task in self.data.names for row in self.data.rows(task, "train", _LOOKED_AT)]
        check_rows(rows, load_tokenizer(self.config.locate(self.config.model)), chat=self.data.chat)

    def _plan(self, job: Job) -> Replay:
        memory = self.data.memory(job.seed)
        return plan(
            memory,
            job.task,
            budget=job.budget,
            strategy=job.strategy or "none",
            seed=job.seed,
            settings=Settings(**self.config.replay) if self.config.replay else None,
            earlier=job.learnt[:-1],
            general=self.config.general.share if self.config.general else None,
            log=lambda: ReplayLog(self._replayed(job)),
        )

    def _replayed(self, job: Job) -> list[dict[str, Any]]:
        """What the earlier stages of a job's stream replayed, oldest first."""
        if job.start is None:
            return []
        replayed = self._folder(job.start).replayed()
        earlier = self._replayed(job.start)
        return earlier if replayed is None else [*earlier, replayed]

    def _joint_rows(self, job: Job) -> list[MixtureRow]:
        """The training rows of all tasks; the trainer shuffles them."""
        memory = self.data.memory(job.seed)
        return [
            row for task in job.learnt for row in plan(memory, task, strategy="none", seed=job.seed, earlier=()).rows()
        ]

    def _tidy(self, streams: Sequence[StreamPlan]) -> None:
        """Delete the models that nothing starts from any more, but those that the user keeps."""
        if self.config.keep == "all":
            return
        needed = {job.start for job in self.jobs if job not in self.done}
        if not streams:  # their orders are not known yet: any expert may be the first stage of one
            needed |= {job for job in self.done if job.seed in self.config.seeds}
        kept = {stream.jobs()[-1] for stream in streams} if self.config.keep == "last" else set()
        for job in self.done - needed - kept - self.dropped:
            self._folder(job).drop_model()
            self.dropped.add(job)

    # ---------------------------------------------------------------- what came out

    def _dev_scores(self) -> dict[str, float]:
        """Mean development score of each task's experts."""
        return {task: self._expert(task, "dev") for task in self.data.names}

    def _expert(self, task: str, side: str = "test") -> float:
        found = [self._folder(Job.expert(task, seed)).scores(side)[task] for seed in self._expert_seeds]
        return fmean(scores.mean(self.config.scorer) for scores in found)

    def _table(self) -> pa.Table:
        """All numbers, written down; those that do not need experts even where an expert scores 0."""
        results = RunFolder(self.out).results()
        try:
            table = to_table(results)
        except ValueError as error:
            self.folder.write_table(to_table(replace(result, experts=None) for result in results))
            raise InsclError(f"{error} The scores are in {self.out / PARQUET}, without what needs experts.") from error
        self.folder.write_table(table)
        return table

    # ---------------------------------------------------------------- around it

    def _trainer(self) -> Trainer:
        from inscl.stages.trainer import ANSWERS_LOOKED_AT, ModelTrainer

        self.config.check()
        if "dtype" not in self.folder.record:
            self.folder.note(dtype=choose_dtype(self.config.dtype))
        return ModelTrainer(
            self.config.model_copy(update={"dtype": self.folder.record["dtype"]}),
            answers=lambda task: training_rows(self.data.whole, task, ANSWERS_LOOKED_AT),
            chat=lambda: self.data.chat,
            keep_in=self.folder.kept,
        )

    def _note_data(self) -> None:
        """Record what the tasks are, once they are read."""
        tasks = {
            info.name: {"content": info.content, "rows": info.rows, "instructions": info.instructions}
            for info in self.data.whole.tasks()
        }
        self.folder.note(tasks=tasks)

    def _steps(self, job: Job, stream: StreamPlan | None, stage: int) -> Callable[[str], Progress]:
        where: dict[str, Any] = {
            "job": len(self.done),
            "jobs": len(self.jobs),
            "what": _title(job, stream),
            "task": job.task if job.learnt and not job.joint else "all tasks",
            "stage": stage,
            "stages": len(stream.tasks) if stream else 1,
        }

        def step(doing: str) -> Progress:
            def report(done: int, total: int, loss: float | None) -> None:
                self.progress(Event(**where, doing=doing, done=done, total=total, loss=loss))

            return report

        return step


def _open(config: StreamConfig, out: Path) -> RunFolder:
    """The run's folder with its record: a new one, or that of a run with the same configuration."""
    folder, wanted = RunFolder(out), config.resolved()
    if not folder.record:
        folder.note(inscl_run=FORMAT, versions=versions(), hardware=hardware(), config=wanted)
        return folder
    found = folder.config.resolved()  # what an older release did not know has its default
    if changed := [key for key in wanted if key not in MAY_CHANGE and found.get(key) != wanted[key]]:
        key = changed[0]
        raise ConfigError(
            f"'{out}' holds a run of another configuration: {', '.join(f'`{name}`' for name in changed)} changed "
            f"(`{key}` was {_shown(found.get(key))}, is {_shown(wanted[key])}). Restore it, or name another "
            "folder with --out."
        )
    folder.note(config=wanted)
    return folder


def _refuse_strangers(out: Path) -> None:
    """Leave a folder alone that holds something else."""
    if not RunFolder(out).exists and not is_free(out, RECORD):
        raise ConfigError(f"'{out}' is not empty and holds no run. Name another folder with --out.")


def _encoder(config: StreamConfig) -> Encoder | None:
    from inscl.memory.encoder import SentenceEncoder

    return SentenceEncoder(config.locate(config.encoder)) if config.encoder else None


def _has(folder: StageFolder, side: str, tasks: Mapping[str, Sequence[Example]]) -> bool:
    known = folder.scores(side)
    return all(task in known and known[task].n >= len(rows) for task, rows in tasks.items())


def _title(job: Job, stream: StreamPlan | None) -> str:
    if not job.learnt:
        return "untrained model"
    if stream is None:
        return f"joint, seed {job.seed}" if job.joint else f"expert, seed {job.seed}, task '{job.task}'"
    budget = f" with {stream.budget_name}" if stream.budget else ""
    where = f"order {stream.order_name}, seed {stream.seed}, stage {len(job.learnt)}"
    return f"{stream.strategy}{budget}, {where}"


def _shown(value: object) -> str:
    return short(json.dumps(value, ensure_ascii=False), 80)
