"""What the benchmarks of speed share: which model is measured, and where the numbers go."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path


def parser_of(page: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the page, with the options of every such benchmark."""
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="as for inscl: a folder, a Hub id or smollm2-135m")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    return parser


def tell(result: Mapping[str, object], file: Path | None) -> None:
    """Print the numbers, and write them where that was asked for."""
    text = json.dumps(result, indent=1)
    print(text)
    if file:
        file.write_text(text)
