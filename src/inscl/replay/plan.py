"""A replay plan: what will be replayed, how much of it from where, and why. A value, and a JSON file.

Nothing in a plan depends on when, where or by whom it was made. Equal memory content, new data, embeddings,
settings, seed and versions give an equal plan; `compare` says which of these differ.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from inscl.errors import PlanError, short
from inscl.files import whole_file
from inscl.replay.budget import Budget

_FORMAT = 1
_MOST_REPEATS = 100
_GROUPS = ("settings", "versions", "hashes")  # what `compare` names key by key
_ONCE_UNNAMED = {"insinfo": "paper"}  # settings that older plans do not name, and what they were

# What a file may say is checked by these, when it is read.
_Key = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_STRICT = ConfigDict(extra="forbid")


def _single(value: object) -> object:
    if isinstance(value, list | dict):
        raise ValueError("wanted a single value")
    return value


@dataclass(frozen=True)
class InstructionPlan:
    """What is replayed of one instruction."""

    __pydantic_config__ = _STRICT

    key: _Key
    text: str
    count: _Count
    available: _Count
    rows: tuple[_Key, ...]  # of the chosen examples
    tags: tuple[str, ...] | None = None  # after merging; None where the strategy looks at no tags
    insinfo: _Finite | None = None  # the variant that the settings name; None where the strategy looks at none


@dataclass(frozen=True)
class TaskPlan:
    """What is replayed of one earlier task."""

    __pydantic_config__ = _STRICT

    name: str
    content: str  # hash of the task's content
    share: _Finite  # of the budget, before caps and rounding
    count: _Count
    available: _Count  # training rows it has
    tokens: _Count  # estimated, of the chosen rows
    all_instructions: _Count  # with training rows
    distance: _Finite | None = None  # Wasserstein distance to the new task; None where the strategy needs none
    weight: Annotated[_Finite, Field(ge=0)] = 1.0  # of the loss on these rows
    repeats: Annotated[int, Field(ge=1, le=_MOST_REPEATS)] = 1  # times each chosen row is shown
    carried: _Finite | None = None  # examples it is owed still; None where the strategy carries nothing
    general: bool = False  # what the model could do before, and not a task that it learnt
    instructions: tuple[InstructionPlan, ...] = ()  # those with a chosen row


@dataclass(frozen=True)
class NewTask:
    """The task that the stage will train on."""

    __pydantic_config__ = _STRICT

    content: str
    instructions: _Count
    rows: _Count  # training rows
    tokens: _Count  # estimated, of the training rows


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
        Earlier tasks in the order of the memory, then general ones.
    notes : tuple of str
        What a reader should know: caps reached, instructions that are never replayed, measures that do not
        discriminate.
    training : mapping from str to float
        What the strategy asks of the stage's training (see `inscl.replay.parts`).
    general : float
        The share of the budget that was asked for general tasks.
    source : mapping, optional
        Where the new data are and how they are read; not part of the plan's value.
    """

    __pydantic_config__ = _STRICT

    name: str
    new: NewTask
    stage: Annotated[_Count, Field(ge=1)]
    strategy: str
    seed: _Count
    budget: Budget
    total: _Count
    settings: Mapping[str, Annotated[Any, AfterValidator(_single)]]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    tasks: tuple[TaskPlan, ...]
    notes: tuple[str, ...] = ()
    training: Mapping[str, Annotated[float, Field(ge=0, le=1)]] = field(default_factory=dict)
    general: Annotated[float, Field(ge=0, le=1)] = 0.0
    source: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def count(self) -> int:
        """Distinct examples replayed."""
        return sum(task.count for task in self.tasks)

    @property
    def learnt(self) -> tuple[TaskPlan, ...]:
        """The earlier tasks without the general ones: those that are scored."""
        return tuple(task for task in self.tasks if not task.general)

    @property
    def tokens(self) -> int:
        """Estimated tokens of the replayed examples."""
        return sum(task.tokens for task in self.tasks)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON-able data, without `source`."""
        plain = asdict(self)
        del plain["source"]
        for unasked in ("training", "general"):  # as plans were before there was such a thing
            if not plain[unasked]:
                del plain[unasked]
        for task in plain["tasks"]:
            if task["carried"] is None:
                del task["carried"]
            if not task["general"]:
                del task["general"]
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

    def finished(self, model: str | Path, scorer: str, scores: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
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
        document = {"inscl_plan": _FORMAT, "plan": self.to_dict(), "source": self.source}
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
            text = Path(path).read_bytes()
            written = _Head.model_validate_json(text).inscl_plan
            if written <= _FORMAT:
                document = _Document.model_validate_json(text, strict=True)
                source = None if document.source is None else document.source.model_dump(exclude_unset=True)
                return replace(document.plan, source=source)
        except FileNotFoundError:
            raise PlanError(f"There is no plan '{path}'. Write one with `inscl plan … --out FILE`.") from None
        except (OSError, ValidationError) as error:
            reason = _first_problem(error) if isinstance(error, ValidationError) else error.strerror
            raise PlanError(f"'{path}' is not a plan ({reason}). Write one with `inscl plan … --out FILE`.") from error
        raise PlanError(f"'{path}' is a plan of format {written}; this release reads up to {_FORMAT}. Upgrade inscl.")


class _Head(BaseModel):
    """What tells a plan's file from others."""

    inscl_plan: Annotated[int, Field(strict=True, ge=1)]


class _Source(BaseModel):
    """Where a new task's data are, and how they are read."""

    model_config = _STRICT

    data: str | list[str] = ""
    dev: str | list[str | dict[str, Any]] = ""
    test: str | list[str | dict[str, Any]] = ""
    format: str = ""
    instruction_field: str = ""
    skip_bad: bool = False
    preferred: bool = False
    max_mib: int = 0
    shares: dict[Literal["dev", "test"], _Finite] = {}


class _Document(_Head):
    """A plan's file."""

    model_config = _STRICT

    plan: Plan
    source: _Source | None


def _first_problem(error: ValidationError) -> str:
    """Where a file is wrong first, and how, in one line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return " ".join(short(f"{where}: {first['msg']}" if where else first["msg"], 200).split())


def compare(first: Plan, second: Plan) -> list[str]:
    """Where two plans differ, one line each; empty for equal plans.

    A difference of the embeddings alone is explained: the same texts encoded on other hardware may differ in the
    last bits.
    """
    first, second = (replace(plan, settings={**_ONCE_UNNAMED, **plan.settings}) for plan in (first, second))
    if first == second:
        return []
    whole = [part.name for part in fields(Plan) if part.name not in {"source", "tasks", "notes", *_GROUPS}]
    lines = _differing(whole, vars(first), vars(second))
    for group in _GROUPS:
        one, other = getattr(first, group), getattr(second, group)
        lines += _differing(sorted({*one, *other}), one, other, f"{group}, ")
    if _differing_hashes(first, second) == {"embeddings"}:
        lines.append("only the embeddings differ: were the texts encoded on other hardware?")
    lines += _other_counts(*({task.name: task.count for task in plan.tasks} for plan in (first, second)))
    return lines or ["the same counts, but other rows or measures"]


def _differing(
    keys: Iterable[str], first: Mapping[str, object], second: Mapping[str, object], of: str = ""
) -> list[str]:
    return [
        f"{of}{key}: {short(str(first.get(key)), 60)} against {short(str(second.get(key)), 60)}"
        for key in keys
        if first.get(key) != second.get(key)
    ]


def _differing_hashes(first: Plan, second: Plan) -> set[str]:
    return {key for key, known in first.hashes.items() if known != second.hashes.get(key)}


def _other_counts(first: Mapping[str, int], second: Mapping[str, int]) -> list[str]:
    return [
        f"task '{name}': {first.get(name, 0)} rows against {second.get(name, 0)}"
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]
