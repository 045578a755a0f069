"""Answers from any OpenAI-compatible server, in the place of a model in memory."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from inscl.data.chat_form import to_messages
from inscl.data.example import Example
from inscl.data.template import render
from inscl.errors import InsclError
from inscl.llm.client import Connection, NoAnswerError, at_once, reply_in


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
    api_key: str | None = field(default=None, repr=False)
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
        found: dict[int, tuple[str, bool]] = {}
        with Connection(self.url, key=self.api_key) as connection:

            def ask(i: int) -> tuple[int, tuple[str, bool]]:
                return i, self._ask(connection, *rows[i], chat=chat)

            try:
                with closing(at_once(ask, range(len(rows)), self.workers, connection.stop)) as answers:
                    found.update(answers)
            except NoAnswerError as error:
                raise InsclError(
                    f"The server {self.url} left a question without an answer: {error.reason}. "
                    "Mend it and run the command again."
                ) from None
        return [found[i] for i in range(len(rows))]

    def _ask(self, connection: Connection, example: Example, limit: int, *, chat: bool) -> tuple[str, bool]:
        common = {"model": self.model, "max_tokens": limit, "temperature": 0.0}
        if chat:
            turns = [{k: v for k, v in turn.items() if k != "train"} for turn in to_messages(example)[:-1]]
            tools = {"tools": [dict(tool) for tool in example.tools]} if example.tools else {}
            path, asked = "/chat/completions", {"messages": turns, **tools, **common}
        else:
            path, asked = "/completions", {"prompt": render(example).prompt, **common}
        reply = reply_in(connection.post(path, asked))
        if reply.failure:
            raise NoAnswerError(reply.failure)
        return reply.text, reply.capped
