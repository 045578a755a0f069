"""Run the streams of the protocol, each into a table of its own: ``python experiments/streams.py 11 12 13``.

A stream that has its table is not run again; one that was stopped goes on where it was. Tables from what is there:
``python experiments/tables.py``.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from controls import add_controls
from ruamel.yaml import YAML

from inscl.cli import main as inscl
from inscl.demo.forms import FORM_TASKS

HERE = Path(__file__).parent


def stream(number: int, template: Path, **changed: object) -> dict[str, object]:
    """The configuration of a numbered stream, as the protocol says, with what is changed in its template."""
    drawn = np.random.default_rng(number).permutation(list(FORM_TASKS))[:6]
    return {
        "tasks": {"demo": "forms", "seed": 1000 + number, "train": 96, "dev": 24, "test": 48, "only": drawn.tolist()},
        "orders": [f"random:{number}"],
        "seeds": [number],
        "experts": {"seeds": [number]},
        **YAML(typ="safe").load(template),
        **changed,
    }


def main() -> None:
    """Run what is asked for and has no table yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", type=int, nargs="+")
    parser.add_argument("--set", default="confirming", help="folder beside this file, with a template.yaml")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs' folders go")
    parser.add_argument("--dtype", help="instead of the template's: float32 where a processor has no bfloat16")
    arguments = parser.parse_args()
    changed = {"dtype": arguments.dtype} if arguments.dtype else {}
    folder = HERE / arguments.set
    add_controls()
    for number in arguments.numbers:
        table, run = folder / f"{number}.csv", arguments.runs / f"{arguments.set}-{number}"
        if table.exists():
            continue
        run.parent.mkdir(parents=True, exist_ok=True)
        file = run.with_suffix(".yaml")
        YAML().dump(stream(number, folder / "template.yaml", **changed), file)
        if code := inscl(["run", str(file), "--out", str(run)]):
            sys.exit(code)
        shutil.copyfile(run / "results.csv", table)
        shutil.rmtree(run / "kept", ignore_errors=True)


if __name__ == "__main__":
    main()
