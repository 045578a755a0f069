"""Folders of runs for the report's tests, made without training: as large, as hostile or as unfinished as asked."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from inscl.core.orders import order_of
from inscl.data.example import Example, instruction_key, key_of
from inscl.evaluation.scores import RowScores, instructions_of
from inscl.experiments.config import StreamConfig
from inscl.experiments.jobs import UNTRAINED, Job, StreamPlan
from inscl.experiments.results import Stream, StreamResult, to_table
from inscl.experiments.run_folder import RunFolder
from inscl.replay.budget import Budget
from inscl.replay.plan import InstructionPlan, NewTask, Plan, TaskPlan
from inscl.replay.strategies import STRATEGIES

SETTINGS = {"encoder": "words", "tagger": "words", "weights": "frequency", "radius": 0.1, "min_samples": 2}
ROWS = tuple(key_of("row", name).hex() for name in "ab")
TASKS = ("sums", "capitals", "colours", "rhymes")


def made_run(
    folder: Path,
    tasks: Sequence[str] = TASKS,
    *,
    strategies: Sequence[str] = ("none", "random", "inscl"),
    orders: Sequence[str] = ("given",),
    seeds: Sequence[int] = (0,),
    rows: int = 8,
    joint: bool = False,
    stages_done: int | None = None,
    answer: str = "pay 1 coin",
    model: str = "no-model",
) -> Path:
    """Write the folder of a run; with `stages_done`, one that was stopped after so many stages of each stream."""
    config = StreamConfig.model_validate(
        {
            "tasks": {name: {"data": [f"{i}.jsonl"]} for i, name in enumerate(tasks)},
            "model": model,
            "strategies": list(strategies),
            "orders": list(orders),
            "seeds": list(seeds),
            "budgets": [{"per_task": 4}],
            "experts": {"seeds": [0]},
            "joint": joint,
            "test_rows": rows,
        }
    )
    maker = _Maker(folder, config, tuple(tasks), rows, answer)
    maker.write(stages_done)
    return folder


class _Maker:
    def __init__(self, folder: Path, config: StreamConfig, tasks: tuple[str, ...], rows: int, answer: str) -> None:
        self.folder, self.config, self.tasks, self.rows, self.answer = folder, config, tasks, rows, answer
        self.known: dict[tuple[str, str], RowScores] = {}
        self.written: set[str] = set()

    def write(self, stages_done: int | None) -> None:
        self.folder.mkdir(parents=True)
        data = {
            task: {"content": blake2b(task.encode(), digest_size=16).hexdigest(), "instructions": 3,
                   "rows": {"train": 40, "dev": 5, "test": self.rows}}
            for task in self.tasks
        }  # fmt: skip
        record = {"inscl_run": 1, "versions": {"inscl": "0"}, "hardware": {"cores": 2}, "tasks": data,
                  "config": self.config.resolved()}  # fmt: skip
        (self.folder / "run.json").write_text(json.dumps(record))
        streams = StreamPlan.all_of(
            self.config, lambda seed: [(o, order_of(o, self.tasks, None)) for o in self.config.orders]
        )
        described = [
            {"strategy": s.strategy, "budget": s.budget_name, "order": s.order_name, "seed": s.seed,
             "tasks": list(s.tasks), "stages": [job.name for job in s.jobs()]}
            for s in streams
        ]  # fmt: skip
        (self.folder / "streams.json").write_text(json.dumps(described))
        self.stage(UNTRAINED, self.tasks)
        for task in self.tasks:
            self.stage(Job.expert(task, 0), [task])
        if self.config.joint:
            for seed in self.config.seeds:
                self.stage(Job.joined(self.tasks, seed), self.tasks)
        for stream in streams:
            answered = stream.seed == self.config.seeds[0] and stream.order == self.config.orders[0]
            for i, job in enumerate(stream.jobs()[:stages_done], start=1):
                self.stage(job, stream.tasks[: i + 1], answered=answered)
        if stages_done is None:
            RunFolder(self.folder).write_table(to_table([*map(self.result, streams), *self.joint()]))

    def scores(self, job: Job, task: str) -> RowScores:
        """Row scores that depend on the job and the task alone: 0 or 1 with a chance that falls with forgetting."""
        if (job.name, task) not in self.known:
            digest = blake2b(f"{job.name}\0{task}".encode(), digest_size=8).digest()
            rng = np.random.default_rng(int.from_bytes(digest, "big"))
            age = len(job.learnt) - 1 - job.learnt.index(task) if task in job.learnt else None
            keeps = {"none": 0.5, "": 1.0, "random": 0.9}.get(job.strategy, 0.95)
            chance = 0.1 if age is None else 0.9 if job.joint else 0.95 * keeps**age
            values = (rng.random(self.rows) < chance).astype(float)
            values[0] = 1.0 if len(job.learnt) == 1 else values[0]  # no expert scores 0
            keys = instructions_of([Example(f"Do {task}, wording {i % 3}.") for i in range(self.rows)])
            self.known[job.name, task] = RowScores({self.config.scorer: values.tolist()}, keys)
        return self.known[job.name, task]

    def stage(self, job: Job, scored: Sequence[str], *, answered: bool = False) -> None:
        folder = self.folder / "stages" / job.name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "scores.json"
        before = json.loads(path.read_text())["test"] if path.exists() else {}
        test = {task: self.scores(job, task).to_dict() for task in scored}
        trained = {"tokens": 1000 + 100 * len(job.learnt), "seconds": 60.0, "replayed_share": 0.2}
        path.write_text(json.dumps({"trained": trained, "test": {**before, **test}}))
        if job.start is not None and STRATEGIES[job.strategy].budget is not None and job.name not in self.written:
            self.plan(job).write(folder / "plan.json")
            self.written.add(job.name)
        if answered:
            self.answers(job, folder / "predictions" / "test", scored)

    def answers(self, job: Job, folder: Path, scored: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for i, task in enumerate(scored):
            lines = [
                {"task": task, "instruction": f"Do {task}, wording {k % 3}.", "input": f"case {k}",
                 "references": [f"right {k}"], "prediction": f"right {k}" if value else self.answer,
                 "capped": False, "truncated": False, "loss": None, "tokens": 2}
                for k, value in enumerate(self.scores(job, task).rows[self.config.scorer])
            ]  # fmt: skip
            (folder / f"{i}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def plan(self, job: Job) -> Plan:
        *earlier, new = job.learnt
        by_distance = job.strategy in ("inscl", "dynamic")
        tagged = job.strategy in ("inscl", "insinfo")
        distances = [
            0.5 + 0.4 * abs(self.tasks.index(task) - self.tasks.index(new)) / len(self.tasks) for task in earlier
        ]
        return Plan(
            name=new,
            new=NewTask("c", 3, 40, 800),
            stage=len(job.learnt),
            strategy=job.strategy,
            seed=job.seed,
            budget=Budget(4),
            total=4 * len(earlier),
            settings=SETTINGS,
            versions={},
            hashes={},
            tasks=tuple(
                TaskPlan(
                    name=task, content="c", share=1 / len(earlier), count=4, available=40, tokens=80,
                    all_instructions=3, distance=distance if by_distance else None,
                    instructions=tuple(
                        InstructionPlan(
                            instruction_key(f"{task}-{k}").hex(), f"Do {task}, wording {k}.", 2, 13, ROWS,
                            ("do", task) if tagged else None, 1.5 + k if tagged else None,
                        )
                        for k in range(2)
                    ),
                )
                for task, distance in zip(earlier, distances, strict=True)
            ),
        )  # fmt: skip

    def scored(self, job: Job, tasks: Sequence[str]) -> dict[str, RowScores]:
        return {task: self.scores(job, task) for task in tasks}

    def result(self, stream) -> StreamResult:
        jobs = stream.jobs()
        return StreamResult(
            stream=self.columns(stream.strategy, stream.budget_name, stream.order_name, stream.seed),
            tasks=stream.tasks,
            stages=[self.scored(job, stream.tasks[: i + 1]) for i, job in enumerate(jobs, start=1)],
            main=self.config.scorer,
            experts={task: [self.scores(Job.expert(task, 0), task)] for task in self.tasks},
            zero_shot=self.scored(UNTRAINED, self.tasks),
            costs=[
                {"tokens": 1000.0 + 100 * i, "seconds": 60.0, "replayed_share": 0.2} for i in range(1, len(jobs) + 1)
            ],
        )

    def joint(self) -> list[StreamResult]:
        if not self.config.joint:
            return []
        return [
            StreamResult(
                stream=self.columns("joint", "", "", seed),
                tasks=self.tasks,
                stages=[self.scored(Job.joined(self.tasks, seed), self.tasks)],
                main=self.config.scorer,
                at_once=True,
            )
            for seed in self.config.seeds
        ]

    def columns(self, strategy: str, budget: str, order: str, seed: int) -> Stream:
        return Stream(
            run_id=self.folder.name, model=self.config.model, strategy=strategy, budget=budget, order=order, seed=seed
        )
