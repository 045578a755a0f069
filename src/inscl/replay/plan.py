"""A replay plan: what will be replayed, how much of it from where, and why. A value, and a JSON file.

Nothing in a plan depends on when, where or by whom it was made. Equal memory content, new data, embeddings,
settings, seed and versions give an equal plan; `compare` says which of these differ.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from inscl.errors import PlanError, short
from inscl.files import whole_file
from inscl.replay.budget import Budget

FORMAT = 1
ONCE_UNNAMED = {"insinfo": "paper"}  # settings that older plans do not name, and what they were


@dataclass(frozen=True)
class InstructionPlan:
    """What is replayed of one instruction."""

    key: str  # hex
    text: str
    count: int
    available: int
    rows: tuple[str, ...]  # keys of the chosen examples, in hex
    tags: tuple[str, ...] | None = None  # after merging; None where the strategy looks at no tags
    insinfo: float | None = None  # the variant that the settings name; None where the strategy looks at none


@dataclass(frozen=True)
class TaskPlan:
    """What is replayed of one earlier task."""

    name: str
    content: str  # hash of the task's content
    share: float  # of the budget, before caps and rounding
    count: int
    available: int  # training rows it has
    tokens: int  # estimated, of the chosen rows
    all_instructions: int  # with training rows
    distance: float | None = None  # Wasserstein distance to the new task; None where the strategy needs none
    weight: float = 1.0  # of the loss on these rows
    repeats: int = 1  # times each chosen row is shown
    carried: float | None = None  # examples it is owed still; None where the strategy carries nothing
    instructions: tuple[InstructionPlan, ...] = ()  # those with a chosen row


@dataclass(frozen=True)
class NewTask:
    """The task that the stage will train on."""

    content: str
    instructions: int
    rows: int  # training rows
    tokens: int  # estimated, of the training rows


@dataclass(frozen=True)
class Plan:
    """A stage's replay, whole.

    Attributes
    ----------
    name, new
        The new task.
    stage : int
        1 for the first task, so the number of earlier tasks plus one.
    strategy, seed, budget, settings
        What was asked for.
    total : int
        The budget in its unit, resolved.
    versions, hashes
        What the plan depends on besides its inputs' names.
    tasks : tuple of TaskPlan
        Earlier tasks in the order of the memory.
    notes : tuple of str
        What a reader should know: caps reached, instructions that are never replayed, measures that do not
        discriminate.
    training : mapping from str to float
        What the strategy asks of the stage's training (see `inscl.replay.parts`).
    source : mapping, optional
        Where the new data are and how they are read; not part of the plan's value.
    """

    name: str
    new: NewTask
    stage: int
    strategy: str
    seed: int
    budget: Budget
    total: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    tasks: tuple[TaskPlan, ...]
    notes: tuple[str, ...] = ()
    training: Mapping[str, float] = field(default_factory=dict)
    source: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def count(self) -> int:
        """Distinct examples replayed."""
        return sum(task.count for task in self.tasks)

    @property
    def tokens(self) -> int:
        """Estimated tokens of the replayed examples."""
        return sum(task.tokens for task in self.tasks)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON-able data, without `source`."""
        plain = asdict(self)
        del plain["source"]
        if not self.training:
            del plain["training"]
        for task in plain["tasks"]:
            if task["carried"] is None:
                del task["carried"]
        return plain

    def replayed(self) -> list[dict[str, Any]]:
        """What a log keeps of each earlier task: see `inscl.replay.log.ReplayLog`."""
        return [
            {
                "name": task.name,
                "count": task.count,
                "rows": [row for instruction in task.instructions for row in instruction.rows],
            }
            | ({} if task.carried is None else {"carried": task.carried})
            for task in self.tasks
        ]

    def finished(self, model: str | Path, scorer: str, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What a memory logs of the stage once its model is there; what was scored stands with its task.

        Parameters
        ----------
        model : path
            Where the next stage starts from.
        scorer : str
        scores : mapping
            Per task, what was scored and measured; a task may be missing.
        """
        tasks = [*self.replayed(), {"name": self.name, "count": 0}]
        return {
            "name": self.name,
            "stage": self.stage,
            "strategy": self.strategy,
            "seed": self.seed,
            "budget": asdict(self.budget),
            "replayed": self.count,
            "rows": self.new.rows,
            "model": str(Path(model).absolute()),
            "scorer": scorer,
            "tasks": [{**task, **scores.get(task["name"], {})} for task in tasks],
        }

    def write(self, path: str | Path) -> None:
        """Write the plan's file; it appears whole or not at all."""
        path = Path(path)
        document = {"inscl_plan": FORMAT, "plan": self.to_dict(), "source": self.source}
        try:
            with whole_file(path) as file:
                json.dump(document, file, ensure_ascii=False, indent=1, sort_keys=True)
                file.write("\n")
        except OSError as error:
            raise PlanError(f"The plan cannot be written to '{path}' ({error.strerror}). Name another file.") from error

    @classmethod
    def read(cls, path: str | Path) -> "Plan":
        """Read a plan's file.

        Raises
        ------
        PlanError
            If it is no plan, or one of a newer format.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            written = document["inscl_plan"]
            if written > FORMAT:
                raise PlanError(
                    f"'{path}' is a plan of format {written}; this release reads up to {FORMAT}. Upgrade inscl."
                )
            return _from_dict(document["plan"], document.get("source"))
        except FileNotFoundError:
            raise PlanError(f"There is no plan '{path}'. Write one with `inscl plan … --out FILE`.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"'{path}' is not a plan ({error}). Write one with `inscl plan … --out FILE`.") from error


def compare(first: Plan, second: Plan) -> list[str]:
    """Where two plans differ, one line each; empty for equal plans.

    A difference of the embeddings alone is explained: the same texts encoded on other hardware may differ in the
    last bits.
    """
    first, second = (replace(plan, settings={**ONCE_UNNAMED, **plan.settings}) for plan in (first, second))
    if first == second:
        return []
    lines = [
        f"{part.name}: {short(str(getattr(first, part.name)), 60)} against {short(str(getattr(second, part.name)), 60)}"
        for part in fields(Plan)
        if part.name not in {"source", "tasks", "notes", "versions", "hashes", "settings"}
        and getattr(first, part.name) != getattr(second, part.name)
    ]
    for group in ("settings", "versions", "hashes"):
        one, other = getattr(first, group), getattr(second, group)
        lines += [
            f"{group}, {key}: {short(str(one.get(key)), 60)} against {short(str(other.get(key)), 60)}"
            for key in sorted(one.keys() | other.keys())
            if one.get(key) != other.get(key)
        ]
    differing = {key for key in first.hashes if first.hashes[key] != second.hashes.get(key)}
    if differing == {"embeddings"}:
        lines.append("only the embeddings differ: were the texts encoded on other hardware?")
    counts = [{task.name: task.count for task in plan.tasks} for plan in (first, second)]
    lines += [
        f"task '{name}': {counts[0].get(name, 0)} rows against {counts[1].get(name, 0)}"
        for name in dict.fromkeys([*counts[0], *counts[1]])
        if counts[0].get(name) != counts[1].get(name)
    ]
    return lines or ["the same counts, but other rows or measures"]


def _from_dict(plain: dict[str, Any], source: Any) -> Plan:
    def task(entry: dict[str, Any]) -> TaskPlan:
        instructions = tuple(
            InstructionPlan(**{**i, "rows": tuple(i["rows"]), "tags": None if i["tags"] is None else tuple(i["tags"])})
            for i in entry["instructions"]
        )
        return TaskPlan(**{**entry, "instructions": instructions})

    return Plan(
        **{
            **plain,
            "new": NewTask(**plain["new"]),
            "budget": Budget(**plain["budget"]),
            "tasks": tuple(task(entry) for entry in plain["tasks"]),
            "notes": tuple(plain["notes"]),
        },
        source=source,
    )
