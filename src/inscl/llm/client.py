"""Many questions to an OpenAI-compatible chat server: several at once, asked again with patience, answers kept.

Whatever a server does, a run ends with a reply or a reason for each question. A reply is on the disk before its
worker asks the next question, so a killed run goes on where it was and pays for no answer twice, apart from those
that were on their way (at most one a worker).
"""

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from inscl.data.example import key_of
from inscl.errors import ConfigError, InsclError, require
from inscl.llm.replies import Replies, Reply, counted

_KEY_VARIABLE = "OPENAI_API_KEY"
_MOST_BYTES = 1 << 20  # of one answer with everything around it
_LONGEST_WAIT = 600.0  # seconds that a server may tell us to wait before it counts as a refusal
_GIVE_UP_AFTER = 10  # questions that failed one after the other
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; doubled from attempt to attempt
_GRACE = 5.0  # seconds that answers on their way have when the user stops
_PASSING = frozenset({408, 409, 425, 429})  # and all from 500 on
_FATAL = frozenset({401, 402, 403, 404})  # the next question would fare no better
_REFUSED = frozenset({400, 422})  # perhaps for a setting that this server does not know
_OPTIONAL = frozenset({"max_tokens", "response_format", "temperature"})
_NO_KEY = "none"  # the client wants some text; a server without keys takes any

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Question:
    """A conversation to be continued.

    Attributes
    ----------
    messages : tuple of {"role", "content"}
    schema : mapping, optional
        JSON schema that the answer shall follow, where the server can be told so.
    about : str
        What the question is about, as a hash: by it a stored reply is found again and forgotten.
    """

    messages: tuple[Mapping[str, str], ...]
    schema: Mapping[str, Any] | None = None
    about: str = ""


class _ServerError(InsclError):
    """A failure that every further question would meet: a wrong key, no such model, nobody there."""


class NoAnswerError(Exception):
    """One question has no answer; `reason` is a line without secrets."""

    def __init__(self, reason: str, *, refused: str = "", lasting: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused  # what the server said to a request that it did not like
        self.lasting = lasting  # whether an answer came, and was paid for, that no repetition would mend


class Connection(AbstractContextManager["Connection"]):
    """The client of one server, for several threads: time limits, bounded answers, retries, no secrets in errors.

    Asked again, with growing pauses or after as many seconds as ``Retry-After`` says: 408, 409, 425, 429, 5xx,
    time-outs and broken connections. The client's own retries are off: they end with the headers of an answer and
    sleep through an interrupt.

    Parameters
    ----------
    url : str
        Base address, such as ``http://localhost:8000/v1``.
    key : str, optional
        None reads the environment (`key_variable`); without one there, none is sent that means anything.
    key_variable : str
    timeout : float
        Seconds without a sign of life, and for the body of an answer.
    attempts : int
        Times a question is asked at most.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        key_variable: str = _KEY_VARIABLE,
        timeout: float = 60.0,
        attempts: int = 8,
    ) -> None:
        self._openai: Any = require("openai", extra="server", purpose="Asking a server")
        self.url, self.stop = _checked(url), threading.Event()
        self._key, self._variable, self._timeout = _key(key, key_variable), key_variable, timeout
        self._attempts, self._answered = attempts, False
        bounded = self._openai.DefaultHttpxClient(event_hooks={"response": [self._bound]}, timeout=timeout)
        self._client = self._openai.OpenAI(
            base_url=self.url, api_key=self._key or _NO_KEY, max_retries=0, timeout=timeout, http_client=bounded
        )

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """The server's JSON answer to a request.

        Raises
        ------
        NoAnswerError
            If there is none, after all attempts.
        _ServerError
            If there will be none for other requests either.
        """
        tenacity: Any = require("tenacity", extra="server", purpose="Asking a server")
        asking = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=self._pause(
                tenacity.wait_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)
                + tenacity.wait_random(0, FIRST_PAUSE)
            ),
            retry=tenacity.retry_if_exception(self._passes),
            sleep=self.stop.wait,
            reraise=True,
        )
        try:
            found = asking(self._once, path, dict(body))
        except self._openai.APIStatusError as error:
            raise self._status(error) from None
        except self._openai.APITimeoutError:
            raise NoAnswerError(f"no answer within {self._timeout:g} s") from None
        except self._openai.APIConnectionError as error:
            if self._nobody(error):
                raise _ServerError(
                    f"Nothing answers at {self.url}. Start the server there, or mend the address."
                ) from None
            raise NoAnswerError(f"the connection broke ({type(error.__cause__).__name__})") from None
        except (ValueError, UnicodeError):
            raise NoAnswerError("the answer is not JSON") from None
        if not isinstance(found, dict):
            raise NoAnswerError("the answer is not a JSON object")
        self._answered = True
        return dict(self._scrub(found))

    def _once(self, path: str, body: dict[str, Any]) -> Any:
        if self.stop.is_set():
            raise NoAnswerError("stopped")
        return self._client.post(path, cast_to=object, body=body)

    def _bound(self, response: Any) -> None:
        """Stop reading what is too large or too slow: the client itself would read on for ever."""
        read, end = response.iter_bytes, time.monotonic() + self._timeout

        def bounded(*arguments: Any) -> Iterator[bytes]:
            size = 0
            for chunk in read(*arguments):
                size += len(chunk)
                if size > _MOST_BYTES and response.is_success:
                    raise NoAnswerError(f"the answer is larger than {_MOST_BYTES:,} bytes", lasting=True)
                if size > _MOST_BYTES:
                    return  # of an error the beginning will do
                if time.monotonic() > end:
                    raise self._openai.APITimeoutError(request=response.request)
                yield chunk

        response.iter_bytes = bounded

    def _passes(self, error: BaseException) -> bool:
        """Whether it may go better next time."""
        if isinstance(error, self._openai.APIStatusError):
            if getattr(error, "code", None) == "insufficient_quota":
                return False
            waits = _retry_after(error.response.headers)
            passing = error.status_code in _PASSING or error.status_code >= 500
            return passing and (waits is None or waits <= _LONGEST_WAIT)
        return isinstance(error, self._openai.APIConnectionError) and not self._nobody(error)

    def _nobody(self, error: Any) -> bool:
        """Whether no server has ever been there; one that has may be restarting."""
        return not self._answered and type(error.__cause__).__name__ == "ConnectError"

    def _pause(self, otherwise: Callable[[Any], float]) -> Callable[[Any], float]:
        def seconds(state: Any) -> float:
            response = getattr(state.outcome.exception(), "response", None)
            told = None if response is None else _retry_after(response.headers)
            return float(otherwise(state)) if told is None else told

        return seconds

    def _status(self, error: Any) -> Exception:
        body = error.body
        told = body.get("message") if isinstance(body, dict) else body
        said = " ".join(str(self._scrub(f"{error.status_code}: {told or body or 'no reason given'}")).split())
        short = said if len(said) <= 200 else said[:199] + "…"
        if error.status_code in _FATAL or getattr(error, "code", None) == "insufficient_quota":
            key = f"the key in {self._variable}" if self._key else f"the key (none is set in {self._variable})"
            return _ServerError(f"The server {self.url} refused, {short}. Check {key}, the address and the model.")
        return NoAnswerError(f"the server answered {short}", refused=said if error.status_code in _REFUSED else "")

    def _scrub(self, value: object) -> Any:
        """The value without the key, wherever it was echoed."""
        if not self._key or len(self._key) < 8:  # a word such as "none" is no secret
            return value
        if isinstance(value, str):
            return value.replace(self._key, "[key]")
        if isinstance(value, dict):
            return {self._scrub(name): self._scrub(part) for name, part in value.items()}
        return [self._scrub(part) for part in value] if isinstance(value, list) else value


class Asker:
    """Asks many questions and keeps the replies.

    Parameters
    ----------
    url, model : str
        Base address of the server, and a name that it knows.
    store : Path, optional
        File of replies: what stands there is not asked again. None keeps them in memory.
    workers : int
        Questions on their way at once.
    timeout : float
        Seconds for one attempt.
    attempts : int
        Times one question is asked at most.
    most_tokens : int
        Limit of an answer.
    key_variable : str
        Name of the environment variable that holds the key.
    without : collection of str
        Settings that are not sent: "temperature", "max_tokens" (then "max_completion_tokens" is), "response_format".
        What a server refuses is found out in any case.

    Examples
    --------
    >>> asker = Asker("http://localhost:8000/v1", "a-model")  # doctest: +SKIP
    >>> asker.ask([Question(({"role": "user", "content": "Say yes."},))])  # doctest: +SKIP
    [Reply(text='Yes.', failure='', tokens_in=12, tokens_out=3, capped=False)]
    """

    def __init__(
        self,
        url: str,
        model: str,
        store: Path | None = None,
        *,
        workers: int = 8,
        timeout: float = 60.0,
        attempts: int = 8,
        most_tokens: int = 512,
        key_variable: str = _KEY_VARIABLE,
        without: Collection[str] = (),
    ) -> None:
        if unknown := set(without) - _OPTIONAL:
            raise ConfigError(f"`without` may name {', '.join(sorted(_OPTIONAL))}; got {', '.join(sorted(unknown))}.")
        if min(workers, attempts, most_tokens) < 1 or timeout <= 0:
            raise ConfigError("`workers`, `attempts`, `most_tokens` and `timeout` must be positive.")
        self.model, self.url, self._replies = model, _checked(url), Replies(store)
        self._workers, self._most_tokens = workers, most_tokens
        self._settings: dict[str, Any] = {"timeout": timeout, "attempts": attempts, "key_variable": key_variable}
        self._refused = set(without)  # settings that the server does not take
        self._met = False

    def ask(self, questions: Sequence[Question], progress: Callable[[int, int], None] | None = None) -> list[Reply]:
        """A reply to each question, in their order; equal questions are asked once.

        Parameters
        ----------
        questions : sequence of Question
        progress : callable, optional
            Called with (questions done, questions).

        Raises
        ------
        InsclError
            If the server cannot be reached, refuses the key or the model, or fails `_GIVE_UP_AFTER` questions in a
            row. What was answered is stored.
        """
        keys = [self.key(question) for question in questions]
        with self._replies as replies, Connection(self.url, **self._settings) as connection:
            todo = {key: q for key, q in zip(keys, questions, strict=True) if key not in replies}
            failed: dict[str, Reply] = {}
            done, in_a_row = len(set(keys)) - len(todo), 0

            def answer(item: tuple[str, Question]) -> tuple[str, Reply]:
                key, question = item
                reply, lasting = self._reply(connection, question)
                if lasting:
                    replies.keep(key, reply, question.about)
                return key, reply

            # The first goes alone: what the server refuses to all, it shall refuse once.
            items = list(todo.items())
            alone = 0 if self._met else 1
            for part, workers in ((items[:alone], 1), (items[alone:], self._workers)):
                with closing(at_once(answer, part, workers, connection.stop)) as answers:
                    for key, reply in answers:
                        done, in_a_row = done + 1, in_a_row + 1 if reply.failure else 0
                        if reply.failure:
                            failed[key] = reply
                        if in_a_row >= _GIVE_UP_AFTER:
                            raise InsclError(
                                f"The server {self.url} failed {in_a_row} questions in a row; the last: "
                                f"{reply.failure}. What it answered is kept: mend it and run the command again."
                            )
                        if progress:
                            progress(done, len(set(keys)))
            return [failed[key] if key in failed else replies[key] for key in keys]

    def key(self, question: Question) -> str:
        """What a reply is known by in the store."""
        return question_key(question, self.model, self._most_tokens)

    def body(self, question: Question) -> dict[str, Any]:
        """The request for a question, with the settings that the server has not refused."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in question.messages],
            "temperature": 0.0,
            "max_tokens": self._most_tokens,
        }
        if question.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": dict(question.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        for name in self._refused & body.keys():
            body = _without(body, name)
        return body

    def _reply(self, connection: Connection, question: Question) -> tuple[Reply, bool]:
        """A reply, and whether it is to be kept: an answer that was paid for is, a failure that may pass is not."""
        body, left_out = self.body(question), set[str]()
        while True:
            try:
                found = connection.post("/chat/completions", body)
                break
            except NoAnswerError as failure:
                name = _to_blame(body, failure.refused) if failure.refused else None
                if connection.stop.is_set():
                    raise
                if name is None:
                    return Reply("", failure.reason), failure.lasting
                body = _without(body, name)
                left_out.add(name)
        self._met = True
        self._refused |= left_out
        reply = reply_in(found)
        return reply, not reply.failure


def question_key(question: Question, model: str, most_tokens: int) -> str:
    """What a reply is known by: the model, the limit, the messages and the schema."""
    asked = json.dumps([[dict(message) for message in question.messages], question.schema], sort_keys=True)
    return key_of("question", model, str(most_tokens), asked).hex()


def reply_in(answer: Mapping[str, Any]) -> Reply:
    """The reply in a completion, of a chat or a prompt, as the server sent it; never an error, whatever stands there.

    >>> reply_in({"choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}]}).text
    'Yes.'
    >>> reply_in({"error": "busy"}).failure
    'the answer is no completion'
    """
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        capped = choice.get("finish_reason") == "length"
    except (KeyError, IndexError, TypeError, AttributeError):
        return Reply("", "the answer is no completion")
    usage = answer.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(
        text=text if isinstance(text, str) else "",
        tokens_in=counted(counts.get("prompt_tokens")),
        tokens_out=counted(counts.get("completion_tokens")),
        capped=capped,
    )


def at_once(
    work: Callable[[_Item], _Result], items: Sequence[_Item], workers: int, stop: threading.Event
) -> Generator[_Result, None, None]:
    """Results in the order in which they come, of several threads.

    An exception of one, an interrupt, or leaving the loop stops the others: they take nothing more, and have a few
    seconds to end what they do.
    """
    waiting: queue.SimpleQueue[_Item] = queue.SimpleQueue()
    ready: queue.SimpleQueue[tuple[_Result | None, BaseException | None]] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def run() -> None:
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                ready.put((work(item), None))
            except BaseException as error:
                ready.put((None, error))
                return

    # Daemons: a hanging answer must not keep the process from ending.
    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(workers, len(items)))]
    for thread in threads:
        thread.start()
    finished = False
    try:
        for _ in items:
            result, error = ready.get()
            if error is not None:
                raise error
            yield result  # type: ignore[misc]
        finished = True
    finally:
        if not finished:
            stop.set()
        end = time.monotonic() + _GRACE
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))


def _to_blame(body: Mapping[str, object], said: str) -> str | None:
    """The setting that a refused request can do without, where there is one."""
    if "max_tokens" in body and "max_completion_tokens" in said:
        return "max_tokens"
    if "temperature" in body and "temperature" in said:
        return "temperature"
    return "response_format" if "response_format" in body else None


def _without(body: Mapping[str, object], name: str) -> dict[str, Any]:
    kept = {key: value for key, value in body.items() if key != name}
    # The newer name of the limit, the only one that some models take.
    return {**kept, "max_completion_tokens": body[name]} if name == "max_tokens" else kept


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait: a number, or the time until a date.

    >>> _retry_after({"retry-after": "1.5"}), _retry_after({"retry-after": "soon"}), _retry_after({})
    (1.5, None, None)
    >>> _retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
    0.0
    """
    from email.utils import parsedate_to_datetime

    told = headers.get("retry-after", "")
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ConfigError(f"The server address {url!r} is none; wanted one such as http://localhost:8000/v1.")
    if "@" in parts.netloc or parts.query:
        raise ConfigError(
            "The server address holds a name, a password or a query, which would be written down. "
            f"Give the plain address, and the key in the environment ({_KEY_VARIABLE})."
        )
    return url.rstrip("/")


def _key(given: str | None, variable: str) -> str:
    key = (os.environ.get(variable, "") if given is None else given).strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"The key in {variable} has characters that no key has. Set it again.")
    return key
