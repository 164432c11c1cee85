from __future__ import annotations

import pytest
import torch
from torch import nn

from ragtune.model import wrapping
from ragtune.model.wrapping import digest_of


def model() -> nn.Module:
    """Weights of 1, 2, 4 and 8 bytes, one that is not contiguous, and one that isn't trained."""
    kinds = (torch.int8, torch.bfloat16, torch.float32, torch.float64)
    made = nn.ParameterDict({
        f"of_{kind.itemsize}": nn.Parameter(torch.arange(-6, 6).reshape(3, 4).to(kind), kind.is_floating_point)
        for kind in kinds
    })  # fmt: skip
    made["turned"] = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    return made


def test_the_digest_of_weights_is_a_sum_of_their_bits_in_order() -> None:
    plain = 0
    for name, weight in model().named_parameters():
        size = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[
            weight.element_size()
        ]
        bits = weight.detach().contiguous().view(size)
        plain = (plain * 31 + sum(map(int, bits.flatten().tolist())) + len(name)) % (2**61 - 1)
    assert digest_of(model()) == f"{plain:x}"
    assert digest_of(nn.ParameterDict()) == "0"


def test_weights_are_summed_in_parts_that_need_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = digest_of(model())
    seen: list[int] = []
    summed = wrapping._sum_of_bits
    monkeypatch.setattr(wrapping, "_AT_A_TIME", 8)
    monkeypatch.setattr(
        wrapping, "_sum_of_bits", lambda part: (seen.append(part.numel()), summed(part))[1]
    )
    assert digest_of(model()) == whole
    assert max(seen) == 8
    monkeypatch.setattr(wrapping, "_AT_A_TIME", 1)
    assert digest_of(model()) == whole  # rows are longer


def test_another_weight_gives_another_digest_and_one_that_is_not_trained_may_not_count() -> None:
    own, trained = digest_of(model()), digest_of(model(), trained=True)
    for name, weight in model().named_parameters():
        other = model()
        with torch.no_grad():
            other.get_parameter(name)[0, 0] = 100
        assert digest_of(other) != own
        assert (digest_of(other, trained=True) != trained) is weight.requires_grad
