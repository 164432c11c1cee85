"""What of a run's kernels is compiled ahead; and, on a GPU, that nothing of it is compiled later."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ragtune
from ragtune.model import load
from ragtune.model.fast.ahead import Use, Wanted, await_kernels
from ragtune.model.fast.liger import has_liger
from ragtune.recipe.load import load_recipe
from ragtune.stages import kernels
from ragtune.stages import run as stages
from tests.conftest import tiny_model
from tests.store.test_folder import finished

__all__ = ["finished"]

ALL = ("data", "questions", "before", "adapter", "after")
KERNELS = ("store", "attend", "quantize", "dropout", "norm_backward", "adam")


class Compiled:
    """In the place of the thread and of what it uses: what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wanted: list[Wanted] = []
        self.own: list[list[Use]] = []
        monkeypatch.setattr(kernels, "is_flat", lambda device: device.type == "cuda")
        monkeypatch.setattr(kernels, "has_liger", lambda _: True)
        monkeypatch.setattr(kernels, "uses_of", self._uses_of)
        monkeypatch.setattr(kernels, "compile_ahead", self._compile)

    def _uses_of(self, _: Any, wanted: Wanted, *__: Any) -> list[Use]:
        self.wanted.append(wanted)
        return []

    def _compile(self, uses: Iterable[Use], device: torch.device) -> None:
        assert device.type == "cuda"
        self.own.append([*uses])


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    return Compiled(monkeypatch)


def begin(
    recipe: dict[str, Any], *overrides: str, left: tuple[str, ...] = ALL, device: str = "cuda",
    dtype: torch.dtype = torch.bfloat16, remote: bool = False,
) -> None:  # fmt: skip
    hardware = SimpleNamespace(device=torch.device(device), dtype=dtype)
    context: Any = SimpleNamespace(
        recipe=load_recipe(recipe, [*overrides]), hardware=hardware, config=None, remote=remote
    )
    kernels.compile_kernels(context, left)


def test_a_run_compiles_what_it_answers_and_trains_with(
    tiny_recipe: dict[str, Any], compiled: Compiled
) -> None:
    begin(tiny_recipe)
    assert compiled.wanted == [
        Wanted(answers=True, products=False, gradients=False, dropout=True, norms=True)
    ]
    assert compiled.own == [[]]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.products=fp8"], {"products": True, "gradients": True}),
        (["evaluate.products=fp8"], {"products": True}),
        (["lora.dropout=0"], {"dropout": False}),
        (["lora.dora=true"], {"dropout": False}),
        (["tuning=full", "publish.format=merged"], {"dropout": False, "norms": False}),
    ],
)
def test_what_a_recipe_has_not_is_not_compiled(
    tiny_recipe: dict[str, Any], compiled: Compiled, overrides: list[str], expected: dict[str, bool]
) -> None:
    begin(tiny_recipe, *overrides)
    usual = {"answers": True, "products": False, "gradients": False, "dropout": True, "norms": True}
    assert compiled.wanted == [Wanted(**usual | expected)]


@pytest.mark.parametrize(
    ("optimizer", "dtype", "count"),
    [
        ("adamw", torch.bfloat16, 0),
        ("adamw_8bit", torch.bfloat16, 1),
        ("paged_adamw_8bit", torch.bfloat16, 1),
        ("adamw_8bit", torch.float16, 0),
    ],
)
def test_the_optimizers_kernel_is_compiled_where_it_steps(
    tiny_recipe: dict[str, Any], compiled: Compiled, optimizer: str, dtype: torch.dtype, count: int
) -> None:
    begin(tiny_recipe, f"train.optimizer={optimizer}", dtype=dtype)
    begin(tiny_recipe, f"train.optimizer={optimizer}", dtype=dtype, left=("after",))
    assert [len(own) for own in compiled.own] == [count, 0]


def test_only_what_is_left_to_be_made_counts(
    tiny_recipe: dict[str, Any], compiled: Compiled
) -> None:
    begin(tiny_recipe, "train.products=fp8", left=("after",))
    begin(tiny_recipe, left=("data", "questions", "before", "adapter", "after"), remote=True)
    answers, training = compiled.wanted
    assert answers == Wanted(
        answers=True, products=False, gradients=False, dropout=False, norms=False
    )
    assert not training.answers
    assert training.dropout


def test_nothing_is_begun_where_nothing_is_asked_or_trained_or_no_gpu_is_there(
    tiny_recipe: dict[str, Any], compiled: Compiled
) -> None:
    begin(tiny_recipe, left=())
    begin(tiny_recipe, left=("data", "questions"))
    begin(tiny_recipe, left=("before", "after"), remote=True)
    begin(tiny_recipe, device="cpu")
    assert compiled.own == []


class BegunError(Exception):
    """In the place of what would be made now."""


def test_a_run_compiles_for_the_stages_that_are_left(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(_: Any, left: list[str]) -> None:
        raise BegunError(*left)

    monkeypatch.setattr(stages, "compile_kernels", begin)
    recipe, folder = finished(tmp_path)
    ragtune.run(recipe, run_dir=folder)  # nothing is left
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "eval" / "eval" / "after")
    with pytest.raises(BegunError) as caught:
        ragtune.run(recipe, run_dir=folder)
    assert caught.value.args == ("adapter", "after")


def variants() -> dict[str, set[Any]]:
    """What is compiled of each kernel, for the GPU in use."""
    from ragtune.model.fast import kernels as ours

    device = torch.cuda.current_device()
    return {name: {*getattr(ours, name).device_caches[device][0]} for name in KERNELS}


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("products", [None, "fp8"])
def test_a_run_compiles_none_of_our_kernels_after_its_model_is_loaded(
    tiny_recipe: dict[str, Any], tmp_path: Path, chatml_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch, family: str, products: str | None,
) -> None:  # fmt: skip
    pytest.importorskip("bitsandbytes")
    if products and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no products of 8-bit floats here")
    from ragtune.model.fast import kernels as ours

    # Multiples of 16 as every model has them, down to a head.
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
    model = tiny_model(family, eos_token_id=chatml_tokenizer.eos_token_id, **sizes)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    chatml_tokenizer.save_pretrained(tmp_path / "model")
    tiny_recipe |= {"devices": 1, "model": {"id": str(tmp_path / "model"), "dtype": "bfloat16"}}
    tiny_recipe["train"] |= {"optimizer": "adamw_8bit", "products": products}
    tiny_recipe["evaluate"] |= {"products": products}
    tiny_recipe["publish"] = {"format": "adapter"}
    for name in KERNELS:  # of tests before
        getattr(ours, name).device_caches.clear()
    before: list[dict[str, set[Any]]] = []

    def awaited() -> None:
        await_kernels()
        before.append(variants())

    monkeypatch.setattr(load, "await_kernels", awaited)
    ragtune.run(tiny_recipe, run_dir=tmp_path / "run")
    later = {name: found - before[0][name] for name, found in variants().items()}
    assert later == {name: set() for name in KERNELS}
    unused = set() if products else {"quantize"}
    unused |= set() if has_liger(model.config) else {"norm_backward"}
    assert {name for name, found in before[0].items() if not found} == unused
