"""What trackers show of a stage: scores per task, and what they say of the tasks learnt before."""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from statistics import fmean
from typing import Any

from inscl.evaluation.scores import RowScores

_LONGEST = 80  # characters of a task's name in the name of a metric


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
    stages: Sequence[Mapping[str, object]], scores: Mapping[str, float], newest: str, scorer: str
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
    known = _since_learnt(stages, scorer)
    earlier = [task for task in scores if task in known and task != newest]
    if earlier:
        found["backward_transfer"] = fmean(scores[task] - known[task][0] for task in earlier)
        found["forgetting"] = fmean(max(known[task]) - scores[task] for task in earlier)
    return found


def _since_learnt(stages: Sequence[Mapping[str, Any]], scorer: str) -> dict[str, list[float]]:
    """Each task's scores from the stage on that (last) learnt it, where that stage scored it."""
    found: dict[str, list[float]] = {}
    for stage in stages:
        for task in stage.get("tasks", ()) if stage.get("scorer") == scorer else ():
            if "score" in task:
                if task["name"] == stage["name"]:
                    found[task["name"]] = [task["score"]]
                elif task["name"] in found:
                    found[task["name"]].append(task["score"])
    return found
