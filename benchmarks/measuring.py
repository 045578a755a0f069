"""What the benchmarks of speed share: how cost is measured, which model is, and where the numbers go."""

import argparse
import json
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def cpu(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, its processes included, and what it gave."""
    before, value, after = _spent(), call(), _spent()
    return after - before, value


def _spent() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak() -> int:
    """Peak resident memory of this process in MiB; Linux only (`ru_maxrss` would include the parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


class Tagger:
    """A tagger that needs no model."""

    identity = "made up"

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        return [["thing", "number"] for _ in texts]


def parser_of(page: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the page, with the options of every such benchmark."""
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="as for inscl: a folder, a Hub id or smollm2-135m")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    return parser


def tell(result: Mapping[str, object], file: Path | None) -> None:
    """Print the numbers, and write them where that was asked for."""
    text = json.dumps(result, indent=1)
    print(text)
    if file:
        file.write_text(text)
