"""Two assessments, task by task, on the rows that both answered: what fell, and whether that is proven."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from inscl.check.assessment import SETTINGS, Assessment
from inscl.check.result import Change, CheckResult, Outcome, TaskCheck, Tolerance
from inscl.core.stats import SampleMean, effective_units, holm, ratio_estimate
from inscl.errors import InsclError
from inscl.evaluation.perplexity import Perplexity
from inscl.evaluation.scores import RowScores

_ENOUGH_INSTRUCTIONS = 10.0  # from so many (effective) instructions on, they are the sample, and not the rows
_GENERAL = "general text"  # what the perplexity is called among the tasks
_POWER = 0.8


def compare_assessments(
    reference: Assessment, new: Assessment, limits: Tolerance = Tolerance(), *, score: str | None = None
) -> CheckResult:
    """Compare a model with an earlier one on the rows that both answered.

    Of each task the drop is the mean over rows of reference minus model (see `drop_estimate`). The test is Student's
    t, one-sided; Holm's procedure keeps the share of false alarms over all tasks and the general text at `alpha`.

    Parameters
    ----------
    reference, new : Assessment
    limits : Tolerance
    score : str, optional
        Which row score to compare, between 0 and 1; None is the reference's scorer.

    Returns
    -------
    CheckResult

    Raises
    ------
    InsclError
        If no row can be compared, or one side lacks the score.
    """
    score = score or str(reference.settings.get("scorer") or _first(reference))
    _check_score(reference, new, score)
    drafts = [
        _of_task(task, rows, new.tasks.get(task, RowScores({score: []}, [])), score, limits)
        for task, rows in reference.tasks.items()
    ]
    if not any(found.rows for found, _ in drafts):
        raise InsclError(
            f"No test row of '{reference.model}' is among those of '{new.model}', so there is nothing to compare. "
            "Score both on the same memory."
        )
    remarks = _remarks(reference, new)
    if limits.max_rise is not None:
        if reason := _text_apart(reference, new):
            remarks.append(f"general ability was not looked at: {reason}")
        elif reference.perplexity and new.perplexity:
            drafts.append(_of_text(reference.perplexity, new.perplexity, limits))
    return CheckResult(new.model, reference.model, score, limits, _decide(drafts, limits.alpha), tuple(remarks))


def _check_score(reference: Assessment, new: Assessment, score: str) -> None:
    for which, side in (("reference", reference), ("model", new)):
        for task, rows in side.tasks.items():
            if score not in rows.rows or score == "loss":
                known = ", ".join(name for name in rows.rows if name != "loss")
                raise InsclError(
                    f"The {which} '{side.model}' has no score '{score}' on task '{task}'; it has {known}. "
                    "Score both with the same `scorer`, or name another with --score."
                )


def _text_apart(reference: Assessment, new: Assessment) -> str:
    """Why the perplexity of the general text cannot be compared, or ''."""
    lacking = next((side for side in (reference, new) if side.perplexity is None), None)
    if lacking is not None:
        return (
            f"'{lacking.model}' has no perplexity of the general text (it comes from "
            "`inscl evaluate MODEL --out FILE`, without --server)"
        )
    same = reference.perplexity and new.perplexity and reference.perplexity.text == new.perplexity.text
    return "" if same else "the two were measured on different texts"


def drop_estimate(drops: ArrayLike, instructions: Sequence[object]) -> tuple[SampleMean, int, str]:
    """The mean drop of a task's score, and what it was estimated from.

    Two made-up rows with drops of +1 and -1 are added (Bonett and Price, 2012): they keep the error of a handful of
    equal rows from being 0. Where the rows have ten or more instructions (Kish's effective number), instructions
    are the units of the sample, else rows are, and the estimate is about these instructions.

    Parameters
    ----------
    drops : array-like, shape (n_rows,)
        Reference minus model, each between -1 and 1.
    instructions : sequence, shape (n_rows,)
        What the rows have in common.

    Returns
    -------
    (SampleMean, int, {"rows", "instructions"})

    References
    ----------
    Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", Journal of Educational and Behavioral Statistics 37.

    Examples
    --------
    >>> estimate, n, unit = drop_estimate([1, 0, 0, 1], ["a", "a", "b", "b"])
    >>> round(estimate.mean, 3), n, unit  # 2 / (4 + 2)
    (0.333, 4, 'rows')
    """
    d = np.asarray(drops, dtype=np.float64)
    _, numbers, sizes = np.unique(np.asarray(instructions), return_inverse=True, return_counts=True)
    clustered = effective_units(sizes) >= _ENOUGH_INSTRUCTIONS
    sums, counts = (np.bincount(numbers, weights=d), sizes) if clustered else (d, np.ones_like(numbers))
    estimate = ratio_estimate(np.append(sums, [1, -1]), np.append(counts, [1, 1]))
    return estimate, int(sums.size), "instructions" if clustered else "rows"


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """One number of both models, before the family that it is tested in is known. Limits are in units of `estimate`."""

    before: float
    after: float
    estimate: SampleMean
    worse: float
    allowed: float
    noticed: float
    units: int
    unit: str

    def more(self, level: float, alpha: float) -> int:
        """About how many more units would decide: show a drop at `level`, or rule out what must not pass at `alpha`.

        The error is taken to fall with the root of the units, and the mean to stay.
        """
        margins = ((self.estimate.mean - self.allowed, level), (self.noticed - self.estimate.mean, alpha))
        needed = [
            self.units * (NormalDist().inv_cdf(1 - share) * self.estimate.error / margin) ** 2
            for margin, share in margins
            if margin > 0
        ]
        return max(1, math.ceil(min(needed)) - self.units)

    def outcome(self, p: float, alpha: float) -> Outcome:
        """What the rows show, by the adjusted p-value and the upper bound."""
        return "fail" if p <= alpha else "pass" if self.estimate.high(alpha) < self.noticed else "cannot tell"

    def change(self, outcome: Outcome, p: float, levels: tuple[float, float, float], *, general: bool) -> Change:
        """As it is shown; `levels` are Holm's for this number, that of the first one in the family, and alpha."""
        level, first, alpha = levels

        def shown(value: float) -> float:
            return 100 * (math.expm1(value) if general else value)

        return Change(
            before=self.before,
            after=self.after,
            worse=shown(self.worse),
            low=shown(self.estimate.low(level)),
            high=shown(self.estimate.high(alpha)),
            p=p,
            detectable=shown(self.estimate.detectable(self.allowed, first, _POWER)),
            more=self.more(level, alpha) if outcome == "cannot tell" else 0,
            units=self.units,
            unit=self.unit,
        )


_Draft = tuple[TaskCheck, _Measured | None]


def _of_task(task: str, reference: RowScores, new: RowScores, score: str, limits: Tolerance) -> _Draft:
    after = dict(zip(new.keys, new.rows[score], strict=True))
    asked = {key.split("-")[0] for key in after}
    pairs = [
        (old, after[key], instruction)
        for key, old, instruction in zip(reference.keys, reference.rows[score], reference.instructions, strict=True)
        if key in after
    ]
    others = [key.split("-")[0] in asked for key in reference.keys if key not in after]
    finding = TaskCheck(task, "cannot tell", len(pairs), sum(others), len(others) - sum(others), None)
    if not pairs:
        return finding, None
    before, now = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    estimate, units, unit = drop_estimate(before - now, [pair[2] for pair in pairs])
    return finding, _Measured(
        before=100 * float(before.mean()),
        after=100 * float(now.mean()),
        estimate=estimate,
        worse=float((before - now).mean()),
        allowed=limits.max_drop / 100,
        noticed=limits.noticed / 100,
        units=units,
        unit=unit,
    )


def _of_text(reference: Perplexity, new: Perplexity, limits: Tolerance) -> _Draft:
    """The rise of the log likelihood of the whole text, per token of the reference: tokenizers may differ."""
    tokens = np.array(reference.tokens)
    allowed, noticed = limits.of(general=True)
    estimate = ratio_estimate(np.array(new.nll) - np.array(reference.nll), tokens)
    return TaskCheck(_GENERAL, "cannot tell", tokens.size, 0, 0, None, general=True), _Measured(
        before=reference.value,
        after=reference.value * math.exp(estimate.mean),
        estimate=estimate,
        worse=estimate.mean,
        allowed=math.log1p(allowed / 100),
        noticed=math.log1p(noticed / 100),
        units=tokens.size,
        unit="paragraphs",
    )


def _decide(drafts: Sequence[_Draft], alpha: float) -> tuple[TaskCheck, ...]:
    """Outcomes of the whole family: each is tested at the level that Holm's procedure gives it."""
    tested = [(place, measured) for place, (_, measured) in enumerate(drafts) if measured is not None]
    raw = [measured.estimate.p_above(measured.allowed) for _, measured in tested]
    adjusted = holm(raw)
    failed = sum(p <= alpha for p in adjusted)
    found = [check for check, _ in drafts]
    for rank, i in enumerate(np.argsort(raw, kind="stable")):
        place, measured = tested[i]
        levels = (alpha / (len(tested) - min(rank, failed)), alpha / len(tested), alpha)
        outcome = measured.outcome(adjusted[i], alpha)
        change = measured.change(outcome, adjusted[i], levels, general=found[place].general)
        found[place] = replace(found[place], outcome=outcome, change=change)
    return tuple(found)


def _remarks(reference: Assessment, new: Assessment) -> list[str]:
    differ = [
        f"{key.replace('_', ' ')} {reference.settings[key]} and {new.settings[key]}"
        for key in SETTINGS
        if key in reference.settings and key in new.settings and reference.settings[key] != new.settings[key]
    ]
    return [f"the two were scored in different ways: {', '.join(differ)}"] if differ else []


def _first(reference: Assessment) -> str:
    return next(iter(next(iter(reference.tasks.values())).rows))
