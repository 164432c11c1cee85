"""What gets no gradient from text is found, and nothing else is taken for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ragtune.model.experts import expert_lists, mixtures
from ragtune.model.lora import attach
from ragtune.model.skeleton import language_model
from ragtune.model.wrapping import adapters, wrap
from ragtune.recipe.lora import Lora
from ragtune.training.gradients import attach_reached, without_gradient
from tests.conftest import tiny_model


class Mixture(nn.Module):
    """Experts that are modules of their own, as models with code of their own have them."""

    def __init__(self, experts: list[nn.Module], width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, len(experts), bias=False)
        self.experts = nn.ModuleList(experts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.gate(x).softmax(-1)
        chosen = weights.argmax(-1)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            if (chosen == index).any():
                used = (chosen == index)[..., None] * weights[..., index : index + 1]
                out = out + used * expert(x)
        return out


def with_experts(count: int) -> Any:
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.mlp = Mixture([type(layer.mlp)(model.config) for _ in range(count)], 32)
    return model


def test_an_expert_that_no_token_of_the_row_goes_to_is_not_left_out() -> None:
    model = with_experts(64)
    (first, _) = mixtures(language_model(model)[1], "model")
    assert first.modules == ["model.layers.0.mlp.experts"]
    assert first.routers == ["model.layers.0.mlp.gate"]
    assert expert_lists(model)[0] == "model.layers.0.mlp.experts."
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and "experts" in n]
    tuned = wrap(model, Lora(rank=2), names)
    assert without_gradient(tuned, packed=False) == []


def test_a_layer_that_is_never_called_is_left_out() -> None:
    model = tiny_model("llama")
    mlp = model.model.layers[1].mlp

    def without_gate(x: torch.Tensor) -> torch.Tensor:
        return mlp.down_proj(mlp.up_proj(x))

    mlp.forward = without_gate
    tuned = attach(model, Lora(rank=2, dropout=0.0), 0)
    assert without_gradient(tuned, packed=False) == ["model.layers.1.mlp.gate_proj"]
    model = tuned.unload()
    tuned, unreached = attach_reached(model, Lora(rank=2, dropout=0.0), 0, packed=False)
    assert unreached == ["model.layers.1.mlp.gate_proj"]
    assert "model.layers.1.mlp.gate_proj" not in adapters(tuned)
    assert len(adapters(tuned)) == 13
