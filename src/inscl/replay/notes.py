"""What a reader of a plan should know: caps, measures that do not discriminate, what is never replayed."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from inscl.replay.budget import DEFAULT_BUDGET
from inscl.replay.parts import PARTS
from inscl.replay.plan import Plan, TaskPlan
from inscl.replay.settings import DEFAULT_INSINFO, INSINFO
from inscl.replay.strategies import STRATEGIES, by_distance, by_insinfo
from inscl.replay.views import StageView

_Note = Callable[[Plan, StageView], str | None]


def notes_of(made: Plan, stage: StageView, general: int = 0) -> tuple[str, ...]:
    """The notes of a plan, a sentence each; where nothing is replayed, only what is asked of the training.

    `general` is how much of the budget goes to general tasks, of which a note of their own tells.
    """
    learnt = replace(made, tasks=made.learnt, total=made.total - general)
    replays = STRATEGIES[made.strategy].budget is not None and learnt.tasks
    notes = [note(learnt, stage) for note in (_NOTES if replays else (_asked,))]
    return tuple(said for said in (*notes, _general(made, general)) if said)


def _general(made: Plan, asked: int) -> str | None:
    if not made.general:
        return None
    tasks = [task for task in made.tasks if task.general]
    if not tasks:
        return f"strategy '{made.strategy}' replays nothing, of general tasks neither"
    count, available = sum(task.count for task in tasks), sum(task.available for task in tasks)
    all_of = f", all that there are for the {asked:,} asked for" if count == available < asked else ""
    first = "" if made.learnt else "; no task was learnt before, so the rest of the budget is not used"
    return (
        f"general tasks give {count:,} of the replayed rows ({100 * made.general:g} % of the budget{all_of}), and are "
        f"not scored: {_listed([repr(task.name) for task in tasks], 3)}{first if made.general < 1 else ''}"
    )


def _default(made: Plan, stage: StageView) -> str | None:
    if made.budget != DEFAULT_BUDGET:
        return None
    return (
        "no budget was asked for: a fifth of the new rows makes the stage about a fifth longer, however many tasks "
        "came before"
    )


def _all_go_in(made: Plan, stage: StageView) -> str | None:
    if made.budget.unit != "examples" or made.count >= made.total:
        return None
    available = sum(task.available for task in made.tasks)
    return f"the earlier tasks have {available:,} training rows, fewer than the {made.total:,} asked for: all go in"


def _equal_distances(made: Plan, stage: StageView) -> str | None:
    if len(made.tasks) < 2 or not stage.has_looked_at("distances") or len(set(stage.distances)) > 1:
        return None
    return "all distances are equal: every earlier task gets the same share"


def _rounded_away(made: Plan, stage: StageView) -> str | None:
    strategy = STRATEGIES[made.strategy]
    counts = {task.count for task in made.tasks if task.count < task.available}
    differ = strategy.budget is by_distance and len(set(stage.distances)) > 1
    if not differ or strategy.carry or not all(task.count for task in made.tasks) or len(counts) != 1:
        return None
    repeats = ", and InsInfo takes the same instructions at every stage" if _thin(made) else ""
    return (
        f"at {counts.pop()} for each earlier task rounding makes all shares exactly equal, whatever the distances"
        f"{repeats}; '--strategy {made.strategy}+carry' adds differences up over the stages"
    )


def _not_carried(made: Plan, stage: StageView) -> str | None:
    if made.budget.unit == "examples" or not STRATEGIES[made.strategy].carry:
        return None
    return "a budget in tokens carries nothing from stage to stage"


def _other_insinfo(made: Plan, stage: StageView) -> str | None:
    name = stage.settings.insinfo
    if not stage.has_looked_at("insinfo") or name == DEFAULT_INSINFO:
        return None
    return f"InsInfo is '{name}' here: {INSINFO[name].about}"


def _equal_insinfo(made: Plan, stage: StageView) -> str | None:
    if not stage.has_looked_at("insinfo"):
        return None
    scores = [stage.insinfo[key] for view in stage.earlier for key in view.keys]
    if len(scores) < 2 or len(set(scores)) > 1:
        return None
    return "all instructions have the same InsInfo: it chooses between none of them"


def _merging(made: Plan, stage: StageView) -> str | None:
    return stage.pool.merged.warning if stage.has_looked_at("merged") else None


def _cut(made: Plan, stage: StageView) -> str | None:
    cut = sum(view.task.info.cut for view in (*stage.earlier, stage.new))
    if not cut:
        return None
    return f"{cut} instruction(s) are longer than the encoder reads: their ends do not count in the distances"


def _never_replayed(made: Plan, stage: StageView) -> str | None:
    thin = _thin(made)
    if not thin:
        return None
    named = _listed([f"'{task.name}' ({task.count} for {task.all_instructions})" for task in thin], 3)
    return (
        f"fewer examples than instructions for {named}: the top instructions give one example each, hardly "
        "change from stage to stage, and the others are never replayed; '--strategy steady' brings back every one "
        "(docs/results.md has what it kept)"
    )


def _unmeasured(made: Plan, stage: StageView) -> str | None:
    unknown = [view.name for view in stage.earlier if not stage.log.increases(view.name)]
    if not STRATEGIES[made.strategy].losses or not unknown:
        return None
    return (
        f"no losses are logged of {_listed([repr(name) for name in unknown], 5)}, as if nothing were forgotten: "
        "`inscl learn` and `inscl run` measure them where this strategy is used from the first stage on"
    )


def _weighted(made: Plan, stage: StageView) -> str | None:
    weights = {task.weight for task in made.tasks if task.count} - {1.0}
    if not weights:
        return None
    return f"the loss on replayed rows counts {' or '.join(f'{weight:.4g}' for weight in sorted(weights))} times"


def _asked(made: Plan, stage: StageView) -> str | None:
    if not made.training:
        return None
    return "of the training: " + "; ".join(f"{PARTS[part].about} ({n:g})" for part, n in made.training.items())


def _nothing_of(made: Plan, stage: StageView) -> str | None:
    empty = [task.name for task in made.tasks if task.count == 0]
    if not empty or not made.total:
        return None
    return f"nothing is replayed of {len(empty)} task(s): {', '.join(repr(name) for name in empty[:5])}"


def _thin(made: Plan) -> list[TaskPlan]:
    """Tasks of which InsInfo always takes the same instructions, since it may take fewer than there are."""
    if STRATEGIES[made.strategy].selector is not by_insinfo:
        return []
    return [task for task in made.tasks if 0 < task.count < min(task.all_instructions, task.available)]


def _listed(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


_NOTES: tuple[_Note, ...] = (
    _default,
    _all_go_in,
    _equal_distances,
    _rounded_away,
    _not_carried,
    _other_insinfo,
    _equal_insinfo,
    _merging,
    _cut,
    _never_replayed,
    _nothing_of,
    _unmeasured,
    _weighted,
    _asked,
)
