"""Preference data (chosen and rejected answers, or labelled ones) and pictures: told apart, never taken for answers."""

from collections.abc import Mapping
from typing import Any

from inscl.data.readers.fields import UnusableError, decoded, is_empty
from inscl.data.readers.turns import CHAT, says_turns

PAIR = ("chosen", "rejected")
LABELS = ("kto_tag", "label")
PICTURES = ("images", "image", "videos", "video", "audios", "audio")

_YES_OR_NO = {"true": True, "1": True, "false": False, "0": False}


def is_preference(record: Mapping[str, object]) -> bool:
    """Whether a record holds an answer together with a judgement of it.

    >>> is_preference({"prompt": "2 + 2", "chosen": "4", "rejected": "5"})
    True
    >>> is_preference({"instruction": "Is it spam?", "output": "yes", "label": "spam"})
    False
    """
    return all(record.get(name) is not None for name in PAIR) or _label(record) is not None


def preferred(record: Mapping[str, object]) -> Mapping[str, Any]:
    """The record with the preferred answer as its answer.

    Raises
    ------
    UnusableError
        If its answer is labelled as not wanted.
    """
    label = _label(record)
    if label is not None:
        if not _YES_OR_NO[str(record[label]).strip().lower()]:
            raise UnusableError(f"an answer that is not preferred (`{label}` is false)")
        return {name: value for name, value in record.items() if name != label}
    return _with_answer({name: value for name, value in record.items() if name != "chosen"}, record["chosen"])


def _with_answer(rest: dict[str, object], chosen: Any) -> Mapping[str, Any]:
    """A record with its answer where the form of the record has it: after its turns, or beside its prompt."""
    chosen = decoded(chosen) if says_turns(chosen) else chosen
    if isinstance(chosen, str) and any(rest.get(name) is not None for name in CHAT):
        chosen = {"role": "assistant", "content": chosen}
    if isinstance(chosen, Mapping):
        chosen = [chosen]
    if isinstance(chosen, (list, tuple)):
        return _with_turns(rest, list(chosen))
    return {**rest, ("completion" if rest.get("prompt") is not None else "output"): chosen}


def refuse_pictures(record: Mapping[str, object]) -> None:
    """Raise for a record with pictures, sound or films beside its text."""
    for name in PICTURES:
        if not is_empty(record.get(name)):
            raise UnusableError(
                f"`{name}` beside the text; only text can be trained: leave out such rows, or the column"
            )


def _with_turns(rest: dict[str, object], chosen: list[object]) -> Mapping[str, Any]:
    """The chosen turns after those that lead to them; a conversation with its questions stands for itself."""
    if any(
        isinstance(turn, Mapping) and str(turn.get("role", turn.get("from"))) in ("user", "human") for turn in chosen
    ):
        known = {"prompt"} if _repeats(rest.get("prompt"), chosen) else set()
        return {**{name: value for name, value in rest.items() if name not in known}, "messages": chosen}
    for name in CHAT:
        if rest.get(name) is not None:
            before = decoded(rest[name])
            return {**rest, name: [*before, *chosen] if isinstance(before, (list, tuple)) else before}
    prompt = rest.get("prompt")
    if isinstance(prompt, str) and not says_turns(prompt):
        prompt = [{"role": "user", "content": prompt}]
    return {**rest, "prompt": decoded(prompt), "completion": chosen}


def _repeats(prompt: object, chosen: list[object]) -> bool:
    """Whether the prompt says nothing that the chosen conversation does not begin with."""
    first = next((turn for turn in chosen if isinstance(turn, Mapping) and turn.get("role") == "user"), {})
    return prompt == first.get("content") or (isinstance(prompt, list) and prompt == chosen[: len(prompt)])


def _label(record: Mapping[str, object]) -> str | None:
    """The field that says whether the answer is wanted: of a conversation, or of a prompt and its completion."""
    if record.get("kto_tag") is not None and str(record["kto_tag"]).strip().lower() in _YES_OR_NO:
        return "kto_tag"
    labelled = record.get("label") is not None and str(record["label"]).strip().lower() in _YES_OR_NO
    answered = any(record.get(name) is not None for name in CHAT) or (
        record.get("prompt") is not None and record.get("completion") is not None
    )
    return "label" if labelled and answered else None
