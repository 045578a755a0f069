"""Sharing through a folder: what goes, what never goes, and that a stranger's folder is not believed."""

import json
import os
import tarfile
from pathlib import Path
from threading import Event, Thread

import pytest
import yaml

from inscl.cli import main
from inscl.errors import InsclError
from inscl.experiments.run_folder import RunFolder
from inscl.memory.memory import Memory
from inscl.replay.plan import Plan
from inscl.replay.planner import plan
from inscl.sharing.bundle import Bundle
from inscl.sharing.share import pull, push
from inscl.stages.folder import StageFolder
from support import rows_of
from test_learn import StageTrainer, learn_month, memory_at

OLD_RUN = Path(__file__).parent / "fixtures" / "run-0.1" / "run.tar.xz"


def memory_of(folder: Path, *names: str) -> Memory:
    """A memory with 30 rows of each task."""
    made = memory_at(folder)
    for name in names:
        made.add(name, rows_of(name, 30))
    return made


@pytest.fixture
def memory(tmp_path) -> Memory:
    return memory_of(tmp_path / "memory", "billing", "support | <b>")


@pytest.fixture
def plan_file(memory, tmp_path) -> Path:
    plan(memory, "new", list(rows_of("new", 30)), budget=10).plan.write(tmp_path / "plan.json")
    return tmp_path / "plan.json"


@pytest.fixture
def run(tmp_path) -> Path:
    with tarfile.open(OLD_RUN) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "run-0.1"
    stage = next((folder / "stages").iterdir())
    for name in ("kept/a.safetensors", f"stages/{stage.name}/model/model.safetensors", "run.log"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"weights")
    return folder


@pytest.fixture
def stage(tmp_path) -> Path:
    learn_month(tmp_path, "may", model="base")
    return learn_month(tmp_path, "june").folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_memory_goes_and_comes_back(memory, tmp_path):
    pushed = push(memory.path, tmp_path / "shared")
    pulled = pull(tmp_path / "shared", tmp_path / "there")
    assert (pushed.kind, pulled.kind) == ("memory", "memory")
    assert pushed.files == pulled.files == 5
    assert memory_at(tmp_path / "there").tasks() == memory.tasks()
    assert memory_at(tmp_path / "there").verify().problems == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["memory", "shared", "there"]  # nothing is left over


def test_a_push_sees_one_moment_while_others_add_replace_and_remove(memory, tmp_path):
    done = Event()

    def write() -> None:
        other = memory_at(tmp_path / "memory")
        while not done.is_set():
            other.add("first", rows_of("first", 9))
            other.add("second", rows_of("second", 9))
            other.add("first", rows_of("first again", 9))
            other.remove("first")
            other.remove("second")

    writer = Thread(target=write)
    writer.start()
    try:
        for number in range(6):
            push(memory.path, tmp_path / f"shared{number}")
    finally:
        done.set()
        writer.join()
    for number in range(6):
        pull(tmp_path / f"shared{number}", tmp_path / f"there{number}")
        names_there = [info.name for info in memory_at(tmp_path / f"there{number}").tasks()][2:]
        assert names_there in ([], ["first"], ["first", "second"], ["second"])


def test_a_plan_goes_and_comes_back(memory, plan_file, tmp_path):
    push(plan_file, tmp_path / "shared", memory=memory)
    pull(tmp_path / "shared", tmp_path / "there.json")
    assert Plan.read(tmp_path / "there.json") == Plan.read(plan_file)


def test_a_run_goes_with_its_numbers_and_without_weights_kept_states_and_logs(run, tmp_path):
    push(run, tmp_path / "shared")
    pull(tmp_path / "shared", tmp_path / "there")
    assert RunFolder.read(tmp_path / "there").rows == RunFolder.read(run).rows
    there = names(tmp_path / "there")
    assert {"run.json", "streams.json", "results.parquet", "results.csv"} <= there
    assert not [
        name for name in there if name.endswith((".safetensors", ".log")) or name.startswith(("kept", "memory"))
    ]
    kept = [name for name in names(run) if "/predictions/test/" in name]
    assert kept
    assert set(kept) <= there


def test_a_strangers_table_for_spreadsheets_is_not_taken(run, tmp_path):
    push(run, tmp_path / "shared")
    assert not (tmp_path / "shared" / "run" / "results.csv").exists()
    pull(tmp_path / "shared", tmp_path / "there")
    assert (tmp_path / "there" / "results.csv").read_bytes() == (run / "results.csv").read_bytes()
    (tmp_path / "shared" / "run" / "results.csv").write_text('=HYPERLINK("x")')
    Bundle.of(tmp_path / "shared", "run", {}).write(tmp_path / "shared")
    with pytest.raises(InsclError, match=r"results\.csv is no file of a run"):
        pull(tmp_path / "shared", tmp_path / "again")


def test_weights_go_where_they_are_asked_for(run, tmp_path):
    push(run, tmp_path / "shared", weights=True)
    pull(tmp_path / "shared", tmp_path / "there")
    weights = [name for name in names(tmp_path / "there") if name.endswith(".safetensors")]
    assert len(weights) == 1
    assert weights[0].startswith("stages/")


def test_a_stage_goes_and_comes_back(stage, tmp_path):
    memory = memory_at(tmp_path / "memory")
    push(stage, tmp_path / "shared", memory=memory)
    pull(tmp_path / "shared", tmp_path / "there")
    ours, theirs = (StageFolder(path, inner="") for path in (stage, tmp_path / "there"))
    assert theirs.plan() == ours.plan()
    assert theirs.scores() == ours.scores()
    assert theirs.scores("before") == ours.scores("before")
    assert (tmp_path / "there" / "mixture.jsonl").read_bytes() == (stage / "mixture.jsonl").read_bytes()


def test_a_plan_of_rows_that_the_memory_no_longer_has_is_refused(memory, plan_file, tmp_path):
    push(plan_file, tmp_path / "shared", memory=memory)
    memory.add("billing", rows_of("fresh", 30))
    with pytest.raises(InsclError, match=r"holds rows of the task 'billing' that the memory .* no longer"):
        push(plan_file, tmp_path / "again", memory=memory)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("task", ["may", "june"])  # an earlier one, and its own
def test_a_stage_of_rows_that_the_memory_no_longer_has_is_refused(stage, tmp_path, task):
    memory_at(tmp_path / "memory").remove(task)
    with pytest.raises(InsclError, match=f"holds rows of the task '{task}' that the memory .* no longer"):
        push(stage, tmp_path / "shared", memory=memory_at(tmp_path / "memory"))
    assert not (tmp_path / "shared").exists()


def test_answers_to_tasks_that_are_not_the_stages_stay_behind(stage, tmp_path):
    memory = memory_at(tmp_path / "memory")
    memory.add("later", rows_of("later", 30))
    scores = json.loads((stage / "scores.json").read_text())
    for side in ("test", "before"):
        scores[side]["later"] = scores[side]["may"]
    (stage / "scores.json").write_text(json.dumps({**scores, "notes": {"may": "later"}}))
    row = {"task": "later", "instruction": "a", "input": "later input", "references": ["b"], "prediction": "c"}
    (stage / "predictions" / "test").mkdir(parents=True, exist_ok=True)
    (stage / "predictions" / "test" / "0.jsonl").write_text(json.dumps(row) + "\n")
    push(stage, tmp_path / "shared", memory=memory)
    found = b"".join(path.read_bytes() for path in (tmp_path / "shared").rglob("*") if path.is_file())
    assert b"may input" in found
    assert b"later" not in found


def test_a_run_whose_memory_lost_a_task_is_refused(run, tmp_path):
    own = memory_at(RunFolder.read(run).memory())
    own.remove(own.tasks()[0].name)
    with pytest.raises(InsclError, match="which its memory no longer has"):
        push(run, tmp_path / "shared")


def test_the_card_says_what_it_is_and_is_a_head_that_yaml_reads(memory, tmp_path):
    push(memory.path, tmp_path / "shared", licence="cc-by-4.0", about="Tickets of 2026, by hand.")
    text = (tmp_path / "shared" / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "cc-by-4.0"
    assert head["configs"][0]["data_files"] == "memory/tasks/*/examples.parquet"
    assert "Tickets of 2026" in text
    assert "| billing | 2" in text
    assert r"support \| \<b\>" in text
    assert f"inscl pull {tmp_path / 'shared'} memory" in text


def test_a_second_push_replaces_the_first_and_nothing_else(memory, tmp_path):
    push(memory.path, tmp_path / "shared")
    first = names(tmp_path / "shared")
    memory.remove("billing")
    push(memory.path, tmp_path / "shared")
    assert len(names(tmp_path / "shared")) == len(first) - 2
    (tmp_path / "shared" / "thesis.tex").write_text("years of work")
    with pytest.raises(InsclError, match=r"none of inscl's \(thesis\.tex\)"):
        push(memory.path, tmp_path / "shared")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(InsclError, match=r"thesis\.tex"):
        push(memory.path, tmp_path / "full")
    assert names(tmp_path / "full") == {"thesis.tex"}


def test_a_pull_overwrites_nothing(memory, plan_file, tmp_path):
    push(memory.path, tmp_path / "shared")
    push(plan_file, tmp_path / "shared-plan", memory=memory)
    before = names(tmp_path)
    for source, dest in (("shared", memory.path), ("shared-plan", plan_file), ("shared-plan", tmp_path / "memory")):
        with pytest.raises(InsclError, match="is there already"):
            pull(tmp_path / source, dest)
    assert names(tmp_path) == before


def damage(folder: Path, how: str) -> None:
    """Make a shared memory one that a stranger might have made."""
    bundle = json.loads((folder / "inscl.json").read_text())
    name = next(name for name in bundle["files"] if name.endswith("examples.parquet"))
    path = folder / name
    raw = path.read_bytes()
    if how == "changed":
        path.write_bytes(raw[:-1] + b"x")
    elif how == "short":
        path.write_bytes(raw[:-1])
    elif how == "gone":
        path.unlink()
    elif how == "a link":
        (folder.parent / "elsewhere").write_bytes(raw)
        path.unlink()
        path.symlink_to(folder.parent / "elsewhere")
    elif how == "behind a link":
        path.parent.rename(folder.parent / "elsewhere")
        path.parent.symlink_to(folder.parent / "elsewhere")
    elif how == "a pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "no list":
        (folder / "inscl.json").unlink()
    elif how == "a linked list":
        (folder / "inscl.json").rename(folder.parent / "list")
        (folder / "inscl.json").symlink_to(folder.parent / "list")
    else:
        changed = {
            "a path above": {"files": {"memory/../../x": bundle["files"][name]}},
            "an absolute path": {"files": {"/etc/passwd": bundle["files"][name]}},
            "another kind": {"kind": "run"},
            "a hidden file": {"files": {"memory/.git/config": bundle["files"][name]}},
            "a newer format": {"inscl_shared": 2},
            "no files": {"files": {}},
            "another field": {"more": 1},
        }[how]
        (folder / "inscl.json").write_text(json.dumps({**bundle, **changed}))


@pytest.mark.parametrize(
    "how",
    ["changed", "short", "gone", "a link", "behind a link", "a pipe", "no list", "a linked list", "a path above",
     "an absolute path", "another kind", "a hidden file", "a newer format", "no files", "another field"],
)  # fmt: skip
def test_a_strangers_folder_is_refused_in_one_line_and_leaves_nothing(memory, tmp_path, capsys, how):
    push(memory.path, tmp_path / "shared")
    damage(tmp_path / "shared", how)
    (tmp_path / "work").mkdir()
    assert main(["pull", str(tmp_path / "shared"), str(tmp_path / "work" / "there")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert list((tmp_path / "work").iterdir()) == []


def test_a_file_that_belongs_to_no_run_is_refused(run, tmp_path):
    push(run, tmp_path / "shared")
    (tmp_path / "shared" / "run" / "sitecustomize.py").write_text("raise SystemExit")
    bundle = Bundle.of(tmp_path / "shared", "run", {})
    bundle.write(tmp_path / "shared")
    with pytest.raises(InsclError, match=r"sitecustomize\.py is no file of a run"):
        pull(tmp_path / "shared", tmp_path / "there")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("file", ["run.json", "streams.json", "scores.json", "plan.json"])
def test_a_run_that_no_command_could_read_is_refused(run, tmp_path, file):
    push(run, tmp_path / "shared")
    for path in (tmp_path / "shared").rglob(file):
        path.write_text('{"config": 3, "test": {"a": 1}}')
    Bundle.of(tmp_path / "shared", "run", {}).write(tmp_path / "shared")
    with pytest.raises(InsclError):
        pull(tmp_path / "shared", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_what_is_no_source_is_told(tmp_path, capsys):
    for words in (["push", "nowhere", "x"], ["pull", "nowhere", "x"], ["push", __file__, "x"]):
        assert main([words[0], words[1], str(tmp_path / words[2])]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_stage_is_refused(tmp_path):
    class Dying(StageTrainer):
        def train(self, *args, **named):
            raise InsclError("stopped")

    with pytest.raises(InsclError, match="stopped"):
        learn_month(tmp_path, "may", Dying(), model="base")
    (tmp_path / "models" / "may").mkdir(parents=True, exist_ok=True)
    (tmp_path / "models" / "may" / "learn.json").write_text("{}")
    with pytest.raises(InsclError, match="not finished"):
        push(tmp_path / "models" / "may", tmp_path / "shared")
