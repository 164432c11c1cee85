from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ragtune.model.fast.lora import fuse, groups_of
from ragtune.model.rounded import Rounded
from tests.conftest import tiny_model
from tests.training.test_train import log, train, weights

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def fused(dtype: torch.dtype = torch.bfloat16) -> Any:
    """A tiny model in a dtype with an adapter in float32."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS)
    model = get_peft_model(tiny_model("llama").to(dtype), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter, dtype=torch.float32) / 10
    fuse(model)
    return model.train()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    ids = torch.arange(3, 23)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def require_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def held(model: Any) -> list[Any]:
    return [group.rounded for group in groups_of(model)]


def test_gradients_are_the_same_bytes() -> None:
    model = fused()
    expected = gradients(model)
    Rounded(model).take()
    assert all(held(model))
    require_equal(gradients(model), expected)


def test_what_was_learned_since_is_taken_into_the_same_memory() -> None:
    """As a graph that was captured reads it there."""
    model = fused()
    rounded = Rounded(model)
    rounded.take()
    places = [one.a.data_ptr() for one in held(model)]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data * 2  # and it may have moved
    rounded.take()
    assert [one.a.data_ptr() for one in held(model)] == places
    found = gradients(model)
    rounded.drop()
    assert not any(held(model))
    require_equal(found, gradients(model))


def test_answers_take_it_where_a_training_has_it() -> None:
    model = fused()
    with Rounded(model).taken():
        assert all(held(model))
    assert not any(held(model))
    Rounded(model).take()
    before = held(model)
    with torch.no_grad():
        model.get_parameter(next(n for n, p in model.named_parameters() if p.requires_grad)).mul_(2)
    with Rounded(model).taken():
        assert held(model) == before
        within = gradients(model)
    assert held(model) == before  # the next step takes it again
    Rounded(model).drop()
    require_equal(within, gradients(model))


def test_what_fails_in_the_middle_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fused()
    fail_at_third(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError), Rounded(model).taken():
        pass
    assert not any(held(model))


def test_what_is_in_its_products_dtype_is_not_kept_twice() -> None:
    model = fused(torch.float32)
    Rounded(model).take()
    assert not any(held(model))
    with Rounded(tiny_model("llama")).taken():  # which has no adapter
        pass


def test_beside_a_base_in_nf4_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragtune.model.rounded.is_packed", lambda _: True)
    model = fused()
    Rounded(model).take()
    assert not any(held(model))


def fail_at_third(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[Any]:
    """Let the third concatenation from now on fail; gives the calls."""
    own, calls = torch.cat, list[Any]()

    def cat(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 3:
            raise error
        return own(*args, **options)

    monkeypatch.setattr(torch, "cat", cat)
    return calls


def test_where_memory_runs_out_it_is_done_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not tried again at each step."""
    model = fused()
    expected = gradients(model)
    rounded = Rounded(model)
    calls = fail_at_third(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    for _ in range(3):
        rounded.take()
    assert len(calls) == 3
    assert not any(held(model))
    assert capsys.readouterr().out.count("too little memory to keep it rounded") == 1
    require_equal(gradients(model), expected)


def test_a_training_that_looks_and_asks_is_the_same(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: what is evaluated between two steps, and learns on, is what was learned by then."""
    options = ("model.dtype=bfloat16", "train.eval_every=2", "train.eval_answers=3")
    dropped, drop = list[Rounded](), Rounded.drop
    monkeypatch.setattr(Rounded, "drop", lambda self: dropped.append(self) or drop(self))  # type: ignore[func-returns-value]
    kept = train(tiny_recipe, tmp_path / "kept", *options)
    assert len(dropped) == 1  # in the end: answers need the memory
    monkeypatch.setattr(Rounded, "take", lambda _: None)
    each = train(tiny_recipe, tmp_path / "each", *options)
    require_equal(weights(kept), weights(each))
    assert log(kept) == log(each)
    assert sum("eval_exact_match" in entry for entry in log(kept)) == 4
