"""What the thread does that compiles kernels; and that what it gives them is what they take, and a run gives."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf

import ragtune
from ragtune.model.fast import ahead, cache, eight
from ragtune.model.fast.ahead import uses_of
from ragtune.stages import weights
from tests.conftest import tiny_model

interpreted = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton")
GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32,
}  # fmt: skip
KERNELS = ["store", "attend", "quantize"]


@pytest.fixture(autouse=True)
def _no_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread chooses a GPU, which need not be here; and sets where kernels are kept."""
    if "gpu" not in request.keywords:
        monkeypatch.setattr(torch.cuda, "device", nullcontext)
        monkeypatch.setattr(ahead, "keep_kernels", lambda: None)
        monkeypatch.setattr(ahead, "is_flat", lambda device: device.type == "cuda")


def within(monkeypatch: pytest.MonkeyPatch, *uses: Any, device: torch.device = GPU) -> Any:
    """`compiling`, of these uses."""
    monkeypatch.setattr(ahead, "uses_of", lambda *_, **__: iter(uses))
    hardware: Any = SimpleNamespace(device=device, dtype=torch.bfloat16)
    return ahead.compiling(hf.PreTrainedConfig(), hardware, rounding=True)


def failing() -> None:
    raise RuntimeError("no such instruction")


def test_uses_are_made_by_a_thread_and_are_done_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, did = threading.Event(), list[Any]()
    uses = (gate.wait, lambda: did.append(threading.current_thread().name), lambda: did.append(2))
    with within(monkeypatch, *uses):
        assert did == []
        gate.set()
    assert did == ["compiling kernels", 2]


def test_nothing_is_used_where_kernels_are_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []
    with within(monkeypatch, lambda: did.append("used"), device=CPU):
        pass
    assert did == []


def test_one_that_fails_is_dropped_and_the_others_are_made(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    did: list[int] = []
    with within(monkeypatch, failing, lambda: did.append(1)):
        pass
    assert did == [1]
    assert capfd.readouterr() == ("", "")


def test_a_configuration_that_fails_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    hardware: Any = SimpleNamespace(device=GPU, dtype=torch.bfloat16)
    with ahead.compiling(SimpleNamespace(), hardware, rounding=True):  # type: ignore[arg-type]
        pass
    assert capfd.readouterr() == ("", "")


def test_what_fails_within_is_heard_and_the_thread_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    did: list[str] = []
    with (
        pytest.raises(RuntimeError, match="instruction"),
        within(monkeypatch, lambda: did.append("used")),
    ):
        failing()
    assert did == ["used"]


def test_no_more_are_made_when_a_stop_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    def stopping() -> None:
        did.append("first")
        monkeypatch.setattr(ahead, "asked", lambda: True)

    with within(monkeypatch, stopping, lambda: did.append("second")):
        pass
    assert did == ["first"]


def test_what_is_imported_ahead_is_there_before_a_kernel_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    did: list[str] = []
    monkeypatch.setattr(ahead, "await_import", lambda: did.append("imported"))
    monkeypatch.setattr(ahead, "keep_kernels", lambda: did.append("kept"))
    with within(monkeypatch, lambda: did.append("used")):
        pass
    assert did == ["kept", "imported", "used"]


Launch = tuple[str, tuple[int, ...], tuple[Any, ...]]
"""A kernel's name, its grid, and what it is given."""


class _Kernel:
    """In a kernel's place: tells what it is launched with."""

    def __init__(self, name: str, made: list[Launch]) -> None:
        self._name, self._made = name, made

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *given, **_: self._made.append((self._name, grid, given))


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(cache, "is_flat", lambda _: True)
    monkeypatch.setattr(eight, "has_triton", lambda: True)


def launched(
    monkeypatch: pytest.MonkeyPatch, config: Any, *, rounding: bool = True
) -> list[Launch]:
    made: list[Launch] = []
    as_on_a_gpu(monkeypatch)
    instead = SimpleNamespace(**{name: _Kernel(name, made) for name in KERNELS})
    monkeypatch.setattr("ragtune.model.fast.kernels", instead, raising=False)
    for use in uses_of(config, CPU, torch.bfloat16, rounding=rounding):
        use()
    return made


def test_every_kernel_is_given_the_models_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    """And 1 where a run has another number is nowhere: Triton compiles that apart."""
    made = launched(monkeypatch, hf.LlamaConfig(**SIZES))
    assert [*dict.fromkeys(name for name, _, _ in made)] == KERNELS
    strides = {"store": slice(4, 6), "attend": slice(8, 14)}
    for name, grid, given in made:
        assert grid[0] == 2
        for number in given[strides.get(name, slice(0))]:
            assert number % 16 == 0
        assert {one.dtype for one in given if isinstance(one, torch.Tensor)} <= {
            torch.bfloat16, torch.float32, torch.int64, torch.float8_e4m3fn,
        }  # fmt: skip
    rounded = [given[2] for name, _, given in made if name == "quantize"]
    assert len({*rounded}) == len(rounded)
    # Weights by output and input, their trials in one part and in two.
    assert {(64,), (128,), (96,), (64, 64)} < {*rounded}


def test_what_is_not_rounded_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    config = hf.LlamaConfig(**SIZES)
    assert {name for name, _, _ in launched(monkeypatch, config, rounding=False)} == {*KERNELS[:2]}
    odd = hf.LlamaConfig(**SIZES | {"intermediate_size": 100})  # can't be in 8 bits
    assert not any(
        100 in given[2] for name, _, given in launched(monkeypatch, odd) if name == "quantize"
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (hf.PreTrainedConfig(), set()),
        (hf.MambaConfig(hidden_size=64), {"quantize"}),
        (hf.GPT2Config(n_embd=64, n_head=4), {*KERNELS}),
        (SimpleNamespace(get_text_config=lambda: SimpleNamespace(hidden_size=[64, 32], head_dim=None)), set()),
        (hf.Gemma3Config(text_config=SIZES), {*KERNELS}),
        # Heads that can't share keys: `attend` would look for some that aren't there.
        (hf.LlamaConfig(**SIZES | {"num_key_value_heads": 3}), {"quantize"}),
    ],
    ids=["nothing", "no heads", "other names", "lists", "with vision", "odd heads"],
)  # fmt: skip
def test_what_a_configuration_does_not_say_is_left_out(
    config: Any, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {name for name, _, _ in launched(monkeypatch, config)} == expected


@pytest.mark.skipif(not interpreted, reason="needs Triton on a CPU: TRITON_INTERPRET=1")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_kernels_take_what_they_are_given(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    patch = interpreter._patch_lang_tensor

    def with_numbers(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)  # whose own takes no array of one number, as NumPy doesn't any more
        scope.set_attr(tensor, "__index__", lambda one: int(one.handle.data.item()))

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", with_numbers)
    as_on_a_gpu(monkeypatch)
    uses = [*uses_of(hf.LlamaConfig(**SIZES), CPU, dtype, rounding=True)]
    assert len(uses) > 4
    for use in uses:
        use()


def variants() -> dict[str, set[Any]]:
    """What is compiled of each kernel, for the GPU in use."""
    from ragtune.model.fast import kernels

    device = torch.cuda.current_device()
    return {name: {*getattr(kernels, name).device_caches[device][0]} for name in KERNELS}


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_answers_compile_none_of_our_kernels_behind_the_loading(
    tiny_recipe: dict[str, Any], tmp_path: Path, chatml_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch, family: str,
) -> None:  # fmt: skip
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no products of 8-bit floats here")
    from ragtune.model.fast import kernels

    # Multiples of 16 as every model has them, down to a head.
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
    model = tiny_model(family, eos_token_id=chatml_tokenizer.eos_token_id, **sizes)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    chatml_tokenizer.save_pretrained(tmp_path / "model")
    tiny_recipe |= {"devices": 1, "model": {"id": str(tmp_path / "model"), "dtype": "bfloat16"}}
    tiny_recipe["evaluate"] |= {"products": "fp8"}
    for name in KERNELS:  # of tests before
        getattr(kernels, name).device_caches.clear()
    before: list[dict[str, set[Any]]] = []

    @contextmanager
    def compiling(*given: Any, **named: Any) -> Iterator[None]:
        with ahead.compiling(*given, **named):
            yield
        before.append(variants())

    monkeypatch.setattr(weights, "compiling", compiling)
    ragtune.evaluate(tiny_recipe, base=True, run_dir=tmp_path / "run")
    later = {name: found - before[0][name] for name, found in variants().items()}
    assert later == {name: set() for name in KERNELS}
    assert all(before[0].values())
