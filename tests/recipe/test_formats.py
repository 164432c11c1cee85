"""data.format and data.fields in a recipe."""

from __future__ import annotations

from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.recipe.load import load_recipe
from ragtune.store.changes import part_of, with_part

BASE: dict[str, Any] = {
    "name": "x",
    "model": {"id": "owner/model"},
    "data": {"train": "t.jsonl", "eval": "e.jsonl"},
    "prompt": {"preset": "english"},
    "train": {"steps": 1},
}


def test_they_are_given_in_the_recipe_or_on_the_command_line() -> None:
    assert load_recipe(BASE).data.format == "auto"
    assert load_recipe(BASE, ["data.format=squad"]).data.format == "squad"
    data = load_recipe(BASE, ["data.fields={question: 質問, passages: ctxs}"]).data
    assert data.fields == {"question": "質問", "passages": "ctxs"}
    assert load_recipe(BASE, ["data.fields.answers=正解"]).data.fields == {"answers": "正解"}


def test_a_stage_reads_the_fields_as_a_whole() -> None:
    recipe = load_recipe(BASE, ["data.fields={question: a.b}"])
    part = part_of(recipe, ("data.",))
    assert part["data.fields"] == {"question": "a.b"}
    assert with_part(load_recipe(BASE), part) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.format=squat", "data.format = 'squat': input should be 'auto', 'records', 'squad'"),
        ("data.fields={frage: x}", "data.fields"),
        ("data.fields={question: 7}", "input should be a valid string"),
        ("data.fields=x", "data.fields = 'x': input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_is_told(change: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_recipe(BASE, [change])
    assert message in raised.value.message


def test_a_format_has_its_own_fields() -> None:
    with pytest.raises(UsageError, match="a format has its own fields: give format or fields"):
        load_recipe(BASE, ["data.format=squad", "data.fields={question: q}"])
