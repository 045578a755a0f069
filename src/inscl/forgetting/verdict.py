"""What kind of wrong answer it is: the question, its possible answers, and who may answer it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

_Kind = Literal["related", "unrelated"]
RELATED: _Kind = "related"
UNRELATED: _Kind = "unrelated"

WRONG, FORM, PARTIAL = "wrong", "form", "partial"
OTHER_TASK, ECHO, EMPTY, DEGENERATE, OFF_FORMAT = "other task", "echo", "empty", "degenerate", "off-format"
REASONS: dict[_Kind, tuple[str, ...]] = {
    RELATED: (WRONG, FORM, PARTIAL),
    UNRELATED: (OTHER_TASK, ECHO, EMPTY, DEGENERATE, OFF_FORMAT),
}

RUBRIC = """\
A model was asked to carry out an instruction on an input, and its answer is not the expected one. Decide whether the
answer is still related to the instruction. Go by the instruction, the input and the answer; the expected answer only
shows what a right one looks like.

related: the answer is of the kind that the instruction, as it is worded, asks for (a label, a list in another order, a
value of a record, a measure, a reworded sentence, a price, ...), however wrong it is and however it is packed.
  wrong: the right kind, with the wrong content
  form: the right kind in another packing: in brackets, inside a sentence, without its unit, with a stray word
  partial: the right kind, but only the beginning or a part of it
unrelated: the answer does not attempt what the instruction asks for.
  other task: it is the kind of answer that another of the listed tasks asks for, and this instruction does not
  echo: it repeats or rewords the instruction, the input or a piece of the input, and does nothing to it
  empty: there is no answer
  degenerate: it repeats itself or runs on without end
  off-format: anything else that could not be an answer to the instruction
An answer that fits both is related."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One wrong answer.

    Attributes
    ----------
    task, instruction, input, answer : str
    references : tuple of str
        The accepted answers.
    """

    task: str
    instruction: str
    input: str
    answer: str
    references: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether an answer still attempts its task.

    Attributes
    ----------
    kind : "related", "unrelated" or None
        None: not judged; `reason` then says why.
    reason : str
        One of `REASONS`.
    nearest_task : str, optional
        The task whose answers it is most like, where the judge looked.
    """

    kind: _Kind | None
    reason: str
    nearest_task: str | None = None


class Judge(Protocol):
    """Anything that gives a verdict on each of several answers."""

    name: str

    def __call__(self, cases: Sequence[Case], /) -> list[Verdict]: ...
