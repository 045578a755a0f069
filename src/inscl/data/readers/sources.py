"""From what the caller has (paths, a dataset, a Hub id, records) to parts that can be read again."""

import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from inscl.data.example import Split
from inscl.data.readers.files import (
    CONTAINERS,
    LINE_LIMIT,
    container_by_content,
    container_by_name,
    read_records,
    readable,
)
from inscl.data.readers.forms import Numbered, detect_form, is_conversation
from inscl.data.readers.report import Dropped, PartReport, ReadReport
from inscl.data.readers.tables import ROWS_AT_ONCE, table_records
from inscl.errors import DataError, require

HEAD = 100  # records looked at to tell a form

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SIDES: dict[str, Split] = {
    "train": "train", "validation": "dev", "valid": "dev", "val": "dev", "dev": "dev", "test": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One file, one split of a dataset, or one Python collection.

    Attributes
    ----------
    name : str
        What messages call it.
    container : str
        "jsonl", "json", "parquet", "csv", "datasets" or "records".
    records : callable
        Opens it from the beginning: PartReport -> iterator of numbered records.
    split : "train", "dev" or "test", optional
        The side that all its records take.
    """

    name: str
    container: str
    records: Callable[[PartReport], Iterator[Numbered]]
    split: Split | None = None


def find_sources(data: object, kind: str | None, wanted: Collection[str], skipped: Dropped) -> list[Source]:
    """The parts of the data, in a fixed order; files of unknown type in folders are counted in `skipped`."""
    if isinstance(data, (str, Path)):
        return _from_path(data, kind, wanted, skipped)
    if (found := _from_library(data, wanted)) is not None:
        return found
    if isinstance(data, (Mapping, bytes)) or not isinstance(data, Iterable):
        raise DataError(
            f"The data are {type(data).__name__}; pass a path, several paths, a dataset or a list of records."
        )
    if isinstance(data, list) and data and all(isinstance(item, (str, Path)) for item in data):
        return [part for item in data for part in _from_path(item, kind, wanted, skipped)]
    return [_from_records(data)]


def _from_library(data: object, wanted: Collection[str]) -> list[Source] | None:
    """The parts of a dataset of the library `datasets`; None if the data are no such thing."""
    datasets = sys.modules.get("datasets")  # whoever holds a dataset has imported the library
    if datasets is not None:
        if isinstance(data, (datasets.DatasetDict, datasets.IterableDatasetDict)):
            return _from_dataset_dict(data, wanted)
        if isinstance(data, (datasets.Dataset, datasets.IterableDataset)):
            return [_from_dataset(data, "dataset", wanted)]
    return None


def _from_path(data: str | Path, kind: str | None, wanted: Collection[str], skipped: Dropped) -> list[Source]:
    path = Path(data)
    with readable(path):
        if path.is_dir():
            return _from_folder(path, kind, wanted, skipped)
        if path.is_file():
            return [_from_file(path, kind, wanted)]
    named = _HUB_ID.fullmatch(str(data)) and container_by_name(path) is None and not path.exists()
    if named and kind in (None, "datasets"):
        return _from_hub(str(data), wanted)
    raise DataError(f"There is no file or folder '{str(data)[:300]}'. Check the path.")


def _from_file(path: Path, kind: str | None, wanted: Collection[str]) -> Source:
    container = kind if kind in CONTAINERS.values() else container_by_name(path)
    container = container or container_by_content(path)
    if container is None:
        raise DataError(
            f"Cannot tell what kind of file {path} is. Name it .jsonl, .json, .parquet or .csv, or say its "
            "format (--format jsonl, json, parquet or csv)."
        )
    return Source(str(path), container, lambda told: read_records(path, container, wanted, told))


def _from_folder(path: Path, kind: str | None, wanted: Collection[str], skipped: Dropped) -> list[Source]:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _from_saved(path, wanted)
    if kind == "superni" or (kind is None and _is_checkout(path)):
        return [_from_file(file, "json", wanted) for file in task_files(path)]
    parts = []
    for file in _visible_files(path):
        container = container_by_name(file)
        if container is None or (kind in CONTAINERS.values() and kind != container):
            skipped.add(str(file))
        else:
            parts.append(_from_file(file, container, wanted))
    if not parts:
        raise DataError(
            f"The folder {path} holds no data: no file that ends in .jsonl, .json, .parquet or .csv "
            "(or one of these with .gz or .zst)."
        )
    return parts


def _visible_files(path: Path) -> list[Path]:
    """All files below a folder, sorted by name; hidden files and what hidden folders hold are left out."""
    found = [(file.relative_to(path), file) for file in path.rglob("*") if file.is_file()]
    return [file for name, file in sorted(found) if not any(part.startswith(".") for part in name.parts)]


def _is_checkout(path: Path) -> bool:
    """Whether the folder `tasks` begins with a task of Super-NaturalInstructions."""
    if not (path / "tasks").is_dir():
        return False
    files = sorted(file for file in (path / "tasks").iterdir() if container_by_name(file) == "json")
    if not files:
        return False
    told = PartReport(str(files[0]), ReadReport(), True, LINE_LIMIT)
    records = read_records(files[0], "json", (), told)
    return any(detect_form(record) == "superni" for _, record in islice(records, 1))


def task_files(path: Path) -> list[Path]:
    """The task files of a Super-NaturalInstructions checkout, or of its folder `tasks`, sorted by name."""
    folder = path / "tasks" if (path / "tasks").is_dir() else path
    files = [file for file in folder.iterdir() if container_by_name(file) == "json" and file.is_file()]
    files = sorted(file for file in files if not file.name.startswith(".") and file.name != "categories.json")
    if not files:
        raise DataError(f"The folder {folder} holds no task files (.json).")
    return files


def _from_saved(path: Path, wanted: Collection[str]) -> list[Source]:
    datasets: Any = require("datasets", extra="datasets", purpose=f"The saved dataset {path}")
    try:
        data = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises whatever its file formats raise
        raise DataError(f"The saved dataset {path} cannot be read: {_one_line(error)}.") from error
    if isinstance(data, datasets.DatasetDict):
        return _from_dataset_dict(data, wanted, str(path))
    return [_from_dataset(data, str(path), wanted)]


def _from_hub(name: str, wanted: Collection[str]) -> list[Source]:
    missing = f"There is no file or folder '{name}', and a dataset of the Hub"
    datasets: Any = require("datasets", extra="datasets", purpose=missing)
    try:
        data = datasets.load_dataset(name)
    except Exception as error:  # anything between no network and a broken file
        raise DataError(
            f"There is no file or folder '{name}', and as a dataset on the Hub it cannot be loaded: "
            f"{_one_line(error)}. Check the name and the network."
        ) from error
    return _from_dataset_dict(data, wanted, name)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def _from_dataset_dict(data: Mapping[str, object], wanted: Collection[str], name: str = "dataset") -> list[Source]:
    """One part per split. A lone "train" says nothing about sides: its rows are split like any others."""
    unknown = [key for key in data if key not in _SIDES]
    if unknown:
        raise DataError(
            f"{name} has the splits {', '.join(map(repr, data))}; known are train, validation and test. "
            "Pass one of them, data['name'], or rename them."
        )
    sides = {key: None if list(data) == ["train"] else _SIDES[key] for key in data}
    return [_from_dataset(data[key], f"{name}[{key}]", wanted, side) for key, side in sides.items()]


def _from_dataset(data: Any, name: str, wanted: Collection[str], split: Split | None = None) -> Source:
    columns = [column for column in data.column_names or () if column in wanted]
    unread = set(data.column_names or ()) - set(columns) if columns else set()
    table = (data.select_columns(columns) if columns else data).with_format("arrow")

    def records(told: PartReport) -> Iterator[Numbered]:
        told.unread.update(unread)
        return table_records(table.iter(batch_size=ROWS_AT_ONCE), told)

    return Source(name, "datasets", records, split)


def _from_records(data: Iterable[object]) -> Source:
    if isinstance(data, Iterator):
        head = list(islice(data, HEAD))
        if not any(is_conversation(record) for record in head):
            once = iter([enumerate(chain(head, data), start=1)])
            return Source("records", "records", lambda told: next(once, iter(())))
        data = [*head, *data]  # conversations are read twice
    return Source("records", "records", lambda told: enumerate(data, start=1))
