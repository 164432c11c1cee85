from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ragtune.model.fast import dropout as module
from ragtune.model.fast.dropout import Draw, Dropout, Masks, add_dropped, dropout, numbers, places


def draw(*lengths: int, seed: int = 7, step: int = 0, layer: int = 1, device: str = "cpu") -> Draw:
    drawn = Draw(seed, torch.tensor([step]), layer, places(lengths, range(len(lengths))))
    return replace(drawn, step=drawn.step.to(device), places=drawn.places.to(device))


def dropped(one: Draw, width: int, rate: float = 0.2) -> torch.Tensor:
    """Which of ones are dropped, [T, width]."""
    return dropout(torch.ones(len(one.places), width), rate, one) == 0


def test_the_numbers_are_philoxs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its authors' own program (Random123's kat_vectors, philox4x32 with 10 rounds)."""
    monkeypatch.setattr(module, "_ROUNDS", 10)
    zero = torch.zeros((1, 1), dtype=torch.int64)
    column, place = zero + 0x243F6A88, (zero + 0x13198A2E << 32) + 0x85A308D3
    layer, key = 0x03707344, (0xA4093822, 0x299F31D0)
    expected = [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    by_numpy = module._drawn(column, place, layer, key)
    by_torch = module._philox(column, place & module._HALF, place >> 32, layer, key)
    assert [int(n) for n in by_numpy] == [int(n) for n in by_torch] == expected


def test_a_sample_has_its_mask_in_any_row() -> None:
    whole = dropped(draw(5, 9, 300), 100)
    for number, at in ((0, slice(0, 5)), (1, slice(5, 14)), (2, slice(14, 314))):
        alone = replace(draw(1), places=places([at.stop - at.start], [number]))
        assert torch.equal(dropped(alone, 100), whole[at])
    turned = replace(draw(1), places=places([300, 5], [2, 0]))
    assert torch.equal(dropped(turned, 100), torch.cat([whole[14:], whole[:5]]))


@pytest.mark.parametrize("other", [{"seed": 8}, {"step": 1}, {"layer": 2}, {"seed": 7 + 2**31}])
def test_each_name_gives_other_masks(other: Any) -> None:
    one, two = (dropped(draw(200, **more), 300).float() for more in ({}, other))
    assert float((one * two).mean()) == pytest.approx(0.04, abs=0.004)
    assert torch.equal(one, dropped(draw(200), 300).float())


def test_samples_places_and_columns_are_drawn_for_each_on_its_own() -> None:
    found = dropped(draw(400, 400), 800).float()
    assert float(found.mean()) == pytest.approx(0.2, abs=0.003)
    by_column, by_token = found.mean(dim=0), found.mean(dim=1)
    assert float(by_column.std()) == pytest.approx((0.16 / 800) ** 0.5, rel=0.1)
    assert float(by_token.std()) == pytest.approx((0.16 / 800) ** 0.5, rel=0.1)
    assert float((found[:400] * found[400:]).mean()) == pytest.approx(0.04, abs=0.002)
    for away in (*range(1, 9), 100):  # a call of Philox is shared by eight columns
        both = float((found[:, :-away] * found[:, away:]).mean())
        assert both == pytest.approx(0.04, abs=0.003), away


@pytest.mark.parametrize("width", [1, 7, 8, 12, 4099])
def test_every_width_has_its_share(width: int) -> None:
    found = dropped(draw(40_000 // width), width)
    assert float(found.float().mean()) == pytest.approx(0.2, abs=0.01)


def test_what_stays_is_scaled_and_added() -> None:
    one, x = draw(100), torch.randn(100, 30)
    once = dropout(x, 0.2, one)
    kept = once != 0
    torch.testing.assert_close(once[kept], x[kept] / 0.8, rtol=1e-4, atol=0)
    total = torch.ones_like(x)
    add_dropped(total, x, 0.2, one)
    assert torch.equal(total, once + 1)
    assert float((dropout(x, 1 - 1e-9, one) == 0).float().mean()) > 0.99


def test_what_a_token_has_beside_its_width_is_drawn_too() -> None:
    """Heads; some of the tokens, as an expert has them; and none."""
    row = draw(6)
    assert torch.equal(dropped(row, 20), dropout(torch.ones(1, 6, 5, 4), 0.2, row).view(6, 20) == 0)
    assert torch.equal(dropout(torch.ones(4, 20), 0.2, row) == 0, dropped(row, 20)[:4])
    assert dropout(torch.ones(0, 20), 0.2, row).shape == (0, 20)


def test_a_models_own_dropout_layers_are_taken_over() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    masks = Masks(3)
    masks.take_over(model)
    first, second = model[1], model[2][0]
    assert isinstance(first, Dropout)
    x = torch.ones(1, 50, 8, requires_grad=True)
    masks.read(4, places([50], [2]))
    found = first(x)
    assert not torch.equal(found, second(x))
    assert torch.equal(found, first(x))
    found.sum().backward()
    assert torch.equal(x.grad, found.detach())
    masks.read(5, places([50], [2]))
    assert not torch.equal(found, first(x))
    assert first.eval()(x) is x


@pytest.mark.gpu
@pytest.mark.parametrize("width", [4096, 11008, 4099, 640, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_draws_what_the_plain_form_draws(dtype: torch.dtype, width: int) -> None:
    seed = 2**32 - 5
    here, there = (draw(3, 700, seed=seed, step=9, device=d) for d in ("cpu", "cuda"))
    assert torch.equal(numbers(there, width).cpu(), numbers(here, width))
    x = torch.randn(703, width, dtype=dtype)
    expected, found = dropout(x, 0.05, here), dropout(x.cuda(), 0.05, there)
    assert torch.equal(found.cpu() == 0, expected == 0)
    torch.testing.assert_close(found.cpu(), expected)
    total = torch.ones_like(found)
    add_dropped(total, x.cuda(), 0.05, there)
    torch.testing.assert_close(total.float(), found.float() + 1, rtol=1e-2, atol=1e-2)
