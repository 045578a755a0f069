"""A mixture on disk: the data, the trainer's settings for it and a manifest, all there or none of them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from inscl.data.mixture import MixtureRow
from inscl.data.records import Shape
from inscl.data.template import TEMPLATE_ID
from inscl.errors import InsclError
from inscl.export.tokens import SpecialTokens
from inscl.export.trainers import MIXTURE_FORMATS, SUFFIXES
from inscl.files import whole_file
from inscl.replay.plan import Plan
from inscl.suggest import suggest

_MANIFEST = ".manifest.json"
_MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes
    ----------
    path : Path
        The data file.
    rows, replayed : int
    files : mapping from name to str
        SHA-256 of the data file and of the settings beside it.
    manifest : Path
    unweighted : int
        Rows whose weight the format cannot hold: they count as any other.
    """

    path: Path
    rows: int
    replayed: int
    files: Mapping[str, str]
    manifest: Path
    unweighted: int


def write_file(
    rows: Sequence[MixtureRow],
    path: str | Path,
    format: str = "trl",
    *,
    plan: Plan | None = None,
    tokens: SpecialTokens | None = None,
) -> Written:
    """Write a mixture for a trainer: JSON lines, the settings that use them, and a manifest.

    All files appear, or none. Equal arguments give equal bytes: nothing in them tells when or where they were made.

    Parameters
    ----------
    rows : sequence of MixtureRow
    path : path
        The data file; the others are named after it.
    format : str
        A name in `MIXTURE_FORMATS`.
    plan : Plan, optional
        Where the rows come from, for the manifest.
    tokens : SpecialTokens, optional
        The model's, from `SpecialTokens.of`; plain rows for LLaMA-Factory need them.

    Raises
    ------
    InsclError
        For an unknown format, rows that the trainer would leave out, or files that cannot be written.
    """
    if format not in MIXTURE_FORMATS:
        hint = suggest(format, MIXTURE_FORMATS)
        raise InsclError(f"There is no format '{format}'; wanted one of {', '.join(MIXTURE_FORMATS)}.{hint}")
    path, chosen, shape = Path(path), MIXTURE_FORMATS[format], Shape.of(rows)
    settings = chosen.settings(path, shape)
    records = chosen.records(rows, tokens)
    manifest = Path(f"{path}{_MANIFEST}")
    unweighted = 0 if format == "inscl" else sum(row.weight != 1.0 for row in rows)
    try:
        with ExitStack() as stack:
            # They take their names in reverse: the manifest last, when all it speaks of is there.
            last = stack.enter_context(whole_file(manifest, "wb"))
            files = {}
            for suffix, text in settings.items():
                beside = Path(f"{path}{suffix}")
                files[beside.name] = _write(stack.enter_context(whole_file(beside, "wb")), [text])
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            files = {path.name: _write(stack.enter_context(whole_file(path, "wb")), lines), **files}
            document = _manifest(rows, format, shape.chat, files, plan, unweighted)
            _write(last, [json.dumps(document, ensure_ascii=False, indent=1) + "\n"])
        for suffix in set(SUFFIXES) - set(settings):  # left from another format, which the data are not in any more
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise InsclError(f"The mixture cannot be written to '{path}' ({error.strerror}). Name another file.") from error
    return Written(path, len(rows), sum(row.replayed for row in rows), files, manifest, unweighted)


def _write(file: BinaryIO, texts: Iterable[str]) -> str:
    """Write texts, and hash what was written."""
    digest = sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(data)
        file.write(data)
    return digest.hexdigest()


def _manifest(
    rows: Sequence[MixtureRow],
    format: str,
    chat: bool,
    files: Mapping[str, str],
    plan: Plan | None,
    unweighted: int,
) -> dict[str, object]:
    counts = Counter((row.task, row.replayed) for row in rows)
    tasks = dict.fromkeys(row.task for row in sorted(rows, key=lambda row: (row.replayed, row.task)))
    return {
        "inscl_mixture": _MANIFEST_FORMAT,
        "format": format,
        "form": "chat" if chat else "plain",
        "template": None if chat else TEMPLATE_ID,
        "files": {name: {"sha256": digest} for name, digest in files.items()},
        "rows": len(rows),
        "replayed": sum(row.replayed for row in rows),
        "tasks": [{"name": task, "new": counts[task, False], "replayed": counts[task, True]} for task in tasks],
        **({"rows_whose_weight_is_lost": unweighted} if unweighted else {}),
        "plan": None if plan is None else _origin(plan),
        "versions": {"inscl": version("inscl")},
    }


def _origin(plan: Plan) -> dict[str, object]:
    """What the plan was, and the hash of all that is in it."""
    whole = json.dumps(plan.to_dict(), ensure_ascii=True, sort_keys=True)
    return {
        "task": plan.name,
        "stage": plan.stage,
        "strategy": plan.strategy,
        "seed": plan.seed,
        "sha256": sha256(whole.encode()).hexdigest(),
        "hashes": dict(plan.hashes),
        "versions": dict(plan.versions),
    }
