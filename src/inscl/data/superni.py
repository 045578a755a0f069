"""Tasks of a Super-NaturalInstructions checkout: one per file, or grouped into categories."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from inscl.data.readers import task_files
from inscl.errors import DataError

_Categories = Mapping[str, Sequence[str]]


def superni_files(path: str | Path, categories: _Categories | str | Path | None = None) -> dict[str, list[Path]]:
    """The files of each task of a checkout, for `read_examples` with ``format="superni"``.

    Parameters
    ----------
    path : path
        The checkout, its folder `tasks`, or a single task file.
    categories : mapping or path, optional
        Category -> names of task files without their ending, or a JSON file that holds this. Each category
        becomes one task. Without it each file is one task, named like the file without its ending.

    Returns
    -------
    dict of str to list of Path
        Files in the order of their names; categories in the order of the mapping.

    Raises
    ------
    DataError
        No task files, a map that is none, a category that names a missing file.
    """
    folder = Path(path)
    if not folder.exists():
        raise DataError(f"There is no file or folder '{path}'. Check the path.")
    files = {_stem(file): file for file in (task_files(folder) if folder.is_dir() else [folder])}
    groups = {name: [name] for name in files} if categories is None else _groups(categories, files)
    return {name: [files[stem] for stem in stems] for name, stems in groups.items()}


def _stem(file: Path) -> str:
    return file.name.split(".json")[0]


def _groups(categories: _Categories | str | Path, files: Mapping[str, Path]) -> dict[str, list[str]]:
    if isinstance(categories, Mapping):
        source, groups = "The category map", categories
    else:
        source, groups = str(categories), _read_map(Path(categories))
    for name, stems in groups.items():
        if not (isinstance(stems, Sequence) and not isinstance(stems, str) and stems):
            raise DataError(f"{source}: category '{name}' wants a list of task files, one or more; got {stems!r}.")
    missing = [f"'{stem}' ({name})" for name, stems in groups.items() for stem in stems if stem not in files]
    if missing:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise DataError(
            f"{source} names task files that are not there: {', '.join(missing[:3])}{more}. "
            "Check that it belongs to this checkout."
        )
    return {name: list(dict.fromkeys(stems)) for name, stems in groups.items()}


def _read_map(path: Path) -> _Categories:
    try:
        groups = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"The category map {path} cannot be read: {error}.") from error
    if not isinstance(groups, dict):
        raise DataError(f"The category map {path} wants one JSON object, category -> list of task files.")
    return groups
