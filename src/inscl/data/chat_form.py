"""How a conversation is put so that a tokenizer's chat template takes it, and shows all of it.

Templates differ in what they know. A conversation is rendered as it is where its template takes it. Where it refuses,
or leaves something out, it is folded, step by step, until it is taken whole: turns of one role that follow each other
become one, and a blank user turn stands before an assistant's that follows none; calls, results and tools
become text; the system message goes before the first user's text; contents become lists of parts. What an assistant
says before anybody has asked is context: there is no prompt from which it could be trained.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inscl.data.example import Example, Message, Tool, normalise
from inscl.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Conversation:
    """Turns as a template is given them, and the tools they may call."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True)
class ChatForm:
    """What is done to a conversation before it is rendered.

    Attributes
    ----------
    steps : tuple of callable
        From a conversation to a conversation, in order.
    whole : bool
        Whether the template then shows all of it.
    """

    steps: tuple[Callable[[Conversation], Conversation], ...] = ()
    whole: bool = True

    @classmethod
    def of(cls, example: Example, tokenizer: "PreTrainedTokenizerBase") -> "ChatForm":
        """The form with the fewest changes in which the tokenizer's chat template takes a row, and shows all of it.

        Where no form shows everything, it is the first that the template takes.

        Raises
        ------
        DataError
            If the template refuses the row in every form, or there is no template.
        """
        taken: ChatForm | None = None
        refused: DataError | None = None
        before: Conversation | None = None
        for steps in _LADDER:
            conversation = cls(steps).apply(example)
            if conversation == before:
                continue
            before = conversation
            try:
                text = rendered(tokenizer, conversation.messages, conversation.tools)
            except DataError as error:
                refused = refused or error
                continue
            if _shows(text, conversation):
                return cls(steps)
            if _as_parts not in steps:  # a template that knows no parts writes the list itself
                taken = taken or cls(steps, whole=False)
        if taken is None:
            raise refused or DataError("The conversation has no turns.")
        return taken

    def apply(self, example: Example) -> Conversation:
        """The conversation of a row in this form."""
        conversation = Conversation(_opening_as_context(to_messages(example)), example.tools or ())
        for step in self.steps:
            conversation = step(conversation)
        return conversation


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


def rendered(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Tool] = (), prompt: bool = False) -> str:
    """A conversation as its tokenizer's chat template writes it; with `prompt`, up to where the answer begins.

    Raises
    ------
    DataError
        If there is no template, or it refuses the conversation.
    """
    if tokenizer.chat_template is None:
        raise DataError("The mixture is in chat form but the tokenizer has no chat template. Use plain rows.")
    turns = [{name: value for name, value in message.items() if name != "train"} for message in messages]
    defined = [dict(tool) for tool in tools] or None
    try:
        return str(tokenizer.apply_chat_template(turns, tools=defined, tokenize=False, add_generation_prompt=prompt))
    except Exception as error:  # a template is a program, and raises what it likes
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        roles = ", ".join(str(turn["role"]) for turn in turns[:8]) + (", …" if len(turns) > 8 else "")
        raise DataError(
            f"The tokenizer's chat template refuses a conversation of {roles}: {reason}. Mend the rows, or use a "
            "tokenizer with another template."
        ) from error


def _shows(text: str, conversation: Conversation) -> bool:
    """Whether a rendered text holds every turn, every call and every tool."""
    wanted: list[str] = []
    for message in conversation.messages:
        content = message["content"]
        wanted += [content] if isinstance(content, str) else [part["text"] for part in content]
        for call in message.get("tool_calls", ()):
            arguments = call["function"]["arguments"]
            wanted += [call["function"]["name"], *(arguments if isinstance(arguments, dict) else [])]
    wanted += [tool["function"]["name"] for tool in conversation.tools]
    if "'type': 'text'" in text and not isinstance(conversation.messages[0]["content"], str):
        return False  # a list of parts was written as it is
    missing = [part for part in wanted if part.strip() not in text]
    return not missing or _all_in(missing, text)


def _all_in(parts: Iterable[str], text: str) -> bool:
    """Whether texts stand in another with other white space, or as JSON."""
    spaced = normalise(text)
    return all(normalise(part) in spaced or json.dumps(part, ensure_ascii=False)[1:-1] in text for part in parts)


def _opening_as_context(messages: Sequence[Message]) -> tuple[Message, ...]:
    asked = next((i for i, turn in enumerate(messages) if turn["role"] not in ("system", "assistant")), 0)
    return tuple({**turn, "train": False} if turn["role"] == "assistant" and i < asked else turn
                 for i, turn in enumerate(messages))  # fmt: skip


def _calls_as_text(conversation: Conversation) -> Conversation:
    """Calls, results and tools in the marks that many models write them in."""
    messages = [_call_as_text(message) for message in conversation.messages]
    if conversation.tools:
        lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in conversation.tools)
        known = messages.pop(0)["content"] + "\n\n" if messages[0]["role"] == "system" else ""
        told = f"{known}You may call these tools:\n<tools>\n{lines}\n</tools>"
        messages.insert(0, {"role": "system", "content": told})
    return Conversation(tuple(messages))


def _call_as_text(message: Message) -> Message:
    calls = [
        f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>"
        for call in message.get("tool_calls", ())
    ]
    text = "\n".join([message["content"], *calls] if message["content"] else calls)
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    kept = {name: value for name, value in message.items() if name in ("role", "train")}
    return {**kept, "content": text if calls else message["content"]}


def _alternating(conversation: Conversation) -> Conversation:
    """Turns of one role that follow each other as one, and a user's turn first."""
    messages: list[Message] = []
    for message in conversation.messages:
        last = messages[-1] if messages else {"role": ""}
        if last["role"] != message["role"]:
            messages.append(message)
        elif last.get("train", True) == message.get("train", True):
            messages[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
        else:  # one is trained and the other is not
            messages += [{"role": "user", "content": ""}, message]
    start = int(messages[0]["role"] == "system")
    if len(messages) > start and messages[start]["role"] == "assistant":
        messages.insert(start, {"role": "user", "content": ""})
    return replace(conversation, messages=tuple(messages))


def _system_as_user(conversation: Conversation) -> Conversation:
    """System messages at the head of the user's turn that follows."""
    messages: list[Message] = []
    pending = ""
    for message in conversation.messages:
        if message["role"] == "system":
            pending = "\n\n".join(filter(None, (pending, message["content"])))
        elif pending:
            if message["role"] == "user":
                messages.append({**message, "content": "\n\n".join(filter(None, (pending, message["content"])))})
            else:
                messages += [{"role": "user", "content": pending}, message]
            pending = ""
        else:
            messages.append(message)
    return _alternating(replace(conversation, messages=tuple(messages)))


def _as_parts(conversation: Conversation) -> Conversation:
    """Contents as lists of one part, for templates of models that read pictures, too."""
    messages = [
        {**message, "content": [{"type": "text", "text": message["content"]}]} for message in conversation.messages
    ]
    return replace(conversation, messages=tuple(messages))


_LADDER: tuple[tuple[Callable[[Conversation], Conversation], ...], ...] = (
    (),
    (_alternating,),
    (_calls_as_text,),
    (_calls_as_text, _alternating),
    (_calls_as_text, _alternating, _system_as_user),
    (_as_parts,),
    (_calls_as_text, _alternating, _as_parts),
    (_calls_as_text, _alternating, _system_as_user, _as_parts),
)
