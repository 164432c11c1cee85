"""The Triton kernel of `dropout`: draws a mask from a seed and applies it, in one pass."""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def apply(x, out, count, rate, seed, add: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Write (or add) x, dropped out, to `out`; a program covers four blocks of elements.

    One Philox call gives four numbers, one for each block.
    """
    program = tl.program_id(0)
    lane = tl.arange(0, block)
    numbers = tl.rand4x(seed, program * block + lane)
    start = program.to(tl.int64) * (4 * block)
    for part in tl.static_range(4):
        at = start + part * block + lane
        inside = at < count
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        value = tl.where(numbers[part] >= rate, value / (1 - rate), 0.0)
        if add:
            value += tl.load(out + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)
