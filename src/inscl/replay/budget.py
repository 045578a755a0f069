"""How much a stage may replay: a count, a share of the new task's rows, or a number of tokens."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeVar

from inscl.errors import PlanError

_Unit = Literal["examples", "tokens"]
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Budget:
    """How much a stage may replay.

    Attributes
    ----------
    amount : int or float
        An integer is a count; a float in (0, 1] is a share of the new task's training rows.
    unit : "examples" or "tokens"
        Tokens are estimated (see `inscl.memory.task.estimate_tokens`) and never exceeded.
    per_task : bool
        Whether the amount is for each earlier task, or for all together.

    Raises
    ------
    PlanError
        If the amount is none.
    """

    amount: int | float
    unit: _Unit = "examples"
    per_task: bool = True

    def __post_init__(self) -> None:
        share = isinstance(self.amount, float)
        number = isinstance(self.amount, int | float) and not isinstance(self.amount, bool)
        if not number or (share and not 0 < self.amount <= 1) or self.amount < 0:
            raise PlanError(
                f"The budget is {self.amount!r}; wanted a whole number of at least 0, or a share in (0, 1] such as "
                "0.05 (on the command line: 5%)."
            )
        if share and self.unit == "tokens":
            raise PlanError("A budget in tokens is a whole number, not a share. Give a number, or a share of examples.")

    @classmethod
    def parse(cls, text: str, unit: _Unit = "examples", per_task: bool = False) -> "Budget":
        """A budget as it is written.

        >>> Budget.parse("5%", per_task=True)
        Budget(amount=0.05, unit='examples', per_task=True)
        >>> Budget.parse("200")
        Budget(amount=200, unit='examples', per_task=False)
        """
        return cls(_amount_in(text), unit, per_task)

    def total(self, new_rows: int, earlier: int) -> int:
        """Budget of the stage, in its unit: a share is rounded to the nearest whole, halves up."""
        amount = share_of(new_rows, self.amount) if isinstance(self.amount, float) else self.amount
        return amount * (earlier if self.per_task else 1)

    @property
    def label(self) -> str:
        """How tables and folders name it.

        >>> [b.label for b in (Budget.parse("200"), Budget.parse("5%"), Budget(24), Budget(20000, "tokens", False))]
        ['200', '5%', '24 per task', '20000 tokens']
        """
        shown = f"{100 * self.amount:g}%" if isinstance(self.amount, float) else str(self.amount)
        return shown + (" tokens" if self.unit == "tokens" else "") + (" per task" if self.per_task else "")

    def describe(self, new_rows: int) -> str:
        """The budget in words; a share says what it is a share of."""
        if isinstance(self.amount, float):
            words = f"{100 * self.amount:.10g} % of the new task's {new_rows:,} training rows"
        else:
            words = f"{self.amount:,} {self.unit}"
        return words + (" per earlier task" if self.per_task else " in total")


def _amount_in(text: str) -> int | float:
    """The number in ``200`` or ``5%``, which need not be a possible amount.

    Raises
    ------
    PlanError
        If the text is neither.
    """
    try:
        return _number_in(text, int)
    except ValueError:
        raise PlanError(
            f"The budget is '{text.strip()}'; wanted a whole number such as 200, or a share such as 5%."
        ) from None


def _number_in(text: str, plain: Callable[[str], _Number]) -> float | _Number:
    """The number that a text writes in per cent, or as `plain` reads it.

    Raises
    ------
    ValueError
        If it writes none.
    """
    text = text.strip()
    return float(f"{text[:-1]}e-2") if text.endswith("%") else plain(text)


def share_of(total: int, share: float) -> int:
    """A share of a whole, to the nearest whole number, halves up.

    The share is taken as it was written: the float 0.29 lies below 29 %, and 29 % of 50 is 14.5.

    >>> share_of(50, 0.29)
    15
    """
    return int(Fraction(repr(float(share))) * total + Fraction(1, 2))


def general_share(value: object) -> float:
    """The share of a replay that general tasks get: a number, or as it is written.

    >>> general_share("10%"), general_share("0.1"), general_share(0.1)
    (0.1, 0.1, 0.1)

    Raises
    ------
    PlanError
        Unless it lies in (0, 1].
    """
    share = value
    if isinstance(value, str):
        with suppress(ValueError):
            share = _number_in(value, float)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        shown = f"'{value.strip():.40}'" if isinstance(value, str) else repr(value)
        raise PlanError(
            f"The general share of the replay is {shown}; wanted one above 0, at most 1, such as 0.1 (on the command "
            "line: 10%)."
        )
    return float(share)


# What a plan replays that asks for nothing else: replay then costs the same part of every stage's training, however
# large the new task is and however many came before. (The paper's 200 per earlier task may be far more than that.)
DEFAULT_BUDGET = Budget(0.2, per_task=False)
