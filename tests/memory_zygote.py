"""What tests do to a memory in processes that may be killed."""

import os
import signal
import time
from pathlib import Path

import inscl.memory.memory
import inscl.memory.store
import inscl.replay.planner
import inscl.sharing.share
from faulty import with_faults
from inscl.tags.clean import clean_tags
from support import WordEncoder, WordTagger, rows_of
from zygote import serve


def memory(path: str) -> inscl.memory.memory.Memory:
    return inscl.memory.memory.Memory(path, encoder=WordEncoder(), tagger=WordTagger(), compression="none")


def add(path: str, name: str, rows: int, *, append: bool = False, about: str | None = None) -> None:
    memory(path).add(name, rows_of(about or name, rows), append=append)


def remove(path: str, name: str) -> None:
    memory(path).remove(name)


def add_many(path: str, name: str, times: int) -> None:
    for i in range(times):
        memory(path).add(f"{name}{i}", rows_of(f"{name}{i}", 40))


def retag(path: str, tag: str) -> None:
    one = memory(path)
    keys = {key for task in one.open() for key in task.instructions.keys}
    one.retag(dict.fromkeys(keys, ((tag,), tag)), tag)


def log_stage(path: str, name: str) -> None:
    memory(path).log_stage({"name": name, "tasks": []})


def repair(path: str) -> None:
    memory(path).verify(repair=True)


def plan(path: str) -> None:
    inscl.replay.planner.plan(memory(path), "new", list(rows_of("new", 40)), budget=10)


def push(path: str) -> None:
    inscl.sharing.share.push(f"{path}/memory", f"{path}/shared")


def pull(path: str) -> None:
    inscl.sharing.share.pull(f"{path}/shared", f"{path}/there")


def faulty(how: int, at: int, answer: str, verb: str, path: str, *arguments: object, **keywords: object) -> None:
    """Do something to a memory with faults armed."""
    with_faults(how, at, answer, path, lambda: globals()[verb](path, *arguments, **keywords))


def as_nobody(answer: str, verb: str, path: str, *arguments: object) -> None:
    """Do something without any rights, and write down what was said."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    said = ""
    try:
        globals()[verb](path, *arguments)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    Path(answer).write_text(said, "utf-8")


def write_for(path: str, name: str, seconds: float, answer: str) -> None:
    """Add tasks; replace and tag some, remove every third; write down how many there were."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        add(path, f"{name}-{count}", 40)
        if count % 3 == 1:
            add(path, f"{name}-{count}", 30)
        if count % 3 == 2:
            memory(path).retag({}, "other", [f"{name}-{count}"])
        if count % 3 == 0:
            remove(path, f"{name}-{count}")
        count += 1
    Path(answer).write_text(str(count), "utf-8")


def read_for(path: str, name: str, seconds: float, answer: str) -> None:
    """Look at the memory without holding it: what is seen is whole, or was removed meanwhile."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        one = memory(path)
        names = [info.name for info in one.tasks()]
        assert "always" in names
        assert len(one.task("always").instructions.texts) == 3
        one.stages()
        one.verify()
        count += 1
    Path(answer).write_text(str(count), "utf-8")


def add_and_stand_still(path: str, name: str, rows: int) -> None:
    """Add a task, stopped right before the commit as by a suspended machine."""
    commit = inscl.memory.store.Store.commit

    def stopped(*arguments: object, **keywords: object) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        commit(*arguments, **keywords)

    inscl.memory.store.Store.commit = stopped
    add(path, name, rows)


if __name__ == "__main__":
    clean_tags(["warm"])  # its dictionaries take seconds to read, once instead of in every child
    serve(globals())
