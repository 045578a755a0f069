"""Batched answers equal single ones, losses equal a plain loop, predictions are kept and reused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tiny
from inscl.core.scoring import rouge_l
from inscl.data.example import Example
from inscl.data.template import tokenise
from inscl.errors import ConfigError, DataError
from inscl.evaluation.answering import Asked
from inscl.evaluation.evaluate import answer_limit, generate_and_score
from inscl.evaluation.server import Server
from inscl.models.generate import Prompt, generate
from inscl.models.loading import LoadedModel, load

ROWS = [row.example for row in tiny.mixture_rows(24)]
TASKS = {"say/<b>": ROWS[:14], "count": ROWS[14:]}
LIMITS = {"say/<b>": 9, "count": 14}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load(tiny.save_model(tmp_path_factory.mktemp("evaluate") / "model", seed=3))


def test_batched_answers_are_those_of_the_library_one_by_one(loaded):
    """With an end token that this random model says often, so that rows leave their batch."""
    prompts = [Prompt(loaded.tokenizer(f"row {'x ' * (i % 5)}{i}")["input_ids"], 4 + i % 13) for i in range(30)]
    loaded.model.eval()
    plain = []
    for end_ids in (frozenset([2]), None):
        if end_ids is None:  # the most frequent answer token of the first round
            said = np.bincount([token for answer in plain for token in answer])
            end_ids = frozenset([int(said.argmax())])
        plain = []
        for prompt in prompts:
            ids = torch.tensor([prompt.ids])
            out = loaded.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=prompt.limit,
                do_sample=False,
                eos_token_id=list(end_ids),
                pad_token_id=0,
            )
            plain.append([int(token) for token in out[0, len(prompt.ids) :]])
        found = generate(loaded.model, prompts, end_ids=end_ids, pad_id=2, batch_tokens=400, batch_size=16)
        for answer, prompt, expected in zip(found, prompts, plain, strict=True):
            ended = expected[-1] in end_ids
            assert answer.ids == (expected[:-1] if ended else expected)
            assert answer.capped == (not ended)
            assert len(expected) <= prompt.limit
    assert any(not answer.capped for answer in found)


def test_the_head_sees_one_contiguous_place_a_row(loaded, monkeypatch):
    seen = []
    head = loaded.model.get_output_embeddings()
    forward = head.forward

    def watched(hidden):
        seen.append((hidden.is_contiguous(), tuple(hidden.shape[:-1])))
        return forward(hidden)

    monkeypatch.setattr(head, "forward", watched)
    prompts = [Prompt(list(range(5, 5 + n)), 3) for n in (2, 9, 4)]
    generate(loaded.model, prompts, end_ids=frozenset(), pad_id=2, batch_tokens=400, batch_size=16)
    assert seen == [(True, (1, 3))] * 3  # of a slice, the CPU's product in half precision copies the weights per row


def test_scores_do_not_depend_on_the_batch(loaded):
    many = generate_and_score(loaded, TASKS, max_new_tokens=LIMITS, dtype="float32")
    single = generate_and_score(loaded, TASKS, max_new_tokens=LIMITS, dtype="float32", batch_size=1)
    for name in TASKS:
        assert many[name].loss == pytest.approx(single[name].loss, abs=1e-5)
        assert many[name].rouge_l == single[name].rouge_l
        assert many[name].capped == single[name].capped


@pytest.mark.parametrize("chat", [False, True])
def test_the_loss_is_that_of_training_on_the_reference(loaded, chat):
    score = generate_and_score(loaded, {"t": ROWS}, max_new_tokens=1, dtype="float32", chat=chat)["t"]
    total = count = 0
    with torch.no_grad():
        for row in ROWS:
            tokens = tokenise(row, loaded.tokenizer, max_length=1024, chat=chat)
            labels = torch.tensor([tokens.labels])
            n = int((labels != -100).sum())
            total += float(loaded.model(torch.tensor([tokens.input_ids]), labels=labels).loss) * n
            count += n
    assert score.loss == pytest.approx(total / count, abs=1e-5)


def test_predictions_are_kept_and_used_again(loaded, tmp_path, monkeypatch):
    first = generate_and_score(loaded, TASKS, max_new_tokens=LIMITS, out=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert {"task", "instruction", "input", "references", "prediction", "capped", "truncated"} <= set(rows[0])
    monkeypatch.setattr(Asked, "ask_model", None)
    assert generate_and_score(loaded, TASKS, max_new_tokens=LIMITS, out=tmp_path) == first
    with pytest.raises(TypeError):  # other settings are other predictions
        generate_and_score(loaded, TASKS, max_new_tokens=3, out=tmp_path)


def test_chats_are_asked_anew_where_they_are_rendered_otherwise(loaded, monkeypatch):
    def key(**changes):
        asked = Asked({"t": 5}, **{"max_length": 99, "chat": True, "loss": True, "chat_template": "a", **changes})
        return asked.key("t", ROWS[:3], "model")

    first, plain = key(), key(chat=False)
    assert first == key() != plain
    assert first != key(chat_template="b")
    assert plain == key(chat=False, chat_template="b")  # which it does not use
    monkeypatch.setattr("inscl.evaluation.answering.CHAT_ID", "another")
    assert first != key()
    assert plain == key(chat=False)


def test_a_score_says_what_it_is(loaded, tmp_path):
    score = generate_and_score(loaded, {"t": ROWS}, max_new_tokens=5, out=tmp_path, max_length=30)["t"]
    rows = [json.loads(line) for line in next(tmp_path.iterdir()).read_text().splitlines()]
    assert score.n == len(ROWS) == len(rows)
    assert score.rouge_l == pytest.approx(np.mean([rouge_l(r["prediction"], r["references"]) for r in rows]))
    assert score.low <= score.rouge_l <= score.high
    assert score.truncated == sum(r["truncated"] for r in rows) > 0


def test_the_answer_limit_is_the_99th_percentile_with_the_end():
    words = [Example("i", "", ("a " * n,)) for n in range(1, 201)]
    assert answer_limit(words, lambda text, **_: {"input_ids": text.split()}) == 200
    with pytest.raises(DataError, match="max_new_tokens"):
        answer_limit([], None)


def test_mistakes_are_named(loaded):
    with pytest.raises(DataError, match="'empty' has no held-out rows"):
        generate_and_score(loaded, {"empty": []}, max_new_tokens=5)
    with pytest.raises(ConfigError, match="rouge_l, superni"):
        generate_and_score(loaded, TASKS, max_new_tokens=5, scorer="bleu")


def test_a_server_answers_in_the_place_of_a_model():
    openai = pytest.importorskip("openai", reason="the client `openai` is not installed")
    assert openai
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = asked["prompt"].split("Input:\n")[1].split("\n")[0]
            body = json.dumps(
                {
                    "id": "1",
                    "object": "text_completion",
                    "created": 0,
                    "model": "m",
                    "choices": [{"index": 0, "text": text, "finish_reason": "length", "logprobs": None}],
                }
            )
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        where = Server(f"http://127.0.0.1:{server.server_port}/v1", "m", api_key="none", workers=2)
        rows = [row for row in ROWS if row.instruction.startswith("Say")]
        score = generate_and_score(where, {"say": rows}, max_new_tokens=5)["say"]
    finally:
        server.shutdown()
    assert (score.rouge_l, score.exact, score.capped, score.loss) == (1.0, 1.0, len(rows), None)


@pytest.mark.parametrize(("named", "ends"), [(None, set()), (0, {0}), (7, {7}), ([7, 0], {0, 7})])
def test_no_token_ends_an_answer_unless_the_model_names_it(named, ends):
    weights = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named))
    assert LoadedModel(weights, None, base="").ends == ends
