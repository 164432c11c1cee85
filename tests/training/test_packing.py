"""What samples begin with stands once in a row where that changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ragtune.data.encode import Sample
from ragtune.model.fast.attention import using_packed
from ragtune.model.fast.lora import fuse
from ragtune.model.hardware import choose_hardware
from ragtune.model.lora import attach
from ragtune.model.plan import bare_plan
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.training.packing import packing
from ragtune.training.rows import RowCollator, read_row
from tests.conftest import tiny_model

BEGINNING = list(range(3, 23))
SAMPLES = [
    Sample("a", [*BEGINNING, 40, 41, 42], [7, 8, 9]),
    Sample("b", [*BEGINNING, 50], [11]),
    Sample("c", [*BEGINNING, 40, 61], [12, 13]),
]


def recipe(tiny_recipe: dict[str, Any], *more: str) -> Recipe:
    return load_recipe(tiny_recipe, ["lora.dropout=0", *more])


def shares(model: PreTrainedModel, asked: Recipe, samples: list[Sample] = SAMPLES) -> bool:
    plan = bare_plan(asked, choose_hardware(asked), 1)
    found = packing(model, plan, asked, samples)
    assert found.packed
    return found.shared_prefix


def test_where_nothing_is_drawn(tiny_recipe: dict[str, Any]) -> None:
    model = tiny_model("llama")
    assert shares(model, recipe(tiny_recipe))
    assert not shares(model, recipe(tiny_recipe, "lora.dropout=0.1"))
    assert shares(model, recipe(tiny_recipe, "lora.dropout=0.1", "tuning=full"))  # no adapter
    assert not shares(model, recipe(tiny_recipe, "train.arguments.neftune_noise_alpha=5"))
    other = [Sample("d", [1, 2, 3], [4]), *SAMPLES[1:]]
    assert not shares(model, recipe(tiny_recipe), other)
    assert not shares(model, recipe(tiny_recipe, "train.preference=answers.jsonl"))
    model.model.drops = torch.nn.Dropout(0.1)
    assert not shares(model, recipe(tiny_recipe))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_those_of_whole_samples(
    family: str, dtype: torch.dtype, tiny_recipe: dict[str, Any]
) -> None:
    tuned = attach(tiny_model(family).to(dtype), recipe(tiny_recipe).lora, 3)
    fuse(tuned)
    torch.manual_seed(0)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    found = []
    with using_packed(tuned):
        for shared in (False, True):
            row = RowCollator(packed=True, shared=shared)([{"index": 0, "samples": SAMPLES}])
            assert row["input_ids"].numel() == (32 if shared else 72)
            _, logits_KV = read_row(tuned, row)
            loss = torch.nn.functional.cross_entropy(logits_KV.float(), row["targets"])
            learning = [p for p in tuned.parameters() if p.requires_grad]
            found.append((loss.detach(), torch.autograd.grad(loss, learning)))
    (loss, gradients), (other, others) = found
    near = 2e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(loss, other, rtol=near, atol=near)
    for one, two in zip(gradients, others, strict=True):
        assert float((one - two).norm()) <= near * float(one.norm()) + 1e-6
