"""How large what is read may become: small files that expand to gigabytes are refused before they do."""

from pathlib import Path

from inscl.errors import DataError

_EXPANSION = 100  # times its own size that a compressed file may hold; text rarely exceeds 20
MOST_MIB = 2**20  # of a record, whatever is asked for
_AT_LEAST = 4  # any file may hold a quarter of the largest record


def most_bytes(path: Path, limit: int) -> int:
    """Most bytes that a file may hold where a record may have `limit` of them."""
    return max(_EXPANSION * path.stat().st_size, limit // _AT_LEAST)


def too_large(path: object) -> DataError:
    """What is said of a file that holds more."""
    return DataError(
        f"{path} expands to more than {_EXPANSION} times its size. If you trust it, raise the bound (--max-mib)."
    )
