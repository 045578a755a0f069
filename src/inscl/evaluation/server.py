"""Answers from any OpenAI-compatible server, in the place of a model in memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from inscl.errors import InsclError, require
from inscl.example import Example
from inscl.template import render, to_messages


@dataclass(frozen=True)
class Server:
    """Where to ask, and for which model.

    Attributes
    ----------
    url : str
        Base address, such as ``http://localhost:8000/v1``.
    model : str
        Name the server knows.
    api_key : str, optional
        None reads ``OPENAI_API_KEY``; a server without keys takes any text.
    workers : int
        Questions asked at once.
    """

    url: str
    model: str
    api_key: str | None = None
    workers: int = 16

    @property
    def identity(self) -> str:
        """What answers, for comparison."""
        return f"{self.url} {self.model}"

    def answers(self, rows: Sequence[tuple[Example, int]], *, chat: bool) -> list[tuple[str, bool]]:
        """Greedy answers and whether the limit cut them off.

        Parameters
        ----------
        rows : sequence of (Example, int)
            What to answer, and in how many tokens at most.
        chat : bool
            Whether to ask as a conversation or with the plain template.

        Raises
        ------
        InsclError
            If the server cannot be reached or refuses.
        """
        openai = require("openai", extra="server", purpose="Asking a server")
        client = openai.OpenAI(base_url=self.url, api_key=self.api_key, max_retries=5)

        def ask(row: tuple[Example, int]) -> tuple[str, bool]:
            return self._ask(client, *row, chat=chat)

        try:
            with ThreadPoolExecutor(self.workers) as pool:
                return list(pool.map(ask, rows))
        except openai.OpenAIError as error:
            raise InsclError(f"The server {self.url} did not answer: {error}. Check its address and model.") from error

    def _ask(self, client: Any, example: Example, limit: int, *, chat: bool) -> tuple[str, bool]:
        common = {"model": self.model, "max_tokens": limit, "temperature": 0.0}
        if chat:
            turns = [dict(message) for message in to_messages(example)[:-1]]
            choice = client.chat.completions.create(messages=turns, **common).choices[0]
            text = choice.message.content or ""
        else:
            choice = client.completions.create(prompt=render(example).prompt, **common).choices[0]
            text = choice.text or ""
        return text, choice.finish_reason == "length"
