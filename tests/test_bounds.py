"""Small files that would become large, and damaged metadata: one line each, before memory is taken."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inscl.data.readers import ReadReport, read_examples
from inscl.errors import DataError, InsclError

ROW = {"instruction": "Add.", "output": "4"}


def read(path, **options):
    return list(read_examples(path, **options))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_a_small_file_that_expands_is_refused_until_the_bound_is_raised(tmp_path, compress, ending):
    lines = json.dumps(ROW) + "\n"
    text = {"jsonl": lines * 20_000, "json": "[" + (lines + ",") * 20_000 + lines + "]",
            "csv": "instruction,output\n" + "Add.,4\n" * 50_000}[ending]  # fmt: skip
    path = tmp_path / f"a.{ending}.z"
    path.write_bytes(compress(text.encode()))
    options = {"format": ending}
    with pytest.raises(DataError, match=r"expands to more than 100 times its size\. If you trust it.*--max-mib"):
        read(path, **options, max_mib=1)
    assert len(read(path, **options, max_mib=64)) >= 20_000


@pytest.mark.parametrize("unit", [b"{},", b" ", b'{"prompt": "a", "completion": "b"},'], ids=["empty", "space", "rows"])
def test_what_expands_too_much_is_refused_before_its_first_record(tmp_path, unit):
    path, report = tmp_path / "a.json.gz", ReadReport()
    path.write_bytes(gzip.compress(b"[" + unit * (40 * 2**20 // len(unit))))
    with pytest.raises(DataError, match="expands to more than 100 times its size"):
        read(path, report=report)
    assert report.rows == 0


def test_a_record_of_too_many_values_is_refused(tmp_path):
    record = json.dumps({**ROW, "x": [[]] * 40_000})
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + "\n" + record)
    (tmp_path / "a.json").write_text(f"[{record}]")
    for name, message in (("a.jsonl", ":2: line of too many values"), ("a.json", ":1: a record of too many values")):
        with pytest.raises(DataError, match=message):
            read(tmp_path / name, max_mib=1)
        assert read(tmp_path / name)
    assert len(read(tmp_path / "a.jsonl", max_mib=1, skip_bad=True)) == 1


def test_a_long_record_in_a_document_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ROW, {**ROW, "input": "x" * 3 * 2**20}]))
    with pytest.raises(DataError, match="a record longer than 1 MiB"):
        read(path, max_mib=1)
    assert len(read(path)) == 2


def test_a_parquet_file_that_expands_is_refused(tmp_path):
    long = "x" * 100_000
    cases = {
        "dictionary": {"instruction": pa.DictionaryArray.from_arrays(pa.array([0] * 99, pa.int32()), [long])},
        "long": {"instruction": [long] * 99},
        "many": {"instruction": ["a"] * 500_000},
    }
    for name, columns in cases.items():
        rows = len(columns["instruction"])
        pq.write_table(pa.table({**columns, "output": ["4"] * rows}), tmp_path / f"{name}.parquet", compression="zstd")
        with pytest.raises(DataError, match="expands to more than 100 times its size"):
            read(tmp_path / f"{name}.parquet", max_mib=1)
    assert len(read(tmp_path / "dictionary.parquet")) == 99


def test_names_that_are_not_utf8_in_parquet_are_one_line(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"instruction": ["a"], "output": ["b"], "column_zz": ["c"]}), path)
    path.write_bytes(path.read_bytes().replace(b"column_zz", b"column_\xff\xfe"))
    with pytest.raises(DataError, match=r"a\.parquet cannot be read: .* Check that the file is whole"):
        read(path)


def test_the_bound_is_a_whole_number():
    for number in (0, -1, 2**60):
        with pytest.raises(DataError, match="wanted a whole number of at least 1"):
            read_examples([ROW], max_mib=number)


CHAT = {"messages": [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "", "tool_calls": [
    {"function": {"name": "f", "arguments": "{}"}}]}], "tools": "[{\"name\": \"f\"}]"}  # fmt: skip
SEEDS = {
    "a.jsonl": "\n".join(json.dumps(row) for row in (ROW, CHAT)).encode(),
    "a.json": json.dumps([ROW, CHAT, {"prompt": "a", "chosen": "b", "rejected": "c"}], indent=1).encode(),
    "b.json": json.dumps({"data": [ROW, ROW]}).encode(),
    "a.csv": b'instruction;output\nAdd.;4\n"a\n;b";3\n',
    "b.csv": "instruction\toutput\nAdd.\t4\n".encode("utf-16"),
    "a.jsonl.gz": gzip.compress(json.dumps(ROW).encode() * 3),
    "a.jsonl.zst": zstandard.compress(json.dumps(ROW).encode()),
}
pieces = st.sampled_from(
    [b"", b"{", b"[[[", b'"', b",", b"null", b"1e999", b"\\ud800", b"\xff", b"\x00", b"\n", b'"role":']
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(SEEDS)), at=st.floats(0, 1), length=st.integers(0, 12), piece=pieces, skip=st.booleans()
)
def test_an_edited_file_is_read_or_one_line(tmp_path, name, at, length, piece, skip):
    seed = SEEDS[name]
    place = int(at * len(seed))
    (tmp_path / name).write_bytes(seed[:place] + piece + seed[place + length :])
    said = ""
    try:
        read(tmp_path / name, skip_bad=skip, preferred=skip, report=ReadReport())
    except InsclError as error:
        said = str(error)
    assert "\n" not in said


WORDS = ["", "user", "assistant", "[{}]", "x"]
INNER = ["role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "type", "text", "weight"]
OUTER = [
    "instruction",
    "input",
    "output",
    "outputs",
    "messages",
    "conversations",
    "prompt",
    "completion",
    "system",
    "history",
    "tools",
    "functions",
    "chosen",
    "rejected",
    "label",
    "kto_tag",
    "images",
    "tags",
    "split",
    "Definition",
    "Instances",
    "question",
    "system_prompt",
    "response",
]
scalar = st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(WORDS)
json_value = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=500)
@given(st.lists(st.dictionaries(st.sampled_from(OUTER), json_value, max_size=6), max_size=3), st.booleans())
def test_a_record_of_any_shape_is_read_or_one_line(records, preferred):
    said = ""
    try:
        for example in read_examples(records, preferred=preferred, report=ReadReport()):
            assert example.instruction.strip()
            assert example.outputs
    except InsclError as error:
        said = str(error)
    assert "\n" not in said
