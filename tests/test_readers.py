"""Reading: every form and kind of file, what is dropped, what stops."""

import csv
import gzip
import io
import json
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from inscl.data.example import Example
from inscl.data.readers import LINE_LIMIT, ReadReport, read_examples
from inscl.errors import DataError

ADD = {"instruction": "Add.", "input": "2 + 2", "output": "4"}
ADDED = Example("Add.", "2 + 2", ("4",))


def read(data, **options):
    return list(read_examples(data, **options))


def reasons(data, **options):
    """Reason -> places of what was dropped."""
    report = ReadReport()
    read([*data, ADD] if isinstance(data, list) else data, report=report, **options)
    return {reason: dropped.places for reason, dropped in report.dropped.items()}


def lines_of(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def turn(role, content):
    return {"role": role, "content": content}


# --- round trips: what is written in a form is read back as it was ---

texts = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: text and not text.isspace())
bodies = st.text(st.characters(exclude_categories=["Cs"]))
sides = st.sampled_from([None, "train", "dev", "test"])
words = st.text("abcdé ç", min_size=1).map(str.strip).filter(bool)
examples = st.builds(
    Example,
    instruction=texts,
    input=bodies,
    outputs=st.lists(texts, min_size=1, max_size=3, unique=True).map(tuple),
    tags=st.none() | st.lists(words, min_size=1, max_size=3, unique=True).map(tuple),
    split=sides,
)
relaxed = settings(max_examples=30)  # each writes and reads a file
many = st.lists(examples, min_size=1, max_size=8)


def as_fields(example):
    return {
        "instruction": example.instruction,
        "input": example.input,
        "outputs": list(example.outputs),
        "tags": None if example.tags is None else list(example.tags),
        "split": example.split,
    }


def as_csv(examples):
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["instruction", "input", "outputs", "tags", "split"])
    for e in examples:
        rows.writerow([e.instruction, e.input, json.dumps(e.outputs), ",".join(e.tags or ()), e.split or ""])
    return out.getvalue().encode()


def as_parquet(records):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), out)
    return out.getvalue()


WRITERS = {
    "a.jsonl": lambda rows: lines_of(map(as_fields, rows)),
    "a.json": lambda rows: json.dumps([as_fields(e) for e in rows], indent=2).encode(),
    "lines.json": lambda rows: lines_of(map(as_fields, rows)),
    "bom.jsonl": lambda rows: b"\xef\xbb\xbf" + lines_of(map(as_fields, rows)),
    "crlf.jsonl": lambda rows: lines_of(map(as_fields, rows)).replace(b"\n", b"\r\n"),
    "utf8.jsonl": lambda rows: "\n".join(
        json.dumps(as_fields(e), ensure_ascii=False) for e in rows
    ).encode(),  # U+2028 is no line end
    "a.csv": as_csv,
    "a.parquet": lambda rows: as_parquet([as_fields(e) for e in rows]),
}


@pytest.mark.parametrize("name", WRITERS)
@relaxed
@given(rows=many)
def test_our_own_fields_round_trip(tmp_path_factory, name, rows):
    path = write(tmp_path_factory.mktemp("data") / name, WRITERS[name](rows))
    assert read(path) == rows


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_compressed_files_are_read(tmp_path, name, compress):
    rows = [Example(f"Do {i}.", f"é {i}", ("x", "y")) for i in range(2000)]
    content = compress(WRITERS[name](rows))
    ending = ".gz" if compress is gzip.compress else ".zst"
    assert read(write(tmp_path / (name + ending), content)) == rows
    assert read(write(tmp_path / name, content)) == rows  # the bytes tell, not the name


def test_several_compressed_frames_are_one_stream(tmp_path):
    line = lines_of([ADD])
    for path, compress in (
        (tmp_path / "a.jsonl.gz", gzip.compress),
        (tmp_path / "a.jsonl.zst", zstandard.compress),
    ):
        assert read(write(path, compress(line) + compress(line))) == [ADDED, ADDED]


@given(rows=many)
def test_alpaca_and_prompt_completion_round_trip(rows):
    alpaca = [{"instruction": e.instruction, "input": e.input, "output": e.outputs[0]} for e in rows]
    assert read(alpaca, format="alpaca") == [Example(e.instruction, e.input, e.outputs[:1]) for e in rows]
    pairs = [{"prompt": e.instruction, "completion": e.outputs[0]} for e in rows]
    assert read(pairs) == [Example(e.instruction, "", e.outputs[:1]) for e in rows]


@given(rows=many)
def test_examples_pass_through(rows):
    assert read(rows) == rows


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_the_chat_forms_say_the_same(pairs):
    messages = [{"messages": [turn("user", q), turn("assistant", a)]} for q, a in pairs]
    sharegpt = [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in pairs]
    prompts = [{"prompt": [turn("user", q)], "completion": [turn("assistant", a)]} for q, a in pairs]
    expected = [Example(q, "", (a,), (turn("user", q), turn("assistant", a))) for q, a in pairs]
    assert read(messages) == read(sharegpt) == read(prompts) == expected


# --- detection ---


@pytest.mark.parametrize(
    ("record", "form"),
    [
        (ADD, "alpaca"),
        ({**ADD, "tags": ["sum"]}, "jsonl"),
        ({"instruction": "Add.", "outputs": ["4"]}, "jsonl"),
        ({"definition": ["Add."], "references": ["4"]}, "jsonl"),
        ({"prompt": "2 + 2", "completion": "4"}, "prompt-completion"),
        ({"messages": [turn("user", "2 + 2"), turn("assistant", "4")]}, "messages"),
        ({"messages": [turn("user", "2 + 2"), turn("assistant", "4")], "prompt": "2 + 2"}, "messages"),
        (
            {"conversations": [{"from": "human", "value": "2 + 2"}, {"from": "gpt", "value": "4"}]},
            "sharegpt",
        ),
        ({"Definition": ["Add."], "Instances": [{"input": "2 + 2", "output": ["4"]}]}, "superni"),
    ],
)
def test_the_form_is_told_by_the_fields_and_never_by_folders(tmp_path, record, form):
    for folder in ("plain", "test", "latest", "alpaca/messages"):
        report = ReadReport()
        (example,) = read(write(tmp_path / folder / "a.jsonl", lines_of([record])), report=report)
        assert report.form == form
        assert example.outputs == ("4",)
        assert example.split is None


def test_a_first_record_without_instruction_does_not_mislead():
    assert read([{"input": "2 + 2", "output": "4"}, ADD]) == [ADDED]


def test_an_unknown_form_is_an_error_that_lists_the_fields():
    with pytest.raises(DataError, match=r"its records have 'text', 'label'.*--instruction-field"):
        read([{"text": "good", "label": "1"}])


def test_a_file_without_a_known_ending_is_told_by_its_bytes(tmp_path):
    assert read(write(tmp_path / "a", as_parquet([ADD]))) == [ADDED]
    assert read(write(tmp_path / "b.gz", gzip.compress(lines_of([ADD, ADD])))) == [ADDED, ADDED]
    assert read(write(tmp_path / "c.dat", json.dumps([ADD]).encode())) == [ADDED]
    table = write(tmp_path / "d.dat", b"instruction,input,output\nAdd.,2 + 2,4\n")
    with pytest.raises(DataError, match="what kind of file"):
        read(table)
    assert read(table, format="csv") == [ADDED]


def test_a_json_document_may_be_one_record(tmp_path):
    assert read(write(tmp_path / "a.json", json.dumps(ADD, indent=1).encode())) == [ADDED]


def test_unknown_format_and_split_are_errors_at_once():
    with pytest.raises(DataError, match=r"Unknown format 'xml'. Known: jsonl, .*superni, datasets"):
        read_examples([ADD], format="xml")
    with pytest.raises(DataError, match="Unknown split 'valid'"):
        read_examples([ADD], split="valid")  # type: ignore[arg-type]


# --- folders and lists ---


def test_a_folder_is_read_in_the_order_of_names_and_counts_what_it_skips(tmp_path):
    for name in ("b.jsonl", "a/z.jsonl.gz", "a.csv", ".hidden.jsonl", ".git/x.jsonl", "README.md"):
        record = {**ADD, "input": name}
        content = f"instruction,input,output\nAdd.,{name},4\n".encode() if name == "a.csv" else lines_of([record])
        write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    report = ReadReport()
    assert [e.input for e in read(tmp_path, report=report)] == ["a/z.jsonl.gz", "a.csv", "b.jsonl"]
    assert report.skipped_files.count == 1
    assert report.drops.endswith(f"1 × file of unknown type ({tmp_path}/README.md)")
    assert len(read([tmp_path / "b.jsonl", str(tmp_path / "a")])) == 2
    assert [e.input for e in read(tmp_path, format="csv")] == ["a.csv"]


def test_the_order_of_names_does_not_come_from_the_file_system(tmp_path):
    names = [f"{i * 7 % 20:02}.jsonl" for i in range(20)]
    for name in names:
        write(tmp_path / name, lines_of([{**ADD, "input": name}]))
    assert [e.input for e in read(tmp_path)] == sorted(names)


def test_a_folder_without_data_is_an_error(tmp_path):
    write(tmp_path / "notes.txt", b"hello")
    with pytest.raises(DataError, match=r"holds no data: no file that ends in \.jsonl"):
        read_examples(tmp_path)


def test_a_missing_path_is_an_error_at_once(tmp_path):
    with pytest.raises(DataError, match="There is no file or folder"):
        read_examples(tmp_path / "no.jsonl")
    with pytest.raises(DataError, match=r"There is no file or folder 'data/no\.jsonl'"):
        read_examples("data/no.jsonl")  # looks like a Hub id, but for its ending


@pytest.mark.parametrize("data", [{"instruction": "a"}, b"abc", 3])
def test_data_of_no_use_are_an_error(data):
    with pytest.raises(DataError, match="pass a path"):
        read_examples(data)


# --- fields ---


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"instruction": "Add.", "output": ["A", "B", "C"]}, ("A", "B", "C")),  # not C, C, C
        ({"instruction": "Add.", "outputs": ["B", "A", "B"]}, ("B", "A")),
        ({"instruction": "Add.", "output": "A", "references": ["B", "A"]}, ("A", "B")),
        ({"instruction": "Add.", "output": ["A", " "]}, ("A",)),
        ({"instruction": "Add.", "outputs": [], "output": "[]"}, ("[]",)),
    ],
)
def test_every_reference_is_kept_once_and_in_order(record, expected):
    assert read([record])[0].outputs == expected


@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": "  "}, {"input": None}])
def test_a_row_without_input_is_kept(body):
    (example,) = read([{"instruction": "Say hello.", "output": "Hello.", **body}])
    assert example.input.strip() == ""


def test_an_instruction_is_a_text_or_a_list():
    assert read([{"definition": "Add.", "output": "4"}])[0].instruction == "Add."
    assert read([{"instruction": ["Add.", "Sum up."], "output": "4"}])[0].instruction == "Add."


def test_names_that_other_data_use():
    assert read([{"definition": "Add.", "inputs": "2 + 2", "targets": "4"}]) == [ADDED]
    assert read([{"instruction": "Add.", "context": "2 + 2", "response": "4"}]) == [ADDED]


def test_tags_and_split_are_read():
    rows = [
        {**ADD, "tags": ["sum", "maths "], "split": "validation"},
        {**ADD, "tags": "sum, maths,,sum", "split": "Test"},
        {**ADD, "tags": [], "split": None},
        {**ADD, "tags": "", "split": ""},
    ]
    assert [(e.tags, e.split) for e in read(rows)] == [
        (("sum", "maths"), "dev"),
        (("sum", "maths"), "test"),
        ((), None),
        (None, None),
    ]
    assert {e.split for e in read([*rows, {**ADD, "split": "nonsense"}], split="dev")} == {"dev"}


def test_another_field_may_hold_the_instruction_and_no_text_is_lost():
    record = {"task": "Sums", **ADD}
    assert read([record], instruction_field="task") == [Example("Sums", "Add.\n\n2 + 2", ("4",))]
    pair = {"task": "Sums", "prompt": "2 + 2", "completion": "4"}
    assert read([pair], instruction_field="task") == [Example("Sums", "2 + 2", ("4",))]
    assert read([pair], instruction_field="prompt") == [Example("2 + 2", "", ("4",))]
    assert read([{"task": "Sums", "input": "2 + 2", "output": "4"}], instruction_field="task")[0].input == "2 + 2"
    with pytest.raises(DataError, match="no instruction"):
        read([ADD], instruction_field="nothing")


def test_the_instruction_field_is_read_from_tables_too(tmp_path):
    path = write(tmp_path / "a.parquet", as_parquet([{"task": "Sums", "noise": 1, **ADD}]))
    assert read(path, instruction_field="task")[0].instruction == "Sums"


# --- chat ---


def chat(*turns, **fields):
    return {"messages": [turn(role, content) for role, content in turns], **fields}


FRENCH = chat(("system", "Translate to French."), ("user", "dog"), ("assistant", "chien"))
GERMAN = chat(("system", "Translate to German."), ("user", "dog"), ("assistant", "Hund"))
BARE = chat(("user", "Say hi."), ("assistant", "Hi."))


def test_several_system_messages_are_instructions():
    assert [(e.instruction, e.input) for e in read([FRENCH, GERMAN, BARE])] == [
        ("Translate to French.", "dog"),
        ("Translate to German.", "dog"),
        ("Say hi.", ""),  # no system message here
    ]


def test_one_system_message_says_nothing_and_the_first_user_turn_is_the_instruction():
    (first, second) = read(
        [FRENCH, chat(*[("system", "Translate to French."), ("user", "cat"), ("assistant", "chat")])]
    )
    assert (first.instruction, first.input, first.outputs) == ("dog", "", ("chien",))
    assert second.instruction == "cat"
    assert first.messages == tuple(FRENCH["messages"])  # it is still in the conversation


def test_the_second_system_message_may_stand_anywhere(tmp_path):
    write(tmp_path / "a.jsonl", lines_of([FRENCH] * 300))
    write(tmp_path / "b.jsonl", lines_of([ADD]))
    write(tmp_path / "c.jsonl", lines_of([FRENCH] * 300 + [GERMAN]))
    assert read(tmp_path)[0].instruction == "Translate to French."
    assert read(iter([FRENCH] * 300 + [GERMAN]))[0].instruction == "Translate to French."  # an iterator, read once


def test_the_last_assistant_turn_is_the_answer_and_the_rest_is_rendered():
    record = chat(
        ("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi"),
        ("user", "2 + 2?"), ("assistant", "4"), ("user", "Thanks"),
    )  # fmt: skip
    (example, _, _) = read([record, FRENCH, GERMAN])
    assert example.instruction == "Be brief."
    assert example.input == "user: Hello\n\nassistant: Hi\n\nuser: 2 + 2?"
    assert example.outputs == ("4",)
    assert example.messages == tuple(record["messages"][:-1])


def test_the_field_of_the_instruction_can_be_said():
    data = [FRENCH | {"task": "translate"}, GERMAN | {"task": "translate"}]
    assert [(e.instruction, e.input) for e in read(data, instruction_field="task")] == [
        ("translate", "system: Translate to French.\n\nuser: dog"),
        ("translate", "system: Translate to German.\n\nuser: dog"),
    ]
    assert [e.instruction for e in read(data, instruction_field="user")] == ["dog", "dog"]
    assert [e.instruction for e in read([FRENCH], instruction_field="system")] == ["Translate to French."]
    assert reasons([FRENCH, BARE], instruction_field="system", format="messages") == {
        "no instruction": ["records:2"],
        "no assistant turn": ["records:3"],
    }


def test_sharegpt_has_its_own_words_and_a_system_field():
    record = {
        "system": "Be brief.",
        "conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}],
    }
    (example,) = read([record])
    assert example.messages == (turn("system", "Be brief."), turn("user", "2 + 2?"), turn("assistant", "4"))


def test_chat_from_parquet_and_csv(tmp_path):
    path = write(tmp_path / "a.parquet", as_parquet([FRENCH, GERMAN]))
    assert read(path) == read([FRENCH, GERMAN])
    out = io.StringIO()
    csv.writer(out).writerows([["messages"], [json.dumps(FRENCH["messages"])], [json.dumps(GERMAN["messages"])]])
    assert read(write(tmp_path / "a.csv", out.getvalue().encode())) == read([FRENCH, GERMAN])


# --- dropped and counted ---


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"instruction": None, "input": "x", "output": "4"}, "no instruction"),
        ({"input": "x", "output": "4"}, "no instruction"),
        ({"instruction": [], "output": "4"}, "no instruction"),
        ({"instruction": " \n", "output": "4"}, "blank instruction"),
        ({"instruction": "Add."}, "no output"),
        ({"instruction": "Add.", "output": []}, "no output"),
        ({"instruction": "Add.", "output": ""}, "blank output"),
        ({"instruction": "Add.", "output": ["", " "]}, "blank output"),
        ({"instruction": 3, "output": "4"}, "`instruction` holds int, not text"),
        ({"instruction": "Add.", "output": 4}, "`output` holds int, not text"),
        ({"instruction": "Add.", "output": ["4", None]}, "`output` holds NoneType, not text"),
        ({**ADD, "input": ["2"]}, "`input` holds list, not text"),
        ({**ADD, "tags": [1]}, "`tags` holds neither a text nor a list of texts"),
        ({**ADD, "split": "hidden"}, "unknown `split` (known: train, dev, validation, test)"),
        ({**ADD, "input": "half \ud83d"}, "text with half a surrogate pair, which UTF-8 cannot hold"),
        ([1, 2], "not an object with named fields"),
        (None, "not an object with named fields"),
    ],
)
def test_what_cannot_be_used_is_dropped_and_counted(tmp_path, record, reason):
    assert reasons([record]) == {reason: ["records:1"]}
    path = write(tmp_path / "a.jsonl", lines_of([ADD]) + b"\n" + lines_of([record]))
    assert reasons(path) == {reason: [f"{path}:3"]}  # the blank line counts as a line, not as a record


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (chat(("user", "2 + 2?")), "no assistant turn"),
        (chat(), "no assistant turn"),
        (chat(("assistant", "4")), "no instruction"),
        (chat(("user", " "), ("assistant", "4")), "blank instruction"),
        (chat(("user", "2 + 2?"), ("assistant", "")), "blank output"),
        ({"messages": "2 + 2"}, "`messages` holds str, not a list of turns"),
        ({"messages": ["2 + 2"]}, "`messages` holds a turn that is str, not an object"),
        (
            {"messages": [{"role": "user", "content": None}]},
            "`messages` holds a turn without a role and a text",
        ),
    ],
)
def test_what_cannot_be_used_of_a_chat_is_dropped_and_counted(record, reason):
    report = ReadReport()
    assert len(read([BARE, record], report=report)) == 1
    assert {reason: d.places for reason, d in report.dropped.items()} == {reason: ["records:2"]}


def test_the_report_adds_up_and_names_the_first_places(tmp_path):
    rows = [{**ADD, "output": "" if i % 10 == 0 else "4"} for i in range(100)]
    path = write(tmp_path / "a.jsonl", lines_of(rows))
    report = ReadReport()
    kept = len(read(path, report=report))
    assert (report.rows, report.kept, kept) == (100, 90, 90)
    report.drop("duplicate")
    assert report.drops == (f"kept 89 of 100: 10 × blank output ({path}:1, 11, 21, 31, 41, …), 1 × duplicate")


def test_nothing_to_keep_is_an_error_with_the_reasons(tmp_path):
    with pytest.raises(DataError, match=r"nothing to keep \(kept 0 of 2: 2 × no output \(records:1, 2\)\)"):
        read([{"instruction": "Add."}] * 2)
    for name in ("a.jsonl", "a.json", "a.csv"):
        with pytest.raises(DataError, match=f"{name}: no records"):
            read(write(tmp_path / name, b""))
    with pytest.raises(DataError, match="no records"):
        read([])


# --- what stops ---

GOOD = lines_of([ADD])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{'instruction': 1}\n", r":2: not JSON \(Expecting property name .* column 2\)"),
        (b'{"instruction": "Add.", "output": "4"\n', ":2: not JSON"),
        (b'{"instruction": "caf\xe9", "output": "4"}\n', r":2: not UTF-8 \(.*0xe9"),
        (b"\x00" * 20 + b"\n", ":2: not JSON"),
        (b"[" * 200_000 + b"\n", ":2: not JSON"),
    ],
)
def test_a_line_that_does_not_parse_stops_or_is_skipped(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", GOOD + line + GOOD)
    with pytest.raises(DataError, match=message):
        read(path)
    report = ReadReport()
    assert read(path, skip_bad=True, report=report) == [ADDED, ADDED]
    assert (report.rows, report.kept) == (3, 2)
    assert [dropped.places for dropped in report.dropped.values()] == [[f"{path}:2"]]


def test_bad_lines_are_counted_once_though_chats_are_read_twice(tmp_path):
    report = ReadReport()
    path = write(tmp_path / "a.jsonl", lines_of([FRENCH]) + b"oops\n" + lines_of([FRENCH]))
    assert len(read(path, skip_bad=True, report=report)) == 2
    assert report.drops == f"kept 2 of 3: 1 × not JSON ({path}:2)"


def test_nan_is_read(tmp_path):
    line = b'{"instruction": "Add.", "input": "2 + 2", "output": "4", "score": NaN}\n'
    assert read(write(tmp_path / "a.jsonl", line)) == [ADDED]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"instruction": "Add."},\n oops]', r"a\.json:2: not JSON \(Expecting value\)"),
        (b'[{"instruction": "caf\xe9"}]', r"a\.json:1: not UTF-8"),
        (b"[" * 200_000, r"a\.json: not JSON that can be read"),
        ('[{"instruction": "Add."}]'.encode("utf-16"), r"a\.json:1: not UTF-8"),
    ],
)
def test_a_document_that_does_not_parse_stops(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "a.json", content), skip_bad=True)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_a_cut_off_compressed_file_stops(tmp_path, compress, keep):
    content = compress(lines_of({**ADD, "input": str(i * i)} for i in range(20_000)))
    path = write(tmp_path / "a.jsonl.z", content[: int(len(content) * keep)])
    with pytest.raises(DataError, match="cannot be read: Truncated"):
        read(path, format="jsonl", skip_bad=True)


def test_a_damaged_parquet_file_stops(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read(write(tmp_path / "a.parquet", as_parquet([ADD])[:-20]))
    with pytest.raises(DataError, match="cannot be read"):
        read(write(tmp_path / "b.parquet", GOOD))


def test_invalid_utf8_in_parquet_stops_or_is_skipped(tmp_path):
    texts = pa.array([b"Add.", b"caf\xe9", b"Add."], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    table = pa.table({"instruction": texts, "output": ["4", "4", "4"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet:2: not UTF-8"):
        read(tmp_path / "a.parquet")
    report = ReadReport()
    assert len(read(tmp_path / "a.parquet", skip_bad=True, report=report)) == 2
    assert report.dropped["not UTF-8"].count == 1


def test_csv_rows_that_do_not_parse_stop_or_are_skipped(tmp_path):
    good = b'instruction,input,output\r\nAdd.,"2 +\n2",[]\r\n\r\n'
    path = write(tmp_path / "a.csv", good + b"Add.,too,many,cells\r\nAdd.,x,y\r\n")
    with pytest.raises(DataError, match=r"a\.csv:5: not as many cells as the header"):
        read(path)
    report = ReadReport()
    rows = read(path, skip_bad=True, report=report)
    assert rows == [Example("Add.", "2 +\n2", ("[]",)), Example("Add.", "x", ("y",))]
    assert report.rows == 3
    with pytest.raises(DataError, match=r"a\.csv:5: not CSV \(unexpected end of data\)"):  # an open quote
        read(write(tmp_path / "a.csv", good + b'Add.,"x,y\r\n'))


def test_a_csv_cell_may_be_long(tmp_path):
    long = "x" * 300_000  # Python's own limit is 131,072
    path = write(tmp_path / "a.csv", f"instruction,output\nAdd.,{long}\n".encode())
    assert read(path)[0].outputs == (long,)


def test_a_line_over_the_limit_stops_and_is_not_held_in_memory(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD)
        file.seek(900 * 2**20, 1)  # a sparse file: zero bytes that take no room
        file.write(b"\n" + GOOD)
    with pytest.raises(DataError, match=r"a\.jsonl:2: line longer than 64 MiB. Mend it"):
        read(path)
    code = (
        "import re, sys; from pathlib import Path; from inscl.data.readers import *; r = ReadReport();"
        "print(len(list(read_examples(sys.argv[1], skip_bad=True, report=r))), r.drops);"
        # Not ru_maxrss: a process inherits its parent's.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    counts, peak = out.stdout.splitlines()
    assert counts == f"2 kept 2 of 3: 1 × line longer than 64 MiB ({path}:2)"
    assert int(peak) < 500  # MiB; the line alone has 900


def test_a_line_of_just_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("inscl.data.readers.files.LINE_LIMIT", len(GOOD) - 1)
    assert LINE_LIMIT == 64 * 2**20
    path = write(tmp_path / "a.jsonl", GOOD + GOOD)
    assert read(path) == [ADDED, ADDED]
    monkeypatch.setattr("inscl.data.readers.files.LINE_LIMIT", len(GOOD) - 2)
    with pytest.raises(DataError, match="line longer"):
        read(path)


def test_reading_streams(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(lines_of([{**ADD, "input": "word " * 20}] * 2000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in read_examples(path)) == 200_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB; the file has 30 MB


def test_an_endless_iterator_streams():
    stream = read_examples(ADD for _ in iter(int, 1))
    assert [next(stream) for _ in range(3)] == [ADDED] * 3


# --- datasets ---


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets")


def rows_named(name, n=2):
    return [{**ADD, "input": f"{name} {i}", "noise": i} for i in range(n)]


def test_a_dataset_is_read_in_its_own_order(datasets):
    data = datasets.Dataset.from_list(rows_named("x", 3000)).select(range(2999, -1, -1))
    report = ReadReport()
    assert [e.input for e in read(data, report=report)] == [f"x {i}" for i in range(2999, -1, -1)]
    assert report.form == "alpaca"
    assert read(data.to_iterable_dataset()) == read(data)


def test_the_splits_of_a_dataset_dict_are_sides(datasets, tmp_path):
    names = ("train", "validation", "test")
    data = datasets.DatasetDict({name: datasets.Dataset.from_list(rows_named(name)) for name in names})
    expected = [("train", "train"), ("validation", "dev"), ("test", "test")]
    assert [(e.input[:-2], e.split) for e in read(data)][::2] == expected
    data.save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved") == read(data)
    data["test"].save_to_disk(tmp_path / "one")
    assert [e.input for e in read(tmp_path / "one", format="datasets")] == ["test 0", "test 1"]


def test_a_lone_train_split_is_no_side(datasets):
    data = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows_named("x"))})
    assert {e.split for e in read(data)} == {None}


def test_unknown_splits_are_an_error(datasets):
    data = datasets.DatasetDict({"train_sft": datasets.Dataset.from_list(rows_named("x"))})
    with pytest.raises(DataError, match="has the splits 'train_sft'; known are train, validation and test"):
        read(data)


def test_a_hub_id_is_loaded_where_no_such_path_exists(datasets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    source = write(tmp_path / "rows.jsonl", lines_of(rows_named("hub")))
    load = datasets.load_dataset
    cache = str(tmp_path / "cache")

    def download(name, **options):
        assert (name, options) == ("owner/name", {})
        return load("json", data_files=str(source), cache_dir=cache)

    monkeypatch.setattr(datasets, "load_dataset", download)
    assert [e.input for e in read("owner/name")] == ["hub 0", "hub 1"]
    write(tmp_path / "owner/name/a.jsonl", lines_of(rows_named("local")))
    assert [e.input for e in read("owner/name")] == ["local 0", "local 1"]


def test_a_hub_id_that_cannot_be_loaded_is_one_clear_line(datasets, monkeypatch):
    def fail(name):
        raise ConnectionError("no network\nhere")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="on the Hub it cannot be loaded: no network here"):
        read_examples("owner/name")
