"""Mixtures for trainers: exactly the rows, in files that appear whole, in the form that TRL takes."""

import json
from collections import Counter
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inscl.data.chat_form import to_messages
from inscl.data.example import Example
from inscl.data.mixture import MixtureRow, read_mixture
from inscl.data.readers import read_examples
from inscl.data.template import render, tokenise
from inscl.errors import InsclError
from inscl.export import MIXTURE_FORMATS, Shape, SpecialTokens, to_dataset, write_file
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
from support import WordEncoder, WordTagger, conversation, rows_of

CHAT = conversation("Be brief.", "Hi", "Hello", "Bye", "So long")
PLAIN = [
    MixtureRow("sums", Example("Add.", "1 and 2", ("3", "three"))),
    MixtureRow("sums", Example("Add.", "", ("nothing",)), replayed=True),
    MixtureRow("été", Example("Dis « oui ».", "\u2028 non \n", ("oui",)), replayed=True, weight=0.5),
]
MIXED = [*PLAIN, MixtureRow("talk", Example("Be brief.", "Hi\nHello\nBye", ("So long",), CHAT))]


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_trl_plain_rows_are_prompt_and_completion(tmp_path):
    done = write_file(PLAIN, tmp_path / "mix.jsonl")
    expected = [
        {"prompt": "Instruction:\nAdd.\n\nInput:\n1 and 2\n\nAnswer:\n", "completion": "3"},
        {"prompt": "Instruction:\nAdd.\n\nAnswer:\n", "completion": "nothing"},
        {"prompt": "Instruction:\nDis « oui ».\n\nInput:\nnon\n\nAnswer:\n", "completion": "oui"},
    ]
    tasks = [("sums", False), ("sums", True), ("été", True)]
    assert lines_of(tmp_path / "mix.jsonl") == [
        {**row, "task": task, "replayed": replayed} for row, (task, replayed) in zip(expected, tasks, strict=True)
    ]
    assert (done.rows, done.replayed) == (3, 2)
    assert done.files["mix.jsonl"] == sha256((tmp_path / "mix.jsonl").read_bytes()).hexdigest()


def test_one_chat_row_makes_all_rows_chat(tmp_path):
    assert Shape.of(MIXED).chat
    assert not Shape.of(PLAIN).chat
    write_file(MIXED, tmp_path / "mix.jsonl")
    found = lines_of(tmp_path / "mix.jsonl")
    assert found[0]["prompt"] == [{"role": "user", "content": "Add.\n\n1 and 2"}]
    assert found[0]["completion"] == [{"role": "assistant", "content": "3"}]
    assert found[3]["prompt"] == [dict(message) for message in CHAT[:4]]
    assert found[3]["completion"] == [dict(CHAT[4])]
    # Whatever the order of the rows.
    write_file(MIXED[::-1], tmp_path / "mix.jsonl")
    assert lines_of(tmp_path / "mix.jsonl") == found[::-1]


@pytest.mark.parametrize("rows", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_the_file_and_the_dataset_say_the_same(tmp_path, rows):
    write_file(rows, tmp_path / "mix.jsonl")
    dataset = to_dataset(rows)
    assert dataset.to_list() == lines_of(tmp_path / "mix.jsonl")
    assert sorted(dataset.column_names) == ["completion", "prompt", "replayed", "task"]
    from datasets import load_dataset

    loaded = load_dataset("json", data_files=str(tmp_path / "mix.jsonl"), split="train", cache_dir=str(tmp_path / "c"))
    assert loaded.to_list() == dataset.to_list()


@pytest.mark.parametrize("rows", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_messages_are_whole_conversations(tmp_path, rows):
    write_file(rows, tmp_path / "mix.jsonl", "messages")
    for row, record in zip(rows, lines_of(tmp_path / "mix.jsonl"), strict=True):
        assert record["messages"] == [dict(message) for message in to_messages(row.example)]
        assert record["messages"][-1]["role"] == "assistant"
        assert (record["task"], record["replayed"]) == (row.task, row.replayed)


@pytest.mark.parametrize("rows", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_our_own_format_is_read_back_whole(tmp_path, rows):
    write_file(rows, tmp_path / "mix.jsonl", "inscl")
    assert read_mixture(tmp_path / "mix.jsonl") == rows


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=2).map(
    lambda pairs: tuple(
        {"role": role, "content": text}
        for asked, said in pairs
        for role, text in (("user", asked), ("assistant", said))
    )
)
ROWS = st.lists(
    st.builds(
        MixtureRow,
        task=TEXT,
        example=st.builds(
            Example, TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3).map(tuple), messages=st.none() | TURNS
        ),
        replayed=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)
END = SpecialTokens("", "</s>")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_every_format_has_exactly_the_rows(tmp_path, rows):
    for name in MIXTURE_FORMATS:
        path = tmp_path / f"{name}.jsonl"
        done = write_file(rows, path, name, tokens=END)
        assert (done.rows, done.replayed) == (len(rows), sum(row.replayed for row in rows))
        found = lines_of(path)
        for row, record in zip_longest(rows, found):
            assert (record["task"], record["replayed"]) == (row.task, row.replayed)
            if "messages" in record and name != "inscl":
                assert record["messages"] == [dict(message) for message in to_messages(row.example)]
            elif Shape.of(rows).chat and name == "trl":
                assert record["prompt"] + record["completion"] == [dict(m) for m in to_messages(row.example)]
            elif name != "inscl":
                end = END.end if name == "llamafactory" else ""
                assert (record["prompt"], record["completion"]) == (
                    render(row.example)[0],
                    render(row.example)[1] + end,
                )
    assert read_mixture(tmp_path / "inscl.jsonl") == rows


def memory_of(folder: Path, tasks: list[str]) -> Memory:
    memory = Memory(folder, encoder=WordEncoder(), tagger=WordTagger())
    for task in tasks:
        memory.add(task, list(rows_of(task, 24)))
    return memory


@pytest.fixture(scope="module")
def memory(tmp_path_factory) -> Memory:
    return memory_of(tmp_path_factory.mktemp("export") / "memory", ["may", "june"])


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 60), st.sampled_from(["random", "inscl", "none", "prototype-data"]), st.integers(0, 9))
def test_an_export_has_the_rows_of_its_plan_and_no_others(tmp_path, memory, budget, strategy, seed):
    replay = plan(memory, "july", list(rows_of("july", 20)), budget=budget, strategy=strategy, seed=seed)
    made = replay.plan
    # The oracle reads the plan alone: the keys of the chosen rows, and the new task's training rows.
    chosen = Counter((task.name, key) for task in made.tasks for i in task.instructions for key in i.rows)
    new = Counter(("july", row.key.hex()) for row in replay.new.examples(replay.new.side("train")))
    rows = replay.rows()
    assert Counter((row.task, row.example.key.hex()) for row in rows) == chosen + new
    prompts = Counter((row.task, row.replayed, *render(row.example)) for row in rows)
    for name in ("trl", "axolotl", "llamafactory"):
        done = write_file(rows, tmp_path / "mix.jsonl", name, plan=made, tokens=SpecialTokens("", ""))
        found = lines_of(done.path)
        assert Counter((r["task"], r["replayed"], r["prompt"], r["completion"]) for r in found) == prompts
        manifest = json.loads(done.manifest.read_text())
        assert {t["name"]: (t["new"], t["replayed"]) for t in manifest["tasks"]} == {
            "july": (made.new.rows, 0),
            **{task.name: (0, task.count) for task in made.tasks if task.count},
        }
        assert (manifest["rows"], manifest["replayed"]) == (made.new.rows + made.count, made.count)


def test_the_manifest_tells_what_was_written_and_from_what(tmp_path, memory):
    replay = plan(memory, "july", list(rows_of("july", 20)), budget=6, seed=3)
    done = write_file(replay.rows(), tmp_path / "mix.jsonl", "axolotl", plan=replay.plan)
    manifest = json.loads(done.manifest.read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mix.jsonl", "mix.jsonl.axolotl.yaml", "mix.jsonl.manifest.json",
    ]  # fmt: skip
    for name, file in manifest["files"].items():
        assert file["sha256"] == sha256((tmp_path / name).read_bytes()).hexdigest() == done.files[name]
    assert set(manifest["files"]) == {"mix.jsonl", "mix.jsonl.axolotl.yaml"}
    assert (manifest["plan"]["seed"], manifest["plan"]["strategy"], manifest["format"]) == (3, "inscl", "axolotl")
    other = plan(memory, "july", list(rows_of("july", 20)), budget=7, seed=3).plan
    again = write_file(replay.rows(), tmp_path / "other.jsonl", "axolotl", plan=other)
    assert json.loads(again.manifest.read_text())["plan"]["sha256"] != manifest["plan"]["sha256"]
    assert str(tmp_path) not in done.manifest.read_text()


@pytest.mark.parametrize("format", MIXTURE_FORMATS)
def test_writing_again_gives_the_same_bytes(tmp_path, monkeypatch, format):
    monkeypatch.chdir(tmp_path)
    written = []
    for _ in range(2):
        write_file(MIXED, "mix.jsonl", format)
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert written[0] == written[1]
    assert "mix.jsonl.manifest.json" in written[0]


def test_another_format_leaves_no_settings_of_the_one_before(tmp_path):
    for name in (*MIXTURE_FORMATS, "trl"):
        done = write_file(MIXED, tmp_path / "mix.jsonl", name)
        assert {path.name for path in tmp_path.iterdir()} == {*done.files, done.manifest.name}


def test_an_unknown_format_is_refused(tmp_path):
    wanted = "no format 'axolot'; wanted one of trl, axolotl, llamafactory, messages, inscl. Did you mean 'axolotl'"
    with pytest.raises(InsclError, match=wanted):
        write_file(PLAIN, tmp_path / "mix.jsonl", "axolot")
    assert list(tmp_path.iterdir()) == []


def test_lost_weights_are_counted(tmp_path):
    assert write_file(PLAIN, tmp_path / "a.jsonl").unweighted == 1
    assert json.loads((tmp_path / "a.jsonl.manifest.json").read_text())["rows_whose_weight_is_lost"] == 1
    assert write_file(PLAIN, tmp_path / "b.jsonl", "inscl").unweighted == 0


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(InsclError, match=r"cannot be written to .*No such file or directory"):
        write_file(PLAIN, tmp_path / "none" / "mix.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InsclError, match="cannot be written to"):
        write_file(PLAIN, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_all_files_appear_or_none(tmp_path, monkeypatch, failure):
    path = tmp_path / "mix.jsonl"
    write_file(PLAIN, path, "axolotl")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    dumps, written = json.dumps, []

    def failing(*arguments: object, **keywords: object) -> str:
        if written:
            raise failure
        written.append(1)
        return dumps(*arguments, **keywords)

    monkeypatch.setattr("inscl.export.files.json.dumps", failing)
    with pytest.raises((InsclError, KeyboardInterrupt)):
        write_file(MIXED, path, "axolotl")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


# ---------------------------------------------------------------- what other trainers read


def test_axolotl_settings_follow_its_schema(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_file(PLAIN, "mix.jsonl", "axolotl")
    settings = yaml.safe_load(Path("mix.jsonl.axolotl.yaml").read_text())
    # Axolotl 0.19, schemas/datasets.py: a prompt format of one's own names its fields and two formats.
    assert settings == {
        "datasets": [
            {
                "path": "mix.jsonl",
                "ds_type": "json",
                "type": {
                    "field_instruction": "prompt",
                    "field_output": "completion",
                    "format": "{instruction}",
                    "no_input_format": "{instruction}",
                },
            }
        ],
        "train_on_inputs": False,
        "val_set_size": 0,
    }
    assert not {"input", "system"} & lines_of(Path("mix.jsonl"))[0].keys()  # fields that axolotl would put in
    write_file(MIXED, "mix.jsonl", "axolotl")
    chats = yaml.safe_load(Path("mix.jsonl.axolotl.yaml").read_text())["datasets"][0]
    assert (chats["type"], chats["field_messages"]) == ("chat_template", "messages")
    assert (chats["roles_to_train"], chats["train_on_eos"]) == (["assistant"], "turn")


def test_llamafactory_settings_follow_its_schema(tmp_path):
    path = tmp_path / "my data.jsonl"
    write_file(PLAIN, path, "llamafactory", tokens=END)
    # LLaMA-Factory 0.9.5, data/parser.py: columns that are not named are not read.
    assert json.loads(Path(f"{path}.dataset_info.json").read_text()) == {
        "my_data": {
            "file_name": "my data.jsonl",
            "formatting": "alpaca",
            "columns": {"prompt": "prompt", "response": "completion"},
        }
    }
    keys = yaml.safe_load(Path(f"{path}.llamafactory.yaml").read_text())
    assert (keys["dataset"], keys["template"], keys["train_on_prompt"]) == ("my_data", "empty", False)
    write_file(MIXED, path, "llamafactory")
    entry = json.loads(Path(f"{path}.dataset_info.json").read_text())["my_data"]
    assert (entry["formatting"], entry["columns"]) == ("sharegpt", {"messages": "messages"})
    assert "template" not in yaml.safe_load(Path(f"{path}.llamafactory.yaml").read_text())


def test_what_llamafactory_would_leave_out_is_refused(tmp_path):
    path = tmp_path / "mix.jsonl"
    with pytest.raises(InsclError, match=r"adds no end-of-text token to plain rows.*--model"):
        write_file(PLAIN, path, "llamafactory")
    twice = ({"role": "user", "content": "Hi"}, *CHAT[1:])
    odd = MixtureRow("odd", Example("Hi", "", ("So long",), twice))
    with pytest.raises(InsclError, match=r"do not take turns: 2 of task 'odd'.*--format axolotl"):
        write_file([*MIXED, odd, odd], path, "llamafactory")
    with pytest.raises(InsclError, match=r"'mix' has another; end it in \.jsonl"):
        write_file(MIXED, tmp_path / "mix", "llamafactory")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The tiny model; its tokenizer puts a token before every text, as Llama's does."""
    pytest.importorskip("transformers", reason="transformers (extra `train`) is not installed")
    from tokenizers.processors import TemplateProcessing

    from tiny import save_model, tokenizer

    folder = save_model(tmp_path_factory.mktemp("model"))
    made = tokenizer()
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", made.bos_token_id)]
    )
    made.save_pretrained(folder)
    return folder


def expected_tokens(rows: list[MixtureRow], tokenizer: object) -> list[tuple[list[int], list[int]]]:
    """What we ourselves would train on."""
    found = [tokenise(row.example, tokenizer, max_length=512, chat=Shape.of(rows).chat) for row in rows]
    return sorted((tokens.input_ids, tokens.labels) for tokens in found if tokens)


def test_the_special_tokens_of_a_model_are_read(tiny, tmp_path):
    assert SpecialTokens.of(str(tiny)) == SpecialTokens("<|im_start|>", "<|im_end|>")
    with pytest.raises(InsclError, match="neither a folder nor a Hub id"):
        SpecialTokens.of("nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InsclError, match=r"The tokenizer of .* cannot be read"):
        SpecialTokens.of(str(tmp_path / "empty"))


@pytest.mark.parametrize("rows", [PLAIN * 3, MIXED * 3], ids=["plain", "mixed"])
def test_axolotl_trains_on_what_we_would(tmp_path, monkeypatch, tiny, rows):
    pytest.importorskip("axolotl", reason="axolotl is not installed; docs/other-trainers.md says what was tried")
    from axolotl.utils.data.sft import prepare_datasets
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.datasets import SFTDataset
    from transformers import AutoTokenizer

    monkeypatch.chdir(tmp_path)
    write_file(rows, "mix.jsonl", "axolotl")
    settings = yaml.safe_load(Path("mix.jsonl.axolotl.yaml").read_text())
    checked = [SFTDataset(**entry).model_dump(exclude_none=True) for entry in settings["datasets"]]
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    cfg = DictDefault(
        {**settings, "datasets": checked, "sequence_len": 512, "micro_batch_size": 2, "gradient_accumulation_steps": 1,
         "num_epochs": 1, "dataset_num_proc": 1, "dataset_prepared_path": str(tmp_path / "prepared"), "world_size": 1,
         "batch_size": 2, "sample_packing_eff_est": 1.0, "tokenizer_config": str(tiny)}
    )  # fmt: skip
    found, held_out, *_ = prepare_datasets(cfg, tokenizer)
    assert held_out is None
    assert sorted((row["input_ids"], row["labels"]) for row in found) == expected_tokens(rows, tokenizer)


@pytest.mark.parametrize("rows", [PLAIN * 3, MIXED * 3], ids=["plain", "mixed"])
def test_llamafactory_trains_on_what_we_would(tmp_path, tiny, rows):
    pytest.importorskip("llamafactory", reason="llamafactory is not installed; see docs/other-trainers.md")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import AutoTokenizer, Seq2SeqTrainingArguments

    path = tmp_path / "mix.jsonl"
    tokens = SpecialTokens.of(str(tiny))
    write_file(rows, path, "llamafactory", tokens=tokens)
    Path(f"{path}.dataset_info.json").rename(tmp_path / "dataset_info.json")
    keys = yaml.safe_load(Path(f"{path}.llamafactory.yaml").read_text())
    stage = keys.pop("stage")
    arguments = DataArguments(**keys)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    template = get_template_and_fix_tokenizer(tokenizer, arguments)
    training = Seq2SeqTrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none", do_train=True)
    model = ModelArguments(model_name_or_path=str(tiny), cache_dir=str(tmp_path / "cache"))
    found = get_dataset(template, model, arguments, training, stage, tokenizer)["train_dataset"]
    expected = expected_tokens(rows, tokenizer)
    trained = sorted((row["input_ids"], row["labels"]) for row in found)
    if not Shape.of(rows).chat:
        assert trained == expected
    else:  # its template for chats also trains the line break after a turn
        assert [ids for ids, _ in trained] == [ids for ids, _ in expected]
        for (ids, labels), (_, ours) in zip(trained, expected, strict=True):
            extra = [token for token, a, b in zip(ids, labels, ours, strict=True) if a != b]
            assert all(tokenizer.decode([token]) == "\n" for token in extra)


def test_trl_reads_its_settings(tmp_path, monkeypatch):
    pytest.importorskip("trl", reason="trl (extra `train`) is not installed")
    from trl.scripts.utils import DatasetMixtureConfig, get_dataset

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for rows in (PLAIN, MIXED):
        write_file(rows, "mix.jsonl")
        keys = yaml.safe_load(Path("mix.jsonl.trl.yaml").read_text())
        assert keys.pop("completion_only_loss") is True
        found = get_dataset(DatasetMixtureConfig(**keys))["train"]
        assert found.to_list() == to_dataset(rows).to_list()


@pytest.mark.parametrize("rows", [PLAIN * 3, MIXED * 3], ids=["plain", "mixed"])
def test_trl_takes_the_dataset_as_it_is(tmp_path, rows):
    pytest.importorskip("trl", reason="trl (extra `train`) is not installed")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from tiny import save_model

    folder = save_model(tmp_path / "model")
    settings = SFTConfig(output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, max_length=256, bf16=False)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        args=settings,
        train_dataset=to_dataset(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    assert len(trainer.train_dataset) == len(rows)
    batch = next(iter(trainer.get_train_dataloader()))
    # The loss covers the completions and nothing of the prompts.
    trained = batch["labels"] != -100
    assert trained.any(dim=1).all()
    assert not trained[:, 0].any()


# --- conversations with tools, and turns that are not to be trained ---

FORECAST = {"type": "function", "function": {"name": "forecast", "parameters": {"type": "object"}}}


def with_calls(city: object, *, text: str = "", untrained: bool = False) -> MixtureRow:
    call = {"type": "function", "function": {"name": "forecast", "arguments": {str(city): city}}}
    turns = (
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": text, "tool_calls": [call], **({"train": False} if untrained else {})},
        {"role": "tool", "content": '{"rain": true}'},
        {"role": "assistant", "content": "Yes."},
    )
    return MixtureRow("sky", Example("Rain?", "x", ("Yes.",), turns, tools=(FORECAST,)))


CALLS = [*PLAIN, with_calls("Oslo"), with_calls(3)]


def test_trl_gets_calls_and_tools_row_by_row(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_file(CALLS, tmp_path / "mix.jsonl", "trl")
    from_file = datasets.load_dataset(
        "json", data_files=str(tmp_path / "mix.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    for data in (to_dataset(CALLS), from_file):
        for row, record in zip(CALLS, data, strict=True):
            assert record["prompt"] + record["completion"] == [dict(turn) for turn in to_messages(row.example)]
            assert json.loads(record["tools"] or "[]") == list(row.example.tools or ())


def test_axolotl_gets_calls_tools_and_marks(tmp_path):
    rows = [*CALLS, with_calls("Lima", untrained=True)]
    write_file(rows, tmp_path / "mix.jsonl", "axolotl")
    (entry,) = yaml.safe_load((tmp_path / "mix.jsonl.axolotl.yaml").read_text())["datasets"]
    assert (entry["field_tools"], entry["message_field_training"]) == ("tools", "training")
    found = lines_of(tmp_path / "mix.jsonl")
    assert json.loads(found[3]["tools"]) == [FORECAST]
    assert [turn.get("training") for turn in found[5]["messages"]] == [None, False, None, None]
    assert json.loads(found[3]["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {"Oslo": "Oslo"}


def test_llamafactory_gets_calls_as_turns_of_their_own(tmp_path):
    write_file(CALLS, tmp_path / "mix.jsonl", "llamafactory")
    entry = json.loads((tmp_path / "mix.jsonl.dataset_info.json").read_text())["mix"]
    assert entry["columns"] == {"messages": "messages", "tools": "tools"}
    assert (entry["tags"]["observation_tag"], entry["tags"]["function_tag"]) == ("tool", "function_call")
    (_, call, result, _) = lines_of(tmp_path / "mix.jsonl")[3]["messages"]
    assert (call["role"], json.loads(call["content"])["arguments"]) == ("function_call", {"Oslo": "Oslo"})
    assert result == {"role": "tool", "content": '{"rain": true}'}
    for row, reason in ((with_calls(1, text="Hm."), "words beside a call"), (with_calls(1, untrained=True), "no mark")):
        with pytest.raises(InsclError, match=f"{reason}.*1 of task 'sky'"):
            write_file([row], tmp_path / "mix.jsonl", "llamafactory")


@pytest.mark.parametrize("format", ["messages", "inscl", "axolotl"])
def test_what_is_exported_is_read_back_whole(tmp_path, format):
    rows = [with_calls("Oslo"), with_calls("Lima", untrained=True)]
    write_file(rows, tmp_path / "mix.jsonl", format)
    found = list(read_examples(tmp_path / "mix.jsonl"))
    assert [(row.messages, row.tools) for row in found] == [(row.example.messages, row.example.tools) for row in rows]
