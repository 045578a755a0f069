"""`inscl survey`: what is tagged, how that ranks instructions, and how another tagger ranks them."""

import json
import math
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from inscl.cli import main
from inscl.core.insinfo import density_insinfo, insinfo, mean_insinfo
from inscl.data.example import instruction_key
from inscl.errors import DataError, MemoryStateError, PlanError
from inscl.memory.encoder import DEFAULT_MODEL
from inscl.memory.memory import Memory
from inscl.replay.survey import agreement, survey
from support import WordEncoder, WordTagger

# Six instructions; "Translate it." stands in both tasks, and one is left to the tagger.
TAGGED = {
    "first": {
        "Sum up the news.": ["news", "Summary"],
        "Shorten the text.": ["summaries", "text"],
        "Translate it.": ["translation"],
    },
    "second": {
        "Translate it.": ["translation"],
        "Rewrite the text.": ["rewriting", "text"],
        "Name the colour.": ["[bold]colour[/bold]", "naming"],
        "Say nothing.": [],  # to the tagger
    },
}
SIDES = ["train", "train", "dev", "test"]


def rows(tagged):
    for text, tags in tagged.items():
        for i, side in enumerate(SIDES):
            yield {"instruction": text, "input": f"{text} {i}", "output": str(i), "tags": tags or [], "split": side}


class DefaultWords(WordEncoder):
    """Counts of words under the default encoder's name: what the command line then finds needs no model.

    Wide enough that no two words of these tests share a number, so that no tags merge.
    """

    identity = DEFAULT_MODEL

    def __call__(self, texts):
        vectors = np.full((len(texts), 999), 0.01, dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                row[int.from_bytes(blake2b(word.encode(), digest_size=4).digest(), "big") % 999] += 1
        return vectors


@pytest.fixture
def memory(tmp_path, monkeypatch) -> Memory:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INSCL_MEMORY", raising=False)
    memory = Memory("memory", encoder=DefaultWords(), tagger=WordTagger())
    for name, tagged in TAGGED.items():
        memory.add(name, list(rows(tagged)))
    return memory


def answer(capsys, *arguments) -> str:
    assert main(["survey", *arguments]) == 0
    return capsys.readouterr().out


# ---------------------------------------------------------------- what is tagged


def test_tags_are_counted_over_the_instructions_of_all_tasks(memory):
    made = survey(memory)
    assert (made.tasks, made.pool) == (("first", "second"), 6)
    assert made.taggers == {"yours": 5, "long-words": 1}
    by_tag = {use.tag: use for use in made.tags}
    assert {tag: use.instructions for tag, use in by_tag.items()} == {
        "summary": 2, "text": 2, "translation": 1, "news": 1, "rewrite": 1, "bold colour bold": 1, "name": 1,
        "nothing": 1,
    }  # fmt: skip
    assert by_tag["translation"].tasks == ("first", "second")
    assert by_tag["text"].rarity == math.log(3)
    assert [use.tag for use in made.tags][:2] == ["summary", "text"]
    assert (made.n_tags, made.n_merged, made.warning[:7]) == (8, 0, "No two ")


def test_a_task_is_told_of_within_the_whole_memory(memory):
    made = survey(memory, ["second"])
    assert made.tasks == ("second",)
    assert made.pool == 6
    text = next(use for use in made.tags if use.tag == "text")
    assert (text.here, text.instructions, text.tasks) == (1, 2, ("first", "second"))
    whole = {use.key: use.insinfo for use in survey(memory).instructions}
    assert {use.text for use in made.instructions} == set(TAGGED["second"])
    assert all(whole[use.key] == use.insinfo for use in made.instructions)


def test_what_was_merged_into_what(memory):
    """All embeddings alike: one name takes all others, the commonest."""

    class Blind(DefaultWords):
        def __call__(self, texts):
            return super().__call__(texts) * 0 + 1

    blind = Memory("blind", encoder=Blind(), tagger=WordTagger())
    blind.add("first", list(rows(TAGGED["first"])))
    made = survey(blind)
    assert [(use.tag, use.merged) for use in made.tags] == [("summary", ("news", "text", "translation"))]
    assert (made.n_clusters, made.n_merged, made.tags[0].rarity) == (1, 3, 0.0)
    assert "cannot tell" in made.warning


@pytest.mark.parametrize("name", ["paper", "mean", "density"])
def test_instructions_are_ranked_by_the_insinfo_asked_for(memory, name):
    made = survey(memory, insinfo=name)
    texts = sorted({text for tagged in TAGGED.values() for text in tagged})
    tags = [set(next(u.tags for u in made.instructions if u.text == text)) for text in texts]
    vectors = memory.encode(texts).vectors
    expected = {"paper": insinfo(tags), "mean": mean_insinfo(tags), "density": density_insinfo(vectors)}[name]
    assert {u.text: u.insinfo for u in made.instructions} == pytest.approx(dict(zip(texts, expected, strict=True)))
    scores = [u.insinfo for u in made.instructions]
    assert scores == sorted(scores, reverse=True)
    assert next(u for u in made.instructions if u.text == "Translate it.").tasks == ("first", "second")


def test_instructions_without_training_rows_are_left_out_as_in_a_plan(memory):
    held = [{**row, "split": "test"} for row in rows({"Only asked.": ["asking"]})]
    memory.add("third", [*rows({"Learnt.": ["learning"]}), *held])
    made = survey(memory, ["third"])
    assert [use.text for use in made.instructions] == ["Learnt."]
    assert made.pool == 7


# ---------------------------------------------------------------- another tagger


def other_tags() -> dict[bytes, tuple[str, ...]]:
    """Tags of five of the six instructions."""
    given = {
        "Shorten the text.": ("text", "brevity", "editing"),
        "Translate it.": ("language", "text"),
        "Rewrite the text.": ("text",),
        "Name the colour.": (),
        "Say nothing.": ("nothing", "silence"),
    }
    return {instruction_key(text): tags for text, tags in given.items()}


@pytest.mark.parametrize(("name", "measure"), [("paper", insinfo), ("mean", mean_insinfo)])
def test_agreement_is_the_rank_correlation_over_what_both_have_tagged(memory, name, measure):
    ours = [{"summary", "text"}, {"translation"}, {"rewrite", "text"}, {"colour", "name"}, {"nothing"}]
    theirs = [{"text", "brevity", "edit"}, {"language", "text"}, {"text"}, set(), {"nothing", "silence"}]
    *parts, whole = agreement(memory, other_tags(), insinfo=name)
    assert [(part.task, part.n, part.of) for part in [*parts, whole]] == [("first", 2, 3), ("second", 4, 4), ("", 5, 6)]
    a, b = measure(ours), measure(theirs)
    assert whole.spearman == pytest.approx(spearmanr(a, b).statistic)
    assert whole.kendall == pytest.approx(kendalltau(a, b).statistic)
    assert abs(whole.spearman) < 1
    assert parts[1].spearman == pytest.approx(spearmanr(a[1:], b[1:]).statistic)


def test_a_tagger_agrees_with_itself(tmp_path):
    memory = Memory(tmp_path / "m", encoder=DefaultWords(), tagger=WordTagger())
    texts = ["Summarise invoices.", "Summarise invoices quickly.", "Translate.", "Summarise letters."]
    memory.add("one", list(rows(dict.fromkeys(texts))))
    (only,) = agreement(memory, WordTagger())
    assert (only.task, only.n, only.of) == ("one", 4, 4)
    assert (only.spearman, only.kendall) == pytest.approx((1, 1))


def test_a_side_that_ranks_nothing_has_no_correlation(memory, capsys):
    alike = dict.fromkeys(other_tags(), ("same",))
    assert {(part.spearman, part.kendall) for part in agreement(memory, alike)} == {(None, None)}
    Path("alike.json").write_text(json.dumps({text: ["same"] for text in TAGGED["first"]}))
    out = answer(capsys, "--against", "alike.json", "first")
    assert "–: fewer than two instructions, or all rank alike on one side" in out
    assert '"spearman": null' in answer(capsys, "--against", "alike.json", "--json")


@pytest.mark.parametrize(
    ("other", "insinfo_name", "error", "message"),
    [
        ({}, "paper", DataError, "The other tags are of none of these instructions. Tag the same texts"),
        (other_tags(), "density", PlanError, "InsInfo 'density' looks at no tags.*Compare by one of paper, mean"),
        (other_tags(), "papers", PlanError, "There is no InsInfo 'papers'.*Did you mean 'paper'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(memory, other, insinfo_name, error, message):
    with pytest.raises(error, match=message):
        agreement(memory, other, insinfo=insinfo_name)


def test_another_encoder_is_refused(memory):
    other = Memory("memory", encoder=WordEncoder(), tagger=WordTagger())
    with pytest.raises(MemoryStateError, match="Task 'first' was encoded with"):
        survey(other)


# ---------------------------------------------------------------- the command


def test_the_table_of_tags(memory, capsys):
    out = answer(capsys)
    assert "2 tasks: 6 instructions, 8 tags after merging" in out
    assert "5 instructions tagged by yours" in out
    assert out.index("summary") < out.index("translation")
    out = answer(capsys, "second", "--top", "2")
    assert "'second': 4 instructions of 6 in memory, 6 tags after merging" in out
    assert "… and 4 more tags: --top 0 lists all" in out
    assert "… and" not in answer(capsys, "second", "--top", "0")


def test_the_table_of_instructions(memory, capsys):
    out = answer(capsys, "--insinfo", "mean", "--top", "3")
    first, *_ = survey(memory, insinfo="mean").instructions
    assert (first.text in out, f"{first.insinfo:.3f}" in out) == (True, True)
    assert "… and 3 more instructions: --top 0 lists all" in out


def test_json_has_all_unless_told(memory, capsys):
    made = json.loads(answer(capsys, "--json"))
    assert len(made["tags"]) == 8
    assert len(made["instructions"]) == 6
    assert made["instructions"][0].keys() == {"key", "text", "tasks", "tags", "insinfo"}
    assert made["insinfo"] == "paper"
    made = json.loads(answer(capsys, "--json", "--top", "2", "--insinfo", "density"))
    assert (len(made["tags"]), len(made["instructions"]), made["insinfo"]) == (2, 2, "density")


def test_a_file_of_tags_and_the_offline_tagger_are_compared(memory, capsys, monkeypatch):
    monkeypatch.setattr("inscl.memory.memory.SentenceEncoder", DefaultWords)
    texts = {text: tags[::-1] or ["nothing"] for tagged in TAGGED.values() for text, tags in tagged.items()}
    Path("tags.json").write_text(json.dumps(texts))
    out = answer(capsys, "--against", "tags.json")
    assert "Rank of instructions by InsInfo 'paper': tags in memory against tags.json" in out
    assert out.count("+1.00") == 6
    found = json.loads(answer(capsys, "--against", "keyphrase", "--json", "--insinfo", "mean"))
    assert (found["against"], found["insinfo"]) == ("keyphrase", "mean")
    assert [part["n"] for part in found["agreement"]] == [3, 4, 6]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["secnd"], "has no task 'secnd'. Did you mean 'second'?"),
        (["--insinfo", "men"], "There is no InsInfo 'men'; wanted one of paper, mean, density. Did you mean 'mean'?"),
        (["--against", "keyphrases"], "There is no file 'keyphrases'; wanted a file of tags, or keyphrase. Did you"),
        (["--against", "memory"], "Cannot read tags from 'memory'"),
        (["--memory", "nowhere"], "There is no memory at 'nowhere'"),
    ],
)
def test_bad_requests_are_one_clear_line(memory, capsys, arguments, hint):
    assert main(["survey", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("inscl: ")
    assert hint in err
    assert err.count("\n") == 1


def test_an_empty_memory_says_what_to_do(memory, capsys):
    for name in TAGGED:
        memory.remove(name)
    assert "holds no instruction with training rows. Add a task with `inscl add" in answer(capsys)
    assert json.loads(answer(capsys, "--json"))["tags"] == []
    assert main(["survey", "--against", "keyphrase"]) == 2
    assert "of none of these instructions" in capsys.readouterr().err


def test_the_memory_is_only_read_and_no_model_is_loaded(memory):
    """Where the other tags are known words too: their embeddings are in the cache."""
    known = {text: tags or ["naming"] for tagged in TAGGED.values() for text, tags in tagged.items()}
    Path("tags.json").write_text(json.dumps(known))
    before = {path: path.read_bytes() for path in Path("memory").rglob("*") if path.is_file()}
    call = "main(['survey', '--insinfo', 'mean', '--against', 'tags.json'])"
    check = f"import sys; from inscl.cli import main; assert {call} == 0; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all together" in done.stdout
    after = {path: path.read_bytes() for path in Path("memory").rglob("*") if path.is_file()}
    assert {path for path in after if "lock" not in path.name} == {path for path in before if "lock" not in path.name}
    assert all(after[path] == content for path, content in before.items())
