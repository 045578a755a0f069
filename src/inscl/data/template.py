"""How an example becomes text and tokens: the same for training, evaluation and export.

A plain row is ``Instruction``, ``Input`` (where there is one) and ``Answer`` under headings, and the loss
covers the answer and the end-of-text token. In the chat form the tokenizer's own template renders the
messages, and every assistant turn is trained with its end-of-turn token. The prompt's tokens are those of the
prompt alone, so that generation starts from exactly what was trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from inscl.data.example import Example, Message
from inscl.errors import DataError

TEMPLATE_ID = "inscl-plain-1"
IGNORED = -100  # a label that carries no loss, by PyTorch's convention


class Rendered(NamedTuple):
    """The two halves of a plain row."""

    prompt: str
    completion: str


class Tokens(NamedTuple):
    """A training row: ids, their labels (-100 where no loss is taken), and whether the input was cut."""

    input_ids: list[int]
    labels: list[int]
    truncated: bool


class PromptIds(NamedTuple):
    """What generation starts from, and whether the input was cut."""

    ids: list[int]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Piece:
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


def to_messages(example: Example) -> list[Message]:
    """Chat form of an example: its own messages, or one user turn and one assistant turn.

    >>> to_messages(Example("Add.", "1 and 2", ("3",)))
    [{'role': 'user', 'content': 'Add.\\n\\n1 and 2'}, {'role': 'assistant', 'content': '3'}]
    """
    if example.messages is not None:
        return list(example.messages)
    asked = "\n\n".join(part for part in (example.instruction.strip(), example.input.strip()) if part)
    answer = example.outputs[0].strip() if example.outputs else ""
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def tokenise(example: Example, tokenizer: Any, *, max_length: int, chat: bool) -> Tokens | None:
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
        If the chat template is missing or cannot be split into prompt and answer.
    """
    pieces = _chat_pieces if chat else _plain_pieces
    found = _cut_to_fit(example, chat, max_length, lambda row: pieces(row, tokenizer))
    if found is None:
        return None
    fitting, truncated = found
    ids = [token for piece in fitting for token in piece.ids]
    labels = [token if piece.trained else IGNORED for piece in fitting for token in piece.ids]
    return Tokens(ids, labels, truncated)


def prompt_ids(example: Example, tokenizer: Any, *, max_length: int, chat: bool) -> PromptIds:
    """Tokens that generation starts from: those of training, with all of `max_length` for the prompt.

    A prompt whose instruction alone is longer than `max_length` stays as it is: a question that has lost its
    instruction cannot be answered.
    """

    def prompt(row: Example) -> list[Piece]:
        if not chat:
            return [Piece(list(tokenizer(render(row).prompt)["input_ids"]), trained=False)]
        return [Piece(_ids(tokenizer, _chat_text(tokenizer, to_messages(row)[:-1], prompt=True)), trained=False)]

    found = _cut_to_fit(example, chat, max_length, prompt)
    if found is None:
        found = prompt(_with_input(example, 0, chat)), True
    return PromptIds(found[0][0].ids, found[1])


def _cut_to_fit(
    example: Example, chat: bool, max_length: int, pieces: Callable[[Example], list[Piece]]
) -> tuple[list[Piece], bool] | None:
    """Pieces of the row with the longest beginning of its input that fits, and whether something was cut."""

    def fitting(keep: int | None) -> list[Piece] | None:
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


def _plain_pieces(example: Example, tokenizer: Any) -> list[Piece]:
    prompt, completion = render(example)
    head = list(tokenizer(prompt)["input_ids"])
    whole = list(tokenizer(prompt + completion + tokenizer.eos_token)["input_ids"])
    if whole[: len(head)] == head:
        return [Piece(head, trained=False), Piece(whole[len(head) :], trained=True)]
    # The tokenizer joins across the seam; generation cannot, so training must not either.
    return [
        Piece(head, trained=False),
        Piece(_ids(tokenizer, completion + tokenizer.eos_token), trained=True),
    ]


def _chat_pieces(example: Example, tokenizer: Any) -> list[Piece]:
    messages = to_messages(example)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[-1] != len(messages) - 1:
        raise DataError("A conversation must end with an assistant turn, which is what is trained and scored.")
    pieces = _pieces_of_turns(messages, turns, tokenizer)
    # Some templates render an earlier turn differently once others follow; then the last answer alone is
    # trained.
    pieces = pieces or _pieces_of_turns(messages, turns[-1:], tokenizer)
    if pieces is None:
        raise DataError(
            "The tokenizer's chat template does not begin a conversation with the prompt it makes for it, so "
            "prompt and answer cannot be told apart. Use plain rows, or a tokenizer with another template."
        )
    return pieces


def _pieces_of_turns(messages: Sequence[Message], turns: Sequence[int], tokenizer: Any) -> list[Piece] | None:
    """The conversation cut before and after each assistant turn; None if the template has no such seams."""
    whole, done = _chat_text(tokenizer, messages), ""
    pieces: list[Piece] = []
    for turn in turns:
        before = _chat_text(tokenizer, messages[:turn], prompt=True)
        after = _chat_text(tokenizer, messages[: turn + 1])
        if not (before.startswith(done) and after.startswith(before) and whole.startswith(after)):
            return None
        pieces.append(Piece(_ids(tokenizer, before[len(done) :]), trained=False))
        pieces += _answer_pieces(_ids(tokenizer, after[len(before) :]), tokenizer)
        done = after
    return pieces


def _answer_pieces(ids: list[int], tokenizer: Any) -> list[Piece]:
    """An assistant turn up to its end token is trained, the template's white space after it is not."""
    ends = [i for i, token in enumerate(ids) if token == tokenizer.eos_token_id]
    if not ends:
        return [Piece([*ids, tokenizer.eos_token_id], trained=True)]
    cut = ends[-1] + 1
    return [Piece(ids[:cut], trained=True), Piece(ids[cut:], trained=False)]


def _chat_text(tokenizer: Any, messages: Sequence[Message], prompt: bool = False) -> str:
    if tokenizer.chat_template is None:
        raise DataError("The mixture is in chat form but the tokenizer has no chat template. Use plain rows.")
    turns = [dict(message) for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _flexible(example: Example) -> list[int]:
    """Turns that may be cut: neither the system's nor the assistant's nor the instruction."""
    return [
        i
        for i, message in enumerate(example.messages or ())
        if message["role"] not in ("system", "assistant") and message["content"].strip() != example.instruction.strip()
    ]


def _input_length(example: Example, chat: bool) -> int:
    if chat and example.messages is not None:
        return sum(len(example.messages[i]["content"]) for i in _flexible(example))
    return len(example.input)


def _with_input(example: Example, keep: int, chat: bool) -> Example:
    """The example with `keep` characters of its input; in chats the newest turns keep theirs longest."""
    if not chat or example.messages is None:
        return replace(example, input=example.input[:keep])
    messages = list(example.messages)
    for i in reversed(_flexible(example)):
        content = messages[i]["content"][:keep]
        keep -= len(content)
        messages[i] = {**messages[i], "content": content}
    return replace(example, messages=tuple(messages))
