"""How large what is read may become: small files that expand to gigabytes are refused before they do."""

from pathlib import Path

from inscl.errors import DataError

_EXPANSION = 100  # times its own size that a compressed file may hold; text rarely exceeds 20
MOST_MIB = 2**20  # of a record, whatever is asked for
_AT_LEAST = 4  # any file may hold a quarter of the largest record


def most_bytes(path: Path, limit: int) -> int:
    """Most bytes that a file may hold where a record may have `limit` of them."""
    return max(_EXPANSION * path.stat().st_size, limit // _AT_LEAST)


def check_promise(path: Path, promised: int, limit: int) -> None:
    """Refuse a file that says itself that it holds more.

    Raises
    ------
    DataError
        If it does.
    """
    if promised > most_bytes(path, limit):
        raise too_large(path)


def too_large(path: object) -> DataError:
    """What is said of a file that holds more."""
    return DataError(
        f"{path} expands to more than {_EXPANSION} times its size. If you trust it, raise the bound (--max-mib)."
    )


def few_values(length: int, limit: int) -> bool:
    """Whether so long a JSON record holds few enough values, each of which takes far more memory than its text."""
    return length <= max(2**15, limit // 32)


def too_many_values(text: str, limit: int) -> bool:
    """Whether a text of JSON may hold too many values; of short ones nobody asks."""
    if few_values(len(text), limit):
        return False
    return not few_values(sum(text.count(sign) for sign in ",[{"), limit)
