"""A whole memory on an object store: S3's protocol, spoken by moto on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from inscl.errors import DataError
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, rows_of
from torture import Row

pytest.importorskip("moto.server", reason="moto[server] (extra `dev`) is not installed")
boto3 = pytest.importorskip("boto3", reason="boto3 (comes with moto) is not installed")

BUCKET = "inscl-tests"
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of an empty S3 on loopback; the environment names it as docs/object-stores.md says."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(url)
            client = boto3.client("s3", endpoint_url=url)
            client.create_bucket(Bucket=BUCKET)
            yield client
        finally:
            server.terminate()
            server.wait()


def wait_for(url: str) -> None:
    for _ in range(150):
        try:
            urlopen(f"{url}/moto-api/").close()
            return
        except (URLError, OSError):
            time.sleep(0.1)
    pytest.fail("moto's server did not start")


@pytest.fixture
def uri(s3, request) -> str:
    """A prefix of its own for each test."""
    return f"s3://{BUCKET}/{request.node.name}/memory"


def opened(uri: str) -> Memory:
    return Memory(uri, encoder=WordEncoder(), tagger=WordTagger(), compression="none")


def inputs(memory: Memory, name: str) -> set[str]:
    task = memory.task(name)
    return {example.input for example in task.examples(range(sum(task.info.rows.values())))}


def whole(about: str, rows: int) -> set[str]:
    return {f"{about} input {i}" for i in range(rows)}


def objects(s3: Any, uri: str) -> dict[str, bytes]:
    """Every object under the prefix, versions and markers included."""
    prefix = uri.removeprefix(f"s3://{BUCKET}/")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


def test_a_memory_lives_on_an_object_store(s3, uri, tmp_path):
    memory = opened(uri)
    assert memory.tasks() == []
    assert memory.add("a", rows_of("a", 60)).status == "added"
    assert memory.add("b", rows_of("b", 60)).status == "added"
    assert memory.add("a", rows_of("a", 60)).status == "unchanged"
    assert memory.add("b", rows_of("other", 70)).status == "replaced"
    assert memory.add("a", rows_of("a", 90), append=True).status == "appended"
    again = opened(uri)
    assert [info.name for info in again.tasks()] == ["a", "b"]
    assert inputs(again, "a") == whole("a", 90)
    assert inputs(again, "b") == whole("other", 70)
    assert again.verify().problems == ()
    again.log_stage({"name": "b", "tasks": [{"name": "a", "count": 2}]})
    assert opened(uri).stages()[0]["name"] == "b"
    # Only the two live versions are left.
    folders = {key.split("/tasks/")[1].split("/")[0] for key in objects(s3, uri) if "/tasks/" in key}
    assert len(folders - {""}) == 2
    # No text is encoded twice, through the cache in the bucket.
    fresh = WordEncoder()
    Memory(uri, encoder=fresh, tagger=WordTagger()).encode(again.task("a").instructions.texts)
    assert fresh.seen == []


def test_a_plan_does_not_depend_on_where_the_memory_lies(uri, tmp_path):
    memories = [opened(uri), opened(str(tmp_path / "memory"))]
    plans = []
    for memory in memories:
        for name in ("a", "b", "c"):
            memory.add(name, rows_of(name, 60))
        replay = plan(memory, "new", list(rows_of("new", 60)), budget=20)
        plans.append((replay.plan, [row.example for row in replay.rows()]))
    assert plans[0] == plans[1]
    assert plans[0][0].count == 20


def test_remove_leaves_no_object_with_the_tasks_text(s3, uri):
    memory = opened(uri)
    memory.add("kept", rows_of("kept"))
    memory.add("secret", rows_of("zebrafish"))
    memory.log_stage({"name": "secret", "tasks": [{"name": "secret", "count": 5}]})
    before = objects(s3, uri)
    assert any(b"zebrafish" in body for body in before.values())
    memory.remove("secret")
    after = objects(s3, uri)
    holding = [key for key, body in after.items() if b"zebrafish" in body or b"secret" in body]
    assert holding == []
    assert any(b"kept input" in body for body in after.values())
    assert [key for key in after if "/locks/" in key and not key.endswith("/")] == []  # no lease is left
    assert memory.verify().problems == ()
    assert [info.name for info in opened(uri).tasks()] == ["kept"]


ADD = """
import sys
from support import WordEncoder, WordTagger, rows_of
from inscl.memory.memory import Memory
uri, *names = sys.argv[1:]
for name in names:
    Memory(uri, encoder=WordEncoder(), tagger=WordTagger()).add(name, rows_of(name, 40))
"""


def test_two_processes_add_at_once(uri):
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    adders = [
        subprocess.Popen([sys.executable, "-c", ADD, uri, f"p{p}-0", "both", f"p{p}-1"], env=environment)
        for p in range(2)
    ]
    assert [adder.wait() for adder in adders] == [0, 0]
    memory = opened(uri)
    names = {f"p{p}-{i}" for p in range(2) for i in range(2)} | {"both"}
    assert {info.name for info in memory.tasks()} == names
    assert all(inputs(memory, name) == whole(name, 40) for name in names)
    assert memory.verify().problems == ()


SUSPENDED = "import sys; from memory_zygote import add_and_stand_still as add; add(sys.argv[1], 'late', 40)"


def test_a_writer_that_slept_through_a_purge_cannot_commit(s3, uri, monkeypatch):
    """Its machine is suspended before the commit, and its lease goes stale; another removes a task in the meantime."""
    memory = opened(uri)
    for name in ("a", "b"):
        memory.add(name, rows_of(name, 40))
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    writer = subprocess.Popen(
        [sys.executable, "-c", SUSPENDED, uri], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert os.WIFSTOPPED(os.waitpid(writer.pid, os.WUNTRACED)[1])
    monkeypatch.setattr(memory._store.lock(), "_stale", 2.0)  # so that the test need not wait for 30 s
    memory.remove("b")
    writer.send_signal(signal.SIGCONT)
    _, said = writer.communicate(timeout=120)
    assert "MemoryStateError: This command stood still for so long" in said
    assert writer.returncode == 1
    memory.add("c", rows_of("c", 40))
    assert [info.name for info in opened(uri).tasks()] == ["a", "c"]
    assert opened(uri).verify().problems == ()
    assert not any(b"late input" in body or b"b input" in body for body in objects(s3, uri).values())
    row = Row(
        "a writer asleep through a purge", "SIGSTOP before its commit on S3 (moto) until its lease is stale", 1, 1
    )
    row.write("one line: it stood still for so long that nothing of it was kept")


def test_a_reader_sees_a_whole_task_while_it_is_removed(uri):
    memory = opened(uri)
    memory.add("a", rows_of("a", 40))
    with memory.reading():
        task = memory.task("a")
        command = "import sys; from inscl.memory.memory import Memory; Memory(sys.argv[1]).remove('a')"
        remover = subprocess.Popen([sys.executable, "-c", command, uri])
        deadline = time.monotonic() + 30
        while "a" in memory and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "a" not in memory  # hidden at once …
        assert {e.input for e in task.examples(range(40))} == whole("a", 40)  # … and whole for who was reading
        assert remover.poll() is None
    assert remover.wait(timeout=60) == 0
    assert opened(uri).tasks() == []


def test_a_bucket_that_does_not_exist_is_one_clear_error(s3):
    with pytest.raises(Exception, match="no-such-bucket") as caught:
        opened("s3://no-such-bucket/memory").add("a", rows_of("a"))
    assert type(caught.value).__module__ == "inscl.errors"


def test_options_in_the_uri_are_refused(s3):
    with pytest.raises(DataError, match="AWS_ENDPOINT_URL"):
        opened(f"s3://{BUCKET}/memory?endpoint_override=127.0.0.1:9000&scheme=http")
