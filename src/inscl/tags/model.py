"""Tags by a language model, on a server or in memory: one question, one repair, then the offline tagger."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, Self

from inscl.engine import Engine
from inscl.llm.client import Question
from inscl.llm.replies import Reply
from inscl.tags import tags_of
from inscl.tags.prompt import PROMPT, repair_question, tag_question, tags_in

if TYPE_CHECKING:
    from inscl.tags import Tagger

_Progress = Callable[[int, int], None]


class _Answers(Protocol):
    """What answers questions: `inscl.llm.client.Asker` or `inscl.tags.local.LocalModel`."""

    @property
    def model(self) -> str: ...

    def ask(self, questions: Sequence[Question], progress: _Progress | None = None, /) -> list[Reply]: ...


@dataclass(frozen=True)
class Tagged:
    """Tags of one instruction: who made them, and how it went.

    Attributes
    ----------
    tags : tuple of str
    by : str
        Identity of the tagger; of the offline one with a mark, where that had to stand in.
    how : "tagged", "repaired" or "fell back"
    reason : str
        Why it fell back.
    """

    tags: tuple[str, ...]
    by: str
    how: Literal["tagged", "repaired", "fell back"] = "tagged"
    reason: str = ""

    @classmethod
    def from_reply(
        cls, reply: Reply, model: str, instruction: str, fallback: "Tagger", *, repaired: bool = False
    ) -> Self:
        """The tags in a model's reply; where there are none, those of the offline tagger, marked."""
        wanted = model_identity(model)
        tags = None if reply.failure else tags_in(reply.text)
        if tags is not None:
            return cls(tuple(tags), wanted, "repaired" if repaired else "tagged")
        (instead,) = fallback([instruction])
        return cls(tuple(instead), f"{fallback.identity} (fallback for {wanted})", "fell back", _why_not(reply))


@dataclass(frozen=True)
class Tagging:
    """Tags of instructions, with what they cost.

    Attributes
    ----------
    tagged : dict of bytes to Tagged
        By instruction key.
    questions : int
        Asked in all, those that were answered in an earlier run included.
    tokens_in, tokens_out : int
        As the server counted them.
    skipped : dict of str to int
        Lines of a file of answers that could not be used, by reason.
    """

    tagged: dict[bytes, Tagged]
    questions: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def by(cls, tagger: "Tagger", instructions: Mapping[bytes, str], engine: Engine) -> Self:
        """Tags of instructions by a tagger that always has an answer."""
        made = tags_of(tagger, list(instructions.values()), engine)
        return cls({key: Tagged(tuple(tags), tagger.identity) for key, tags in zip(instructions, made, strict=True)})

    def counts(self) -> dict[str, int]:
        """Instructions that were tagged, repaired and fell back."""
        found = Counter(tagged.how for tagged in self.tagged.values())
        return {how: found[how] for how in ("tagged", "repaired", "fell back")}

    def reasons(self) -> dict[str, int]:
        """Why instructions fell back, the commonest reason first."""
        return dict(Counter(tagged.reason for tagged in self.tagged.values() if tagged.reason).most_common())


def model_identity(model: str) -> str:
    """Identity of the tagger that asks a model, for plans and memories: no address and no path.

    >>> model_identity("/home/me/models/tagger-7b")
    'model tagger-7b prompt 1'
    """
    name = model.rstrip("/").rsplit("/", 1)[-1] if model.startswith(("/", ".", "~")) else model
    return f"model {name} prompt {PROMPT}"


def tag_with(
    answers: _Answers, instructions: Mapping[bytes, str], fallback: "Tagger", progress: _Progress | None = None
) -> Tagging:
    """Tags of instructions by a language model.

    Parameters
    ----------
    answers : inscl.llm.client.Asker or inscl.tags.local.LocalModel
    instructions : mapping
        Texts by key.
    fallback : Tagger
        Tags what the model does not, marked as such.
    progress : callable, optional
        Called with (questions done, questions); the repairs come as a second round.
    """
    first = dict(zip(instructions, answers.ask([*map(tag_question, instructions.values())], progress), strict=True))
    second = _repaired(answers, instructions, first, progress)
    tagged = {
        key: Tagged.from_reply(reply, answers.model, instructions[key], fallback, repaired=key in second)
        for key, reply in {**first, **second}.items()
    }
    replies = [*first.values(), *second.values()]
    return Tagging(tagged, len(replies), sum(r.tokens_in for r in replies), sum(r.tokens_out for r in replies))


def _repaired(
    answers: _Answers, instructions: Mapping[bytes, str], first: Mapping[bytes, Reply], progress: _Progress | None
) -> dict[bytes, Reply]:
    """The second replies, where the first came without tags."""
    broken = [key for key, reply in first.items() if not reply.failure and tags_in(reply.text) is None]
    repairs = [repair_question(instructions[key], first[key].text) for key in broken]
    return dict(zip(broken, answers.ask(repairs, progress) if broken else [], strict=True))


def _why_not(reply: Reply) -> str:
    """Why a reply gives no tags."""
    if reply.failure:
        return reply.failure
    return "no tags in the answer, which the limit of tokens cut off" if reply.capped else "no tags in the answer"
