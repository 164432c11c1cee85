"""A fresh adapter: what is drawn, and that it is the same wherever and however it is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bench.peers.common import Job, plain_lora
from peft.tuners.lora import aqlm

from ragtune.model.hardware import Hardware
from ragtune.model.load import load_model
from ragtune.model.lora import attach
from ragtune.model.skeleton import parameters_of, skeleton
from ragtune.model.source import ModelSource
from ragtune.model.wrapping import ADAPTER, adapters
from ragtune.recipe.schema import Lora

CPU = Hardware(torch.device("cpu"), torch.float32, "test", "CPU")


def matrices(folder: Path, seed: int, **lora: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B of every layer, by its name."""
    base = load_model(ModelSource(str(folder), None), CPU, nf4=False)
    found = adapters(attach(base, Lora(rank=4, **lora), seed))
    return {n: (a.lora_A[ADAPTER].weight, a.lora_B[ADAPTER].weight) for n, a in found.items()}


def test_every_layer_draws_its_own_as_peft_would(tiny_folder: Path) -> None:
    drawn = matrices(tiny_folder, 7)
    assert len({float(a.detach().flatten()[0]) for a, _ in drawn.values()}) == len(drawn)
    for a, b in drawn.values():
        bound = a.shape[1] ** -0.5
        assert not b.any()
        assert 0.8 * bound < float(a.abs().max()) <= bound
        assert float(a.std()) == pytest.approx(bound / 3**0.5, rel=0.2)
        assert a.dtype == b.dtype == torch.float32


def test_a_seed_draws_the_same_on_any_number_of_cores(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = matrices(tiny_folder, 7)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    again, other = matrices(tiny_folder, 7), matrices(tiny_folder, 8)
    assert all(torch.equal(one[name][0], again[name][0]) for name in one)
    assert not any(torch.equal(one[name][0], other[name][0]) for name in one)


def test_the_bench_gives_other_systems_the_same_to_begin_with(tiny_folder: Path) -> None:
    """Else their losses could not be laid over ours."""
    ours = matrices(tiny_folder, 7)
    targets = sorted({name.rpartition(".")[2] for name in ours})
    recipe = {"seed": 7, "lora": {"rank": 4, "alpha": 8, "target_modules": targets}}
    job = Job(
        model="", samples="", work="", recipe=recipe, tiny=True, seconds=60, warm=1, timed=1,
        short_steps=1, questions=0, asked=0, memory_gib=1,
    )  # fmt: skip
    base = load_model(ModelSource(str(tiny_folder), None), CPU, nf4=False)
    tuned = plain_lora(base, job, 0.0)
    theirs = {n: layer.lora_A[ADAPTER].weight for n, layer in adapters(tuned).items()}
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name][0]) for name in ours)
    assert {p.requires_grad for n, p in tuned.named_parameters() if "lora_" in n} == {True}


def test_what_peft_computes_with_it_draws_itself(tiny_folder: Path) -> None:
    assert all(
        a.any() and a.isfinite().all() for a, _ in matrices(tiny_folder, 7, dora=True).values()
    )


class QuantizedLinear(torch.nn.Module):
    """A layer that has no `weight`, called as AQLM's, which PEFT knows by that."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.codes = torch.nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
        self.register_buffer("codebooks", torch.zeros(0))


def test_a_base_in_few_bits_has_no_plain_weights(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aqlm, "is_aqlm_available", lambda: True)
    monkeypatch.setattr(aqlm, "QuantizedLinear", QuantizedLinear, raising=False)
    base = load_model(ModelSource(str(tiny_folder), None), CPU, nf4=False)
    names = [name for name, _ in base.named_modules() if name.endswith("_proj")]
    for name in names:
        base.set_submodule(name, QuantizedLinear(base.get_submodule(name)))
    found = adapters(attach(base, Lora(rank=4), 7))
    assert {type(layer) for layer in found.values()} == {aqlm.AqlmLoraLinear}
    plain = matrices(tiny_folder, 7)
    assert found.keys() == plain.keys()
    # By which the plan lays out the rows, before anything is loaded.
    assert parameters_of(base) == parameters_of(skeleton(base.config))
    for name, layer in found.items():  # the same as over plain weights
        assert torch.equal(layer.lora_A[ADAPTER].weight, plain[name][0])
        assert not layer.lora_B[ADAPTER].weight.any()


def test_other_modules_are_drawn_as_ever_afterwards(tiny_folder: Path) -> None:
    matrices(tiny_folder, 7)
    assert float(torch.nn.Linear(9, 9).weight.std()) > 0.1
