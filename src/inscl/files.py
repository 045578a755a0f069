"""Write a file so that it appears whole or not at all, and survives a crash right after."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial"  # end of a file's name until it is whole


@contextmanager
def whole_file(path: Path, mode: str = "w", partial: Path | None = None) -> Iterator[Any]:
    """An open file that takes the name `path` when the block ends well, and is deleted when it does not.

    Parameters
    ----------
    path : Path
    mode : "w" or "wb"
        Text is UTF-8.
    partial : Path, optional
        Where it lies until then: a name of one's own where several may write the file at once.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with whole_file(path) as file:
    ...     print("there", path.exists(), file=file)
    >>> path.read_text()
    'there False\\n'
    """
    partial = partial or path.with_name(path.name + PARTIAL)
    try:
        with partial.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: object) -> None:
    """Write JSON so that the file appears whole, and survives a crash right after."""
    with whole_file(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
