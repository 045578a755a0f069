"""A stage's folder: which checkpoints are complete, and the record that says the stage is finished.

A checkpoint counts only when its mark, written last and renamed into place, lists every file with its size.
The trainer's checkpoints hold pickles; they stay inside the folder and are gone once the stage is finished.
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from inscl.files import write_json

_MARK = "complete.json"
FOLDER = "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """What a complete checkpoint knows beside the trainer's own files."""

    fingerprint: str
    step: int
    seconds: float
    losses: list[float]
    files: dict[str, int] = field(default_factory=dict)

    @classmethod
    def newest(cls, stage: Path, fingerprint: str) -> "tuple[Path, Checkpoint] | None":
        """The newest complete checkpoint of this very stage; everything else in the folder is deleted."""
        found = {folder: _mark(folder) for folder in (stage / FOLDER).glob("checkpoint-*")}
        usable = {folder: mark for folder, mark in found.items() if mark and mark.fingerprint == fingerprint}
        best = max(usable.items(), key=lambda item: item[1].step, default=None)
        for folder in found:
            if best is None or folder != best[0]:
                shutil.rmtree(folder)
        return best

    def complete(self, folder: Path) -> None:
        """Mark a fully written checkpoint, then delete the older ones."""
        files = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                files[str(path.relative_to(folder))] = path.stat().st_size
        write_json(folder / _MARK, {**vars(self), "files": files})
        for other in folder.parent.glob("checkpoint-*"):
            if other != folder:
                shutil.rmtree(other)


def _mark(folder: Path) -> Checkpoint | None:
    try:
        mark = Checkpoint(**json.loads((folder / _MARK).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    sizes = {name: (folder / name).stat().st_size for name in mark.files if (folder / name).is_file()}
    return mark if sizes == mark.files else None
