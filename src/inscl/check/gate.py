"""Whether a model may be released: its scores against an earlier model's, on the same rows, task by task.

Three outcomes. *Fail*: the rows show that the true drop is larger than `max_drop`. *Pass*: they show that it is smaller
than `notice`. *Cannot tell*: they show neither, which says that there are too few. Between the two limits either is
right, as between the acceptable and the rejectable quality of a sampling inspection; docs/gate.md has the reasons and
what was simulated.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from inscl.check.assessment import SETTINGS, Assessment, assess, read_assessment, with_perplexity
from inscl.core.stats import SampleMean, effective_units, holm, ratio_estimate
from inscl.errors import ConfigError, DataError, InsclError
from inscl.evaluation.perplexity import Perplexity
from inscl.evaluation.scores import RowScores
from inscl.evaluation.server import Server
from inscl.memory.memory import Memory
from inscl.stages.learn import StageProgress
from inscl.training.config import StageConfig

Outcome = Literal["fail", "pass", "cannot tell"]

ENOUGH_INSTRUCTIONS = 10.0  # from so many (effective) instructions on, they are the sample, and not the rows
BETWEEN = 8.0  # points from the largest allowed drop to the one that must not pass unnoticed
BETWEEN_RISE = 20.0  # the same for the rise of the perplexity, in percent
GENERAL = "general text"  # what the perplexity is called among the tasks
POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is allowed.

    Attributes
    ----------
    max_drop : float
        Largest drop of a task's score that is allowed, in points (score x 100).
    notice : float, optional
        A drop of this many points must not pass unnoticed; None is `BETWEEN` more than `max_drop`.
    max_rise : float, optional
        Largest rise of the perplexity that is allowed, in percent; None does not look at it.
    alpha : float
        How often a family of tasks that all stay within the limits may fail.
    """

    max_drop: float = 2.0
    notice: float | None = None
    max_rise: float | None = 5.0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 0 < self.alpha < 0.5:
            raise ConfigError(f"`alpha` must lie between 0 and 0.5, such as 0.05, got {self.alpha:g}.")
        if not 0 <= self.max_drop < 100:
            raise ConfigError(f"`max-drop` must be points from 0 to 100, such as 2, got {self.max_drop:g}.")
        if not self.max_drop < self.noticed <= 200:
            raise ConfigError(f"`notice` must be more points than `max-drop` ({self.max_drop:g}), got {self.notice:g}.")
        if self.max_rise is not None and not 0 <= self.max_rise < math.inf:
            raise ConfigError(f"`max-perplexity-rise` must be percent from 0, such as 5, got {self.max_rise:g}.")

    @property
    def noticed(self) -> float:
        """`notice`, or its default."""
        return self.max_drop + BETWEEN if self.notice is None else self.notice


@dataclass(frozen=True)
class Change:
    """How far one number fell (a task's score, in points) or rose (the perplexity, in percent).

    Attributes
    ----------
    before, after : float
        Of the reference and of the model, on the rows both have: score x 100, or perplexity.
    worse : float
        The drop in points, or the rise in percent; negative where it became better.
    low, high : float
        Lower bound at the level that Holm's procedure tested it at, and upper bound at level 1 - alpha; each
        one-sided.
    p : float
        Holm-adjusted p-value of "it is no worse than allowed".
    detectable : float
        The smallest true change that would fail in 80 of 100 samples like this.
    units : int
        How many independent things were counted: rows, instructions or paragraphs, as `unit` says.
    unit : str
    """

    before: float
    after: float
    worse: float
    low: float
    high: float
    p: float
    detectable: float
    units: int
    unit: str


@dataclass(frozen=True)
class Finding:
    """What the gate says of one task, or of the general text.

    Attributes
    ----------
    name : str
    outcome : {"fail", "pass", "cannot tell"}
    rows : int
        Test rows that both models answered.
    changed : int
        Rows of the reference whose accepted answers are others now; they are left out.
    missing : int
        Rows of the reference that the model did not answer; they are left out.
    change : Change, optional
        None where no row is left.
    general : bool
        Whether this is the perplexity of the general text.
    """

    name: str
    outcome: Outcome
    rows: int
    changed: int
    missing: int
    change: Change | None
    general: bool = False

    def reason(self, limits: Limits) -> str:
        """The outcome in a sentence."""
        if self.change is None:
            return f"none of its {self.changed + self.missing} rows can be compared"
        c, sign = self.change, "%" if self.general else " points"
        allowed = limits.max_rise if self.general else limits.max_drop
        noticed = (limits.max_rise or 0.0) + BETWEEN_RISE if self.general else limits.noticed
        what = "rise" if self.general else "drop"
        if self.outcome == "fail":
            return f"a {what} of {c.worse:z.1f}{sign}, at least {c.low:.1f}; {allowed:g} are allowed"
        if self.outcome == "pass":
            return f"no {what} of {noticed:g}{sign} or more: at most {c.high:.1f}"
        return (
            f"too few {c.unit} ({c.units}): a {what} of {c.worse:z.1f}{sign} was measured and up to {c.high:.1f} is "
            f"possible; one of {c.detectable:.1f} would be shown"
        )


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a model.

    Attributes
    ----------
    model, reference : str
    score : str
        The score that was compared.
    limits : Limits
    findings : tuple of Finding
        Tasks in the order of the reference; the general text last.
    remarks : tuple of str
        What the reader should know about the comparison.
    """

    model: str
    reference: str
    score: str
    limits: Limits
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst of the findings."""
        found = {finding.outcome for finding in self.findings}
        return "fail" if "fail" in found else "cannot tell" if "cannot tell" in found else "pass"

    def count(self, outcome: Outcome) -> int:
        """How many findings have this outcome."""
        return sum(finding.outcome == outcome for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON holds."""
        findings = [{**asdict(finding), "reason": finding.reason(self.limits)} for finding in self.findings]
        limits = {**asdict(self.limits), "notice": self.limits.noticed}
        return {**asdict(self), "limits": limits, "outcome": self.outcome, "findings": findings}


def check(
    model: str | Path | Server,
    reference: Assessment,
    memory: Memory,
    limits: Limits = Limits(),
    *,
    config: StageConfig | None = None,
    score: str | None = None,
    out: Path | None = None,
    progress: StageProgress = lambda doing, done, total, loss: None,
) -> Verdict:
    """Score a model on the rows that a reference was scored on, in the same way, and compare.

    Parameters
    ----------
    model : str, Path or Server
        As for `assess`. A file of its scores is compared as it is, and so is a finished stage that scored all rows of
        the reference in the same way, unless `config` or `out` is given.
    reference : Assessment
        See `inscl.check.assessment.read_assessment`.
    memory : Memory
        Where the rows are.
    limits, score
        As for `compare`.
    config : StageConfig, optional
        Its fields that were set go before those that the reference was scored with.
    out, progress
        As for `assess`.

    Raises
    ------
    InsclError
        If the model cannot be scored, or not compared.
    """
    if not isinstance(model, Server) and Path(model).is_file():
        return compare(reference, read_assessment(model), limits, score=score)
    settings = reference.config()
    if config is not None:
        settings = settings.model_copy(update={name: getattr(config, name) for name in config.model_fields_set})
    general = limits.max_rise is not None and not isinstance(model, Server)
    if general:
        reference = with_perplexity(reference, settings.dtype)
        general = reference.perplexity is not None
    new = None if isinstance(model, Server) or config or out else _scored_by_its_stage(model, reference)
    if new is None:
        new = assess(
            memory, model, config=settings, only=reference.asked(), general=general, out=out, progress=progress
        )
    elif general:
        new = with_perplexity(new, settings.dtype)
    return compare(reference, new, limits, score=score)


def _scored_by_its_stage(model: str | Path, reference: Assessment) -> Assessment | None:
    """What a model's stage scored, if that is all rows of the reference, in the same way."""
    try:
        found = read_assessment(model)
    except DataError:
        return None
    asked = found.asked()
    all_there = all(rows <= asked.get(task, set()) for task, rows in reference.asked().items())
    return found if all_there and found.settings == reference.settings else None


def compare(reference: Assessment, new: Assessment, limits: Limits = Limits(), *, score: str | None = None) -> Verdict:
    """Compare a model with an earlier one on the rows that both answered.

    Of each task the drop is the mean over rows of reference minus model (see `drop_estimate`). The test is Student's
    t, one-sided; Holm's procedure keeps the share of false alarms over all tasks and the general text at `alpha`.

    Parameters
    ----------
    reference, new : Assessment
    limits : Limits
    score : str, optional
        Which row score to compare, between 0 and 1; None is the reference's scorer.

    Returns
    -------
    Verdict

    Raises
    ------
    InsclError
        If no row can be compared, or one side lacks the score.
    """
    score = score or str(reference.settings.get("scorer") or _first(reference))
    for which, side in (("reference", reference), ("model", new)):
        for task, rows in side.tasks.items():
            if score not in rows.rows or score == "loss":
                known = ", ".join(name for name in rows.rows if name != "loss")
                raise InsclError(
                    f"The {which} '{side.model}' has no score '{score}' on task '{task}'; it has {known}. "
                    "Score both with the same `scorer`, or name another with --score."
                )
    drafts: list[_Draft] = [
        _of_task(task, rows, new.tasks.get(task, RowScores({score: []}, [])), score, limits)
        for task, rows in reference.tasks.items()
    ]
    if not any(finding.rows for finding, _ in drafts):
        raise InsclError(
            f"No test row of '{reference.model}' is among those of '{new.model}', so there is nothing to compare. "
            "Score both on the same memory."
        )
    remarks = _remarks(reference, new)
    if limits.max_rise is not None:
        if reference.perplexity is None or new.perplexity is None:
            lacking = reference if reference.perplexity is None else new
            remarks.append(
                f"general ability was not looked at: '{lacking.model}' has no perplexity of the general text (it "
                "comes from `inscl evaluate MODEL --out FILE`, without --server)"
            )
        elif reference.perplexity.text != new.perplexity.text:
            remarks.append("general ability was not looked at: the two were measured on different texts")
        else:
            drafts.append(_of_text(reference.perplexity, new.perplexity, limits.max_rise))
    return Verdict(new.model, reference.model, score, limits, _decide(drafts, limits.alpha), tuple(remarks))


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
    clustered = effective_units(sizes) >= ENOUGH_INSTRUCTIONS
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


_Draft = tuple[Finding, _Measured | None]


def _of_task(task: str, reference: RowScores, new: RowScores, score: str, limits: Limits) -> _Draft:
    after = dict(zip(new.keys, new.rows[score], strict=True))
    asked = {key.split("-")[0] for key in after}
    pairs = [
        (old, after[key], instruction)
        for key, old, instruction in zip(reference.keys, reference.rows[score], reference.instructions, strict=True)
        if key in after
    ]
    others = [key.split("-")[0] in asked for key in reference.keys if key not in after]
    finding = Finding(task, "cannot tell", len(pairs), sum(others), len(others) - sum(others), None)
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


def _of_text(reference: Perplexity, new: Perplexity, max_rise: float) -> _Draft:
    """The rise of the log likelihood of the whole text, per token of the reference: tokenizers may differ."""
    tokens = np.array(reference.tokens)
    estimate = ratio_estimate(np.array(new.nll) - np.array(reference.nll), tokens)
    return Finding(GENERAL, "cannot tell", tokens.size, 0, 0, None, general=True), _Measured(
        before=reference.value,
        after=reference.value * math.exp(estimate.mean),
        estimate=estimate,
        worse=estimate.mean,
        allowed=math.log1p(max_rise / 100),
        noticed=math.log1p((max_rise + BETWEEN_RISE) / 100),
        units=tokens.size,
        unit="paragraphs",
    )


def _decide(drafts: Sequence[_Draft], alpha: float) -> tuple[Finding, ...]:
    """Outcomes of the whole family: each is tested at the level that Holm's procedure gives it."""
    tested = [place for place, (_, measured) in enumerate(drafts) if measured is not None]
    raw = [measured.estimate.p_above(measured.allowed) for _, measured in drafts if measured is not None]
    adjusted = holm(raw)
    failed = sum(p <= alpha for p in adjusted)
    findings = [finding for finding, _ in drafts]
    for rank, i in enumerate(np.argsort(raw, kind="stable")):
        finding, measured = drafts[tested[i]]
        assert measured is not None
        level = alpha / (len(tested) - min(rank, failed))
        high = measured.estimate.high(alpha)
        outcome: Outcome = "fail" if adjusted[i] <= alpha else "pass" if high < measured.noticed else "cannot tell"
        first_level = alpha / len(tested)

        def shown(value: float, general: bool = finding.general) -> float:
            return 100 * (math.expm1(value) if general else value)

        change = Change(
            before=measured.before,
            after=measured.after,
            worse=shown(measured.worse),
            low=shown(measured.estimate.low(level)),
            high=shown(high),
            p=adjusted[i],
            detectable=shown(measured.estimate.detectable(measured.allowed, first_level, POWER)),
            units=measured.units,
            unit=measured.unit,
        )
        findings[tested[i]] = replace(finding, outcome=outcome, change=change)
    return tuple(findings)


def _remarks(reference: Assessment, new: Assessment) -> list[str]:
    differ = [
        f"{key.replace('_', ' ')} {reference.settings[key]} and {new.settings[key]}"
        for key in SETTINGS
        if key in reference.settings and key in new.settings and reference.settings[key] != new.settings[key]
    ]
    return [f"the two were scored in different ways: {', '.join(differ)}"] if differ else []


def _first(reference: Assessment) -> str:
    return next(iter(next(iter(reference.tasks.values())).rows))
