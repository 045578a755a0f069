"""The page of a run while it works: what it serves, to whom, and that it ends with the work."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import SimpleHTTPRequestHandler
from shutil import copytree

import pytest

from inscl.cli import main
from inscl.errors import ConfigError
from inscl.report.live import LivePage
from report_runs import made_run
from test_report_stage import three_months


def get(page: LivePage, path: str = "/", host: str | None = None) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{page.port}"})
    answer = connection.getresponse()
    return answer, answer.read().decode()


@contextmanager
def served(page: LivePage, patience: float = 30) -> Iterator[threading.Thread]:
    server = threading.Thread(target=page.serve, kwargs={"patience": patience}, daemon=True)
    server.start()
    yield server
    server.join(30)
    assert not server.is_alive()


def until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_is_shown_as_it_grows_and_the_server_ends_with_it(tmp_path):
    run = made_run(tmp_path / "run", stages_done=2)
    (tmp_path / "whole").mkdir()
    page = LivePage(run, tmp_path / "page", every=0.1)
    with served(page):
        answer, text = get(page)
        assert answer.status == 200
        assert answer.getheader("Refresh") == "0.1"
        assert "is not finished" in text
        copytree(made_run(tmp_path / "whole" / "run"), run, dirs_exist_ok=True)
        until(lambda: page.refresh is None)
        assert "is not finished" not in (tmp_path / "page" / "index.html").read_text()
        answer, _ = get(page)
        assert answer.getheader("Refresh") is None
    with pytest.raises(ConnectionRefusedError):
        get(page)


def test_who_was_given_an_earlier_page_has_not_seen_the_last_one(tmp_path, monkeypatch):
    page = LivePage(made_run(tmp_path / "run", stages_done=2), tmp_path / "page", every=0.1)
    send = SimpleHTTPRequestHandler.do_GET

    def ends_meanwhile(handler):
        send(handler)
        page._finished = True

    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_GET", ends_meanwhile)
    with served(page, patience=2):
        get(page)
        time.sleep(0.5)  # it would have ended by now
        assert get(page)[0].status == 200


def test_a_finished_stage_is_served_until_nobody_comes(tmp_path):
    stage = three_months(tmp_path)[-1].folder
    page = LivePage(stage, tmp_path / "page")
    assert page.refresh is None
    with served(page, patience=0.2):
        pass


def test_only_the_page_goes_out_and_only_to_this_machine(tmp_path):
    (tmp_path / "secret").write_text("secret")
    page = LivePage(made_run(tmp_path / "run"), tmp_path / "page")
    with served(page, patience=5):
        assert get(page, host="evil.example:80")[0].status == 421
        for path in ("/../secret", "/%2e%2e/secret", "/answers-99.html"):
            answer, text = get(page, path)
            assert answer.status == 404
            assert "secret" not in text.replace("/secret", "")
        (tmp_path / "page" / "figures").mkdir(exist_ok=True)
        assert get(page, "/figures/")[0].status == 404
        assert get(page, "/answers-01.html")[0].status == 200
        assert get(page, host=f"localhost:{page.port}")[0].status == 200


def test_what_has_not_begun_says_so_and_what_is_not_there_is_refused(tmp_path, capsys):
    begun = tmp_path / "<b>begun"
    begun.mkdir()
    page = LivePage(begun, tmp_path / "page")
    text = (tmp_path / "page" / "index.html").read_text()
    assert "&lt;b&gt;begun" in text
    assert "<b>" not in text
    with pytest.raises(ConfigError, match="cannot be used"):
        LivePage(begun, tmp_path / "other", port=page.port)
    assert main(["watch", str(tmp_path / "nothing")]) == 2
    assert "There is no folder" in capsys.readouterr().err
