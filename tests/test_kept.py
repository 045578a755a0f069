"""Nothing of a record vanishes in silence: it is in what is trained, in what is remembered, or it is counted."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from inscl.data.chat_form import ChatForm, rendered, to_messages
from inscl.data.example import Example, dump_chat, load_chat, normalise
from inscl.data.mixture import MixtureRow
from inscl.data.readers import ReadReport, ignored_columns, read_examples
from inscl.data.template import IGNORED, end_ids, prompt_ids, tokenise
from inscl.errors import DataError
from inscl.memory.memory import Memory
from inscl.training.batches import tokenise_mixture
from support import WordEncoder, WordTagger, rows_of

word = st.text("abcdefgh", min_size=1, max_size=6)
value = st.none() | st.integers() | word | st.lists(word, max_size=2) | st.booleans() | st.dictionaries(word, word)

CASES = Path(__file__).parents[2] / "shared" / "cases"
TOKENIZERS = {name: tiny.template_tokenizer(name) for name in tiny.TEMPLATES}
TOKENIZERS["gemma"] = tiny.template_tokenizer("gemma", eos="<eos>")


def read(data, **options):
    """The examples of some data, and what was said of them."""
    report = ReadReport()
    return list(read_examples(data, report=report, **options)), report


def case(name):
    path = CASES / name
    if not path.exists():
        pytest.skip(f"{name} is not among the shared cases")
    return path


def texts(example, template="tools"):
    """The whole row and what of it is trained, as text."""
    tokenizer = TOKENIZERS[template]
    tokens = tokenise(example, tokenizer, max_length=10_000, chat=True)
    trained = [i for i, label in zip(tokens.input_ids, tokens.labels, strict=True) if label != IGNORED]
    return tokenizer.decode(tokens.input_ids), tokenizer.decode(trained)


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


CALL = {"type": "function", "function": {"name": "forecast", "arguments": {"city": "Oslo", "day": 1}}}
TOOL = {"type": "function", "function": {"name": "forecast", "parameters": {"type": "object"}}}


# --- the shared cases: what a good product does stands in their `expected.txt` ---


@pytest.mark.parametrize("template", ["tools", "chatml", "gemma", "parts", "words"])
@pytest.mark.parametrize("file", ["data", "empty_content", "ends_with_call"])
def test_calls_results_and_tools_are_kept_and_calls_are_trained(file, template):
    rows, report = read(case(f"01-tool-calls/{file}.jsonl"))
    assert report.dropped == {}
    assert report.ignored == {}
    for row in rows:
        whole, trained = texts(row, template)
        name = "book" if file == "ends_with_call" else "forecast"
        city = json.dumps(row.messages[1]["tool_calls"][0]["function"]["arguments"]["city"])
        assert name in trained
        assert city in trained
        if file != "ends_with_call":
            assert row.messages[2]["content"] in whole  # the tool's result
            assert row.messages[2]["content"] not in trained
            assert row.tools
            assert '"parameters"' in whole
            assert row.outputs[0] in trained


@pytest.mark.parametrize("file", ["data", "ends_with_call"])
def test_sharegpt_calls_and_observations_keep_their_place(file):
    rows, report = read(case(f"02-sharegpt-tools/{file}.jsonl"))
    assert report.dropped == {}
    roles = ["user", "assistant", "tool", "assistant"] if file == "data" else ["user", "assistant"]
    for row in rows:
        assert [turn["role"] for turn in row.messages if turn["role"] != "system"] == roles
        whole, trained = texts(row)
        assert '"name": "temp"' in trained
        assert row.tools[0]["function"]["name"] == "temp"
        assert "human" not in whole
        if file == "data":
            assert "You help with the weather." in whole


def test_turns_that_are_marked_as_untrained_stay_context():
    rows, report = read(case("03-turn-weights/data.jsonl"))
    assert (len(rows), report.dropped, report.ignored) == (30, {}, {})
    for row in rows:
        whole, trained = texts(row)
        assert "WRONGANSWER" in whole
        assert trained == f"{row.outputs[0]}<|im_end|>"


def test_parts_of_text_are_joined():
    rows, report = read(case("04-content-parts/data.jsonl"))
    assert (len(rows) + sum(d.count for d in report.dropped.values()), report.ignored) == (report.rows, {})
    assert rows[0].messages == (user("Name the river of Oslo number 0."), assistant("River 0"))


@pytest.mark.parametrize("file", ["data", "one_in_thirty", "system"])
def test_a_template_that_refuses_gets_the_conversation_folded(file):
    for row in read(case(f"05-roles-gemma/{file}.jsonl"))[0]:
        whole, trained = texts(row, "gemma")
        assert all(turn["content"] in whole for turn in row.messages)
        assert trained.endswith(f"{row.outputs[0]}<end_of_turn>")
        assert "<eos>" not in whole


def test_semicolons_separate_too():
    rows, _ = read(case("14-csv/semicolon.csv"))
    assert rows[1] == Example("Add.", "1", ("2",))


def test_the_system_and_the_history_of_alpaca_become_turns():
    rows, report = read(case("15-alpaca-history/data.jsonl"))
    assert report.ignored == {}
    assert rows[0].messages == (
        {"role": "system", "content": "You are clerk 0."},
        user("What is the code of Bern, list 0?"), assistant("It is 100."),
        user("And for Oslo?"), assistant("The answer is 0."),
    )  # fmt: skip
    assert len({row.input_key for row in rows}) == len(rows)


# --- forms: nine public kinds of files, made small ---

FORMS = {
    "alpaca": ({"instruction": "Add.", "input": "2 + 2", "output": "4"}, ("4", "")),
    "history": (
        {"instruction": "And 3?", "output": "9", "system": "Square.", "history": [["2?", "4"]], "id": 7},
        ("4<|im_end|>9", "id"),
    ),
    "openorca": ({"id": "x", "system_prompt": "Be kind.", "question": "Hi?", "response": "Hello."}, ("Hello.", "id")),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "system": "Be kind.",
         "source": "forum"},
        ("Hello", "source"),
    ),
    "parts": (
        {"messages": [user([{"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]), assistant("Three")]},
        ("Three", ""),
    ),
    "reasoning": (
        {"messages": [user("2 + 2?"), assistant("4", reasoning_content="Two and two.")], "difficulty": 3},
        ("<think>\nTwo and two.\n</think>\n\n4", "difficulty"),
    ),
    "legacy calls": (
        {"messages": [user("Rain?"), {"role": "assistant", "content": None, "function_call": CALL["function"]}],
         "functions": [TOOL["function"]]},
        ('"city": "Oslo"', ""),
    ),
    "prompt with a system": (
        {"system": "Be brief.", "prompt": "Hi", "completion": "Hello", "score": 0.5}, ("Hello", "score"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_public_forms_are_trained_whole_or_counted(name):
    record, (answer, ignored) = FORMS[name]
    (row,), report = read([record])
    whole, trained = texts(row)
    assert answer in trained
    assert ", ".join(report.ignored) == ignored
    for value in ("system", "system_prompt"):
        assert record.get(value, "") in whole


PAIRS = [
    {"prompt": "2 + 2", "chosen": "4", "rejected": "5", "score_chosen": 9},
    {"chosen": [user("2 + 2"), assistant("4")], "rejected": [user("2 + 2"), assistant("5")]},
    {"prompt": "2 + 2", "chosen": [user("2 + 2"), assistant("4")], "rejected": [user("2 + 2"), assistant("5")]},
    {"prompt": [user("2 + 2")], "chosen": [assistant("4")], "rejected": [assistant("5")]},
    {"conversations": [{"from": "human", "value": "2 + 2"}], "chosen": {"from": "gpt", "value": "4"},
     "rejected": {"from": "gpt", "value": "5"}},
    {"instruction": "2 + 2", "input": "", "chosen": "4", "rejected": "5"},
    {"system": "", "question": "2 + 2", "chosen": "4", "rejected": "5"},
    {"prompt": "2 + 2", "completion": "4", "label": True},
    {"prompt": [user("2 + 2")], "completion": [assistant("4")], "label": True},
    {"messages": [user("2 + 2"), assistant("4")], "label": True},
    {"instruction": "2 + 2", "output": "4", "kto_tag": True},
]  # fmt: skip


@pytest.mark.parametrize("record", PAIRS)
def test_preference_data_are_refused_until_the_preferred_answers_are_asked_for(record):
    with pytest.raises(DataError, match="preference data, not instructions: take the preferred answers with --pref"):
        read([record])
    (row,), report = read([record], preferred=True)
    assert (row.outputs, normalise(row.instruction)) == (("4",), "2 + 2")
    assert [name for name in report.ignored if name != "score_chosen"] == ["rejected"] * ("rejected" in record)


def test_answers_labelled_false_are_dropped():
    rows = [{"prompt": f"{i} + 1", "completion": str(i), "label": i % 2 == 0} for i in range(10)]
    kept, report = read(rows, preferred=True)
    assert [row.outputs[0] for row in kept] == ["0", "2", "4", "6", "8"]
    assert {why: d.count for why, d in report.dropped.items()} == {
        "an answer that is not preferred (`label` is false)": 5
    }


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [user("What is this?"), assistant("A cat.")], "images": ["cat.png"]},
        {"conversations": [{"from": "human", "value": "<image> What?"}, {"from": "gpt", "value": "A cat."}],
         "image": "cat.png"},
        {"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "?"}]),
                      assistant("A cat.")]},
    ],
)  # fmt: skip
def test_pictures_are_dropped_and_said(record):
    with pytest.raises(DataError, match="only text can be trained"):
        read([record])


# --- turns ---


@pytest.mark.parametrize(
    "flag", [{"weight": 0}, {"train": False}, {"training": False}, {"loss": 0.0}, {"train": "false"}]
)
def test_every_flag_of_a_turn_is_obeyed(flag):
    turns = [user("a"), assistant("bad", **flag), user("b"), assistant("good", **dict.fromkeys(flag, 1))]
    (row,), report = read([{"messages": turns}])
    assert texts(row)[1] == "good<|im_end|>"
    assert report.ignored == {}
    with pytest.raises(DataError, match="no assistant turn that is to be trained"):
        read([{"messages": turns[:2]}])


def test_what_follows_the_last_trained_answer_is_counted():
    turns = [user("a"), assistant("good"), user("b"), assistant("bad", weight=0)]
    (row,), report = read([{"messages": turns}])
    assert (row.outputs, report.ignored) == (("good",), {"turns after the last answer": 1})


def test_flags_that_cannot_be_obeyed_are_counted():
    (_,), report = read([{"messages": [{**user("a"), "train": True}, assistant("b", weight=0.5, mood="good")]}])
    assert list(report.ignored) == [
        "messages.mood", "messages.weight (neither 0 nor 1)", "messages: a user turn marked to be trained",
    ]  # fmt: skip


def test_a_call_without_a_name_is_dropped_with_its_reason():
    with pytest.raises(DataError, match="a call without a name"):
        read([{"messages": [user("a"), {"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}]}])
    with pytest.raises(DataError, match="turn that is not JSON"):
        read([{"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "temp()"}]}])


# --- shapes ---

CHAT = {"messages": [user("Rain?"), assistant("", tool_calls=[CALL]), {"role": "tool", "content": "no"},
                     assistant("Dry.")], "tools": [TOOL]}  # fmt: skip
OTHER = {"messages": [user("Wind?"), assistant("", tool_calls=[
    {"type": "function", "function": {"name": "wind", "arguments": {"speed": True}}}]),
    {"role": "tool", "content": "2"}, assistant("Calm.")], "tools": [TOOL]}  # fmt: skip


def test_tables_give_the_same_conversations(tmp_path):
    expected, _ = read([CHAT, OTHER])
    table = pa.Table.from_pylist([CHAT, OTHER])  # each call gets the arguments of the other, without a value
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0] == expected
    strings = [{name: json.dumps(value) for name, value in row.items()} for row in (CHAT, OTHER)]
    pq.write_table(pa.Table.from_pylist(strings), tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet")[0] == expected
    assert read(strings)[0] == expected
    out = io.StringIO()
    csv.writer(out).writerows([list(strings[0]), *[list(row.values()) for row in strings]])
    (tmp_path / "a.csv").write_text(out.getvalue())
    assert read(tmp_path / "a.csv")[0] == expected


def test_an_object_of_lists_is_a_conversation():
    columns = {"role": ["user", "assistant"], "content": ["Hi", "Hello"]}
    assert read([{"messages": columns}])[0] == read([{"messages": [user("Hi"), assistant("Hello")]}])[0]


def test_chats_and_plain_rows_may_stand_in_one_file(tmp_path):
    rows = [{"instruction": "Add.", "output": "4"}, {"messages": [user("Hi"), assistant("Hello")]}]
    for order in (rows, rows[::-1]):
        found, report = read(order)
        assert sorted(row.outputs for row in found) == [("4",), ("Hello",)]
        assert set(report.form.split(", ")) == {"alpaca", "messages"}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_separators_and_encodings_of_spreadsheets_are_told(tmp_path, separator, encoding):
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows(
        [["instruction", "input", "output"], ["Add; or, add", "2 +\r\n2 é", "4"], ["Add.", "3 + 3", "6"]]
    )
    (tmp_path / "a.csv").write_bytes(out.getvalue().encode(encoding))
    rows, _ = read(tmp_path / "a.csv")
    assert rows == [Example("Add; or, add", "2 +\r\n2 é", ("4",)), Example("Add.", "3 + 3", ("6",))]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_document_may_wrap_its_records(tmp_path, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 2, "data": [{"instruction": "Add.", "output": "4"}] * 3}, indent=indent))
    rows, report = read(path)
    assert rows == [Example("Add.", "", ("4",))] * 3
    assert report.unused == "ignored columns: version (beside the records) (all rows)"


def test_a_document_is_read_in_pieces(tmp_path, monkeypatch):
    records = [
        {"instruction": "Say it.", "output": 'é\\"x' * (i % 50 + 1), "n": [1.5, -2e3, True, None]} for i in range(99)
    ]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records, indent=2, ensure_ascii=False))
    whole, _ = read(path)
    for size in (1, 7, 64):
        monkeypatch.setattr("inscl.data.readers.json_files._CHUNK", size)
        assert read(path)[0] == whole
    assert [row.outputs[0] for row in whole] == [record["output"] for record in records]


def test_repeated_keys_and_columns_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "Add.", "input": "1", "input": "2", "output": "4"}\n')
    assert read(path)[1].unused == "ignored columns: input (repeated key) (all rows)"
    (tmp_path / "a.csv").write_text("instruction,input,input,output\nAdd.,1,2,4\n")
    assert read(tmp_path / "a.csv")[1].unused == "ignored columns: input (repeated column) (all rows)"


def test_other_columns_are_counted_once_in_every_kind_of_file(tmp_path):
    rows = [
        {"id": i, "instruction": "Add.", "input": str(i), "output": "4", "note": "x" if i else ""} for i in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(tmp_path / "a.jsonl")[1].unused == "ignored columns: id (all rows), note (2 rows)"
    assert read(tmp_path / "a.parquet")[1].unused == "ignored columns: id, note (all rows)"


def test_ignored_columns_are_remembered_with_the_task(tmp_path):
    memory = Memory(tmp_path, encoder=WordEncoder(), tagger=WordTagger())
    rows = [{**row, "id": i} for i, row in enumerate(rows_of("a", 20))]
    assert memory.add("a", rows).info.ignored == {"id": 20}
    more = [{**row, "note": "x"} for row in rows_of("a", 30)]
    memory.add("a", more[20:], append=True)
    (info,) = memory.tasks()
    assert info.ignored == {"id": 20, "note": 10}
    assert ignored_columns(info.ignored, 30) == "ignored columns: id (20 rows), note (10 rows)"


bare = st.fixed_dictionaries(
    dict.fromkeys(["instruction", "input", "output"], word | st.sampled_from(["", " ", "\ud800"])),
    optional={"id": value, "note": value, "context": value, "label": value},
)


@given(row=bare, form=st.sampled_from([None, "alpaca", "messages", "prompt-completion"]), named=st.booleans())
def test_rows_of_three_texts_are_read_like_any_others(row, form, named):
    """They are read without asking for all the fields that others may have."""

    def told(record):
        try:
            rows, report = read([record], format=form, instruction_field="input" if named else None)
        except DataError as error:
            return str(error)
        return rows, report.ignored

    assert told(row) == told({**row, "tags": None, "split": ""})


# --- identity ---


def test_chats_that_differ_before_the_same_question_are_different_inputs():
    rows = [[user(f"Tell me of city {i}."), assistant("It is large."), user("And then?"), assistant("No.")]
            for i in range(30)]  # fmt: skip
    assert len({row.input_key for row in read([{"messages": turns} for turns in rows])[0]}) == 30


def test_the_identity_of_plain_rows_and_single_questions_has_not_changed():
    plain = Example("Add.", "2 + 2", ("4",))
    assert plain.input_key.hex() == "3bea4e851f5cf83b9bde73d9fc08c836"
    assert plain.key.hex() == "6d48e21674bd88284e68985383de52b5"
    (chat,) = read([{"messages": [user("Hi"), assistant("Hello")]}])[0]
    assert chat.input_key == Example("Hi", "", ("x",)).input_key
    assert chat.key.hex() == "cf22279e4b62f59f5705aa906306420a"
    assert dump_chat(chat.messages) == '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'


# --- the law, over all kinds of records ---


def marked(kind):
    """Texts that are found again: no two are alike, and none is part of another."""
    return st.integers(10_000, 99_999).map(lambda n: f"{kind}{n}.")


call = st.builds(
    lambda name, arguments: {"type": "function", "function": {"name": name, "arguments": arguments}},
    marked("call"), st.dictionaries(marked("argument"), marked("value") | st.integers(10_000, 99_999) | st.builds(
        lambda inner: {"deep": [inner]}, marked("inner")), max_size=2),
)  # fmt: skip
content = marked("text") | st.lists(
    st.builds(lambda t: {"type": "text", "text": t}, marked("part")), min_size=1, max_size=3
)
turn = st.one_of(
    st.builds(lambda role, c: {"role": role, "content": c}, st.sampled_from(["system", "user", "tool"]), content),
    st.builds(lambda c, more: assistant(c, **more), content, st.fixed_dictionaries(
        {}, optional={"weight": st.sampled_from([0, 1]), "tool_calls": st.lists(call, min_size=1, max_size=2),
                      "reasoning_content": marked("thought"), "mood": marked("mood")})),
)  # fmt: skip
more = st.dictionaries(st.sampled_from(["id", "source", "label", "score", "meta"]), value, max_size=3)
chat_record = st.builds(
    lambda turns, extra, tools, system: {**extra, "messages": turns, **tools, **system},
    st.lists(turn, min_size=2, max_size=6), more.map(lambda m: {k: v for k, v in m.items() if k != "label"}),
    st.just({}) | st.just({"tools": [TOOL]}) | st.just({"tools": json.dumps([TOOL["function"]])}),
    st.just({}) | st.builds(lambda text: {"system": text}, marked("system")),
)  # fmt: skip
plain_record = st.builds(
    lambda instruction, output, extra, beside: {**extra, "instruction": instruction, "output": output, **beside},
    marked("task"), marked("answer"), more,
    st.fixed_dictionaries({}, optional={
        "input": marked("input"), "system": marked("system"), "definition": marked("definition"),
        "history": st.lists(st.tuples(marked("asked"), marked("said")).map(list), max_size=2),
        "tools": st.just([TOOL]), "context": marked("context"),
    }),
)  # fmt: skip


shared_turn = st.one_of(
    st.builds(lambda who, text: {"from": who, "value": text}, st.sampled_from(["human", "gpt", "system"]), content),
    st.builds(lambda made: {"from": "function_call", "value": json.dumps(made["function"])}, call),
    st.builds(lambda found: {"from": "observation", "value": json.dumps({"found": found})}, marked("found")),
)
shared_record = st.builds(
    lambda turns, extra, tools, system: {**extra, "conversations": turns, **tools, **system},
    st.lists(shared_turn, min_size=2, max_size=6), more.map(lambda m: {k: v for k, v in m.items() if k != "label"}),
    st.just({}) | st.just({"tools": json.dumps([TOOL["function"]])}),
    st.just({}) | st.builds(lambda text: {"system": text}, marked("system")),
)  # fmt: skip
asked_record = st.builds(
    lambda asked, system, answer, extra: {**extra, **asked, **system, **answer},
    st.builds(lambda text, name: {name: text}, marked("asked"), st.sampled_from(["prompt", "question"])),
    st.just({}) | st.builds(lambda text: {"system_prompt": text}, marked("system")),
    st.builds(lambda a, b: {"chosen": a, "rejected": b}, marked("good"), marked("bad"))
    | st.builds(lambda text: {"completion": text, "response": text}, marked("answer")),
    more.map(lambda m: {k: v for k, v in m.items() if k != "label"}),
)  # fmt: skip


def in_cells(record, names):
    """A record as a table has it: some of its values as JSON in a text."""
    return {name: json.dumps(part) if name in names and isinstance(part, list) else part
            for name, part in record.items()}  # fmt: skip


cells = st.sets(st.sampled_from(["messages", "conversations", "tools", "history"]))
any_record = st.builds(in_cells, chat_record | plain_record | shared_record | asked_record, cells)


def leaves(value, at=()):
    """Every text, number and flag of a record, with the fields that lead to it."""
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in leaves(part, (*at, name))]
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part, at)]
    if isinstance(value, str) and value[:1] in "[{" and value:
        return leaves(json.loads(value), at)
    return [] if value is None or value == "" else [(at, value)]


@pytest.mark.parametrize("template", ["tools", "chatml", "gemma", "words"])
@settings(max_examples=60)
@given(record=any_record)
def test_every_field_is_trained_remembered_or_counted(template, record):
    try:
        (row,), report = read([record], preferred="chosen" in record)
    except DataError:
        return  # refused with a reason
    if row.messages is None:
        tokens = tokenise(row, TOKENIZERS[template], max_length=10_000, chat=False)
        whole = TOKENIZERS[template].decode(tokens.input_ids)
    else:
        whole, trained = texts(row, template)
        assert normalise(row.outputs[0].split("\n")[0]) in normalise(trained)
    cut = "turns after the last answer" in report.ignored
    for at, leaf in leaves(record):
        used_flag = at[-1] == "weight" and leaf in (0, 1)
        structure = at[-1] in ("role", "type", "from")
        counted = any(name in report.ignored for name in (at[0], ".".join(at[:2])))
        if not (used_flag or structure or counted or cut):
            assert json.dumps(leaf).strip('"') in whole, (at, leaf)


@settings(max_examples=80)
@given(record=any_record)
def test_a_chat_is_remembered_as_it_was_read(record):
    try:
        (row,), _ = read([record])
    except DataError:
        return
    if row.messages is not None:
        assert load_chat(dump_chat(row.messages, row.tools)) == (row.messages, row.tools)


@pytest.mark.parametrize("template", tiny.TEMPLATES)
@settings(max_examples=40)
@given(record=chat_record)
def test_scoring_starts_from_what_was_trained_and_answers_end_once(template, record):
    try:
        (row,), _ = read([record])
    except DataError:
        return
    tokenizer = TOKENIZERS[template]
    tokens = tokenise(row, tokenizer, max_length=10_000, chat=True)
    prompt = prompt_ids(row, tokenizer, max_length=10_000, chat=True).ids
    assert tokens.input_ids[: len(prompt)] == prompt
    answer = [i for i, label in zip(tokens.input_ids, tokens.labels, strict=True) if label != IGNORED][-1:]
    ends = end_ids(tokenizer, chat=True)
    assert answer[0] in ends
    after = tokens.input_ids[len(prompt) :]
    assert sum(token in ends for token in after) == 1


# --- tokenizers ---


def test_a_tokenizer_that_appends_its_own_end_does_not_end_the_prompt():
    tokenizer = tiny.template_tokenizer(None, eos="</s>", post="<s> $A </s>")
    tokens = tokenise(Example("Add.", "1", ("2",)), tokenizer, max_length=99, chat=False)
    assert tokenizer.decode(tokens.input_ids) == "<s>Instruction:\nAdd.\n\nInput:\n1\n\nAnswer:\n2</s>"
    assert prompt_ids(Example("Add.", "1", ("2",)), tokenizer, max_length=99, chat=False).ids == tokens.input_ids[:-2]


def test_a_tokenizer_without_an_end_token_is_refused_for_plain_rows_alone():
    row = Example("Add.", "1", ("2",))
    with pytest.raises(DataError, match="no end-of-text token"):
        tokenise(row, tiny.template_tokenizer("chatml", eos=None), max_length=99, chat=False)
    tokenizer = tiny.template_tokenizer("chatml", eos=None)
    assert tokenizer.decode(tokenise(row, tokenizer, max_length=999, chat=True).input_ids).count("<|im_end|>") == 2


def test_turns_that_end_with_another_token_get_no_end_of_text():
    turns = (user("a"), assistant("b"), user("c"), assistant("d"))
    row = Example("a", "x", ("d",), turns)
    assert texts(row, "gemma") == (
        "<s><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n"
        "<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\nd<end_of_turn>\n",
        "b<end_of_turn>d<end_of_turn>",
    )


def test_a_refusal_names_what_was_refused():
    tokenizer = tiny.template_tokenizer("chatml")
    tokenizer.chat_template = "{{ raise_exception('Never') }}"
    with pytest.raises(DataError, match=r"refuses a conversation of user, assistant: Never\. Mend"):
        ChatForm.of(Example("a", outputs=("b",)), tokenizer)
    tokenizer.chat_template = "{% if %}"
    with pytest.raises(DataError, match="refuses a conversation"):
        rendered(tokenizer, to_messages(Example("a", outputs=("b",))))


def test_cutting_a_folded_conversation_keeps_the_instruction():
    turns = ({"role": "system", "content": "Be brief."}, user("Add them. " + "1 and " * 200), assistant("9"))
    row = Example("Add them.", "x", ("9",), turns)
    tokens = tokenise(row, TOKENIZERS["gemma"], max_length=120, chat=True)
    text = TOKENIZERS["gemma"].decode(tokens.input_ids)
    assert tokens.truncated
    assert "Be brief.\n\nAdd them. 1 and" in text
    assert text.endswith("9<end_of_turn>\n")


def test_a_refused_row_is_named_with_its_task():
    tokenizer = tiny.template_tokenizer("chatml")
    tokenizer.chat_template = "{{ raise_exception('Never') if 'bad' in messages[0]['content'] }}"
    tokenizer.chat_template += tiny.TEMPLATES["chatml"]
    rows = [MixtureRow("talk", Example(text, "", ("b",), (user(text), assistant("b")))) for text in ("good", "bad")]
    with pytest.raises(DataError, match=r"^Task 'talk', row 2: The tokenizer's chat template refuses .* Never\. Mend"):
        tokenise_mixture(rows, tokenizer, 99)
