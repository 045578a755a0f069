"""How large what is read may become: small files that expand to gigabytes are refused before they do."""

from pathlib import Path

from inscl.errors import DataError

EXPANSION = 100  # times its own size that a compressed file may hold; text rarely exceeds 20
AT_LEAST = 4  # records of the largest size that any file may hold


def most_bytes(path: Path, limit: int) -> int:
    """Most bytes that a file may hold where a record may have `limit` of them."""
    return max(EXPANSION * path.stat().st_size, AT_LEAST * limit)


def too_large(path: object) -> DataError:
    """What is said of a file that holds more."""
    return DataError(
        f"{path} expands to more than {EXPANSION} times its size. If you trust it, raise the bound (--max-mib)."
    )


def most_values(limit: int) -> int:
    """Most values of a JSON record, each of which takes far more memory than its text."""
    return max(2**15, limit // 32)


def too_many_values(text: str, limit: int) -> bool:
    """Whether a text of JSON may hold too many values; of short ones nobody asks."""
    if len(text) <= most_values(limit):
        return False
    return sum(text.count(sign) for sign in ",[{") > most_values(limit)
