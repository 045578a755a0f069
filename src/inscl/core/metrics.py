"""What a stream of tasks kept: the metrics of continual learning.

``scores[i][j]`` is the score of the model after stage ``i`` on task ``j``, both counted from 0. Rows may be
ragged: only the cells a formula names are read, ``j <= i`` and, for forward transfer, ``scores[j - 1][j]``.
Scores and experts share one scale, 0 to 1 or 0 to 100. Formulas: docs/method.md.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_Scores = Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class GainSummary:
    """Relative Gain over the stages of one stream."""

    mean: float
    std: float  # population standard deviation
    last_five: float  # mean over the last five stages, or over all where there are fewer
    final: float


def relative_gain(scores: _Scores, experts: Sequence[float]) -> list[float]:
    """How much of the experts' scores each stage keeps on the earlier tasks, in per cent.

    ``RG_i = 100 / (i - 1) * sum over j < i of S[i, j] / E[j]`` (i counted from 1). The newest task is left
    out.

    Parameters
    ----------
    scores : sequence of sequences of float
        Score of the model after each stage on each task.
    experts : sequence of float, shape (n_tasks,)
        Score of the model trained on each task alone.

    Returns
    -------
    list of float, shape (n_tasks - 1,)
        One value per stage from the second on.

    Raises
    ------
    ValueError
        If there is only one task, an expert is not above 0 (the message names the task), or a score that is
        needed is missing or not finite.

    References
    ----------
    Wang et al. (2024), "InsCL", arXiv:2403.11435.

    Examples
    --------
    >>> relative_gain([[50.0], [40.0, 60.0], [25.0, 60.0, 10.0]], experts=[50.0, 60.0, 10.0])
    [80.0, 75.0]
    """
    n = _several_tasks(scores, "Relative gain")
    e = _experts(experts, n)
    return [100 * _mean([_at(scores, i, j) / e[j] for j in range(i)]) for i in range(1, n)]


def ratio_of_sums(scores: _Scores, experts: Sequence[float]) -> list[float]:
    """Relative gain as ``100 * sum of S[i, j] / sum of E[j]``: weak experts do not rule it.

    Arguments and errors are those of `relative_gain`.

    >>> ratio_of_sums([[50.0], [40.0, 60.0], [25.0, 60.0, 10.0]], experts=[50.0, 60.0, 10.0])
    [80.0, 77.27272727272727]
    """
    n = _several_tasks(scores, "Relative gain")
    e = _experts(experts, n)
    return [100 * math.fsum(_at(scores, i, j) for j in range(i)) / math.fsum(e[:i]) for i in range(1, n)]


def summarize_gain(gains: Sequence[float]) -> GainSummary:
    """Mean, standard deviation, mean of the last five stages and final value of `relative_gain`.

    >>> summarize_gain([80.0, 75.0])
    GainSummary(mean=77.5, std=2.5, last_five=77.5, final=75.0)
    """
    if not gains:
        raise ValueError("`gains` must hold at least one stage, got none.")
    return GainSummary(
        mean=_mean(gains), std=statistics.pstdev(gains), last_five=_mean(gains[-5:]), final=float(gains[-1])
    )


def average_performance(scores: _Scores) -> float:
    """Mean score of the last stage over all tasks, the newest included. One task: its score.

    >>> average_performance([[50.0], [40.0, 60.0]])
    50.0
    """
    n = _n_tasks(scores)
    return _mean([_at(scores, n - 1, j) for j in range(n)])


def backward_transfer(scores: _Scores) -> float:
    """Mean over the earlier tasks of the last score minus the score when the task was learnt.

    Negative where tasks were forgotten. ValueError if there is only one task.

    >>> backward_transfer([[50.0], [40.0, 60.0]])
    -10.0
    """
    n = _several_tasks(scores, "Backward transfer")
    return _mean([_at(scores, n - 1, j) - _at(scores, j, j) for j in range(n - 1)])


def forgetting(scores: _Scores) -> float:
    """Mean over the earlier tasks of the best score before the last stage minus the last score.

    The best is taken from the stage that learnt the task to the last but one. ValueError if there is only one
    task.

    >>> forgetting([[50.0], [70.0, 60.0], [40.0, 60.0, 10.0]])
    15.0
    """
    n = _several_tasks(scores, "Forgetting")
    return _mean([max(_at(scores, i, j) for i in range(j, n - 1)) - _at(scores, n - 1, j) for j in range(n - 1)])


def forward_transfer(scores: _Scores, zero_shot: Sequence[float]) -> float:
    """Mean over the later tasks of the score just before a task is learnt minus the untrained model's.

    Reads ``scores[j - 1][j]``, so every stage must also score the next task. ``zero_shot`` has one score per
    task; the first is not used. ValueError if there is only one task.

    >>> forward_transfer([[50.0, 20.0], [40.0, 60.0]], zero_shot=[5.0, 8.0])
    12.0
    """
    n = _several_tasks(scores, "Forward transfer")
    z = _one_per_task("zero_shot", zero_shot, n)
    return _mean([_at(scores, j - 1, j) - _finite(z[j], f"zero_shot[{j}]") for j in range(1, n)])


def learning(scores: _Scores, experts: Sequence[float]) -> float:
    """Mean over all tasks of the score when the task was learnt, as a share of the expert's.

    >>> learning([[50.0], [40.0, 30.0]], experts=[50.0, 60.0])
    0.75
    """
    n = _n_tasks(scores)
    e = _experts(experts, n)
    return _mean([_at(scores, j, j) / e[j] for j in range(n)])


def forgetting_rate(scores: _Scores) -> list[float]:
    """Per cent of each task's first score that is gone after the last stage; 0 for the newest task.

    ``100 * (1 - S[N][j] / S[j][j])``. ValueError that names the task if its first score is 0.

    >>> forgetting_rate([[50.0], [40.0, 60.0]])
    [20.0, 0.0]
    """
    n = _n_tasks(scores)
    first = [_at(scores, j, j) for j in range(n)]
    for j, score in enumerate(first):
        if score == 0:
            raise ValueError(f"Task {j} scored 0 when it was learnt, so its forgetting rate is undefined.")
    return [100 * (first[j] - _at(scores, n - 1, j)) / first[j] for j in range(n)]


def _n_tasks(scores: _Scores) -> int:
    if len(scores) == 0:
        raise ValueError("`scores` must have one row per stage, got none.")
    return len(scores)


def _several_tasks(scores: _Scores, metric: str) -> int:
    n = _n_tasks(scores)
    if n == 1:
        raise ValueError(f"{metric} compares tasks, got task 0 only. Give the scores of two stages or more.")
    return n


def _at(scores: _Scores, i: int, j: int) -> float:
    if len(scores[i]) <= j:
        raise ValueError(f"The score of stage {i} on task {j} is missing: row {i} has {len(scores[i])} entries.")
    return _finite(scores[i][j], f"The score of stage {i} on task {j}")


def _experts(experts: Sequence[float], n: int) -> list[float]:
    values = [_finite(e, f"experts[{j}]") for j, e in enumerate(_one_per_task("experts", experts, n))]
    for j, value in enumerate(values):
        if value <= 0:
            raise ValueError(f"The expert of task {j} must score above 0, got {value}: ratios to it are undefined.")
    return values


def _one_per_task(name: str, values: Sequence[float], n: int) -> Sequence[float]:
    if len(values) != n:
        raise ValueError(f"`{name}` must have one entry per task: {n}, got {len(values)}.")
    return values


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{what} must be finite, got {value}.")
    return float(value)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
