from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ragtune.base.errors import RagtuneError
from ragtune.model import hardware
from ragtune.model.plan import Plan
from ragtune.training import trainer as trainer_module
from ragtune.training.failures import smaller_plan
from tests.training.test_train import log, losses, summary, train


@pytest.mark.parametrize("products", [None, "fp8"])
def test_out_of_memory_halves_the_row_and_goes_on(
    products: str | None,
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_recipe["train"]["products"] = products
    monkeypatch.setattr(hardware, "_require_fp8", lambda *_: None)
    original = trainer_module.PackedTrainer.compute_loss
    seen: list[int] = []

    def small(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        seen.append(len(inputs["cu_seq_lens_q"]) - 1)
        if seen[-1] > 2 and len(seen) > 4:
            raise torch.OutOfMemoryError("no")
        return original(self, model, inputs, *rest, **named)

    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", small)
    one = train(tiny_recipe, tmp_path / "run", "train.samples_per_row=4")
    plan = summary(one)["plan"]
    assert plan["samples_per_row"] == 2
    assert plan["products"] == products
    assert plan["changes"] == ["step 5: out of memory, 2 samples a row"]
    assert "Step 5: out of memory, 2 samples a row; the step begins again" in (
        capsys.readouterr().out
    )
    assert [e["step"] for e in log(one)] == list(range(1, 9))
    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", original)
    whole = train(tiny_recipe, tmp_path / "whole")
    assert losses(one) == pytest.approx(losses(whole), rel=1e-4)


def test_out_of_memory_keeps_nothing_of_the_pass_that_failed(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two layers that share an input the second one's output waits, and with it the graph."""
    import gc
    import weakref

    from ragtune.model.fast import lora

    inputs: list[Any] = []
    alive: list[int] = []
    original = lora.Group.call

    def failing(self: Any, index: int, x: Any) -> Any:
        if self.layers[0].training and len(inputs) < 3:
            inputs.append(weakref.ref(x))
        if len(inputs) == 3 and index == 1 and not alive:
            alive.append(-1)
            raise torch.OutOfMemoryError("no")
        if alive == [-1]:
            gc.collect()
            alive[0] = sum(ref() is not None for ref in inputs)
        return original(self, index, x)

    monkeypatch.setattr(lora.Group, "call", failing)
    train(tiny_recipe, tmp_path / "run", "train.steps=1", "train.samples_per_row=2")
    assert alive == [0]


def test_out_of_memory_at_once_gives_what_the_smaller_rows_give(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer_module.PackedTrainer.compute_loss

    def small(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        if len(inputs["cu_seq_lens_q"]) - 1 > 2:
            # What torch says on a CPU.
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return original(self, model, inputs, *rest, **named)

    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", small)
    one = train(tiny_recipe, tmp_path / "run", "train.samples_per_row=4")
    assert summary(one)["plan"]["changes"] == ["step 1: out of memory, 2 samples a row"]
    monkeypatch.undo()
    other = train(tiny_recipe, tmp_path / "other", "train.samples_per_row=2")
    assert losses(one) == pytest.approx(losses(other), rel=1e-4)


def test_out_of_memory_in_a_backward_pass_leaves_nothing_of_it_in_the_gradients(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second row of a step fails after its gradients are there; then single samples fail, too."""
    from accelerate import Accelerator

    original = Accelerator.backward
    calls: list[int] = []

    def failing(self: Any, loss: Any, **options: Any) -> None:
        original(self, loss, **options)
        calls.append(1)
        if len(calls) in (6, 9):
            raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(Accelerator, "backward", failing)
    one = train(tiny_recipe, tmp_path / "run", "train.samples_per_row=2")
    assert summary(one)["plan"]["changes"] == [
        "step 3: out of memory, 1 sample a row",
        "step 3: out of memory, recompute activations",
    ]
    monkeypatch.undo()
    whole = train(tiny_recipe, tmp_path / "whole", "train.samples_per_row=2")
    assert losses(one) == pytest.approx(losses(whole), rel=1e-4)


def test_memory_that_does_not_do_for_one_sample_ends_in_a_message(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", failing)
    with pytest.raises(
        RagtuneError, match="Step 1: there is too little memory for a single sample"
    ):
        train(tiny_recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("quantization", "products", "advice"),
    [
        (None, None, "Set model.quantization=nf4, a lower lora.rank, or"),
        (None, "fp8", "Set model.quantization=nf4, a lower lora.rank, or"),
        ("nf4", None, "Set a lower lora.rank, or"),
        ("nf4", "fp8", "Set train.products=null, a lower lora.rank, or"),
    ],
)
def test_what_takes_less_memory_is_said(
    quantization: str | None, products: str | None, advice: str
) -> None:
    plan = Plan(
        "a GPU", "bfloat16", quantization, 1, recompute=True, optimizer="adamw", evaluation_batch=1,
        products=products,
    )  # fmt: skip
    with pytest.raises(RagtuneError, match="too little memory for a single sample") as caught:
        smaller_plan(plan, 1, lambda _: None)
    assert caught.value.advice == f"{advice} prompt.max_tokens to something shorter."
