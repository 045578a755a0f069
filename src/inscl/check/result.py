"""What the gate says: what is allowed, what was found of each task, and the reason in a sentence."""

import math
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, get_args

from inscl.errors import ConfigError

Outcome = Literal["fail", "pass", "cannot tell"]

_BETWEEN = 8.0  # points from the largest allowed drop to the one that must not pass unnoticed
_BETWEEN_RISE = 20.0  # the same for the rise of the perplexity, in percent


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What is allowed.

    Attributes
    ----------
    max_drop : float
        Largest drop of a task's score that is allowed, in points (score x 100).
    notice : float, optional
        A drop of this many points must not pass unnoticed; None is `_BETWEEN` more than `max_drop`.
    max_rise : float, optional
        Largest rise of the perplexity that is allowed, in percent; None does not look at it.
    alpha : float
        How often a family of tasks that all stay within the limits may fail.
    undecided : {"pass", "fail"}
        What a model counts as whose rows cannot tell.
    """

    max_drop: float = 2.0
    notice: float | None = None
    max_rise: float | None = 5.0
    alpha: float = 0.05
    undecided: Literal["pass", "fail"] = "pass"

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.undecided not in ("pass", "fail"):
            raise ConfigError(f"`undecided` must be pass or fail, got {self.undecided!r}.")
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
        return self.max_drop + _BETWEEN if self.notice is None else self.notice

    def of(self, *, general: bool) -> tuple[float, float]:
        """What is allowed, and what must not pass: of a task in points, or of the general text in percent."""
        rise = self.max_rise or 0.0
        return (rise, rise + _BETWEEN_RISE) if general else (self.max_drop, self.noticed)


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
    more : int
        About how many more `unit` would decide a task of which these cannot tell, if the change stays as measured; 0
        where it is decided.
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
    more: int
    units: int
    unit: str


class _Words(NamedTuple):
    """How a change of a number is called."""

    worse: str
    better: str
    unit: str

    def amount(self, worse: float) -> str:
        """A change, positive for the worse.

        >>> _SCORE.amount(2.91), _SCORE.amount(-2.91), _PERPLEXITY.amount(5.8)
        ('a drop of 2.9 points', 'a gain of 2.9 points', 'a rise of 5.8 %')
        """
        return f"a {self.better if worse < 0 else self.worse} of {abs(worse):.1f}{self.unit}"


_SCORE, _PERPLEXITY = _Words("drop", "gain", " points"), _Words("rise", "fall", " %")


@dataclass(frozen=True)
class TaskCheck:
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

    def reason(self, limits: Tolerance) -> str:
        """The outcome in a sentence."""
        if self.change is None:
            return f"none of its {self.changed + self.missing} rows can be compared"
        words = _PERPLEXITY if self.general else _SCORE
        allowed, noticed = limits.of(general=self.general)
        if self.outcome == "fail":
            return f"{words.amount(self.change.worse)}, at least {self.change.low:.1f}; {allowed:g} are allowed"
        if self.outcome == "pass":
            return _passes(self.change, words, allowed, noticed)
        return _undecided(self.change, words)

    def over(self, limits: Tolerance) -> bool:
        """Whether more was measured than is allowed, whatever the outcome."""
        return self.change is not None and self.change.worse > limits.of(general=self.general)[0]

    def cells(self) -> tuple[str, str, str, str, str, str, str]:
        """Name, before, after, change, bounds, rows and outcome as texts; a perplexity's change is in percent."""
        rows = f"{self.rows}" + (f" of {self.rows + left}" if (left := self.changed + self.missing) else "")
        if (change := self.change) is None:
            return self.name, "", "", "", "", rows, self.outcome
        # A score that fell has a minus before it; a perplexity that rose has a plus.
        sign, unit = (1, " %") if self.general else (-1, "")
        low, high = sorted((sign * change.low, sign * change.high))
        bounds = f"{low:+z.1f} … {high:+z.1f}{unit}"
        shown = f"{sign * change.worse:+z.1f}{unit}"
        return self.name, f"{change.before:.1f}", f"{change.after:.1f}", shown, bounds, rows, self.outcome


@dataclass(frozen=True)
class CheckResult:
    """What the gate says of a model.

    Attributes
    ----------
    model, reference, score : str
        Which model, what it was compared with, and by which score.
    limits : Tolerance
    findings : tuple of TaskCheck
        Tasks in the order of the reference; the general text last.
    remarks : tuple of str
        What the reader should know about the comparison.
    """

    model: str
    reference: str
    score: str
    limits: Tolerance
    findings: tuple[TaskCheck, ...]
    remarks: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst of the findings."""
        found = {finding.outcome for finding in self.findings}
        return "fail" if "fail" in found else "cannot tell" if "cannot tell" in found else "pass"

    @property
    def cleared(self) -> bool:
        """Whether the model may be released."""
        return self.outcome == "pass" or (self.outcome == "cannot tell" and self.limits.undecided == "pass")

    def count(self, outcome: Outcome) -> int:
        """How many findings have this outcome."""
        return sum(finding.outcome == outcome for finding in self.findings)

    @property
    def summary(self) -> str:
        """The counts, and what was allowed, in one line."""
        limits, counts = self.limits, {name: self.count(name) for name in get_args(Outcome)}
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return (
            f"{said}; a drop of {limits.max_drop:g} points of {self.score} x 100 is allowed, one of "
            f"{limits.noticed:g} must not pass"
        )

    def reasons(self) -> list[str]:
        """A line for each task that did not pass, or passed although more was measured than is allowed."""
        return [
            f"{found.name}: {found.outcome}: {found.reason(self.limits)}"
            for found in self.findings
            if found.outcome != "pass" or found.over(self.limits)
        ]

    def to_dict(self) -> dict[str, object]:
        """As plain data that JSON holds."""
        findings = [{**asdict(finding), "reason": finding.reason(self.limits)} for finding in self.findings]
        limits = {**asdict(self.limits), "notice": self.limits.noticed}
        return {**asdict(self), "limits": limits, "outcome": self.outcome, "findings": findings}


def _passes(change: Change, words: _Words, allowed: float, noticed: float) -> str:
    least = f"{words.worse} of {noticed:g}{words.unit} or more: at most {change.high:.1f}"
    if change.worse <= allowed:
        return f"no {least}"
    return (
        f"{words.amount(change.worse)} was measured, more than the {allowed:g} allowed, but so few {change.unit} "
        f"({change.units}) may show that by chance; they rule out a {least}"
    )


def _undecided(change: Change, words: _Words) -> str:
    measured = f"{words.amount(change.worse)} was measured"
    possible = f"a {words.worse} of up to {change.high:.1f}" if change.worse < 0 else f"up to {change.high:.1f}"
    more = f"; about {change.more:,} more {change.unit} would decide, if it stays as measured" if change.more else ""
    return (
        f"too few {change.unit} ({change.units}): {measured} and {possible} is possible; one of "
        f"{change.detectable:.1f} would be shown{more}"
    )
