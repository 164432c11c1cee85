"""Strangers' text is escaped wherever it could act or hide, and stays what it is wherever people write so."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.screen.visible import BEGIN, END, in_line, named, visible, visible_json
from ragtune.recipe.yaml import dump_yaml, parse_yaml
from tests.base.screen.payloads import PAYLOADS, WRITING


@pytest.mark.parametrize("text", WRITING)
def test_writing_is_kept(text: str) -> None:
    assert visible(text) == text
    assert named(text) == text


@pytest.mark.parametrize("name", PAYLOADS)
def test_payloads_are_seen(name: str) -> None:
    text = PAYLOADS[name]
    shown = visible(text)
    assert all(c in "\n\t" or c.isprintable() for c in shown if c != "\ufe01")
    assert shown.encode("ascii", "ignore")
    assert visible(shown) == shown
    assert "\n" not in in_line(text)
    assert json.loads(visible_json(json.dumps(text, ensure_ascii=False))) == text
    assert visible(visible_json(json.dumps(text, ensure_ascii=False))) == visible_json(
        json.dumps(text, ensure_ascii=False)
    )


def test_how_they_are_written() -> None:
    assert visible("\x1b[2J\x9b\u202e\U000e0041\ud800\r") == r"\x1b[2J\x9b\u202e\U000e0041\ud800\r"
    assert in_line("a\nb\tc") == r"a⏎b\tc"
    assert named("a\u202eb") == f"a{BEGIN}U+202E{END}b"
    assert named("\u200b" * 57) == f"{BEGIN}{' '.join(['U+200B'] * 4)} … (57){END}"
    assert named(BEGIN + "x" + END) == f"{BEGIN}U+E000{END}x{BEGIN}U+E001{END}"


def test_every_character() -> None:
    """Between two letters, nothing that Unicode calls control, format, separator, private or unassigned is left."""
    # Signs that are drawn: Arabic, Syriac.
    drawn = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
    bad = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    text = "x".join(map(chr, range(sys.maxunicode + 1)))
    left = {c for c in set(visible(text)) if unicodedata.category(c) in bad} - set("\n\t") - drawn
    assert left == set()


@given(st.text())
def test_a_recipe_s_values_come_back(text: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in text):
        return
    dumped = dump_yaml({"key": text})
    assert visible(dumped) == dumped
    assert parse_yaml(dumped)[1] == yaml.safe_load(dumped) == {"key": text}


@pytest.mark.parametrize("text", [*PAYLOADS.values(), *WRITING])
def test_payloads_come_back_from_a_recipe(text: str) -> None:
    if "\uffff" not in text:  # YAML has no such character
        assert parse_yaml(dump_yaml({"key": [text]}))[1] == {"key": [text]}
