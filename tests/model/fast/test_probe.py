from __future__ import annotations

from typing import Any

import pytest
import torch

from ragtune.answering.fit import unfit
from ragtune.answering.local import greedy_settings
from ragtune.model.fast import attention
from ragtune.model.fast import probe as probing
from ragtune.model.fast.probe import probe, probe_texts, row_matters
from tests.answering.families import family_model
from tests.conftest import tiny_model


def texts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(3, 500, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [(1, 9), (7, 40, 12), (40, 40)])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_real_lengths_can_be_packed(
    family: str, lengths: tuple[int, ...], dtype: torch.dtype
) -> None:
    model = family_model(family).to(dtype).train()
    before = model.config._attn_implementation
    assert probe_texts(model, texts(*lengths), training=True) is None
    assert row_matters(model, texts(*lengths)) is None
    assert model.training
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rope_that_changes_with_the_length_is_packed_where_it_does_not_change(
    dtype: torch.dtype,
) -> None:
    model = family_model("phi3_longrope").to(dtype)  # changes behind 24 positions
    assert "rotary" in (probe(model) or "")
    assert probe_texts(model, texts(10, 24)) is None
    assert probe_texts(model, texts(25, 60)) is None
    model(
        torch.tensor([texts(30)[0]])
    ).logits.float().sum().backward()  # nothing of it is in the way
    assert "longest and shortest text differ" in (probe_texts(model, texts(10, 25)) or "")


def test_half_precision_does_not_hide_a_small_change() -> None:
    model = family_model("phi3_longrope")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.02 / 0.3)
    model.to(torch.bfloat16)
    assert "length of the row's other texts" in (row_matters(model, texts(10, 40)) or "")
    assert row_matters(model, texts(10, 20)) is None


def without_window(function: Any) -> Any:
    def deaf(query: Any, key: Any, value: Any, scale: float, _window: Any, *rest: Any) -> Any:
        return function(query, key, value, scale, None, *rest)

    return deaf


def test_a_window_that_packed_rows_get_wrong_shows_in_the_longest_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model("gemma3", sliding_window=16, initializer_range=0.3)
    monkeypatch.setattr(attention, "_by_sample", without_window(attention._by_sample))
    monkeypatch.setattr(probing, "_window", lambda _: None)
    assert probe(model) is None  # its texts are shorter than the window
    assert "differ" in (probe_texts(model, texts(5, 40)) or "")


@pytest.mark.parametrize("form", ["_by_sample", "_to_cache"])
def test_a_window_that_a_growing_cache_gets_wrong_shows_in_the_longest_prompt(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    model = tiny_model("gemma3", sliding_window=16, initializer_range=0.3)
    settings = greedy_settings(model, _Tokenizer, 2, 8)
    assert unfit(model, settings, texts(5, 12)) is None
    monkeypatch.setattr(attention, form, without_window(getattr(attention, form)))
    assert unfit(model, settings) is None  # its texts are shorter than the window
    assert "differ" in (unfit(model, settings, texts(5, 40)) or "")
    # The prompt ends before the window does, its answer may end behind it.
    assert "differ" in (unfit(model, settings, texts(5, 12)) or "")


class _Tokenizer:
    pad_token_id = 0
