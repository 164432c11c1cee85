"""Adapters that begin with the largest singular values, and leave the base as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.model.fast.lora import fuse
from ragtune.model.lora import attach, load_adapter, save_adapter
from ragtune.model.wrapping import ADAPTER, adapters
from ragtune.recipe.load import load_recipe
from ragtune.recipe.lora import Lora
from ragtune.training.gradients import attach_reached
from tests.conftest import tiny_model

IDS = torch.arange(3, 40)[None]
PISSA = Lora(rank=4, alpha=8, dropout=0.0, init="pissa")


def logits(model: PreTrainedModel | PeftModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.float()


def llama() -> PreTrainedModel:
    """Its matrices' singular values fall, as those of trained ones do."""
    model: PreTrainedModel = tiny_model("llama")
    for name, weight in model.named_parameters():
        if "proj" in name:
            u, values, v = torch.linalg.svd(weight.data, full_matrices=False)
            weight.data = values[0] * u * 0.7 ** torch.arange(len(values)) @ v
    return model


def peft_own(model: PreTrainedModel, lora: Lora) -> PeftModel:
    """PEFT's PiSSA, which changes the base."""
    names = [*adapters(attach(llama(), Lora(rank=4), 1))]
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, use_rslora=lora.rslora, lora_dropout=0.0,
        init_lora_weights="pissa", target_modules=names, task_type="CAUSAL_LM",
    )  # fmt: skip
    tuned = get_peft_model(model, config)
    assert isinstance(tuned, PeftModel)
    return tuned


def descend(model: PeftModel) -> None:
    """Some steps of plain gradient descent: it depends on what A and B are made of, as Adam does."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3)
    for _ in range(4):
        optimizer.zero_grad()
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("rslora", [False, True])
def test_begins_as_the_base_with_what_peft_takes_out_of_it(rslora: bool) -> None:
    lora = PISSA.model_copy(update={"rslora": rslora})
    base = llama()
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    expected = logits(base)
    tuned = attach(base, lora, 1)
    torch.testing.assert_close(logits(tuned), expected, atol=1e-5, rtol=1e-5)
    own = adapters(peft_own(llama(), lora))
    for name, layer in adapters(tuned).items():
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        assert len(a) == 8
        other = own[name]
        assert layer.scaling[ADAPTER] == pytest.approx(other.scaling[ADAPTER])
        whole = other.lora_B[ADAPTER].weight @ other.lora_A[ADAPTER].weight
        torch.testing.assert_close(b[:, :4] @ a[:4], whole, atol=1e-4, rtol=1e-3)
    left = tuned.unload().state_dict()
    assert all(torch.equal(left[name], weight) for name, weight in before.items())


def test_learns_as_pefts_does() -> None:
    mine, own = attach(llama(), PISSA, 1), peft_own(llama(), PISSA)
    start = logits(mine)
    descend(mine)
    descend(own)
    found, expected = logits(mine), logits(own)
    assert (expected - start).abs().max() > 0.05
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("fused", [False, True])
def test_is_the_same_over_the_base_that_others_have(tmp_path: Any, fused: bool) -> None:
    tuned = attach(llama(), PISSA, 1)
    if fused:
        assert fuse(tuned)
    descend(tuned)
    expected = logits(tuned)
    half = next(iter(adapters(tuned).values())).lora_A[ADAPTER].weight
    fresh = attach(llama(), PISSA, 1)
    first = next(iter(adapters(fresh).values())).lora_A[ADAPTER].weight
    assert torch.equal(half[4:], first[4:])
    assert not torch.equal(half[:4], first[:4])
    save_adapter(tuned, tmp_path, None)
    for load in (load_adapter, PeftModel.from_pretrained):
        again = load(llama(), tmp_path)
        torch.testing.assert_close(logits(again), expected, atol=1e-5, rtol=1e-5)


def test_more_ranks_than_a_matrix_has() -> None:
    base = llama()
    expected = logits(base)
    tuned = attach(base, PISSA.model_copy(update={"rank": 500}), 1)
    torch.testing.assert_close(logits(tuned), expected, atol=1e-4, rtol=1e-4)


def test_of_gpt_2_too() -> None:
    base = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=200))
    expected = logits(base)
    tuned, unreached = attach_reached(base, PISSA, 1, packed=False)
    assert not unreached
    torch.testing.assert_close(logits(tuned), expected, atol=1e-5, rtol=1e-5)


def test_a_weight_that_is_packed_is_refused() -> None:
    model = llama()
    layer = model.model.layers[0].mlp.down_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(UsageError, match=r"those of .*down_proj are packed"):
        attach(model, PISSA, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.quantization=nf4", "packs the weights"),
        ("train.products=fp8", "packs the weights"),
        ("lora.dora=true", "decomposes the same weights"),
        ("lora.experts=true", "no matrices"),
        ("train.weight_decay=0.1", "would shrink"),
        ("train.optimizer=adamw_8bit", "may change what stays"),
    ],
)
def test_what_does_not_go_with_it(tiny_recipe: dict[str, Any], change: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_recipe(tiny_recipe, ["lora.init=pissa", change])
    load_recipe(tiny_recipe, ["lora.init=pissa", "tuning=full"])  # which doesn't use the section
