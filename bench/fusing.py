"""What a step of a 7B in 8 bits would gain by larger kernels, and what kernels cost when they are first used.

    python bench/fusing.py --out bench/results/fusing-NAME.json [--parts rounding beside compiled] [--tiny]

`rounding`: norms and SwiGLU that also write what they make in 8 bits, as kernels of this file, beside
Liger's kernels and `eight.quantize` behind them, as they are. `beside`: one product of the weights of
layers with one input (q, k and v; gate and up) beside one for each, in both directions, at a 7B's shape and at
Gemma 3 270M's. `compiled`: a step and answers of two layers as wide as a 7B's in new processes, with no
compiled kernel and once more with all. Milliseconds are medians, in CUDA graphs; `of_a_step` is the gain in a
step of 12,026 tokens, or of 14,800 of the 270M. --tiny is a trial of the kernels, in Triton's interpreter
(TRITON_INTERPRET=1).
"""

# ruff: noqa: ANN001, ANN201, ANN202, PLR0913 - Triton reads the signatures

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from machine import made_with
from ragtune.base.files import write_json
from ragtune.model.fast.eight import FORMAT, Rows, product, quantize

PARTS = ("rounding", "beside", "compiled")
TOKENS, WIDTH, INNER, LAYERS = 12026, 4096, 11008, 32
SHARE = 1.75 / torch.finfo(FORMAT).max


@triton.jit
def _scaled(value, share: tl.constexpr):
    """A row's scale, as `eight.quantized_plainly` finds it."""
    bits = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    most = tl.minimum(tl.maximum(tl.max(bits, axis=0), 0x0DA24260), 0x7F800000)
    return ((most + 0x1FFFFF) & 0x7F800000).to(tl.float32, bitcast=True) * share


@triton.jit
def _write(out, y, y8, scales, row, at, inside, share: tl.constexpr):
    """Write a row in its dtype and in 8 bits."""
    tl.store(y + at, out, mask=inside)
    value = out.to(tl.float32)
    scale = _scaled(value, share)
    tl.store(scales + row, scale)
    tl.store(y8 + at, (value * (1.0 / scale)).to(y8.dtype.element_ty), mask=inside)


@triton.jit
def norm_kernel(
    x, weight, y, y8, scales, rstd, width, eps, share: tl.constexpr, block: tl.constexpr
):
    """Llama's RMSNorm of a row, in its dtype and in 8 bits."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < width
    at = row * width + column
    found = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    s = 1.0 / tl.sqrt(tl.sum(found * found, axis=0) / width + eps)
    tl.store(rstd + row, s)
    weights = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    # Rounded to the dtype before and after, as Llama's is.
    out = ((found * s).to(y.dtype.element_ty).to(tl.float32) * weights).to(y.dtype.element_ty)
    _write(out, y, y8, scales, row, at, inside, share)


@triton.jit
def gated_kernel(gate, up, y, y8, scales, width, share: tl.constexpr, block: tl.constexpr):
    """SwiGLU of a row, in its dtype and in 8 bits."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < width
    at = row * width + column
    a = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    out = ((a * tl.sigmoid(a)).to(y.dtype.element_ty).to(tl.float32) * b).to(y.dtype.element_ty)
    _write(out, y, y8, scales, row, at, inside, share)


@triton.jit
def gated_backward_kernel(
    dy, gate, up, d8, scales, width, share: tl.constexpr, block: tl.constexpr
):
    """SwiGLU's gradients of a row in place of its inputs, and beside each other in 8 bits."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < width
    at = row * width + column
    d = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    a = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(a)
    silu = a * s
    da = (d * (silu * (1 - s) + s) * b).to(gate.dtype.element_ty)
    db = (d * silu).to(up.dtype.element_ty)
    tl.store(gate + at, da, mask=inside)
    tl.store(up + at, db, mask=inside)
    da, db = da.to(tl.float32), db.to(tl.float32)
    scale = tl.maximum(_scaled(da, share), _scaled(db, share))
    tl.store(scales + row, scale)
    d8 += row * 2 * width + column
    tl.store(d8, (da * (1.0 / scale)).to(d8.dtype.element_ty), mask=inside)
    tl.store(d8 + width, (db * (1.0 / scale)).to(d8.dtype.element_ty), mask=inside)


def empty_rows(rows: int, width: int, device: torch.device) -> Rows:
    return Rows(
        torch.empty((rows, width), dtype=FORMAT, device=device),
        torch.empty((rows, 1), dtype=torch.float32, device=device),
    )


def launch(kernel: Any, rows: int, width: int, *given: object) -> None:
    block = 1 << (width - 1).bit_length()
    kernel[(rows,)](*given, SHARE, block, num_warps=min(max(block // 1024, 1), 16))


def norm(x: Tensor, weight: Tensor) -> tuple[Tensor, Rows]:
    y, y8 = torch.empty_like(x), empty_rows(*x.shape, x.device)
    rstd = torch.empty(len(x), device=x.device)
    launch(norm_kernel, *x.shape, x, weight, y, *y8, rstd, x.shape[1], 1e-6)
    return y, y8


def gated(gate: Tensor, up: Tensor) -> tuple[Tensor, Rows]:
    y, y8 = torch.empty_like(gate), empty_rows(*gate.shape, gate.device)
    launch(gated_kernel, *gate.shape, gate, up, y, *y8, gate.shape[1])
    return y, y8


def gated_backward(dy: Tensor, gate: Tensor, up: Tensor) -> Rows:
    d8 = empty_rows(len(dy), 2 * dy.shape[1], dy.device)
    launch(gated_backward_kernel, *dy.shape, dy, gate, up, *d8, dy.shape[1])
    return d8


def milliseconds(work: Callable[[], object]) -> float:
    """The median of twenty times, on the GPU; 0 without one."""
    if not torch.cuda.is_available():
        work()
        return 0.0
    found = []
    for i in range(25):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        if i >= 5:  # noqa: PLR2004 - those before compile, and warm up
            found.append(start.elapsed_time(end))
    return round(statistics.median(found), 4)


def ligers() -> tuple[
    Callable[..., Tensor], Callable[..., Tensor], Callable[..., Sequence[Tensor]]
]:
    """Its norm, SwiGLU and SwiGLU's gradients, in place of gate and up."""
    from liger_kernel.ops.rms_norm import rms_norm_forward
    from liger_kernel.ops.swiglu import swiglu_backward, swiglu_forward

    return (
        lambda x, weight: rms_norm_forward(x, weight, 1e-6, 0.0, "llama", None)[0],
        lambda gate, up: swiglu_forward(gate, up)[2],
        lambda gate, up, dy: swiglu_backward(gate, up, dy)[:2],
    )


def plain() -> tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Sequence[Tensor]]]:
    """The same without kernels, for a trial."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float()
        return (wide * (wide.square().mean(1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype) * weight

    def gated(gate: Tensor, up: Tensor) -> Tensor:
        return torch.nn.functional.silu(gate.float()).to(up.dtype) * up

    def back(gate: Tensor, up: Tensor, dy: Tensor) -> Sequence[Tensor]:
        a, s = gate.float(), gate.float().sigmoid()
        da = dy.float() * (a * s * (1 - s) + s) * up.float()
        return da.to(up.dtype), (dy.float() * a * s).to(up.dtype)

    return norm, gated, back


def rounding(device: torch.device, *, tiny: bool) -> dict[str, Any]:
    """Kernels that round what they make, beside two kernels one after the other."""
    their_norm, their_gated, their_back = plain() if tiny else ligers()
    tokens, width, inner = (3, 40, 72) if tiny else (TOKENS, WIDTH, INNER)
    torch.manual_seed(0)

    def drawn(columns: int) -> Tensor:
        return torch.randn((tokens, columns), device=device, dtype=torch.bfloat16)

    x, weight = drawn(width), torch.ones(width, device=device, dtype=torch.bfloat16)
    gate, up, dy = drawn(inner), drawn(inner), drawn(inner)
    found: dict[str, Any] = {}

    def compare(name: str, count: int, ours: Any, theirs: Any, made: Rows, expected: Rows) -> None:
        differing = (made.values.view(torch.uint8) != expected.values.view(torch.uint8)).float()
        one, two = _replayed(ours), _replayed(theirs)
        gain = round(count * LAYERS * (two - one), 2)
        found[name] = {"in_one": one, "in_two": two, "of_a_step": gain,
                       "other_bytes": float(differing.mean())}  # fmt: skip

    def normed() -> Rows:
        return quantize(their_norm(x, weight))

    compare("norm", 2, lambda: norm(x, weight), normed, norm(x, weight)[1], normed())

    def swished() -> Rows:
        return quantize(their_gated(gate, up))

    compare("SwiGLU", 1, lambda: gated(gate, up), swished, gated(gate, up)[1], swished())

    def swished_back(gate: Tensor = gate, up: Tensor = up) -> Rows:
        return quantize(*their_back(gate, up, dy))

    made = gated_backward(dy, gate.clone(), up.clone())
    expected = swished_back(gate.clone(), up.clone())

    def ours() -> Rows:
        return gated_backward(dy, gate, up)

    compare("SwiGLU's gradients", 1, ours, swished_back, made, expected)
    return found


def beside(device: torch.device, *, tiny: bool) -> dict[str, Any]:
    """One product for layers with one input, beside one for each."""
    big = {"q, k, v": [WIDTH] * 3, "gate, up": [INNER] * 2}
    small = {"q, k, v": [1024, 256, 256], "gate, up": [2048] * 2}
    found = {}
    for model, width, layers, tokens, groups in (
        ("7B", WIDTH, LAYERS, TOKENS, big),
        ("270M", 640, 18, 14800, small),
    ):
        for name, sizes in groups.items():
            given = [size // 32 for size in sizes] if tiny else sizes
            made = _beside(device, 9 if tiny else tokens, width // (8 if tiny else 1), given)
            gains = {key: round(layers * (one - two), 2) for key, (one, two) in made.items()}
            found[f"{model}: {name}"] = {"each_and_joined": made, "of_a_step": gains}
    return found


def _beside(
    device: torch.device, tokens: int, width: int, sizes: Sequence[int]
) -> dict[str, tuple[float, float]]:
    dtype = torch.bfloat16
    x = torch.randn((tokens, width), device=device, dtype=dtype)
    weights = [torch.randn((size, width), device=device, dtype=dtype) for size in sizes]
    whole = torch.cat(weights)
    gradients = [torch.randn((tokens, size), device=device, dtype=dtype) for size in sizes]

    def back() -> Tensor:
        dx = gradients[0] @ weights[0]
        for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
            dx.addmm_(gradient, weight)
        return dx

    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "forward": (lambda: [x @ w.T for w in weights], lambda: x @ whole.T),
        # With what layers leave, each their own: it must be brought together first.
        "backward": (back, lambda: torch.cat(gradients, 1) @ whole),
    }
    if device.type == "cuda":
        x8, each8, whole8 = quantize(x), [quantize(w) for w in weights], quantize(whole)
        ways["forward, fp8"] = (
            lambda: [product(x8, w, dtype) for w in each8], lambda: product(x8, whole8, dtype),
        )  # fmt: skip
    return {name: (_replayed(one), _replayed(two)) for name, (one, two) in ways.items()}


def _replayed(work: Callable[[], object]) -> float:
    """Milliseconds in a CUDA graph, where launching costs nothing."""
    if not torch.cuda.is_available():
        return milliseconds(work)
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            work()
    found = milliseconds(graph.replay) / 10
    del graph
    return round(found, 4)


def compiled(device: torch.device, *, tiny: bool) -> dict[str, Any]:
    """Seconds of a step's and of some answers' first use, in new processes of one cache."""
    seconds = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("nothing compiled", "compiled"):
            out = Path(cache) / "step.json"
            words = [sys.executable, "bench/step.py", "--out", out, "--only", "first use"]
            start = time.monotonic()
            subprocess.run(  # noqa: S603 - a script of ours
                [*map(str, words), *(["--tiny"] if tiny else [])], check=True,
                env={**os.environ, "TRITON_CACHE_DIR": str(Path(cache) / "kernels")},
                cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL,
            )  # fmt: skip
            seconds[name] = round(time.monotonic() - start, 2)
    return {"seconds": seconds, "device": device.type}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    result = made_with("torch", "triton", "liger-kernel", device=name)
    for part in options.parts:
        result[part] = globals()[part](device, tiny=options.tiny)
        print(part, result[part], flush=True)
        write_json(options.out, result)


if __name__ == "__main__":
    main()
