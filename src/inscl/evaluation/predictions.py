"""Answered rows, and the files that keep them: JSON lines, a file for each set of rows that a model answered."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from inscl.errors import DataError
from inscl.files import whole_file


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answered row, as it stands in the file of predictions."""

    task: str
    instruction: str
    input: str
    references: list[str]
    prediction: str
    capped: bool = False
    truncated: bool = False
    loss: float | None = None
    tokens: int = 0

    @staticmethod
    def write(path: Path, rows: "Iterable[Prediction]") -> None:
        """Write the answers to one set of rows; the file appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)

    @classmethod
    def read(cls, path: Path) -> "list[Prediction]":
        """The answers in a file.

        Raises
        ------
        DataError
            If it is damaged.
        """
        try:
            with path.open(encoding="utf-8") as lines:
                return [_prediction(json.loads(line)) for line in lines]
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path} is damaged ({error!r}). Remove it and its stage's scores.json, and run the same command again."
            ) from error

    @classmethod
    def sets_in(cls, folder: Path) -> "dict[str, list[list[Prediction]]]":
        """All answers in a folder: per task the sets of rows that were answered, the newest file first."""
        found: dict[str, list[list[Prediction]]] = {}
        newest = sorted(folder.glob("*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        for rows in map(cls.read, newest):
            if rows:
                found.setdefault(rows[0].task, []).append(rows)
        return found


_FIELDS = frozenset(field.name for field in fields(Prediction))


def _prediction(plain: dict[str, object]) -> Prediction:
    return Prediction(**{name: value for name, value in plain.items() if name in _FIELDS})  # type: ignore[arg-type]
