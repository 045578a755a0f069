"""Who answers: a model in memory or a server, asked the rows of several tasks together."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inscl.core.scoring import may_match
from inscl.data.example import Example, key_of
from inscl.data.template import (
    CHAT_ID,
    TEMPLATE_ID,
    PromptIds,
    answer_ids,
    check_fits,
    end_ids,
    prompt_ids,
    row_named,
)
from inscl.evaluation.predictions import Prediction
from inscl.evaluation.server import Server

if TYPE_CHECKING:
    from inscl.evaluation.reading import ReferenceReading
    from inscl.models.kept import KeptStates
    from inscl.models.loading import LoadedModel

_UNFINISHED = "…"  # ends an answer that was not finished
_Tell = Callable[[int, int], None]  # rows done, rows


@dataclass(frozen=True)
class Asked:
    """Everything that bears on the predictions beside model and rows.

    Attributes
    ----------
    limits : mapping from task to int
        Most tokens of an answer.
    max_length : int
        Most tokens of a prompt.
    chat, loss : bool
        Whether rows are asked as chats; whether the loss on the first reference is taken.
    exact_only : bool
        Whether answers need not be finished once they can be no exact match.
    chat_template : str or mapping, optional
        The tokenizer's; None where a server has its own.
    """

    limits: Mapping[str, int]
    max_length: int
    chat: bool
    loss: bool
    exact_only: bool = False
    chat_template: str | Mapping[str, str] | None = None

    def key(self, name: str, rows: Sequence[Example], identity: str) -> str:
        """Name of the file that holds these predictions; a task's name is never used as a path."""
        settings = [name, identity, self.limits[name], self.max_length, self.chat, self.loss, TEMPLATE_ID]
        settings += ["exact only"] if self.exact_only else []
        settings += [CHAT_ID, self.chat_template] if self.chat else []
        return key_of("predictions", json.dumps(settings), *(row.key.hex() for row in rows)).hex()

    def ask_server(
        self, server: Server, tasks: Mapping[str, Sequence[Example]], tell: _Tell
    ) -> dict[str, list[Prediction]]:
        """Let a server answer."""
        found: dict[str, list[Prediction]] = {}
        for name, examples in tasks.items():
            answers = server.answers([(row, self.limits[name]) for row in examples], chat=self.chat)
            found[name] = [
                _prediction(name, row, text, capped) for row, (text, capped) in zip(examples, answers, strict=True)
            ]
            done = sum(len(rows) for rows in found.values())
            tell(done, done)
        return found

    def ask_model(
        self,
        model: "LoadedModel",
        tasks: Mapping[str, Sequence[Example]],
        batch: dict[str, int],
        kept: "KeptStates | None",
        tell: _Tell,
    ) -> dict[str, list[Prediction]]:
        """Let a model answer: what its reading of the references does not tell is generated."""
        rows = [(name, row) for name, examples in tasks.items() for row in examples]
        asking = _Asking(model, self, batch)
        prompts = asking.prompts(rows)
        readings: Sequence[ReferenceReading | None] = [None] * len(rows)
        if self.loss:
            readings = asking.readings(rows, prompts, kept)
        answers = asking.answers(rows, prompts, readings, tell)
        found: dict[str, list[Prediction]] = {name: [] for name in tasks}
        for (name, row), (text, capped), prompt, reading in zip(rows, answers, prompts, readings, strict=True):
            found[name].append(_prediction(name, row, text, capped, prompt.truncated, reading))
        return found


@dataclass(frozen=True)
class _Asking:
    """A model in memory that is asked some rows, each with the name of its task."""

    model: "LoadedModel"
    asked: Asked
    batch: dict[str, int]

    def prompts(self, rows: Sequence[tuple[str, Example]]) -> list[PromptIds]:
        """What generation starts from."""
        found: list[PromptIds] = []
        size, places, tokenizer = self.model.vocabulary, self.model.positions, self.model.tokenizer
        for number, (name, row) in enumerate(rows, start=1):
            with row_named(name, number):
                found.append(prompt_ids(row, tokenizer, max_length=self.asked.max_length, chat=self.asked.chat))
                check_fits(found[-1].ids, tokenizer, size, places, to_come=self.asked.limits[name])
        return found

    def readings(
        self, rows: Sequence[tuple[str, Example]], prompts: Sequence[PromptIds], kept: "KeptStates | None"
    ) -> "list[ReferenceReading]":
        """How the model reads each row's first reference."""
        from inscl.evaluation.reading import read_answers

        references = [answer_ids(row, self.model.tokenizer, chat=self.asked.chat) for _, row in rows]
        pairs = [(prompt.ids, reference) for prompt, reference in zip(prompts, references, strict=True)]
        if kept and not kept.keep([*prompt, *reference] for prompt, reference in pairs):
            kept = None
        pad = self.model.tokenizer.pad_token_id
        return read_answers(self.model.model, pairs, pad_id=pad, batch=self.batch, kept=kept)

    def answers(
        self,
        rows: Sequence[tuple[str, Example]],
        prompts: Sequence[PromptIds],
        readings: "Sequence[ReferenceReading | None]",
        tell: _Tell,
    ) -> list[tuple[str, bool]]:
        """The greedy answers, and whether the limit cut them off."""
        from inscl.models.generate import Prompt, generate

        ends = self._end_ids()
        found = {
            i: told
            for i, (row, reading) in enumerate(zip(rows, readings, strict=True))
            if reading and (told := self._told(row, reading, ends))
        }
        begun = {i: reading.begins if reading else [] for i, reading in enumerate(readings) if i not in found}
        known = len(found)
        tell(known, len(rows))
        generated = generate(
            self.model.model,
            [Prompt([*prompts[i].ids, *ids], self.asked.limits[rows[i][0]] - len(ids)) for i, ids in begun.items()],
            end_ids=ends,
            pad_id=self.model.tokenizer.pad_token_id,
            progress=lambda done, _: tell(known + done, len(rows)),
            **self.batch,
        )
        for (i, ids), answer in zip(begun.items(), generated, strict=True):
            found[i] = self._text([*ids, *answer.ids]), answer.capped
        return [found[i] for i in range(len(rows))]

    def _told(
        self, row: tuple[str, Example], reading: "ReferenceReading", ends: frozenset[int]
    ) -> tuple[str, bool] | None:
        """The answer where a reading tells it, or enough of it."""
        name, example = row
        if answer := reading.answer(self.asked.limits[name], ends):
            return self._text(answer.ids), answer.capped
        beginning = self._text(reading.begins)
        if self.asked.exact_only and not may_match(beginning, example.outputs):
            return f"{beginning}{_UNFINISHED}", False
        return None

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.model.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _end_ids(self) -> frozenset[int]:
        return end_ids(self.model.tokenizer, chat=self.asked.chat) | self.model.ends


def _prediction(
    name: str, row: Example, text: str, capped: bool, truncated: bool = False, reading: "ReferenceReading | None" = None
) -> Prediction:
    nll, n = (reading.nll, reading.tokens) if reading else (None, 0)
    return Prediction(name, row.instruction, row.input, list(row.outputs), text.strip(), capped, truncated, nll, n)
