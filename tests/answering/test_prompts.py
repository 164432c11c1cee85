"""Prompts of questions that are asked several times are encoded once, by whoever encodes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from ragtune.answering import engine
from ragtune.answering.engine import encode_prompts
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, parse_example
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.recipe.schema import Recipe
from tests.conftest import make_records


@pytest.fixture
def encoder(tiny_recipe: dict[str, Any], chatml_tokenizer: Any) -> Encoder:
    recipe = Recipe.model_validate(tiny_recipe)
    return Encoder(prepare_tokenizer(chatml_tokenizer, recipe), recipe, 1024)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that any encoder made prompts of, in order."""
    seen: list[str] = []
    prompts = Encoder.prompts

    def counted(self: Encoder, examples: Sequence[Example]) -> Any:
        seen.extend(one.qid for one in examples)
        return prompts(self, examples)

    monkeypatch.setattr(Encoder, "prompts", counted)
    return seen


def test_once_each(encoder: Encoder, encoded: list[str]) -> None:
    examples = [parse_example(row, "here") for row in make_records(4)]
    first = encode_prompts(encoder, examples[:3])
    assert encode_prompts(encoder, examples[::-1])[::-1][:3] == first
    assert encoded == ["q0", "q1", "q2", "q3"]


def test_another_question_and_another_encoder_are_not_mistaken(
    encoder: Encoder, encoded: list[str]
) -> None:
    (example, *_) = (parse_example(row, "here") for row in make_records(1))
    (own,) = encode_prompts(encoder, [example])
    (other,) = encode_prompts(encoder, [dataclasses.replace(example, question="Which?")])
    assert own != other
    (all_shown,) = encode_prompts(encoder.showing_all(), [example])
    assert len(all_shown[1]) > len(own[1])  # of three passages the recipe shows two
    assert encoded == ["q0"] * 3


def test_no_more_are_kept_than_there_is_room_for(
    encoder: Encoder, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_KEPT", 2)
    examples = [parse_example(row, "here") for row in make_records(5)]
    both = [examples[:2], examples[2:4], examples]
    found = [encode_prompts(encoder, some) for some in [*both, *both]]
    assert found[:3] == found[3:]
    assert len(engine._ASKED[encoder]) <= 2
