"""Replies of a server or model on the disk, so that nothing is asked, or paid for, twice."""

import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inscl.errors import InsclError
from inscl.files import whole_file


@dataclass(frozen=True)
class Reply:
    """What came back: a text, or the reason why there is none.

    Attributes
    ----------
    text : str
        Empty where there is a failure.
    failure : str
        One line, empty for an answer.
    tokens_in, tokens_out : int
        As the server counted them; 0 where it does not.
    capped : bool
        Whether the limit of tokens cut the answer off.
    """

    text: str
    failure: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    capped: bool = False


class Replies(AbstractContextManager["Replies"]):
    """Replies on the disk: JSON Lines, each written through before `keep` returns. One process at a time.

    A last line torn by a crash, or any other that does not parse, counts as not there.

    Parameters
    ----------
    path : Path, optional
        None remembers in this object alone.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, Reply] = {}
        self._file: Any = None

    def __enter__(self) -> "Replies":
        if self.path is not None:
            import fcntl

            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                raise InsclError(
                    f"Another command is collecting the same answers in '{self.path.name}'. Wait until it has ended."
                ) from None
            self._file.seek(0)
            whole = self._file.read()
            self._known = {record["key"]: _reply_of(record) for record in _records(whole)}
            if whole and not whole.endswith(b"\n"):
                self._file.write(b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Reply:
        return self._known[key]

    def keep(self, key: str, reply: Reply, about: str = "") -> None:
        """Remember a reply, on the disk before this returns."""
        line = json.dumps({"key": key, "about": about, **asdict(reply)}, ensure_ascii=True) + "\n"
        with self._lock:
            self._known[key] = reply
            if self._file is not None:
                self._file.write(line.encode())
                self._file.flush()
                os.fsync(self._file.fileno())


def forget_replies(path: Path, used: Collection[str]) -> None:
    """Drop the stored replies that are about something not in `used`, and the file when none is left."""
    kept = [record for record in _records(path.read_bytes()) if record.get("about") in used]
    if not kept:
        path.unlink()
        return
    with whole_file(path) as file:
        for record in kept:
            print(json.dumps(record, ensure_ascii=True), file=file)


def _records(whole: bytes) -> Iterator[dict[str, Any]]:
    for line in whole.split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("key"), str) and isinstance(record.get("text"), str):
            yield record


def _reply_of(record: Mapping[str, Any]) -> Reply:
    return Reply(
        text=record["text"],
        failure=str(record.get("failure") or ""),
        tokens_in=counted(record.get("tokens_in")),
        tokens_out=counted(record.get("tokens_out")),
        capped=bool(record.get("capped")),
    )


def counted(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
