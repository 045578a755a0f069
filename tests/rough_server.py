"""A chat server on loopback that misbehaves as told, and counts what it was asked; not a test.

Each rule is a function of (question, times asked before) that gives an `Answer`, or None for the usual one.
"""

import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

REPAIR = " (once more)"
USUAL = '{"tags": ["text rewriting", "plain answer"]}'


@dataclass(frozen=True)
class Answer:
    """What to send; `text` is put into a chat completion, `raw` is sent as it is."""

    status: int = 200
    text: str = USUAL
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    reset: bool = False
    finish: str = "stop"


Rule = Callable[[str, int], Answer | None]


class RoughServer(ThreadingHTTPServer):
    """Knows how often each first turn was asked, and answered with 200; a second round has a mark."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, rule: Rule, seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule, self.seconds = rule, seconds
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.keys: set[str] = set()
        self.busy = self.busiest = 0
        self.lock = Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: object) -> None:
        """Clients that go away are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: RoughServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][0]["content"] + (REPAIR if len(body["messages"]) > 1 else "")
        server = self.server
        with server.lock:
            before = server.asked[question]
            server.asked[question] += 1
            server.bodies.append(body)
            server.keys.add(self.headers["Authorization"])
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        try:
            self._send(server.rule(question, before) or Answer(), question)
        finally:
            with server.lock:
                server.busy -= 1

    def _send(self, answer: Answer, question: str) -> None:
        time.sleep(answer.wait + self.server.seconds)
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        raw = completion(answer.text, answer.finish) if answer.raw is None else answer.raw
        if answer.status == 200:
            with self.server.lock:
                self.server.paid[question] += 1
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


def completion(text: str, finish: str = "stop") -> bytes:
    """A chat completion as a server sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(whole).encode()


@contextmanager
def rough_server(rule: Rule = lambda question, before: None, seconds: float = 0.0) -> Iterator[RoughServer]:
    """A server that lives as long as the block; `seconds` is what each answer takes."""
    server = RoughServer(rule, seconds)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
