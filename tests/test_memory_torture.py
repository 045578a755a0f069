"""A memory whose processes die, or run out of disk, at every single call that touches a file.

`make test` takes a few of these calls, `make torture` all of them (INSCL_TORTURE=1) and writes down what it saw.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import lance
import pytest

from faulty import COUNT, FULL, KILL, compiled
from inscl.errors import MemoryStateError
from inscl.memory.memory import Memory
from inscl.memory.store import Store
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, rows_of
from test_memory import every_byte
from test_memory_damage import without_the_catalogue
from torture import FULL as ALL_OF_IT
from torture import Row
from zygote import Zygote

FEW = 4  # calls of each verb that `make test` takes

VERBS: dict[str, tuple[object, ...]] = {
    "add": ("add", "new", 60),
    "append": ("add", "a", 70),
    "replace": ("add", "a", 50),
    "remove": ("remove", "b"),
    "tag": ("retag", "other"),
    "log": ("log_stage", "a"),
    "repair": ("repair",),
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def zygote(faults: Path) -> Iterator[Zygote]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(faults))
        one = Zygote("memory_zygote.py")
    yield one
    one.close()


@pytest.fixture(scope="module")
def start(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory with two tasks, a logged stage, and one version that is to be purged by whoever comes next."""
    path = tmp_path_factory.mktemp("start") / "m"
    for name in ("a", "b"):
        zygote.run("add", str(path), name, 60)
    zygote.run("log_stage", str(path), "b")
    return path


def opened(path: Path) -> Memory:
    return Memory(path, encoder=WordEncoder(), tagger=WordTagger(), compression="none")


Content = tuple[dict[str, tuple[frozenset[str], str]], list[str]]


def content(path: Path) -> Content:
    """Each task's inputs and tagger, and the stages."""
    memory = opened(path)
    with memory.reading():
        tasks = {
            task.info.name: (
                frozenset(example.input for example in task.examples(range(sum(task.info.rows.values())))),
                task.info.retagged,
            )
            for task in memory.open()
        }
    return tasks, [stage["name"] for stage in memory.stages()]


class Stand:
    """Does a verb to copies of a memory, with a fault at some call."""

    def __init__(self, zygote: Zygote, start: Path, folder: Path, verb: str, before: Content | None = None) -> None:
        self.zygote, self.start, self.folder, self.verb = zygote, start, folder, verb
        function, *self.arguments = VERBS[verb]
        self.function = str(function)
        self.keywords = {"append": True} if verb == "append" else {}
        self.before = before or content(start)
        self.calls, said = self.do("whole", COUNT, 0)
        assert said == ""
        self.after = content(folder / "whole")

    def do(self, name: str, how: int, at: int) -> tuple[int, str]:
        """Calls made, and what was said; (-1, "") of a process that died."""
        path, answer = self.folder / name, self.folder / f"{name}.txt"
        shutil.copytree(self.start, path)
        self.zygote.start("faulty", how, at, str(answer), self.function, str(path), *self.arguments, **self.keywords)
        status = self.zygote.wait()
        if os.WIFSIGNALED(status):
            return -1, ""
        calls, _, said = answer.read_text().partition("\n")
        return int(calls), said

    def is_old_or_new(self, found: Content) -> bool:
        """Whether the tasks are those before or after; a removed one's name leaves the log with its bytes, later."""
        (tasks, stages), whole = found, (self.before, self.after)
        return tasks in [content[0] for content in whole] and stages in [content[1] for content in whole]

    def points(self) -> range:
        return range(1, self.calls + 1, 1 if ALL_OF_IT else max(1, self.calls // FEW))


def lives_on(path: Path, zygote: Zygote, verb: str) -> None:
    """The memory is healthy, can be changed, and forgets what it is told to forget."""
    assert opened(path).verify().problems == ()
    if verb == "remove":
        if b"b input" in every_byte(path):
            zygote.run("remove", str(path), "b")  # begun: finishes it
        assert b"b input" not in every_byte(path)
    zygote.run("add", str(path), "later", 40)
    zygote.run("remove", str(path), "later")
    assert b"later" not in every_byte(path)
    memory = opened(path)
    assert memory.verify().problems == ()
    assert memory.verify().notes == ()
    assert {folder.name for folder in (path / "tasks").iterdir()} == memory.state().named


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_a_call_it_leaves_the_old_memory_or_the_new(zygote, start, tmp_path, verb):
    stand = Stand(zygote, start, tmp_path, verb)
    row = Row(f"killed in `{verb}`", "at a write (half done), rename, link or unlink, by fault injection")
    for at in stand.points():
        calls, said = stand.do(f"at{at}", KILL, at)
        path = tmp_path / f"at{at}"
        assert said == ""
        row.tried += calls == -1
        assert stand.is_old_or_new(content(path)), at
        lives_on(path, zygote, verb)
        row.survived += calls == -1
        shutil.rmtree(path)
    assert row.tried >= (min(100, stand.calls) if ALL_OF_IT else FEW) // 2
    row.write("nothing; the next command went on")


@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_is_full_from_a_call_on_is_one_line(zygote, start, tmp_path, verb):
    stand = Stand(zygote, start, tmp_path, verb)
    row = Row(f"disk full in `{verb}`", "ENOSPC from a call on, by fault injection")
    seen: Counter[str] = Counter()
    for at in stand.points():
        calls, said = stand.do(f"at{at}", FULL, at)
        path = tmp_path / f"at{at}"
        assert calls > 0
        assert said == "" or (said.startswith("inscl.errors.MemoryStateError: ") and "No space left" in said), said
        assert "\n" not in said
        seen["one line" if said else "nothing: it was done"] += 1
        row.tried += 1
        assert stand.is_old_or_new(content(path)), at
        assert said or content(path) == stand.after
        lives_on(path, zygote, verb)
        row.survived += 1
        shutil.rmtree(path)
    assert seen["one line"] > 0
    row.write(json.dumps(dict(seen)))


def test_a_killed_repair_is_begun_again_and_loses_nothing(zygote, start, tmp_path):
    """What is repaired has lost its catalogue; the order of the tasks and a kept version must outlive the kills."""
    broken = tmp_path / "broken"
    shutil.copytree(start, broken)
    opened(broken).add("a", rows_of("a", 50), keep_old=True)
    sound = content(broken)
    without_the_catalogue(broken)
    stand = Stand(zygote, broken, tmp_path, "repair", sound)
    row = Row("killed in `verify --repair`", "the same, in a memory without catalogue")
    for at in stand.points():
        calls, said = stand.do(f"at{at}", KILL, at)
        path = tmp_path / f"at{at}"
        assert said == ""
        row.tried += calls == -1
        assert opened(path).verify(repair=True).problems == ()
        assert content(path) == sound, at
        assert [info.name for info in opened(path).tasks()] == ["a", "b"]
        assert len(opened(path).versions("a")) == 2
        row.survived += calls == -1
        shutil.rmtree(path)
    row.write("the same command again ended it")


# ---------------------------------------------------------------- many at once


def test_processes_that_write_and_read_without_a_lock_lose_nothing(tmp_path):
    """Half of eight processes add, replace, tag and remove; the other half reads without holding the memory."""
    path, seconds = tmp_path / "m", 60 if ALL_OF_IT else 6
    opened(path).add("always", rows_of("always", 40))
    row = Row("eight processes at once", f"four write, four read without a lock, {seconds} s")
    calls = [("write_for", p) for p in range(4)] + [("read_for", p) for p in range(4)]
    zygotes = [Zygote("memory_zygote.py") for _ in calls]
    try:
        for one, (function, p) in zip(zygotes, calls, strict=True):
            one.start(function, str(path), f"p{p}", seconds, str(tmp_path / f"{function}{p}"))
        assert [one.wait() for one in zygotes] == [0] * len(calls)
    finally:
        for one in zygotes:
            one.close()
    written = [int((tmp_path / f"write_for{p}").read_text()) for p in range(4)]
    read = [int((tmp_path / f"read_for{p}").read_text()) for p in range(4)]
    assert min(written) > 0
    assert min(read) > 0
    assert opened(path).verify().problems == ()
    tasks, _ = content(path)
    assert set(tasks) == {"always", *(f"p{p}-{i}" for p in range(4) for i in range(written[p]) if i % 3)}
    row.tried = row.survived = sum(written) + sum(read)
    row.write(f"nothing: {sum(written)} changes and {sum(read)} readings went well")


def test_a_long_life_costs_no_more_at_its_end(tmp_path):
    """Plan and remember again and again: files, open files and memory per cycle stay flat."""
    cycles = 200 if ALL_OF_IT else 12
    path = tmp_path / "m"
    opened(path).add("first", rows_of("first", 40))
    row = Row("a long life", f"{cycles} cycles of plan, add, log, replace in one process")
    cost = []
    for cycle in range(cycles):
        memory = opened(path)
        replay = plan(memory, "next", list(rows_of("next", 40)), budget=10)
        assert replay.plan.count == 10
        memory.add("second", rows_of(f"second{cycle % 5}", 40))
        memory.log_stage({"name": "second", "tasks": []})
        files = sum(file.is_file() for file in path.rglob("*"))
        cost.append((files, len(list(Path("/proc/self/fd").iterdir())), _resident()))
        row.tried += 1
        row.survived += 1
    settled = cost[len(cost) // 2]
    assert cost[-1][1] <= settled[1] + 3, "open files"
    # Caches and the log grow by a commit a cycle; tasks and the catalogue do not.
    assert len(list((path / "tasks").iterdir())) == 2
    assert len(list((path / "catalogue.lance").rglob("*.manifest"))) < 70
    assert cost[-1][2] < settled[2] + 100, "MiB of memory"
    assert opened(path).verify().problems == ()
    row.write(
        f"files {cost[0][0]} → {cost[-1][0]}, open files {cost[0][1]} → {cost[-1][1]}, "
        f"memory {settled[2]} → {cost[-1][2]} MiB"
    )


def _resident() -> int:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


# ---------------------------------------------------------------- odd surroundings


def test_a_memory_that_vanishes_is_one_line(tmp_path):
    path = tmp_path / "m"
    memory = opened(path)
    memory.add("a", rows_of("a"))
    memory.state()
    task = memory.task("a")
    shutil.rmtree(path)
    for verb in (lambda: task.instructions, lambda: memory.remove("a"), lambda: memory.existing()):
        with pytest.raises(MemoryStateError) as caught:
            verb()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("verb", ["add", "remove", "tag"])
def test_a_memory_that_vanishes_while_it_is_changed_is_one_line(tmp_path, monkeypatch, verb):
    path, commit = tmp_path / "m", Store.commit
    memory = opened(path)
    memory.add("a", rows_of("a"))

    def late(*arguments, **keywords):
        shutil.rmtree(path)
        return commit(*arguments, **keywords)

    monkeypatch.setattr(Store, "commit", late)
    keys = memory.task("a").instructions.keys
    calls = {
        "add": lambda: memory.add("b", rows_of("b")),
        "remove": lambda: memory.remove("a"),
        "tag": lambda: memory.retag(dict.fromkeys(keys, (("other",), "other")), "other"),
    }
    with pytest.raises(MemoryStateError) as caught:
        calls[verb]()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_is_removed_is_in_no_compressed_file_either(tmp_path, compression):
    """Compressed bytes cannot be searched: every version of every table is read, and no other file may hold rows."""
    path = tmp_path / "m"
    memory = Memory(path, encoder=WordEncoder(), tagger=WordTagger(), compression=compression)
    memory.add("kept", rows_of("kept"))
    memory.log_stage({"name": "kept", "tasks": []})
    before = rows_left(path)
    memory.add("secret", rows_of("zebrafish"))
    memory.log_stage({"name": "secret", "tasks": [{"name": "secret", "rows": ["zebrafish"]}]})
    assert any("zebrafish" in row for row in rows_left(path)["tasks"])
    memory.remove("secret")
    after = rows_left(path)
    assert after["tasks"] == before["tasks"]
    assert after["cache"] == before["cache"]
    assert not any("zebrafish" in row or "secret" in row for rows in after.values() for row in rows)
    assert b"zebrafish" not in every_byte(path)
    assert b"secret" not in every_byte(path)


def rows_left(path: Path) -> dict[str, set[str]]:
    """All rows of all versions of the tables below a memory's folders; every data file belongs to a version."""
    found: dict[str, set[str]] = {}
    for table in path.rglob("*.lance"):
        if not table.is_dir():
            continue
        rows, files = found.setdefault(table.relative_to(path).parts[0], set()), set()
        for version in lance.dataset(table).versions():
            dataset = lance.dataset(table, version=version["version"])
            rows |= {repr(row) for row in dataset.to_table().to_pylist()}
            files |= {file.path for part in dataset.get_fragments() for file in part.data_files()}
        assert {file.name for file in (table / "data").iterdir()} == files, table
    return found


def test_links_out_of_the_folder_are_not_followed_when_deleting(tmp_path):
    path, outside = tmp_path / "m", tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("years of work")
    memory = opened(path)
    memory.add("a", rows_of("a"))
    memory.add("b", rows_of("b"))
    (path / "tasks" / ("0" * 32)).symlink_to(outside)
    (path / "writing" / ("0" * 32)).touch()  # and it claims to be unfinished
    next((path / "tasks").glob("[1-9a-f]*")).joinpath("link").symlink_to(outside)
    memory.remove("a")
    memory.remove("b")
    assert (outside / "thesis.tex").read_text() == "years of work"


def test_clocks_that_jump_and_old_locks_change_nothing(tmp_path):
    path = tmp_path / "m"
    opened(path).add("a", rows_of("a"))
    for when in (0, 4_000_000_000):
        for file in path.rglob("*"):
            os.utime(file, (when, when))
        memory = opened(path)
        assert memory.verify().problems == ()
        memory.add(f"at{when}", rows_of(f"at{when}"))
        memory.remove(f"at{when}")
    assert (path / "lock").exists()  # of processes long gone: a file alone is no lock
    assert [info.name for info in opened(path).tasks()] == ["a"]


def test_who_has_no_right_to_write_reads_and_is_told(zygote, tmp_path):
    """An ordinary user, also where the tests run as the superuser."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "m"
        opened(path).add("a", rows_of("a"))
        Path(temporary).chmod(0o755)
        for item in [path, *path.rglob("*")]:
            item.chmod(0o555 if item.is_dir() else 0o444)
        answers = Path(temporary) / "answers"
        answers.mkdir()
        answers.chmod(0o777)
        for verb, arguments in (("plan", ()), ("add", ("new", 40)), ("remove", ("a",)), ("repair", ())):
            zygote.run("as_nobody", str(answers / verb), verb, str(path), *arguments)
            said = (answers / verb).read_text()
            if verb == "plan":
                assert said == ""
            else:
                assert said.startswith("MemoryStateError")
                assert "Permission denied" in said
            assert "\n" not in said
        for item in [path, *path.rglob("*")]:
            item.chmod(0o755)
        assert opened(path).verify().problems == ()
