"""A small Hub on this machine: what its client asks for to make a dataset, commit to it, list it and fetch it."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of-the-test"


@dataclass
class Dataset:
    """A repository: its commits, the newest last."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b""}])

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    def sha(self, number: int = -1) -> str:
        return hashlib.sha1(f"{number % len(self.commits)}".encode()).hexdigest()

    def at(self, revision: str) -> dict[str, bytes] | None:
        shas = {self.sha(number): files for number, files in enumerate(self.commits)}
        return self.files if revision == "main" else shas.get(revision)


class Hub(ThreadingHTTPServer):
    """The server, with what it holds and what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.datasets: dict[str, Dataset] = {}
        self.objects: dict[str, bytes] = {}
        self.sent: list[str] = []  # names of committed files
        self.fetched: list[str] = []
        self.refuses: int | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that answers until the block ends."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0)) if self._sized() else self._chunks()
        path = urlsplit(self.path).path
        if not self._allowed():
            return
        if path == "/api/repos/create":
            self._create(json.loads(raw))
        elif path == "/api/validate-yaml":
            self._json({"warnings": [], "errors": []})
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/(preupload|commit)/(.+)", path):
            (self._preupload if found[2] == "preupload" else self._commit)(found[1], raw)
        elif re.fullmatch(r"/datasets/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            self._batch(json.loads(raw))
        else:
            self._refuse(404)

    def do_PUT(self) -> None:  # to storage, which asks for no token
        content = self.rfile.read(int(self.headers["Content-Length"])) if self._sized() else self._chunks()
        self.server.objects[self.path.removeprefix("/storage/")] = content
        self._json({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        found = re.fullmatch(
            r"(?:/api)?/datasets/([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)(?:/(.+))?)?", parts.path
        )
        if not self._allowed():
            return
        dataset = self.server.datasets.get(found[1]) if found else None
        if found is None or dataset is None:
            self._refuse(404, "RepoNotFound")
            return
        files = dataset.at(unquote(found[3] or "main"))
        if files is None:
            self._refuse(404, "RevisionNotFound")
        elif found[2] == "tree":
            assert parse_qs(parts.query)["recursive"][0].lower() == "true"
            self._json([self._entry(name, content) for name, content in files.items()])
        elif found[2] == "resolve":
            self._file(dataset, files, unquote(found[4]))
        else:
            sha = dataset.sha() if found[3] in (None, "main") else found[3]
            self._json({"id": found[1], "sha": sha, "private": dataset.private, "siblings": []})

    def _create(self, asked: dict[str, str]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.server.datasets else 200
        self.server.datasets.setdefault(name, Dataset(private=asked.get("visibility") == "private"))
        self._json({"url": f"{self.server.address}/datasets/{name}", "id": name}, status)

    def _preupload(self, name: str, raw: bytes) -> None:
        dataset, told = self.server.datasets[name], []
        for file in json.loads(raw)["files"]:
            there = dataset.files.get(file["path"])
            large = file["path"].endswith(".parquet")
            oid = {} if there is None else {"oid": hashlib.sha256(there).hexdigest() if large else git_oid(there)}
            told.append(
                {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **oid}
            )
        self._json({"files": told})

    def _batch(self, asked: dict[str, list[dict[str, object]]]) -> None:
        objects = []
        for one in asked["objects"]:
            href = {"upload": {"href": f"{self.server.address}/storage/{one['oid']}"}}
            objects.append({**one, **({} if one["oid"] in self.server.objects else {"actions": href})})
        self._json({"objects": objects, "transfer": "basic"})

    def _commit(self, name: str, raw: bytes) -> None:
        dataset = self.server.datasets[name]
        files = dict(dataset.files)
        for line in map(json.loads, raw.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            if line["key"] in ("file", "lfsFile"):
                self.server.sent.append(value["path"])
        dataset.commits.append(files)
        url = f"{self.server.address}/datasets/{name}/commit/{dataset.sha()}"
        self._json({"commitUrl": url, "commitOid": dataset.sha()})

    def _entry(self, name: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": git_oid(content)}
        if name.endswith(".parquet"):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def _file(self, dataset: Dataset, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            self._refuse(404, "EntryNotFound")
            return
        if self.command == "GET":
            self.server.fetched.append(name)
        self._answer(200, files[name], {"ETag": f'"{git_oid(files[name])}"', "X-Repo-Commit": dataset.sha()})

    def _allowed(self) -> bool:
        if self.server.refuses is not None:
            self._refuse(self.server.refuses)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401)
        else:
            return True
        return False

    def _refuse(self, status: int, code: str | None = None) -> None:
        self._answer(status, b'{"error": "refused"}', {"X-Error-Code": code} if code else {})

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _sized(self) -> bool:
        return self.headers.get("Transfer-Encoding") != "chunked"

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, *_: object) -> None: ...
