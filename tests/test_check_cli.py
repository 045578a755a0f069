"""`inscl evaluate` and `inscl check` as a release pipeline calls them, with a tiny model and a server of our own."""

import json
import math
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

import tiny
from inscl.check.assessment import assess, read_assessment
from inscl.cli import main
from inscl.data.example import Example
from inscl.evaluation.perplexity import Perplexity, paragraphs
from inscl.evaluation.server import Server
from inscl.memory.memory import Memory
from inscl.models.loading import load
from inscl.models.precision import ready
from support import WordEncoder, WordTagger

HOSTILE = "say|<b>"
WORDS = ("one", "two", "three", "four", "five", "six")


def examples(instruction: str, n: int = 200) -> list[Example]:
    return [Example(instruction, f"{WORDS[i % 6]} {i}", (f"{WORDS[i % 6]} {i}",)) for i in range(n)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> SimpleNamespace:
    """Two remembered tasks, two models, and what the first of them scores."""
    folder = tmp_path_factory.mktemp("gate")
    memory = Memory(folder / "memory", encoder=WordEncoder(), tagger=WordTagger())
    memory.add(HOSTILE, examples("Say the word again."))
    memory.add("count", examples("Count the letters."))
    for seed, name in enumerate(("june", "july")):
        tiny.save_model(folder / name, seed=seed)
    (folder / "stage.yaml").write_text("max_new_tokens: 6\ndtype: float32\n")
    return SimpleNamespace(folder=folder, memory=memory)


@pytest.fixture
def command(place, tmp_path, monkeypatch, capsys):
    for name in ("memory", "june", "july"):
        (tmp_path / name).symlink_to(place.folder / name)
    shutil.copy(place.folder / "stage.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    monkeypatch.delenv("INSCL_MEMORY", raising=False)

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "sk-secret" not in out + err
        return code, out, err

    return run


@pytest.fixture
def server():
    """A server that repeats the input, or answers as its `say` is set; `asked` counts."""
    state = SimpleNamespace(asked=0, say=None)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            state.asked += 1
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            echo = asked["prompt"].split("Input:\n")[1].split("\n")[0]
            said = echo if state.say is None else state.say(asked["prompt"])
            choice = {"index": 0, "text": said or "", "finish_reason": "stop", "logprobs": None}
            body = json.dumps({"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]})
            self.send_response(200 if said is not None else 401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{http.server_port}/v1"
        yield state
        http.shutdown()


def test_the_perplexity_is_that_of_transformers_own_loss(place):
    loaded = load(place.folder / "june")
    found = Perplexity.of(ready(loaded, "float32"))
    total = tokens = 0
    with torch.no_grad():
        for text in paragraphs():
            ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
            total += float(loaded.model(ids, labels=ids).loss) * (ids.shape[1] - 1)
            tokens += ids.shape[1] - 1
    assert sum(found.tokens) == tokens
    assert found.value == pytest.approx(math.exp(total / tokens), rel=1e-5)
    low, high = found.interval()
    assert low < found.value < high


def test_the_general_text_is_many_different_paragraphs():
    assert len(set(paragraphs())) == len(paragraphs()) >= 60


def test_a_model_passes_against_itself_and_a_file_is_what_it_scored(command):
    code, out, err = command("evaluate", "june", "--config", "stage.yaml", "--out", "june.json")
    assert code == 0, err
    assert "General text: perplexity " in out
    assert "compare with it: inscl check MODEL --against june.json" in err
    made = read_assessment("june.json")
    assert set(made.tasks) == {HOSTILE, "count"}
    assert made.settings["max_new_tokens"] == 6
    for rows in made.tasks.values():
        assert len(set(rows.keys)) == rows.n > 0
    code, out, err = command("check", "june", "--against", "june.json", "--json")
    assert code == 0, err
    verdict = json.loads(out)
    assert [f["outcome"] for f in verdict["findings"]] == ["pass", "pass", "pass"]
    assert all(f["change"]["worse"] == 0 for f in verdict["findings"])
    assert "scored in different ways" not in err


def test_a_worse_model_fails_and_says_so_to_machines(command, server):
    """The server repeats what it is asked for, and then forgets how."""
    assert command("evaluate", "m", "--server", server.url, "--out", "old.json", "--quiet")[0] == 0
    server.say = lambda prompt: "no" if "again" in prompt else prompt.split("Input:\n")[1].split("\n")[0]
    files = ("--junit", "out/check.xml", "--markdown", "out/check.md")
    code, out, err = command("check", "m", "--server", server.url, "--against", "old.json", *files, "--max-drop", "5")
    assert code == 1, err
    assert "FAIL: 1 fail, 1 pass; a drop of 5 points of rouge_l x 100 is allowed, one of 13 must not pass." in out
    assert "general ability was not looked at: 'm' has no perplexity" in err
    cases = {case.get("name"): case for case in ElementTree.parse("out/check.xml").iter("testcase")}
    assert cases[HOSTILE].find("failure") is not None
    assert cases["count"].find("failure") is None
    assert r"| say\|&lt;b&gt; | 100.0 | 0.0 | -100.0 |" in Path("out/check.md").read_text()
    # What was scored once can be compared again, with other limits.
    again = ("check", "old.json", "--against", "old.json")
    Path("summary").write_text("")
    Path("link").symlink_to("summary")
    assert command(*again, "--strict", "--markdown", "link")[0] == 0
    assert Path("link").is_symlink()
    assert Path("summary").read_text().startswith("### ✅ pass")
    code, out, err = command(*again, "--notice", "3")
    assert code == 0
    assert "count: cannot tell: too few rows (" in out
    assert "CANNOT TELL, WHICH IS NO PASS: " in out
    assert "the exit code is 0 all the same; with `--undecided fail` it is 1" in err
    assert command(*again, "--notice", "3", "--strict")[0] == 1
    assert command(*again, "--notice", "3", "--undecided", "fail")[0] == 1


def test_a_server_that_goes_down_loses_no_answer_and_leaves_no_old_verdict(command, server):
    assert command("evaluate", "m", "--server", server.url, "--out", "old.json")[0] == 0
    Path("check.xml").write_text("yesterday's")
    first = server.asked
    server.say = lambda prompt: "yes" if "again" in prompt else None
    call = ("check", "m", "--server", server.url, "--against", "old.json", "--out", "new.json", "--junit", "check.xml")
    code, out, err = command(*call)
    assert code == 2, out
    assert err.count("\n") <= 3
    assert f"inscl: The server {server.url} " in err
    assert not Path("check.xml").exists()
    assert not Path("new.json").exists()
    server.say = lambda prompt: "yes"
    asked = server.asked
    command(*call)
    kept = {path.name for path in Path("new.json.answers").iterdir()}
    assert len(kept) == 2
    assert server.asked - asked == read_assessment("new.json").tasks["count"].n
    # A finished file is replaced by new answers, the server may know another model by the same name now; this goes
    # on after an interruption, too.
    server.say = lambda prompt: "now" if "again" in prompt else None
    assert command(*call)[0] == 2
    assert not Path("new.json").exists()
    server.say = lambda prompt: "now"
    asked = server.asked
    command(*call)
    assert 0 < server.asked - asked < first
    assert all(rows.mean("exact_match") == 0 for rows in read_assessment("new.json").tasks.values())


def test_only_the_rows_of_the_reference_are_asked(command, server, place):
    assert command("evaluate", "m", "--server", server.url, "--out", "old.json", "--test-rows", "2")[0] == 0
    old = json.loads(Path("old.json").read_text())
    key = old["tasks"]["count"]["keys"][0]
    old["tasks"]["count"]["keys"][0] = key[:17] + "0" * 16  # other answers were accepted then
    old["tasks"]["gone"] = old["tasks"].pop(HOSTILE)
    Path("old.json").write_text(json.dumps(old))
    asked = server.asked
    code, out, err = command("check", "m", "--server", server.url, "--against", "old.json", "--json")
    assert code == 0, err
    assert server.asked - asked == 2
    found = {f["name"]: (f["rows"], f["changed"], f["missing"]) for f in json.loads(out)["findings"]}
    assert found == {"count": (1, 1, 0), "gone": (0, 0, 2)}
    for task in old["tasks"].values():
        task["keys"] = ["0" * 16 + key[16:] for key in task["keys"]]
    Path("old.json").write_text(json.dumps(old))
    code, out, err = command("check", "m", "--server", server.url, "--against", "old.json")
    assert code == 2
    assert "holds none of the test rows that the reference was scored on" in err


def test_a_folder_trained_anew_is_another_model(place, tmp_path):
    """Answers of an evaluation that was killed are used again only for the same weights."""
    shutil.copytree(place.folder / "june", tmp_path / "model")
    from inscl.training.config import stage_config

    config = stage_config("max_new_tokens: 3\ndtype: float32")

    class KilledError(Exception):
        pass

    def die(doing, done, total, loss):
        raise KilledError

    with pytest.raises(KilledError):
        assess(place.memory, tmp_path / "model", config=config, out=tmp_path / "x.json", progress=die)
    tiny.save_model(tmp_path / "model", seed=1)
    made = assess(place.memory, tmp_path / "model", config=config, out=tmp_path / "x.json")
    again = assess(place.memory, place.folder / "july", config=config)
    assert made.tasks == again.tasks
    assert made.identity != str(tmp_path / "model")


def test_without_a_tokenizer_the_limit_leaves_room(place, server):
    rows = assess(place.memory, Server(server.url, "m", api_key="none")).tasks
    assert all(scores.mean("exact_match") == 1 for scores in rows.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "june", "--against", "none.json"], "neither a file of scores"),
        (["check", "june", "--against", "stage.yaml"], "is no file of scores that this version reads"),
        (
            ["check", "june", "--against", "s.json", "--max-perplexity-rise", "much"],
            "must be percent such as 5%, or off",
        ),
        (["check", "june", "--against", "s.json", "--notice", "1"], "`notice` must be more points than `max-drop`"),
        (["check", "june", "--against", "s.json", "--memory", "elsewhere"], "There is no memory at 'elsewhere'"),
        (["check", "s.json", "--against", "s.json", "--score", "bleu"], "has no score 'bleu' on task"),
        (["check", "june", "--against", "s.json", "--out", "s.json"], "`--out` would replace the reference 's.json'"),
        (["evaluate", "juni"], "'juni' is neither a folder nor a Hub id"),
        (["evaluate", "--server", "http://127.0.0.1:9/v1"], "needs the name of a model"),
        (["evaluate", "m", "--server", "localhost"], "`--server` must be an address such as"),
        (["evaluate"], "Name one with --model"),
    ],
)
def test_mistakes_take_one_line(command, words, message):
    made = {"rouge_l": [1.0]}
    scores = {"rows": made, "instructions": ["i"], "capped": 0, "keys": ["0" * 16 + "-" + "0" * 16]}
    plain = {"inscl_scores": 1, "model": "m", "identity": "m", "settings": {}, "tasks": {"count": scores}}
    Path("s.json").write_text(json.dumps({**plain, "perplexity": None}))
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_model_that_nobody_has_scored_is_scored_to_be_compared_with(command):
    of_model = command("check", "july", "--against", "june", "--config", "stage.yaml", "--json")
    assert command("evaluate", "june", "--config", "stage.yaml", "--out", "june.json")[0] == 0
    of_file = command("check", "july", "--against", "june.json", "--config", "stage.yaml", "--json")
    assert of_model[0] == of_file[0]
    found, wanted = (json.loads(out) for _, out, _ in (of_model, of_file))
    assert found["findings"] == wanted["findings"]
