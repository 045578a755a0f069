"""A process that has everything imported and forks a child for every call, so that killing one is cheap.

A script defines functions and ends with `serve(globals())`; a test talks to it through `Zygote`.
Line: JSON [function, arguments, keywords]. Answer: the child's process id, then, when it has ended, its exit status.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent


def serve(functions: Mapping[str, Callable[..., None]]) -> None:
    """Fork a child for every line on standard input."""
    print("ready", flush=True)
    for line in sys.stdin:
        function, arguments, keywords = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            code = 1
            try:
                functions[function](*arguments, **keywords)
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


class Zygote:
    """Calls one function of a script at a time in a child of its own, and kills it if asked to.

    Parameters
    ----------
    script : str
        Name of a file beside this one.
    errors : Path, optional
        Where what the children say of their errors goes; standard error by default.
    """

    def __init__(self, script: str, errors: Path | None = None) -> None:
        here = os.pathsep.join([str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        environment = {**os.environ, "PYTHONPATH": here, "LANCE_LOG": "error", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=None if errors is None else errors.open("w"), env={**environment, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._line() == "ready\n"

    def start(self, function: str, *arguments: object, **keywords: object) -> int:
        """Begin a call; the child's process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([function, arguments, keywords]) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """The exit status of the call that was begun, as `os.waitpid` gives it."""
        return int(self._line())

    def run(self, function: str, *arguments: object, **keywords: object) -> None:
        """A call that must not fail."""
        self.start(function, *arguments, **keywords)
        assert self.wait() == 0

    def kill_after(self, seconds: float, function: str, *arguments: object, **keywords: object) -> bool:
        """Whether the child was killed before it had finished; it must not fail otherwise."""
        child = self.start(function, *arguments, **keywords)
        time.sleep(seconds)
        with suppress(ProcessLookupError):  # it has ended already
            os.kill(child, signal.SIGKILL)
        status = self.wait()
        assert os.WIFSIGNALED(status) or status == 0
        return os.WIFSIGNALED(status)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the zygote has died"
        return line
