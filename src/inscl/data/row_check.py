"""One row of each form, looked at token by token before anything is computed.

What is scored must begin as what is trained, and an answer must end once: where a tokenizer or a template breaks
either, a model trains well and then answers badly, without an error anywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inscl.data.chat_form import to_messages
from inscl.data.example import Example, said
from inscl.data.mixture import MixtureRow
from inscl.data.template import IGNORED, end_ids, prompt_ids, render, row_named, tokenise
from inscl.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NO_LIMIT = 10**7  # tokens


@dataclass(frozen=True)
class CheckedRow:
    """A row as it is trained.

    Attributes
    ----------
    form : str
        "plain", "chat" or "chat with tools".
    task : str
    tokens : tuple of (str, bool)
        Text of each token, and whether it is trained.
    remark : str
        What the chat template leaves out, or ''.
    """

    form: str
    task: str
    tokens: tuple[tuple[str, bool], ...]
    remark: str

    def lines(self) -> list[str]:
        """The row for reading: a heading, then its text with what is trained in marks."""
        heading = f"{self.form} row of task '{self.task}': {len(self.tokens)} tokens, those in «» are trained"
        shown = "".join(f"«{text}»" if trained else f"[{text}]" for text, trained in self.tokens)
        return [heading, shown, *([f"note: {self.remark}"] if self.remark else [])]


def check_rows(rows: Sequence[MixtureRow], tokenizer: "PreTrainedTokenizerBase", *, chat: bool) -> list[CheckedRow]:
    """The first row of each form, checked.

    Parameters
    ----------
    rows : sequence of MixtureRow
    tokenizer : transformers.PreTrainedTokenizerBase
    chat : bool
        Whether all rows take the chat form.

    Raises
    ------
    DataError
        If a prompt that is scored is not the beginning of what is trained, or an answer does not end exactly once.
    """
    return [_checked(row, number, tokenizer, chat) for number, row in _first_of_each_form(rows)]


def _first_of_each_form(rows: Sequence[MixtureRow]) -> Iterator[tuple[int, MixtureRow]]:
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        if (form := _form(row.example)) not in seen:
            seen.add(form)
            yield number, row


def _form(example: Example) -> str:
    if example.messages is None:
        return "plain"
    calls = example.tools or any("tool_calls" in message for message in example.messages)
    return "chat with tools" if calls else "chat"


def _checked(row: MixtureRow, number: int, tokenizer: "PreTrainedTokenizerBase", chat: bool) -> CheckedRow:
    with row_named(row.task, number):
        tokens = tokenise(row.example, tokenizer, max_length=_NO_LIMIT, chat=chat)
        assert tokens is not None  # nothing is too long without a limit
        prompt = prompt_ids(row.example, tokenizer, max_length=_NO_LIMIT, chat=chat).ids
        if tokens.input_ids[: len(prompt)] != prompt:
            raise DataError(
                "the prompt that is scored is not the beginning of the row that is trained. Use a tokenizer with "
                "another template, or plain rows."
            )
        if not prompt:
            raise DataError(
                "nothing stands before the answer, from which a model could begin it. Use another template."
            )
        _check_end(row.example, tokens.input_ids[len(prompt) :], tokens.labels[len(prompt) :], tokenizer, chat)
    texts = tokenizer.batch_decode([[token] for token in tokens.input_ids])
    trained = [label != IGNORED for label in tokens.labels]
    return CheckedRow(_form(row.example), row.task, tuple(zip(texts, trained, strict=True)), tokens.remark)


def _check_end(example: Example, ids: Sequence[int], labels: Sequence[int], tokenizer: Any, chat: bool) -> None:
    """An answer ends with one end token that is trained, beside those that its own text may hold."""
    answer = said(to_messages(example)[-1]) if chat else render(example).completion
    ends = end_ids(tokenizer, chat=chat)
    own = sum(token in ends for token in tokenizer(answer, add_special_tokens=False)["input_ids"])
    found = sum(token in ends for token in ids) - own
    if answer.strip() and not tokenizer.decode(ids, skip_special_tokens=True).strip():
        raise DataError("the tokenizer's chat template leaves the answer out. Use plain rows, or another template.")
    last = next(token for token, label in zip(reversed(ids), reversed(labels), strict=True) if label != IGNORED)
    if found != 1 or last not in ends:
        raise DataError(
            f"the answer ends {found} times instead of once. Set the tokenizer's `eos_token` to the token with which "
            "its chat template ends a turn."
        )
