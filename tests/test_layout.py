"""The arrows between packages: each imports only what CONTRIBUTING.md allows, lazily or not, in no circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "inscl"
LINE = re.compile(r"^    (?P<package>[a-z_]+) +<- (?P<allowed>[a-z_, ]*?)(?: {2,}(?P<what>.*))?$", re.MULTILINE)


def _allowed() -> dict[str, set[str]]:
    """The table of CONTRIBUTING.md: what may be imported into each package."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return {m["package"]: set(re.findall(r"[a-z_]+", m["allowed"])) for m in LINE.finditer(page)}


def _package(module: str) -> str:
    return module.split(".")[1]


def _imported(tree: ast.AST) -> set[str]:
    """The packages of ours that a module imports, at its top or inside its functions, by statement or by name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            if node.module == "inscl":
                found |= {alias.name for alias in node.names if alias.name != "__version__"}
            elif node.module and node.module.startswith("inscl."):
                found.add(_package(node.module))
        elif isinstance(node, ast.Import):
            found |= {_package(alias.name) for alias in node.names if alias.name.startswith("inscl.")}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            found |= {
                _package(arg.value)
                for arg in node.args
                if isinstance(arg, ast.Constant) and str(arg.value).startswith("inscl.")
            }
    return found


def arrows() -> dict[str, set[str]]:
    """Every package, with the other packages that it imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if package in ("__init__", "__main__"):  # the front door: it names everything, lazily
            continue
        imported = _imported(ast.parse(path.read_text(encoding="utf-8")))
        found.setdefault(package, set()).update(imported - {package})
    return found


def test_every_import_goes_where_the_layout_allows_it():
    allowed, base = _allowed(), _allowed()["anywhere"]
    forbidden = {
        f"{package} -> {other}"
        for package, others in arrows().items()
        for other in others - base - allowed.get(package, set())
    }
    assert not forbidden


def test_the_layout_names_every_package_and_no_arrow_that_is_not_used():
    allowed, found = _allowed(), arrows()
    base = allowed.pop("anywhere")
    assert set(allowed) == set(found) - base
    assert {name: others - found[name] for name, others in allowed.items() if others - found[name]} == {}


def test_no_package_is_in_a_circle():
    TopologicalSorter(arrows()).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    "source",
    ["from inscl.report.page import x", "def f():\n    import inscl.report.page", "import_module('inscl.report.page')"],
)
def test_lazy_imports_count(source):
    assert _imported(ast.parse(source)) == {"report"}
