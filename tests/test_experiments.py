"""The committed experiment: its streams are those of the protocol, and pages quote its tables as they come out."""

import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "experiments"))

import tables  # noqa: E402
from streams import stream  # noqa: E402


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda path: path.name)
def test_a_page_quotes_the_tables_as_the_committed_scores_give_them(page):
    text = page.read_text(encoding="utf-8")
    assert "<!-- confirming: primary -->" in text
    assert tables.filled(text) == text
    assert tables.filled(text.replace("| (a)", "| (b)")) == text


@pytest.mark.parametrize("number", [11, 12, 31])
def test_a_stream_takes_rows_order_and_seed_that_development_has_not_seen(number):
    made = stream(number, ROOT / "experiments" / "confirming" / "template.yaml")
    assert len(set(made["tasks"]["only"])) == 6
    for path in (ROOT / "experiments" / "development").glob("*.yaml"):
        seen = YAML(typ="safe").load(path)
        assert seen["tasks"]["seed"] != made["tasks"]["seed"]
        assert not set(seen["orders"]) & set(made["orders"])
        assert not set(seen["seeds"]) & set(made["seeds"])
