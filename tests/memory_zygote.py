"""What tests do to a memory in processes that may be killed."""

import inscl.memory.memory
import inscl.replay.planner
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


if __name__ == "__main__":
    serve(globals())
