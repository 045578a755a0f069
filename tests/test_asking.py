"""Whatever the server does, each question ends with a reply or a reason, and no answer is paid for twice."""

import json
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate

import pytest

from inscl.errors import ConfigError, InsclError
from inscl.llm import client as asking
from inscl.llm.client import Asker, Question
from inscl.llm.replies import Replies, Reply, forget_replies
from rough_server import USUAL, Answer, rough_server

KEY = "sk-known-key-0123456789"
SCHEMA = {"type": "object", "properties": {"tags": {"type": "array"}}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(asking, "_GRACE", 2.0)


def questions(n, schema=None):
    return [Question(({"role": "user", "content": f"question {i}"},), schema, f"{i:02x}") for i in range(n)]


def test_replies_come_in_order_within_the_limit_and_equal_questions_are_asked_once(tmp_path):
    with rough_server(lambda q, n: Answer(text=f"answer to {q}"), seconds=0.03) as server:
        asker = Asker(server.url, "m", tmp_path / "replies.jsonl", workers=3)
        seen = []
        replies = asker.ask([*questions(12), *questions(12)], lambda done, of: seen.append((done, of)))
        assert [reply.text for reply in replies] == [f"answer to question {i}" for i in range(12)] * 2
        assert set(server.asked.values()) == {1}
        assert server.busiest == 3
        assert seen == [(i + 1, 12) for i in range(12)]
        assert replies[0] == Reply("answer to question 0", "", 100, 10)
        assert Asker(server.url, "m", tmp_path / "replies.jsonl").ask(questions(12)) == replies[:12]
        assert set(server.asked.values()) == {1}, "stored replies are asked for again"
        Asker(server.url, "other", tmp_path / "replies.jsonl").ask(questions(1))
        assert server.asked["question 0"] == 2, "another model has answers of its own"


PASSING = {
    "429 without a word": Answer(429, raw=b"{}"),
    "500": Answer(500, raw=b"oops"),
    "503 of 3 MB": Answer(503, raw=b"x" * 3_000_000),
    "reset": Answer(reset=True),
    "hang": Answer(wait=6),
    "body cut": Answer(raw=b'{"choices": [', headers={"Content-Length": "500"}),
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_asked_again(trouble):
    with rough_server(lambda q, n: trouble if n < 2 else None) as server:
        replies = Asker(server.url, "m", timeout=2, workers=4).ask(questions(4))
        assert [reply.text for reply in replies] == [USUAL] * 4
        assert set(server.asked.values()) == {3}


@pytest.mark.parametrize("how", ["seconds", "date"])
def test_retry_after_is_honoured(how):
    begun = []

    def rule(question, before):
        begun.append(time.time())
        after = "1" if how == "seconds" else formatdate(time.time() + 2, usegmt=True)  # whole seconds
        return Answer(429, raw=b"{}", headers={"Retry-After": after}) if before == 0 else None

    with rough_server(rule) as server:
        assert Asker(server.url, "m").ask(questions(1))[0].text == USUAL
    assert 0.95 <= begun[1] - begun[0] <= 10
    assert len(begun) == 2


def test_a_wait_of_an_hour_is_a_refusal():
    with rough_server(lambda q, n: Answer(429, raw=b"{}", headers={"Retry-After": "3600"})) as server:
        (reply,) = Asker(server.url, "m").ask(questions(1))
        assert "429" in reply.failure
        assert server.asked.total() == 1


LASTING = {
    "larger than": Answer(text="x" * 10_000_000),
    "no completion": Answer(raw=b'{"error": "busy"}'),
    "not JSON": Answer(raw=b'{"choices": [{"mess'),
    "JSON object": Answer(raw=b'["a"]'),
    "answered 418: teapot": Answer(418, raw=b'{"error": {"message": "teapot"}}'),
}


@pytest.mark.parametrize("reason", LASTING)
def test_what_will_not_pass_is_a_reason_and_asked_once(reason):
    with rough_server(lambda q, n: LASTING[reason] if q.endswith(" 1") else None) as server:
        replies = Asker(server.url, "m").ask(questions(3))
        assert [bool(reply.failure) for reply in replies] == [False, True, False]
        assert reason in replies[1].failure
        assert set(server.asked.values()) == {1}


def test_a_paid_answer_that_is_too_large_is_not_paid_again(tmp_path):
    with rough_server(lambda q, n: LASTING["larger than"]) as server:
        for _ in range(2):
            (reply,) = Asker(server.url, "m", tmp_path / "replies.jsonl").ask(questions(1))
            assert "larger" in reply.failure
        assert server.asked.total() == 1


def test_structured_output_is_asked_for_and_refused_once():
    def rule(question, before):
        body = server.bodies[-1]
        return Answer(400, raw=b'{"error": {"message": "unknown field"}}') if "response_format" in body else None

    with rough_server(rule) as server:
        asker = Asker(server.url, "m", workers=4)
        assert {reply.text for reply in asker.ask(questions(8, SCHEMA))} == {USUAL}
        assert server.asked.total() == 9
        first, *others = server.bodies
        assert first["response_format"]["json_schema"]["schema"] == SCHEMA
        assert all("response_format" not in body for body in others)


def test_models_that_know_only_the_newer_settings():
    def rule(question, before):
        body = server.bodies[-1]
        if "max_tokens" in body:
            return Answer(400, raw=b'{"error": {"message": "Use max_completion_tokens instead of max_tokens."}}')
        if "temperature" in body:
            return Answer(400, raw=b'{"error": {"message": "temperature does not support 0"}}')
        return None

    with rough_server(rule) as server:
        assert all(reply.text for reply in Asker(server.url, "m", most_tokens=77).ask(questions(4, SCHEMA)))
        assert server.asked.total() == 6
        assert server.bodies[-1]["max_completion_tokens"] == 77
        assert "response_format" in server.bodies[-1]


def test_a_bad_question_does_not_switch_structured_output_off():
    rule = lambda q, n: Answer(400, raw=b'{"error": "too long"}') if q.endswith(" 0") else None  # noqa: E731
    with rough_server(rule) as server:
        replies = Asker(server.url, "m").ask(questions(3, SCHEMA))
        assert "too long" in replies[0].failure
        assert all("response_format" in body for body in server.bodies[2:])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_to_all_stops_at_the_first_question_and_shows_no_key(status):
    echo = json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()
    with rough_server(lambda q, n: Answer(status, raw=echo)) as server:
        with pytest.raises(InsclError, match=f"refused, {status}: bad key.*OPENAI_API_KEY") as caught:
            Asker(server.url, "m").ask(questions(20))
        assert server.asked.total() == 1
        assert server.keys == {f"Bearer {KEY}"}
    error: BaseException | None = caught.value
    while error is not None and not error.__suppress_context__:
        assert KEY not in str(error)
        error = error.__cause__ or error.__context__
    assert KEY not in str(caught.value)


def test_an_echoed_key_is_in_no_reply_and_no_file(tmp_path):
    with rough_server(lambda q, n: Answer(text=f"my key is {KEY}")) as server:
        (reply,) = Asker(server.url, "m", tmp_path / "replies.jsonl").ask(questions(1))
    assert reply.text == "my key is [key]"
    assert KEY not in (tmp_path / "replies.jsonl").read_text()


def test_a_server_that_fails_everything_is_given_up(tmp_path):
    with rough_server(lambda q, n: Answer(500, raw=b"{}") if int(q.split()[1]) > 4 else None) as server:
        asker = Asker(server.url, "m", tmp_path / "replies.jsonl", attempts=2, workers=2)
        with pytest.raises(InsclError, match=r"failed 10 questions in a row.*500.*run the command again"):
            asker.ask(questions(40))
        server.rule = lambda q, n: None
        before = dict(server.asked)
        assert {reply.failure for reply in asker.ask(questions(40))} == {""}
        assert all(server.asked[f"question {i}"] == before[f"question {i}"] == 1 for i in range(5))


def test_nobody_there_is_said_at_once(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_PAUSE", 30)
    begun = time.monotonic()
    with pytest.raises(InsclError, match=r"Nothing answers at http://127\.0\.0\.1:9/v1"):
        Asker("http://127.0.0.1:9/v1", "m").ask(questions(30))
    assert time.monotonic() - begun < 25


def test_an_interrupt_keeps_what_is_on_its_way(tmp_path):
    def tell(done, of):
        if done == 5:
            raise KeyboardInterrupt

    with rough_server(seconds=0.05) as server:
        asker = Asker(server.url, "m", tmp_path / "replies.jsonl", workers=4)
        with pytest.raises(KeyboardInterrupt):
            asker.ask(questions(40), tell)
        assert server.asked.total() < 15
        asker.ask(questions(40))
        assert set(server.asked.values()) == {1}


@contextmanager
def three_stored(path):
    """A server, and an asker that has its replies to three questions in `path`."""
    with rough_server() as server:
        asker = Asker(server.url, "m", path)
        asker.ask(questions(3))
        yield server, asker


def test_a_torn_store_is_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / "replies.jsonl"
    with three_stored(path) as (server, asker):
        whole = path.read_bytes()
        for cut in (5, len(whole) // 2, len(whole) - 1, len(whole) - 3):
            path.write_bytes(whole[:cut])
            asker.ask(questions(3))
            with Replies(path) as replies:
                assert all(replies[asker.key(question)].text == USUAL for question in questions(3))
        path.write_bytes(b'\xff\xfe\n{"key": 5}\n[]\n' + whole)
        before = server.asked.total()
        asker.ask(questions(3))
        assert server.asked.total() == before


def test_two_commands_do_not_pay_for_one_store(tmp_path):
    with rough_server(seconds=0.3) as server:
        asker = Asker(server.url, "m", tmp_path / "replies.jsonl", workers=1)
        other = threading.Thread(target=asker.ask, args=(questions(2),))
        other.start()
        while not server.asked:
            time.sleep(0.01)
        with pytest.raises(InsclError, match="Another command"):
            Asker(server.url, "m", tmp_path / "replies.jsonl").ask(questions(2))
        other.join()
        assert set(server.asked.values()) == {1}


def test_replies_about_what_is_gone_are_forgotten(tmp_path):
    path = tmp_path / "replies.jsonl"
    with three_stored(path) as (server, asker):
        forget_replies(path, {"00", "02"})
        assert [json.loads(line)["about"] for line in path.read_text().splitlines()] == ["00", "02"]
        asker.ask(questions(3))
        assert server.asked.total() == 4
    forget_replies(path, {"ff"})
    assert not path.exists()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a/v1", "http://me:secret-word@a/v1", "http://a/v1?key=b"])
def test_addresses_that_are_none_or_hold_secrets(url):
    with pytest.raises(ConfigError, match=r"server address") as caught:
        Asker(url, "m")
    assert "secret-word" not in str(caught.value)


def test_a_key_that_is_none(monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "two words")
    with pytest.raises(ConfigError, match="OTHER_KEY has characters") as caught:
        Asker("http://127.0.0.1:9/v1", "m", key_variable="OTHER_KEY").ask(questions(1))
    assert "two words" not in str(caught.value)
