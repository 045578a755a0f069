"""The bundled demo: six small tasks, and the streams that `inscl demo` runs over them."""

from pathlib import Path


def stream_file(fast: bool = False) -> Path:
    """The demo's configuration, one that `inscl run` takes like any other.

    >>> stream_file().name, stream_file(fast=True).name
    ('stream.yaml', 'fast.yaml')
    """
    return Path(__file__).parent / ("fast.yaml" if fast else "stream.yaml")
