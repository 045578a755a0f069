"""How thorough the torture is, and the table of what it saw."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FULL = os.environ.get("INSCL_TORTURE") == "1"


@dataclass
class Row:
    """A kind of fault: how it was made, how often, how often nothing was lost, and what the user saw."""

    fault: str
    made: str
    tried: int = 0
    survived: int = 0
    saw: str = ""

    def write(self, saw: str) -> None:
        """Append the row to the table that INSCL_TORTURE_TABLE names."""
        self.saw = saw
        if table := os.environ.get("INSCL_TORTURE_TABLE"):
            with Path(table).open("a", encoding="utf-8") as file:
                print(json.dumps(asdict(self), ensure_ascii=False), file=file)


def print_table(table: Path) -> None:
    """The rows as Markdown."""
    print("| fault | how it is made | times tried | survived | what the user saw |\n|---|---|--:|--:|---|")
    for line in table.read_text("utf-8").splitlines():
        row = Row(**json.loads(line))
        print(f"| {row.fault} | {row.made} | {row.tried:,} | {row.survived:,} | {row.saw} |")


if __name__ == "__main__":
    print_table(Path(os.environ["INSCL_TORTURE_TABLE"]))
