from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ragtune.data.encode import IGNORE, Sample
from ragtune.model.fast.attention import using_packed
from ragtune.model.fast.dropout import Masks
from ragtune.model.fast.lora import fuse
from ragtune.model.lora import attach
from ragtune.recipe.schema import Lora
from ragtune.training.rows import RowCollator, read_row
from ragtune.training.sizes import RowSize, choose_sizes, fill_up, size_for
from tests.conftest import tiny_model


def sample(length: int, number: int = 0) -> Sample:
    ids = [(7 * number + i) % 50 + 5 for i in range(length)]
    return Sample(str(number), ids[:-2], ids[-2:], number)


def row_of(*lengths: int) -> dict[str, Any]:
    samples = [sample(length, number) for number, length in enumerate(lengths)]
    return RowCollator(packed=True)([{"index": 3, "samples": samples}])


@given(
    lengths=st.lists(
        st.lists(st.integers(3, 900), min_size=1, max_size=5), min_size=1, max_size=40
    ),
    most=st.integers(1, 4),
)
def test_every_row_has_a_size_and_the_last_is_no_larger_than_needed(
    lengths: list[list[int]], most: int
) -> None:
    rows = [[sample(n, i) for i, n in enumerate(row)] for row in lengths]
    sizes = choose_sizes(rows, most)
    assert 1 <= len(sizes) <= most
    assert sizes == sorted(sizes, key=lambda size: size.tokens)
    assert sizes[-1].tokens - max(map(sum, lengths)) < 64
    for row in lengths:
        size = size_for(row_of(*row), sizes)
        assert size is not None
        assert size.tokens >= sum(row)
        assert size.longest >= max(*row, size.tokens - sum(row))


def test_more_sizes_are_chosen_only_for_less_filler() -> None:
    rows = [[sample(n)] for n in [640] * 50 + [1280] * 50]
    assert [size.tokens for size in choose_sizes(rows, 6)] == [640, 1280]
    assert [size.tokens for size in choose_sizes(rows, 1)] == [1280]
    # The 7 tokens are 1 % of all.
    assert [size.tokens for size in choose_sizes([[sample(64)], [sample(57)]] * 9, 6)] == [64]
    long = choose_sizes([[sample(n)] for n in range(600, 1000, 2)], 3)
    waste = [
        sum(next(s.tokens for s in long if s.tokens >= n) - n for n in range(600, 1000, 2)),
        sum(1024 - n for n in range(600, 1000, 2)),
    ]
    assert len(long) == 3
    assert waste[0] < 0.5 * waste[1]


def test_a_row_that_no_size_has_room_for_has_none() -> None:
    row = row_of(20, 30)
    assert size_for(row, [RowSize(64, 2, 4, 40)]) == RowSize(64, 2, 4, 40)
    for small in (RowSize(49, 2, 4, 40), RowSize(64, 1, 4, 40), RowSize(64, 2, 3, 40)):
        assert size_for(row, [small]) is None


@pytest.mark.parametrize("lengths", [(20, 30), (57,), (64,)])
def test_the_filler_is_one_sample_more(lengths: tuple[int, ...]) -> None:
    row, size = row_of(*lengths), RowSize(64, 3, 6, 44)
    full = fill_up(row, size)
    borders = full["cu_seq_lens_q"].tolist()
    assert borders == [*accumulate(lengths, initial=0), *[64] * (4 - len(lengths))]
    assert full["cu_seq_lens_q"].dtype == torch.int32
    for name in ("input_ids", "position_ids"):
        assert full[name].shape == (1, 64)
        assert torch.equal(full[name][:, : sum(lengths)], row[name])
    assert full["places"].shape == (64,)
    trained = len(row["targets"])
    assert full["targets"].tolist() == row["targets"].tolist() + [IGNORE] * (6 - trained)
    assert full["logits_to_keep"][:trained].tolist() == row["logits_to_keep"].tolist()
    assert (full["max_length_q"], full["row"]) == (44, 3)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_filler_changes_neither_loss_nor_gradients(family: str) -> None:
    model = attach(tiny_model(family), Lora(rank=4, dropout=0.2), seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    masks = Masks(7)
    masks.take_over(model)
    fuse(model)
    model.train()

    def run(row: dict[str, Any]) -> list[torch.Tensor]:
        model.zero_grad()
        masks.read(5, row["places"])
        with using_packed(model.get_base_model()):
            _, logits_KV = read_row(model, row)
        loss = functional.cross_entropy(logits_KV, row["targets"], reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    row = row_of(20, 9, 13)
    plain = run(row)
    assert len(plain) > 4
    for size in (RowSize(64, 3, 6, 22), RowSize(64, 5, 9, 22), RowSize(42, 3, 6, 22)):
        for found, expected in zip(run(fill_up(row, size)), plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
