"""A plan in the making: what a strategy says, shared out, chosen and written down with its reasons."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import blake2b

import numpy as np

from inscl.core.budget import allocate, allocate_carried
from inscl.provenance import versions_of
from inscl.replay.budget import Budget, share_of
from inscl.replay.notes import notes_of
from inscl.replay.plan import InstructionPlan, NewTask, Plan, TaskPlan
from inscl.replay.registry import Rows, Selector, Strategy
from inscl.replay.views import StageView, TaskView

_COUNTED_VERSIONS = ("inscl", "numpy", "POT", "scikit-learn", "scipy", "simplemma")


def make_plan(
    stage: StageView,
    name: str,
    strategy: str,
    chosen: Strategy,
    asked: Budget,
    general: Sequence[TaskView] = (),
    share: float = 0.0,
) -> Plan:
    """The plan of a strategy, called `strategy`, for a new task, called `name`.

    The `share` of the budget goes to the `general` tasks, between which the strategy chooses as between earlier ones.
    """
    new = stage.new
    total = asked.total(new.rows, len(stage.earlier)) if chosen.budget else 0
    apart = share_of(total, share)
    beside = stage.beside(list(general))
    tasks = [
        *_planned(stage, total - apart, chosen, asked),
        *((replace(task, general=True), rows) for task, rows in _planned(beside, apart, chosen, asked)),
    ]
    if chosen.weight:
        loads = chosen.weight(stage.beside([*stage.earlier, *general]), [rows for _, rows in tasks])
        tasks = [(replace(task, weight=load), rows) for (task, rows), load in zip(tasks, loads, strict=True)]
    made = Plan(
        name=name,
        new=NewTask(new.task.info.content, len(new.keys), new.rows, new.task.info.tokens["train"]),
        stage=stage.number,
        strategy=strategy,
        seed=stage.seed,
        budget=asked,
        total=total,
        settings=asdict(stage.settings) | {"encoder": new.task.info.encoder, "tagger": new.task.info.tagger},
        versions=dict(versions_of(_COUNTED_VERSIONS)),
        hashes=_hashes(stage) | ({"general": _hash_of(beside)} if general else {}),
        tasks=tuple(task for task, _ in tasks),
        training=dict(chosen.training) if tasks else {},
        general=share,
    )
    return replace(made, notes=notes_of(made, stage, apart))


def _planned(stage: StageView, total: int, chosen: Strategy, asked: Budget) -> list[tuple[TaskPlan, Rows]]:
    """What is replayed of each of a stage's earlier tasks, and its rows."""
    weights = list(chosen.budget(stage)) if chosen.budget else [0.0] * len(stage.earlier)
    picks, carried = _pick(stage, weights, total, chosen, asked)
    measured = stage.distances if stage.has_looked_at("distances") else [None] * len(stage.earlier)
    parts = zip(stage.earlier, picks, _shares(weights), measured, carried, strict=True)
    return [
        (replace(_task_plan(stage, view, rows), share=share, distance=distance, carried=owed), rows)
        for view, rows, share, distance, owed in parts
    ]


def _pick(
    stage: StageView, weights: Sequence[float], total: int, chosen: Strategy, asked: Budget
) -> tuple[list[Rows], Sequence[float | None]]:
    """The rows of each earlier task, and what each is owed still."""
    nothing_owed: list[float | None] = [None] * len(stage.earlier)
    if chosen.budget is None:
        return [np.zeros(0, np.int64) for _ in stage.earlier], nothing_owed
    if asked.unit == "tokens":
        return _within_tokens(stage, weights, total, chosen.selector), nothing_owed
    capacities = [view.rows for view in stage.earlier]
    if chosen.carry:
        before = [stage.log.carried(view.name) for view in stage.earlier]
        counts, owed = allocate_carried(weights, total, before, capacities)
        carried: Sequence[float | None] = owed
    else:
        counts, carried = _allocate(stage, weights, total, capacities), nothing_owed
    return [chosen.selector(stage, view, n) for view, n in zip(stage.earlier, counts, strict=True)], carried


def _allocate(stage: StageView, weights: Sequence[float], budget: int, capacities: Sequence[int]) -> list[int]:
    """Shares by weight; where all weights are equal, who gets what is left over changes with seed and stage."""
    n = len(weights)
    order = stage.rng("order").permutation(n) if len(set(weights)) == 1 else np.arange(n)
    shares = allocate([weights[j] for j in order], budget, [capacities[j] for j in order])
    result = [0] * n
    for j, share in zip(order, shares, strict=True):
        result[j] = share
    return result


def _within_tokens(stage: StageView, weights: Sequence[float], budget: int, selector: Selector) -> list[Rows]:
    """The most rows of each task whose tokens stay within its share of the budget."""
    lengths = [
        view.task.columns(["tokens"])["tokens"].to_numpy()[: view.rows].astype(np.int64) for view in stage.earlier
    ]
    shares = _allocate(stage, weights, budget, [int(length.sum()) for length in lengths])
    picks = []
    for view, length, share in zip(stage.earlier, lengths, shares, strict=True):
        low, high, best = 0, view.rows + 1, np.zeros(0, np.int64)
        while high - low > 1:
            middle = (low + high) // 2
            rows = selector(stage, view, middle)
            if length[rows].sum() <= share:
                low, best = middle, rows
            else:
                high = middle
        picks.append(best)
    return picks


def _task_plan(stage: StageView, view: TaskView, rows: Rows) -> TaskPlan:
    stored = view.task.marks(rows)
    keys = [key.hex() for key in stored["key"].to_pylist()]
    informed = stage.has_looked_at("insinfo")
    tagged = stage.has_looked_at("tags")
    ends = np.cumsum(view.counts)
    firsts, lasts = (np.searchsorted(rows, bounds).tolist() for bounds in (ends - view.counts, ends))
    available = view.counts.tolist()
    instructions = []
    for i, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        if first == last:
            continue
        key = view.keys[i]
        instructions.append(
            InstructionPlan(
                key=key.hex(),
                text=view.texts[i],
                count=last - first,
                available=available[i],
                rows=tuple(keys[first:last]),
                tags=tuple(sorted(stage.tags[key])) if tagged else None,
                insinfo=stage.insinfo[key] if informed else None,
            )
        )
    return TaskPlan(
        name=view.name,
        content=view.task.info.content,
        share=0.0,
        count=len(rows),
        available=view.rows,
        tokens=int(np.sum(stored["tokens"].to_numpy())),
        all_instructions=len(view.keys),
        instructions=tuple(instructions),
    )


def _shares(weights: Sequence[float]) -> list[float]:
    whole = sum(weights)
    return [weight / whole for weight in weights] if whole else [1 / len(weights) for _ in weights]


def _hashes(stage: StageView) -> dict[str, str]:
    """Hashes of all that a plan comes from."""
    infos = [view.task.info for view in stage.earlier]
    log = {"log": _hash(stage.log.plain(view.name for view in stage.earlier))} if stage.has_looked_at("log") else {}
    return {
        "memory": _hash([(info.name, info.content, info.tags) for info in infos]),
        "new": _hash([stage.new.task.info.content, stage.new.task.info.tags]),
        "embeddings": _hash([info.embeddings for info in (*infos, stage.new.task.info)]),
        **log,
    }


def _hash_of(general: StageView) -> str:
    """Hash of all that the choice among general tasks comes from."""
    infos = [view.task.info for view in general.earlier]
    log = general.log.plain(info.name for info in infos) if general.has_looked_at("log") else []
    return _hash([[(info.name, info.content, info.tags, info.embeddings) for info in infos], log])


def _hash(parts: object) -> str:
    return blake2b(json.dumps(parts, ensure_ascii=True).encode(), digest_size=16).hexdigest()
