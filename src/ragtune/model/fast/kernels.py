"""Triton kernels: dropout with computed masks, rows in 8 bits, a cache and its attention, a norm's gradient.

Imported where there is a GPU and Triton; elsewhere `dropout`, `eight` and `attention` have a plain form,
with which the tests compare these.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
# ruff: noqa: ANN001, ANN201 - Triton reads the signature; it knows no dataclasses
import triton
import triton.language as tl


# `width` stays specialised: knowing that 16 divides it lets loads and stores be wide.
@triton.jit(do_not_specialize=["threshold", "seed", "layer"])
def dropout(  # noqa: PLR0913 - Triton reads the signature
    x, out, places, width, threshold, scale, seed, step, layer,
    add: tl.constexpr, block: tl.constexpr, rounds: tl.constexpr,
):  # fmt: skip
    """Write (or add) x [T, width], dropped out, to `out`; a program covers some columns of a token.

    One Philox call gives 128 bits, 16 for each of eight columns beside each other: drawing a float for each
    element took longer than reading and writing it. What draws less than `threshold` is dropped.
    """
    token = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * block + tl.arange(0, block)
    at = group[:, None] * 8 + tl.arange(0, 8)[None, :]
    inside = at < width
    out += token * width + at
    # All that is read is asked for before anything is drawn or written.
    value = tl.load(x + token * width + at, mask=inside, other=0.0)
    if add:
        total = tl.load(out, mask=inside, other=0.0)
    place = tl.load(places + token)
    step = tl.load(step)
    a, b, c, d = tl.philox_impl(
        group.to(tl.uint32), (place & 0xFFFFFFFF).to(tl.uint32), (place >> 32).to(tl.uint32),
        layer.to(tl.uint32), seed.to(tl.uint32), step.to(tl.uint32), rounds,
    )  # fmt: skip
    drawn = tl.join(tl.join(a, c), tl.join(b, d)).reshape(block, 4).to(tl.int32, bitcast=True)
    # In the high half of 32 bits, whatever the low one is.
    drawn = tl.join(drawn << 16, drawn).reshape(block, 8)
    value = tl.where(drawn >= threshold << 16, value.to(tl.float32) * scale, 0.0)
    if add:
        value += total.to(tl.float32)
    tl.store(out, value.to(out.dtype.element_ty), mask=inside)


# Widths and strides stay specialised, as above; a row more or less compiles nothing.
@triton.jit
def quantize(  # noqa: PLR0913 - Triton reads the signature
    parts, strides, widths, out, scales, share, smallest: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A row of matrices beside each other in 8 bits, and its scale, as `eight._quantized` finds them.

    The row is read twice: the second time it comes from a cache.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    # As whole numbers magnitudes have the same order, and what is no number is the largest.
    most = tl.full((block,), smallest, tl.float32).to(tl.int32, bitcast=True)
    whole = 0
    for i in tl.static_range(len(parts)):
        for start in range(0, widths[i], block):
            at = start + column
            value = tl.load(parts[i] + row * strides[i] + at, mask=at < widths[i], other=0.0)
            bits = value.to(tl.float32).to(tl.int32, bitcast=True) & 0x7FFFFFFF
            most = tl.maximum(most, bits)
        whole += widths[i]
    largest = tl.minimum(tl.max(most, axis=0), 0x7F800000)
    scale = ((largest + 0x1FFFFF) & 0x7F800000).to(tl.float32, bitcast=True) * share
    tl.store(scales + row, scale)
    reciprocal = tl.div_rn(1.0, scale)
    out += row * whole
    for i in tl.static_range(len(parts)):
        for start in range(0, widths[i], block):
            at = start + column
            inside = at < widths[i]
            value = tl.load(parts[i] + row * strides[i] + at, mask=inside, other=0.0)
            value = value.to(tl.float32) * reciprocal
            tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)
        out += widths[i]


@triton.jit
def norm_backward(  # noqa: PLR0913 - Triton reads the signature
    gradient, out, x, weight, scale, width, offset, block: tl.constexpr,
):  # fmt: skip
    """RMSNorm's gradient for its input, of one row: s·m - s³/N·(m·x)·x with m = gradient·(weight + offset)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    inside = column < width
    at = row * width + column
    x_row = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    weights = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32) + offset
    m = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32) * weights
    s = tl.load(scale + row).to(tl.float32)
    result = s * m - s * s * s / width * tl.sum(m * x_row, axis=0) * x_row
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)


# Rows of a batch begin anywhere, and what the indices are must not compile anything anew.
@triton.jit(do_not_specialize=["slots", "which"])
def store(  # noqa: PLR0913 - Triton reads the signature
    new, room, slots, which, new_token, new_head, chosen: tl.constexpr,
    heads: tl.constexpr, size: tl.constexpr, more_heads: tl.constexpr, padded: tl.constexpr,
):  # fmt: skip
    """Copy a token's keys or values to its slot in the cache; `chosen` says that `which` tells what token."""
    place = tl.program_id(0)
    token = tl.load(which + place) if chosen else place
    head = tl.arange(0, more_heads)[:, None]
    column = tl.arange(0, padded)[None, :]
    inside = (head < heads) & (column < size)
    new += token.to(tl.int64) * new_token
    value = tl.load(new + head * new_head + column, mask=inside)
    room += tl.load(slots + place) * heads * size
    tl.store(room + head * size + column, value, mask=inside)


# A window of another length must not be compiled anew, least of all while a graph is captured.
@triton.jit(do_not_specialize=["window"])
def attend(  # noqa: PLR0913 - Triton reads the signature
    query, keys, values, out, starts, lengths, scale, window,
    query_sample, query_head, key_place, key_head, value_place, value_head,
    groups: tl.constexpr, size: tl.constexpr, padded: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One sample's new token, one head: softmax over its past, in blocks of positions.

    Streams keys and values once, with the running maximum and sum of Milakov & Gimelshein 2018
    (https://arxiv.org/abs/1805.02867). `starts` says where in the cache the sample begins; `lengths` counts
    the past without the new token, whose key and value are already stored behind it.
    """
    sample = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    length = tl.load(lengths + sample) + 1
    first = tl.maximum(length - window, 0)
    column = tl.arange(0, padded)
    wide = column < size
    q = tl.load(query + sample * query_sample + head * query_head + column, mask=wide, other=0.0)
    q = q.to(tl.float32) * scale
    start = tl.load(starts + sample)
    keys += start * key_place + (head // groups) * key_head
    values += start * value_place + (head // groups) * value_head
    best = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    result = tl.zeros((padded,), tl.float32)
    at = first // block * block
    while at < length:
        place = at + tl.arange(0, block)
        there = (place >= first) & (place < length)
        both = there[:, None] & wide[None, :]
        far = place.to(tl.int64)[:, None]
        k = tl.load(keys + far * key_place + column[None, :], mask=both, other=0.0)
        score = tl.sum(k.to(tl.float32) * q[None, :], axis=1)
        score = tl.where(there, score, float("-inf"))
        new = tl.maximum(best, tl.max(score, axis=0))
        share = tl.exp(score - new)
        shrink = tl.exp(best - new)
        v = tl.load(values + far * value_place + column[None, :], mask=both, other=0.0)
        result = result * shrink + tl.sum(share[:, None] * v.to(tl.float32), axis=0)
        total = total * shrink + tl.sum(share, axis=0)
        best = new
        at += block
    heads = tl.num_programs(1)
    where = out + (sample * heads + head) * size + column
    tl.store(where, (result / total).to(out.dtype.element_ty), mask=wide)
