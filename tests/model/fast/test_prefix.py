"""What all texts of a row begin with is read once, and changes nothing else."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch

from ragtune.answering import ragged
from ragtune.answering.ragged import next_logits, read
from ragtune.model.fast import half
from ragtune.model.fast.attention import _by_sample, using_packed
from ragtune.model.fast.cache import RaggedCache
from ragtune.model.fast.prefix import common, shared
from tests.conftest import tiny_model

BEGINNING = list(range(3, 23))
TEXTS = [[*BEGINNING, 40, 41, 42], [*BEGINNING, 50], [*BEGINNING, 40, 61]]


def test_what_texts_begin_with() -> None:
    assert common(TEXTS) == 20
    assert common(TEXTS[:1]) == 0
    assert common([*TEXTS, [*BEGINNING[:17], 9]]) == 17
    assert common([*TEXTS, BEGINNING]) == 19  # each has something behind it
    assert common([*TEXTS, [*BEGINNING[:15], 9]]) == 0  # too little
    assert common([[1, 2], [2, 1], []]) == 0


def test_the_rows_layout() -> None:
    one = shared([5, 3, 4], 2)
    assert one.kept.tolist() == [0, 1, 2, 3, 4, 7, 10, 11]
    assert one.places.tolist() == [0, 1, 2, 3, 4, 0, 1, 5, 0, 1, 6, 7]
    assert one.sizes == [2, 3, 1, 2]
    assert one.borders.tolist() == [0, 2, 5, 6, 8]


@pytest.mark.parametrize("window", [None, 4, 21])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_that_of_whole_texts(window: int | None, dtype: torch.dtype) -> None:
    """Values and gradients: those of the beginning are the sum of what every text gives."""
    torch.manual_seed(0)
    sizes = [*map(len, TEXTS)]
    one = shared(sizes, 20)
    row = [torch.randn(1, len(one.kept), h, 8, dtype=dtype) for h in (4, 2, 2)]
    row = [t.transpose(1, 2).requires_grad_() for t in row]
    whole = [t[:, :, one.places] for t in row]
    attention = half.attention if dtype == torch.bfloat16 else _by_sample
    expected = attention(*whole, 0.3, window, sizes, shared=False)
    found = attention(*row, 0.3, window, one.sizes, shared=True)
    near: dict[str, Any] = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(found[:, one.places], expected, **near)
    dout = torch.randn_like(expected)
    given = torch.autograd.grad(found[:, one.places], row, dout)
    for a, b in zip(given, torch.autograd.grad(expected, row, dout), strict=True):
        assert float((a - b).norm()) <= (2e-2 if near else 1e-5) * float(b.norm())


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma3"])
def test_prompts_read_so_give_the_same_logits_and_cache(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(family).eval()

    def answer() -> tuple[Any, ...]:
        cache = RaggedCache(len(TEXTS), 30, torch.device("cpu"))
        with torch.inference_mode(), using_packed(model):
            logits_NV = torch.cat([*read(model, cache, TEXTS)])
            lengths = torch.tensor([*map(len, TEXTS)])
            more_NV = next_logits(model, cache, torch.tensor([7, 8, 9]), lengths, 23)
        return logits_NV, more_NV, *cache.keys_QGD.values(), *cache.values_QGD.values()

    rows: list[int] = []
    model.register_forward_pre_hook(
        lambda _, __, given: rows.append(given["input_ids"].numel()), with_kwargs=True
    )
    found = answer()
    monkeypatch.setattr(ragged, "common", lambda prompts: 0)
    expected = answer()
    assert rows == [20 + 3 + 1 + 2, 3, sum(map(len, TEXTS)), 3]
    assert list(accumulate(map(len, TEXTS)))[-1] == rows[2]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
