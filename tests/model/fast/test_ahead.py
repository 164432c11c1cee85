"""What the thread does that compiles kernels; and that what it gives them is what they take, and a run gives."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as hf

from ragtune.model.fast import ahead, cache, dropout, eight
from ragtune.model.fast.ahead import Wanted, await_kernels, compile_ahead, uses_of

interpreted = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton")
GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32,
}  # fmt: skip
KERNELS = ["store", "attend", "quantize", "dropout", "norm_backward"]
EVERYTHING = Wanted(answers=True, products=True, gradients=True, dropout=True, norms=True)
NOTHING = Wanted(answers=False, products=False, gradients=False, dropout=False, norms=False)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The thread chooses a GPU, which need not be here; and sets where kernels are kept."""
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(ahead, "keep_kernels", lambda: None)
    yield
    await_kernels()


def failing() -> None:
    raise RuntimeError("no such instruction")


def test_uses_are_made_by_a_thread_one_after_the_other_and_can_be_awaited() -> None:
    gate, did = threading.Event(), list[Any]()
    uses = (gate.wait, lambda: did.append(threading.current_thread().name), lambda: did.append(2))
    compile_ahead(uses, GPU)
    assert did == []
    gate.set()
    await_kernels()
    assert did == ["compiling kernels", 2]
    await_kernels()  # nothing was begun: that takes no time


def test_one_that_fails_is_dropped_and_the_others_are_made(
    capfd: pytest.CaptureFixture[str],
) -> None:
    did: list[int] = []
    compile_ahead([failing, lambda: did.append(1)], GPU)
    await_kernels()
    assert did == [1]
    assert capfd.readouterr() == ("", "")


def test_a_configuration_that_fails_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    compile_ahead(uses_of(SimpleNamespace(), EVERYTHING, CPU, torch.bfloat16), GPU)  # type: ignore[arg-type]
    await_kernels()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("why", ["stop", "exit"])
def test_no_more_are_made_when_the_process_is_to_end(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []

    def stopping() -> None:
        did.append("first")
        if why == "stop":
            monkeypatch.setattr(ahead, "asked", lambda: True)
        else:
            gone = threading.Thread()
            monkeypatch.setattr(ahead, "main_thread", lambda: gone)

    compile_ahead([stopping, lambda: did.append("second")], GPU)
    await_kernels()
    assert did == ["first"]


def test_what_is_imported_ahead_is_there_before_a_kernel_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    did: list[str] = []
    monkeypatch.setattr(ahead, "await_import", lambda: did.append("imported"))
    monkeypatch.setattr(ahead, "keep_kernels", lambda: did.append("kept"))
    compile_ahead([lambda: did.append("used")], GPU)
    await_kernels()
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
    for module in (dropout, eight):
        monkeypatch.setattr(module, "has_triton", lambda: True)


def launched(monkeypatch: pytest.MonkeyPatch, config: Any, wanted: Wanted) -> list[Launch]:
    made: list[Launch] = []
    as_on_a_gpu(monkeypatch)
    instead = SimpleNamespace(**{name: _Kernel(name, made) for name in KERNELS})
    monkeypatch.setattr("ragtune.model.fast.kernels", instead, raising=False)
    for use in uses_of(config, wanted, CPU, torch.bfloat16):
        use()
    return made


def test_nothing_is_used_that_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched(monkeypatch, hf.LlamaConfig(**SIZES), NOTHING) == []


def test_every_kernel_is_given_the_models_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    """And 1 where a run has another number is nowhere: Triton compiles that apart."""
    made = launched(monkeypatch, hf.LlamaConfig(**SIZES), EVERYTHING)
    names = [name for name, _, _ in made]
    assert [*dict.fromkeys(names)] == KERNELS
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
    # Weights by output and input, their trials in one part, and what shares an input in training.
    assert {(64,), (128,), (96,), (128, 64, 64), (96, 96)} < {*rounded}
    assert (64, 64) in rounded  # the trial of 128 in two
    assert {given[3] for name, _, given in made if name == "dropout"} == {64, 96, 128}
    assert {given[9] for name, _, given in made if name == "dropout"} == {False, True}
    assert {given[5] for name, _, given in made if name == "norm_backward"} == {32, 64}


def test_without_training_in_8_bits_no_gradients_are_rounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = Wanted(answers=True, products=True, gradients=False, dropout=False, norms=False)
    made = launched(monkeypatch, hf.LlamaConfig(**SIZES), wanted)
    assert (128, 64, 64) not in [given[2] for name, _, given in made if name == "quantize"]
    assert {name for name, _, _ in made} == {"store", "attend", "quantize"}


def test_layers_that_cannot_be_in_8_bits_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = launched(monkeypatch, hf.LlamaConfig(**SIZES | {"intermediate_size": 100}), EVERYTHING)
    assert not any(100 in given[2] for name, _, given in made if name == "quantize")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (hf.PreTrainedConfig(), set()),
        (hf.MambaConfig(hidden_size=64), {*KERNELS[2:]}),
        (hf.GPT2Config(n_embd=64, n_head=4), {*KERNELS}),
        (SimpleNamespace(get_text_config=lambda: SimpleNamespace(hidden_size=[64, 32], head_dim=None)), set()),
        (hf.Gemma3Config(text_config=SIZES), {*KERNELS}),
    ],
    ids=["nothing", "no heads", "other names", "lists", "with vision"],
)  # fmt: skip
def test_what_a_configuration_does_not_say_is_left_out(
    config: Any, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {name for name, _, _ in launched(monkeypatch, config, EVERYTHING)} == expected


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
    uses = [*uses_of(hf.LlamaConfig(**SIZES), EVERYTHING, CPU, dtype)]  # type: ignore[arg-type]
    assert len(uses) > 10
    for use in uses:
        use()
