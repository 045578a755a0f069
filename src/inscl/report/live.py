"""The page of a run or stage while it works: written anew when there is news, and served to this machine alone."""

import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from markupsafe import escape

from inscl.errors import ConfigError, InsclError
from inscl.files import whole_file
from inscl.report.page import write_run_report, write_stage_report
from inscl.report.reading import summarize
from inscl.report.stage import StageFacts, is_stage

_HOST = "127.0.0.1"
_NEWS = ("scores.json", "streams.json", "run.json", "learn.json", "results.parquet")


def _write_page(source: Path, out: Path) -> bool:
    """Write the page of a run or stage as far as it is; whether that was the last word.

    What has nothing to show yet gets a page that says so.
    """
    try:
        if is_stage(source):
            stage = StageFacts.of(source)
            write_stage_report(source, out, figures=(), facts=stage)
            return stage.finished
        facts = summarize([source])
        write_run_report([source], out, figures=(), facts=facts)
        return facts.finished
    except InsclError as error:
        out.mkdir(parents=True, exist_ok=True)
        with whole_file(out / "index.html") as file:
            file.write(
                f'<!doctype html><html lang="en"><meta charset="utf-8"><title>inscl</title><p>{escape(error)}</p>'
            )
        return False


class LivePage:
    """A server of the page that writes it anew when the run or stage has news, and ends with it.

    Parameters
    ----------
    source : Path
        Folder of a run or stage.
    out : Path
        Where the page is written.
    port : int
        0 takes a free one.
    every : float
        Seconds between two looks at the folder, and between two loads by the browser.

    Raises
    ------
    ConfigError
        If nothing is there to watch, or the port is taken.
    """

    def __init__(self, source: Path, out: Path, *, port: int = 0, every: float = 5.0) -> None:
        if not source.is_dir():
            raise ConfigError(f"There is no folder '{source}' to watch. Name the folder of a run or of a stage.")
        self._source, self._out, self._every = source, out, every
        self._finished, self._seen = _write_page(source, out), threading.Event()
        try:
            self._server = ThreadingHTTPServer((_HOST, port), partial(_Handler, page=self, directory=str(out)))
        except OSError as error:
            raise ConfigError(f"Port {port} cannot be used ({error.strerror}). Give another with --port.") from error
        self._server.daemon_threads = True
        self.port = self._server.server_port

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{_HOST}:{self.port}/"

    @property
    def refresh(self) -> float | None:
        """Seconds after which a browser shall load it again; None once nothing more is to come."""
        return None if self._finished else self._every

    def served(self) -> None:
        """Note that somebody has seen the last page."""
        self._seen.set()

    def serve(self, tell: Callable[[str], None] = lambda message: None, patience: float = 60.0) -> None:
        """Serve until the work has ended and its last page was seen, or nobody has come to see it for a while."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        try:
            known = _news(self._source)
            while not self._finished:
                time.sleep(self._every)
                if (now := _news(self._source)) != known:
                    known, self._finished = now, _write_page(self._source, self._out)
            tell("finished; the page stays until it was loaded once more")
            self._seen.wait(patience)
        finally:
            self._server.shutdown()
            self._server.server_close()


def _news(source: Path) -> list[tuple[str, int]]:
    """What changes when a stage is scored or the whole has ended."""
    found = (path for name in _NEWS for path in (source / name, *source.glob(f"stages/*/{name}")))
    return sorted((str(path), path.stat().st_mtime_ns) for path in found if path.exists())


class _Handler(SimpleHTTPRequestHandler):
    """Files of the page's folder, to requests that name this machine (a page elsewhere cannot pose as it)."""

    def __init__(self, *args: Any, page: LivePage, **more: Any) -> None:
        self._page = page
        super().__init__(*args, **more)

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in (_HOST, "localhost"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        is_last = self._page.refresh is None
        super().do_GET()
        if is_last and self.path in ("/", "/index.html"):
            self._page.served()

    def list_directory(self, path: Any) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        if self._page.refresh is not None:
            self.send_header("Refresh", f"{self._page.refresh:g}")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""
