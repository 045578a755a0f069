"""How an example becomes text and tokens: the same for training, evaluation and export.

A plain row is ``Instruction``, ``Input`` (where there is one) and ``Answer`` under headings, and the loss
covers the answer and the end-of-text token. In the chat form the tokenizer's own template renders the
messages, and every assistant turn that is not marked otherwise is trained with the token that ends it. The prompt's
tokens are those of the prompt alone, so that generation starts from exactly what was trained.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from inscl.data.chat_form import ChatForm, Conversation, rendered, to_messages
from inscl.data.example import Example
from inscl.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_ID = "inscl-plain-1"
CHAT_ID = "inscl-chat-2"  # of what is done to a conversation before a tokenizer's own template renders it
IGNORED = -100  # a label that carries no loss, by PyTorch's convention


class Rendered(NamedTuple):
    """The two halves of a plain row."""

    prompt: str
    completion: str


class Tokens(NamedTuple):
    """A training row: ids, their labels (-100 where no loss is taken), whether the input was cut, and a remark.

    `remark` says what the chat template leaves out or leaves untrained; '' where there is nothing to say.
    """

    input_ids: list[int]
    labels: list[int]
    truncated: bool
    remark: str = ""


class PromptIds(NamedTuple):
    """What generation starts from, and whether the input was cut."""

    ids: list[int]
    truncated: bool


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of tokens that is trained or not."""

    ids: list[int]
    trained: bool


def render(example: Example) -> Rendered:
    """Plain form of an example: a prompt, and the first output as completion.

    The completion is trimmed: an answer that began with white space would merge with the prompt's last token.

    >>> render(Example("Add.", "1 and 2", ("3",)))
    Rendered(prompt='Instruction:\\nAdd.\\n\\nInput:\\n1 and 2\\n\\nAnswer:\\n', completion='3')
    """
    given = f"\n\nInput:\n{example.input.strip()}" if example.input.strip() else ""
    answer = example.outputs[0].strip() if example.outputs else ""
    return Rendered(f"Instruction:\n{example.instruction.strip()}{given}\n\nAnswer:\n", answer)


def tokenise(example: Example, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, chat: bool) -> Tokens | None:
    """Tokens and labels of one training row.

    Parameters
    ----------
    example : Example
        The row.
    tokenizer : transformers.PreTrainedTokenizerBase
        With an end-of-text token; with a chat template where `chat`.
    max_length : int
        Most tokens of a row. A longer row loses the end of its input (in chats: of the turns that are neither
        answer nor instruction, the oldest first), never instruction or answer.
    chat : bool
        Whether to render through the tokenizer's chat template.

    Returns
    -------
    Tokens or None
        None where instruction and answer alone do not fit: the row has to be skipped, and counted.

    Raises
    ------
    DataError
        If the chat template is missing, refuses the row or cannot be split into prompt and answer, or nothing ends
        the answer.
    """
    form = ChatForm.of(example, tokenizer) if chat else ChatForm()
    found = _cut_to_fit(example, chat, max_length, lambda row: _pieces(row, tokenizer, chat, form))
    if found is None:
        return None
    fitting, truncated = found
    ids = [token for piece in fitting for token in piece.ids]
    labels = [token if piece.trained else IGNORED for piece in fitting for token in piece.ids]
    return Tokens(ids, labels, truncated, _remark(form, example, fitting))


def answer_ids(example: Example, tokenizer: "PreTrainedTokenizerBase", *, chat: bool) -> list[int]:
    """Tokens of the answer and its end, as they are trained after the prompt of `prompt_ids`."""
    pieces = _pieces(example, tokenizer, chat, ChatForm.of(example, tokenizer) if chat else ChatForm())
    return next(piece.ids for piece in reversed(pieces) if piece.trained)


def end_ids(tokenizer: "PreTrainedTokenizerBase", *, chat: bool) -> frozenset[int]:
    """Tokens that end an answer: the end of text and, in chats, what the template ends a turn with."""
    ends = set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}
    if chat:
        ends.add(answer_ids(Example("a", outputs=("b",)), tokenizer, chat=True)[-1])
    return frozenset(ends)


def prompt_ids(example: Example, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, chat: bool) -> PromptIds:
    """Tokens that generation starts from: those of training, with all of `max_length` for the prompt.

    A prompt whose instruction alone is longer than `max_length` stays as it is: a question that has lost its
    instruction cannot be answered.
    """

    def prompt(row: Example) -> list[_Piece]:
        if not chat:
            return [_Piece([*_begin(tokenizer), *_ids(tokenizer, render(row).prompt)], trained=False)]
        turns = form.apply(row)
        return [
            _Piece(_ids(tokenizer, rendered(tokenizer, turns.messages[:-1], turns.tools, prompt=True)), trained=False)
        ]

    form = ChatForm.of(example, tokenizer) if chat else ChatForm()

    found = _cut_to_fit(example, chat, max_length, prompt)
    if found is None:
        found = prompt(_with_input(example, 0, chat)), True
    return PromptIds(found[0][0].ids, found[1])


@contextmanager
def row_named(task: str, number: int) -> Iterator[None]:
    """Say in which row of which task something is wrong."""
    try:
        yield
    except DataError as error:
        raise DataError(f"Task '{task}', row {number}: {error}") from error


def check_fits(
    ids: Sequence[int],
    tokenizer: "PreTrainedTokenizerBase",
    vocabulary: int | None,
    positions: int | None,
    to_come: int = 0,
) -> None:
    """Refuse tokens that the model has no embedding for, and more than it has positions for, those to come included.

    Raises
    ------
    DataError
        If there are such.
    """
    if vocabulary is not None and (largest := max(ids, default=0)) >= vocabulary:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise DataError(
            f"the token {token!r} ({largest}) is beyond the {vocabulary:,} embeddings of the model. Resize them "
            "(`resize_token_embeddings`) and save the model, or use its own tokenizer."
        )
    if positions is not None and (tokens := len(ids) + to_come) > positions:
        raise DataError(
            f"with its answer it takes up to {tokens:,} tokens, and the model has positions for {positions:,}. Lower "
            "`max_length` or `max_new_tokens`."
        )


def _cut_to_fit(
    example: Example, chat: bool, max_length: int, pieces: Callable[[Example], list[_Piece]]
) -> tuple[list[_Piece], bool] | None:
    """Pieces of the row with the longest beginning of its input that fits, and whether something was cut."""

    def fitting(keep: int | None) -> list[_Piece] | None:
        made = pieces(example if keep is None else _with_input(example, keep, chat))
        return made if sum(len(piece.ids) for piece in made) <= max_length else None

    if (whole := fitting(None)) is not None:
        return whole, False
    best, low = fitting(0), 0
    if best is None:
        return None
    high = min(_input_length(example, chat), 32 * max_length)  # no real text has more characters a token
    while high - low > 1:
        middle = (low + high) // 2
        if (made := fitting(middle)) is None:
            high = middle
        else:
            best, low = made, middle
    return best, True


def _pieces(example: Example, tokenizer: "PreTrainedTokenizerBase", chat: bool, form: ChatForm) -> list[_Piece]:
    return _chat_pieces(form.apply(example), tokenizer) if chat else _plain_pieces(example, tokenizer)


def _plain_pieces(example: Example, tokenizer: "PreTrainedTokenizerBase") -> list[_Piece]:
    prompt, completion = render(example)
    begin, head, end = _begin(tokenizer), _ids(tokenizer, prompt), _end(tokenizer)
    whole = _ids(tokenizer, prompt + completion)
    # A tokenizer may join across the seam; generation cannot, so training must not either.
    answer = whole[len(head) :] if whole[: len(head)] == head else _ids(tokenizer, completion)
    return [_Piece([*begin, *head], trained=False), _Piece([*answer, end], trained=True)]


def _chat_pieces(conversation: Conversation, tokenizer: "PreTrainedTokenizerBase") -> list[_Piece]:
    messages = conversation.messages
    turns = [i for i, turn in enumerate(messages) if turn["role"] == "assistant" and turn.get("train", True)]
    if not turns or turns[-1] != len(messages) - 1:
        raise DataError("A conversation must end with an assistant turn, which is what is trained and scored.")
    pieces = _pieces_of_turns(conversation, turns, tokenizer)
    # Some templates render an earlier turn differently once others follow; then the last answer alone is
    # trained.
    pieces = pieces or _pieces_of_turns(conversation, turns[-1:], tokenizer)
    if pieces is None:
        raise DataError(
            "The tokenizer's chat template does not begin a conversation with the prompt it makes for it, so "
            "prompt and answer cannot be told apart. Use plain rows, or a tokenizer with another template."
        )
    return pieces


def _pieces_of_turns(
    conversation: Conversation, turns: Sequence[int], tokenizer: "PreTrainedTokenizerBase"
) -> list[_Piece] | None:
    """The conversation cut before and after each trained turn; None if the template has no such seams."""
    messages, tools = conversation.messages, conversation.tools
    whole, done = rendered(tokenizer, messages, tools), ""
    pieces: list[_Piece] = []
    for turn in turns:
        before = rendered(tokenizer, messages[:turn], tools, prompt=True)
        after = rendered(tokenizer, messages[: turn + 1], tools)
        if not (before.startswith(done) and after.startswith(before) and whole.startswith(after)):
            return None
        pieces.append(_Piece(_ids(tokenizer, before[len(done) :]), trained=False))
        pieces += _answer_pieces(_ids(tokenizer, after[len(before) :]), tokenizer, last=turn == turns[-1])
        done = after
    return pieces


def _answer_pieces(ids: list[int], tokenizer: "PreTrainedTokenizerBase", *, last: bool) -> list[_Piece]:
    """An assistant turn up to the token that ends it is trained, what the template writes after that is not."""
    ends = [i for i, token in enumerate(ids) if token == tokenizer.eos_token_id]
    ends = ends or [i for i, token in enumerate(ids) if token in _special(tokenizer)]
    if not ends:  # a template of words alone; only after the last turn does nothing follow
        return [_Piece([*ids, _end(tokenizer)] if last else ids, trained=True)]
    cut = ends[-1] + 1
    return [_Piece(ids[:cut], trained=True), _Piece(ids[cut:], trained=False)]


def _remark(form: ChatForm, example: Example, pieces: Sequence[_Piece]) -> str:
    if not form.whole:
        return "the chat template leaves out part of a conversation"
    asked = [turn for turn in to_messages(example) if turn["role"] == "assistant" and turn.get("train", True)]
    turns = [turn for turn in form.apply(example).messages if turn["role"] == "assistant" and turn.get("train", True)]
    if sum(piece.trained for piece in pieces) < len(turns):
        return "only the last answer of a conversation is trained"
    return "what an assistant says before it is asked is not trained" if len(turns) < len(asked) else ""


def _end(tokenizer: "PreTrainedTokenizerBase") -> int:
    if tokenizer.eos_token_id is None:
        raise DataError(
            "The tokenizer has no end-of-text token, so that no answer would end. Set one (`eos_token` in "
            "tokenizer_config.json), or name another model."
        )
    return int(tokenizer.eos_token_id)


def _special(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Ids of the tokens that are no text: marks of turns and ends."""
    marked = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(marked | set(tokenizer.all_special_ids))


@lru_cache(maxsize=8)
def _begin(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Tokens that the tokenizer puts before a text; one that also puts an end after it must not do so in a prompt."""
    bare, whole = _ids(tokenizer, "a"), list(tokenizer("a")["input_ids"])
    starts = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
    return tuple(whole[: starts[0]]) if starts else ()


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _flexible(example: Example) -> list[tuple[int, int]]:
    """Turns that may be cut, and what of each stays: neither the system's nor the assistant's nor the instruction."""
    instruction = example.instruction.strip()
    found = []
    for i, message in enumerate(example.messages or ()):
        if message["role"] not in ("system", "assistant"):
            content = message["content"].strip()
            stays = len(instruction) if content.startswith(instruction) else 0
            if len(content) > stays:
                found.append((i, stays))
    return found


def _input_length(example: Example, chat: bool) -> int:
    if chat and example.messages is not None:
        return sum(len(example.messages[i]["content"]) - stays for i, stays in _flexible(example))
    return len(example.input)


def _with_input(example: Example, keep: int, chat: bool) -> Example:
    """The example with `keep` characters of its input; in chats the newest turns keep theirs longest."""
    if not chat or example.messages is None:
        return replace(example, input=example.input[:keep])
    messages = list(example.messages)
    for i, stays in reversed(_flexible(example)):
        content = messages[i]["content"].lstrip()[: stays + keep]
        keep = max(0, keep - (len(content) - stays))
        messages[i] = {**messages[i], "content": content}
    return replace(example, messages=tuple(messages))
