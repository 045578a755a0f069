"""A process that has everything imported and forks a child for every line it reads, so that killing is cheap.

Line: JSON [function, arguments]. Answer: the child's process id, then, when it has ended, its exit code.
"""

import json
import os
import signal
import sys

import inscl.memory
import inscl.replay
from support import WordEncoder, WordTagger, rows_of


def memory(path: str) -> inscl.memory.Memory:
    return inscl.memory.Memory(path, encoder=WordEncoder(), tagger=WordTagger(), compression="none")


def add(path: str, name: str, rows: int, *, append: bool = False, about: str | None = None) -> None:
    memory(path).add(name, rows_of(about or name, rows), append=append)


def remove(path: str, name: str) -> None:
    memory(path).remove(name)


def add_many(path: str, name: str, times: int) -> None:
    for i in range(times):
        memory(path).add(f"{name}{i}", rows_of(f"{name}{i}", 40))


def main() -> None:
    for line in sys.stdin:
        function, arguments, keywords = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            code = 1
            try:
                globals()[function](*arguments, **keywords)
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
