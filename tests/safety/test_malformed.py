"""Malformed models are refused in words that name them, or do no harm; all of them: see `malformed.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.safety.malformed import Malformed, corpus, look

pytestmark = pytest.mark.usefixtures("patient")
CORPUS = corpus()
BY_NAME = {one.name: one for one in CORPUS}
SAMPLE = CORPUS[7::31]
ASKED = [
    "config.json: num_attention_heads=0",
    "config.json: num_hidden_layers=10000000",
    "config.json: _attn_implementation='evil/kernel'",
    "config.json: eos_token_id=1000000000",
    "generation_config.json: eos_token_id='</s>'",
    "generation_config.json: no_repeat_ngram_size=-1",
    "generation_config.json: cut",
    "tokenizer.json: deep",
    "model.norm.weight: turned",
    "with 'lm_head.bias'",
]


def test_every_one_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) > 600


@pytest.mark.parametrize("one", SAMPLE, ids=lambda one: one.name[:60])
def test_a_malformed_model_is_checked(
    one: Malformed, tiny_folder: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    assert look(one, tiny_folder, tiny_recipe, tmp_path / "place").wrong == ""


@pytest.mark.parametrize("name", ASKED)
def test_a_malformed_model_is_asked_without_a_check(
    name: str, tiny_folder: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    tiny_recipe["evaluate"]["max_new_tokens"] = 2
    found = look(BY_NAME[name], tiny_folder, tiny_recipe, tmp_path / "place", ask=True)
    assert found.wrong == ""
