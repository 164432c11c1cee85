from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragtune.answering.engine import EQUAL, PADDED
from tests.answering.families import alone, ask, family_model


@pytest.mark.parametrize("family", ["gemma2", "lfm2"])
@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ({"repetition_penalty": 1.7}, PADDED),
        ({"min_new_tokens": 5}, PADDED),
        ({"min_length": 30}, EQUAL),  # it counts the padding, too
    ],
)
def test_generation_settings_look_at_no_padding(
    tmp_path: Path, chatml_tokenizer: Any, family: str, settings: dict[str, Any], how: str
) -> None:
    model = family_model(family)
    model.generation_config.update(**settings)
    # The padding token of this tokenizer is its end token.
    stop = {"stop_id": chatml_tokenizer.pad_token_id}
    found, way = ask(model, chatml_tokenizer, tmp_path / "a", **stop)
    assert way.how == how
    single, _ = ask(model, chatml_tokenizer, tmp_path / "b", batch_size=1, **stop)
    assert found == single


def test_a_setting_that_is_refused_elsewhere_holds_here(
    tmp_path: Path, chatml_tokenizer: Any
) -> None:
    model = family_model("llama")
    model.generation_config.no_repeat_ngram_size = 2
    found, way = ask(model, chatml_tokenizer, tmp_path / "a")
    assert way.how == EQUAL  # two masked tokens are a pair that may not come again
    assert way.reason == (
        "generation_config.json sets no_repeat_ngram_size; padded they are read otherwise than alone "
        "(generation_config.json penalises or forbids other tokens)"
    )
    assert [p.token_ids for p in found] == alone("llama", no_repeat_ngram_size=2)


def test_a_limit_of_time_cuts_no_answer(tmp_path: Path, chatml_tokenizer: Any) -> None:
    model = family_model("gemma2")
    model.generation_config.update(max_time=1e-9, return_dict_in_generate=True)
    found, _ = ask(model, chatml_tokenizer, tmp_path / "a")
    assert [p.token_ids for p in found] == alone("gemma2")
