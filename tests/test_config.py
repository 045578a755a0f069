"""A stream's configuration: what it accepts, and that every problem is told with its line."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inscl.core.orders import PAPER_ORDERS, order_of
from inscl.demo import stream_file
from inscl.demo.tasks import TASKS
from inscl.errors import ConfigError
from inscl.experiments.config import Checkout, DemoTasks, StreamConfig, TestRows, load_config, parse_config
from inscl.replay.budget import Budget
from inscl.training.config import stage_config
from inscl.yaml_text import read_yaml

MINIMAL = "tasks: demo\nmodel: smollm2-135m\n"


def problems_of(text, folder=Path()):
    """Line number and text of each problem."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, folder=folder)
    _, *lines = str(caught.value).split("\n")
    return [(int(number), rest) for number, rest in re.findall(r"^  line (\d+): (.*)$", "\n".join(lines), re.M)]


def test_a_whole_configuration(tmp_path):
    (tmp_path / "billing.jsonl").touch()
    (tmp_path / "support").mkdir()
    file = tmp_path / "stream.yaml"
    file.write_text("""
tasks:
  billing: billing.jsonl
  support: {data: [support], format: alpaca}
  hub: owner/dataset
model: owner/model
orders: [given, reverse, "random:7", curriculum, [hub, billing, support]]
strategies: [none, inscl]
budgets: [200, 5%, 0.01, {per_task: 24}, {per_task: 1%}, {tokens: 20000}]
seeds: [0, 1]
experts: {seeds: [5]}
joint: true
training: {learning_rate: 1e-4, num_train_epochs: 2}
peft: {type: lora, r: 16}
test_rows: {every_stage: 10}
limits: {train: 480, test: all}
keep: none
report_to: wandb
""")
    config = load_config(file)
    assert [config.tasks["billing"].data, config.tasks["support"].format] == [("billing.jsonl",), "alpaca"]
    assert config.locate("billing.jsonl") == str(tmp_path / "billing.jsonl")
    assert config.locate("owner/dataset") == "owner/dataset"
    assert config.orders[-1] == ("hub", "billing", "support")
    assert [b.label for b in config.budgets] == [
        "200",
        "5%",
        "1%",
        "24 per task",
        "1% per task",
        "20000 tokens",
    ]
    assert config.training["learning_rate"] == 0.0001  # PyYAML alone would read a text
    assert (config.test_rows.every_stage, config.test_rows.last_stages) == (10, 200)
    assert (config.limits.train, config.limits.test, config.report_to) == (480, None, ("wandb",))
    assert config.experts.seeds == (5,)


def test_defaults():
    config = parse_config(MINIMAL)
    assert config.tasks == DemoTasks()
    assert config.orders == ("given",)
    assert config.strategies == ("none", "random", "inscl")
    assert config.experts.seeds == (0, 1, 2)  # the method asks for at least 3
    assert config.keep == "last"
    assert parse_config(MINIMAL + "experts: null").experts is None


def test_resolved_is_plain_and_reads_back_the_same():
    config = parse_config(MINIMAL + "orders: [given, [b, a]]\nbudgets: [5%, {tokens: 3}]\ntest_rows: all\n"
                          .replace("[b, a]", str(list(TASKS)[::-1])))  # fmt: skip
    plain = json.loads(json.dumps(config.resolved()))
    assert plain == config.resolved()
    assert StreamConfig.model_validate(plain) == config


@pytest.mark.parametrize("fast", [False, True])
def test_the_demos_own_configurations(fast):
    config = load_config(stream_file(fast))
    assert isinstance(config.tasks, DemoTasks)
    assert config.limits.train <= config.tasks.train
    assert config.limits.test <= config.tasks.test
    assert isinstance(config.training["learning_rate"], float)


def test_checkout_with_the_real_categories(real_data):
    text = f"""
tasks: {{superni: {real_data}, categories: {real_data / "categories.json"}}}
model: smollm2-135m
orders: [paper-curriculum, paper-reverse, paper-random]
"""
    config = parse_config(text)
    assert isinstance(config.tasks, Checkout)
    categories = list(json.loads((real_data / "categories.json").read_text()))
    for order in config.orders:
        assert sorted(order_of(order, categories)) == sorted(categories)


def test_three_mistakes_are_told_together_with_their_lines():
    text = """tasks: demo
model: smollm2-135m
strategis: [none]
seeds: [0]
batch_size: many
budgets:
  - 200
  - 150%
"""
    assert problems_of(text) == [
        (3, "`strategis` is not known here. Did you mean 'strategies'?"),
        (5, "`batch_size` is 'many'; wanted a whole number."),
        (8, "`budgets[1]` got '150%'; wanted a count of 1 or more, or a share such as 5% or 0.05."),
    ]


@pytest.mark.parametrize(
    ("extra", "line", "message"),
    [
        ("model: other", 3, "`model` stands twice; keep one."),
        ("limits: {train: 1, train: 2}", 3, "`limits.train` stands twice; keep one."),
        ("experts:\n  seed: [1]", 4, "`experts.seed` is not known here. Did you mean 'seeds'?"),
        ("limits:\n  train: 5\n  tests: 5", 5, "`limits.tests` is not known here. Did you mean 'test'"),
        ("batch_size: 0", 3, "`batch_size` is 0; wanted at least 1."),
        ("batch_size: true", 3, "`batch_size` is True; wanted a whole number."),
        ("seeds: 3", 3, "`seeds` is 3; wanted a list."),
        ("seeds: [1, 1]", 3, "`seeds` holds 1 twice; name each once."),
        ("seeds: []", 3, "`seeds` is []; wanted at least one entry."),
        ("seeds:\n- 1\n- x", 5, "`seeds[1]` is 'x'; wanted a whole number."),
        ("joint: 1", 3, "`joint` is 1; wanted true or false."),
        ("keep: al", 3, "`keep` is 'al'; wanted 'all', 'last' or 'none'."),
        ("training: 5", 3, "`training` is 5; wanted keys and values."),
        ("training:\n  logging_steps: 1\n  output_dir: x", 5, "`training.output_dir` inscl sets this itself"),
        ("protect: {em: 1}", 3, "`protect.em` is not known here. Did you mean 'ema'"),
        ("replay: {weight: x}", 3, "`replay.weight` got 'weight'; wanted one of weights, rad"),
        ("replay: {weights: even}", 3, "`replay`: The weights are 'even'; wanted one of frequency, uniform."),
        ("replay:\n  insinfo: men", 3, "`replay`: There is no InsInfo 'men'; wanted one of paper, mean, density. Did"),
        ("strategies: [none,\n  inscll]", 4, "`strategies[1]` got 'inscll'; wanted one of none"),
        ("scorer: rouge-l", 3, "`scorer` got 'rouge-l'; wanted one of rouge_l, superni"),
        ("test_rows: some", 3, "`test_rows` got 'some'; wanted a whole number, all, or every_stage"),
        ("budgets: [{total: 5, tokens: 6}]", 3, "`budgets[0]` wanted exactly one of `total`"),
        ("budgets: [{}]", 3, "`budgets[0]` wanted exactly one of"),
        ("budgets: [{pertask: 1}]", 3, "`budgets[0].pertask` is not known here. Did you mean 'per_task'?"),
        ("budgets: [x%]", 3, "`budgets[0]` got 'x%'; wanted a count of 1 or more, or a share"),
        ("budgets: [0]", 3, "`budgets[0]` got 0; wanted a count of 1 or more"),
        ("budgets: [true]", 3, "`budgets[0]` got True; wanted a count of 1 or more"),
        ("orders: [revers]", 3, "`orders[0]`: Unknown order 'revers'; wanted given, reverse"),
        ("orders:\n- given\n- [passive_voice]", 5, "`orders[1]`: An order holds every task once, but the"),
        ("orders: [paper-random]", 3, "`orders[0]`: An order holds every task once, but 'paper-"),
        ("orders: [3]", 3, "`orders[0]` got 3; wanted the name of an order, or a"),
        ("experts: null\norders: [curriculum]", 4, "made from experts' development scores. Set `experts`."),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(extra, line, message):
    assert [(line, True)] == [(at, message in text) for at, text in problems_of(MINIMAL + extra)]


@pytest.mark.parametrize(
    ("tasks", "line", "message"),
    [
        ("tasks: dmo", 1, "`tasks` is 'dmo'; wanted keys and values."),
        ("tasks: {}", 1, "`tasks` is {}; wanted at least one entry."),
        ("tasks:\n  a: no/such/file.jsonl", 2, "`tasks.a`: there is no file or folder"),
        (f"tasks:\n  a: {'x' * 3000}.jsonl", 2, "`tasks.a`: there is no file or folder"),
        ("tasks:\n  a: ~nobody-here/file.jsonl", 2, "`tasks.a`: there is no file or folder"),
        ("tasks:\n  a: {data: x/y, frmat: csv}", 2, "`tasks.a.frmat` is not known here. Did you mean 'for"),
        ("tasks:\n  a: {data: x/y, format: cvs}", 2, "`tasks.a.format` got 'cvs'; wanted one of jsonl,"),
        ("tasks:\n  a: {dev: x/y}", 2, "`tasks.a.data` is missing."),
        ("tasks:\n  a/../b: x/y", 2, "has '.' or '..' between slashes"),
        ("tasks:\n  5: x/y", 2, "`tasks[5]` is 5; wanted a text."),
        ("tasks:\n  superni: nowhere", 2, "`tasks.superni`: there is no file or folder 'nowhere'."),
        ("tasks:\n  superni: .\n  categores: x", 3, "`tasks.categores` is not known here. Did you mean 'cat"),
        ("tasks:\n  demo: true\n  only: [a]", 3, "`tasks.only[0]` got 'a'; wanted one of review_opinion"),
        ("tasks:\n  demo: true\n  sead: 1", 3, "`tasks.sead` is not known here. Did you mean 'seed'?"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_tasks_is_told_with_its_line(tasks, line, message):
    assert [(line, True)] == [(at, message in text) for at, text in problems_of(f"{tasks}\nmodel: m\n")]


def test_missing_files_and_orders_are_told_beside_other_problems(tmp_path):
    text = "model: 5\norders: [x]\ntasks:\n  a: gone.jsonl\n  b: also-gone.csv\n"
    assert [line for line, _ in problems_of(text, tmp_path)] == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: [", "stream.yaml, line 1: this is not YAML: expected the node content"),
        ("a: b: c", "line 1: this is not YAML: mapping values are not allowed here"),
        ("", "wants keys and values such as `model: smollm2-135m`, got None"),
        ("- 1", "wants keys and values"),
        (
            "a: !!python/object/apply:os.getcwd []",
            "line 1: this is not YAML: could not determine a constructor",
        ),
        ("a: \x00", "not YAML"),
        ("a: 1\n---\nb: 2", "line 2: this is not YAML: but found another document"),
        ("? [1]\n: 2", "line 1: this is not YAML: found unhashable key"),
        ("a: &x [*x]", "4 problems"),
        ("[" * 1500, "nested too deeply"),
    ],
)
def test_what_is_no_configuration_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(text)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        load_config(tmp_path / "none.yaml")


@given(
    st.recursive(
        st.integers() | st.text("ab: #'\n-", max_size=5) | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner),
    )
)
def test_yaml_reads_what_another_writer_wrote(data):
    """JSON is YAML: what `json` writes is read as it was, and every entry has a line."""
    source = read_yaml(json.dumps(data, indent=1))
    assert source.data == data
    assert not source.problems
    last = json.dumps(data, indent=1).count("\n") + 1
    assert all(1 <= line <= last for line in source.lines.values())


@given(
    st.dictionaries(
        st.sampled_from([*StreamConfig.model_fields, "x"]),
        st.none() | st.integers() | st.text("aé:", max_size=5),
    )
)
def test_nonsense_gives_problems_and_never_another_error(data):
    with pytest.raises(ConfigError):
        parse_config(json.dumps(data) if data else "x: 1")


WHOLE = """tasks:
  billing: {data: [a/b], format: alpaca}
  support: &data {data: owner/data}
  again: {<<: *data, format: jsonl}
model: owner/model
orders: [given, "random:7", [again, billing, support]]
budgets: [200, 5%, {per_task: 24}]
training: {learning_rate: 1e-4, num_train_epochs: 2}
peft: {type: lora, r: 16, target_modules: [q_proj]}
test_rows: {every_stage: 10}
joint: true
keep: none
"""
SNIPPETS = [
    "2026-13-45", "!!bool maybe", "!!int abc", "!!float x", "!!null y", "!foo", "!!binary a", "!!set {a}",
    "[" * 70, "{" * 70,
    "&x ", "*x", "*data", "<<: ", "? ", ": ", "- ", "\n", "\t", "#", "|\n", ">\n", "---\n", "%YAML 9.9\n", "'", '"',
    "\x00", "\ufeff", "\u2028", "\U0001f600", "-.inf", ".nan", "1e999", "0x", "9" * 400,
    "~", "true", '"\\ud800"', "\\x",
]  # fmt: skip


@given(st.data())
@settings(max_examples=300)
def test_a_mutated_file_is_read_or_refused_in_lines(data):
    assert parse_config(WHOLE).tasks["again"].data == ("owner/data",)
    text = WHOLE
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + data.draw(st.sampled_from(SNIPPETS) | st.text(max_size=3)) + text[end:]
    try:
        parse_config(text)
    except ConfigError as error:
        first, *others = str(error).split("\n")
        assert re.fullmatch(r"stream\.yaml(, .*| has .*:| wants keys .*)", first), first
        assert all(re.match(r"  line \d+: .", line) for line in others), others


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keep: !!bool maybe", "line 3: `keep` is 'maybe', which is no bool."),
        ("batch_size: !!int abc", "line 3: `batch_size` is 'abc', which is no int."),
        ("encoder: 2026-13-45\nkeep: 2026-01-01", "line 4: `keep` is '2026-01-01'; wanted"),
        ("training: {a: " + "[" * 3000, "line 3: this is not YAML: it is nested too deeply"),
        ("limits:\n  train: [1,\n    2", "line 4: this is not YAML: "),
        ("a: &a [x]\n" + "\n".join(f"b{i}: &b{i} [{f'*b{i - 1}, ' * 9 if i else '*a'}]" for i in range(9)), "values"),
        ("encoder: " + "x" * 300_000, "characters; wanted at most 300,000"),
        ("keep: all\nkeep: none", "line 4: `keep` stands twice; keep one."),
    ],
)
def test_what_no_configuration_needs_is_refused_with_its_line(text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(MINIMAL + text)


def test_a_mistake_in_one_line_is_told_as_line_1():
    for text in ("a: [1", "a: [1\n", "batch_size: {", "batch_sise: 4"):
        with pytest.raises(ConfigError, match="line 1"):
            stage_config(text)


def test_last_five_stages_take_more_rows():
    rows = TestRows(every_stage=48, last_stages=None)
    assert [rows.at(i, 16) for i in range(16)] == [48] * 11 + [None] * 5
    assert TestRows.model_validate("all").at(0, 16) is None
    assert TestRows.model_validate(7).at(0, 16) == TestRows.model_validate(7).at(15, 16) == 7


def test_budgets_are_values():
    config = parse_config(MINIMAL + "budgets: [{per_task: 24}, 24]")
    assert Budget(24, per_task=True) == config.budgets[0] != config.budgets[1]


# --- orders


def test_the_papers_orders_are_those_of_its_16_categories():
    curriculum = PAPER_ORDERS["paper-curriculum"]
    assert (curriculum[0], curriculum[-1], len(set(curriculum))) == ("Classification", "Mathematics", 16)
    assert PAPER_ORDERS["paper-reverse"] == tuple(reversed(curriculum))
    assert sorted(PAPER_ORDERS["paper-random"]) == sorted(curriculum)
    assert PAPER_ORDERS["paper-random"][:2] == ("Text_Quality_Evaluation", "Mathematics")
    assert PAPER_ORDERS["paper-random"][-1] == "Classification"


@given(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=12, unique=True), st.integers(0, 9))
def test_every_order_is_a_permutation(names, seed):
    scores = {name: float(len(name)) for name in names}
    for order in ("given", "reverse", f"random:{seed}", "curriculum", tuple(names[::-1])):
        assert sorted(order_of(order, names, scores)) == sorted(names)
    assert order_of("reverse", names) == list(reversed(order_of("given", names)))
    assert order_of(f"random:{seed}", names) == order_of(f"random:{seed}", names)


def test_random_orders_differ_by_seed():
    names = [str(i) for i in range(10)]
    assert len({tuple(order_of(f"random:{seed}", names)) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (("a", "b", "c"), "names no task of the stream: 'c'"),
        (("a",), "leaves out 'b'"),
        (("a", "b", "a"), "names twice 'a'"),
        ("random:x", "Unknown order 'random:x'.*Did you mean 'random:SEED'"),
        ("curriculum", "Set `experts`"),
        ("paper-curriculum", "'paper-curriculum' leaves out 'a', 'b'"),
    ],
)
def test_impossible_orders_are_refused(order, message):
    with pytest.raises(ConfigError, match=message):
        order_of(order, ["a", "b"])


def test_curriculum_names_the_task_without_a_score():
    with pytest.raises(ConfigError, match="lacks the expert's development score of 'b'"):
        order_of("curriculum", ["a", "b"], {"a": 1.0})
