"""Triton kernels: masks of dropout, rows in 8 bits, a cache and its attention, a norm's gradient, AdamW's step.

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
    """A row of matrices beside each other in 8 bits, and its scale, as `eight.quantized_plainly` finds them.

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


@triton.jit
def _nearest(x, first: tl.constexpr):  # noqa: ANN202 - Triton reads the signature
    """The place, from 0 for 0, of the number nearest to x (0 to 1) among those >= 0 of a dynamic map.

    Behind 0 come seven decades, from 1e-7 on, and 1. A decade has the middles of cells of one width: `first`
    the lowest one, each other twice as many as the one below.
    """
    cells = tl.full(x.shape, first, tl.float32)
    scale = tl.full(x.shape, first / 0.9 * 1e6, tl.float32)
    for i in tl.static_range(1, 7):
        # Halfway between the last number below and the first one above.
        above = x > (1 + 0.9 / (first * 2 ** (i - 1))) * 10.0 ** (i - 7)
        cells = tl.where(above, first * 2.0**i, cells)
        scale = tl.where(above, first * 2**i / 0.9 * 10.0 ** (6 - i), scale)
    place = tl.minimum(x * scale + (cells * (8 / 9) - first), 2 * cells - first - 0.5)
    place = place.to(tl.int32) + 1 + (x > 1 - 0.225 / (first * 64)).to(tl.int32)
    return tl.where(x > (0.1 + 0.45 / first) * 0.5e-6, place, 0)


@triton.jit
def adam(  # noqa: PLR0913 - Triton reads the signature
    parameter, gradient, codes1, codes2, largest1, largest2, map1, map2, count,
    beta1, beta2, size, eps, kept, rows: tl.constexpr,
):  # fmt: skip
    """AdamW's step over a long tensor, with bitsandbytes' moments: 8 bits, in blocks of 256 with their largest.

    A program takes some blocks. Where in its map a number stands is computed: searching took longer than
    reading and writing. A gradient that is no number leaves its parameter, and forgets its moments.
    """
    block = tl.program_id(0).to(tl.int64) * rows
    start = block * 256
    row = tl.arange(0, rows)
    at = tl.arange(0, rows * 256)
    inside = at < count - start
    there = row * 256 < count - start
    codes1 += start + at
    codes2 += start + at
    parameter += start + at
    # All that is read is asked for before anything is computed.
    code1 = tl.load(codes1, mask=inside, other=127)
    code2 = tl.load(codes2, mask=inside, other=0)
    g = tl.load(gradient + start + at, mask=inside, other=0.0)
    p = tl.load(parameter, mask=inside, other=0.0)
    most1 = tl.load(largest1 + block + at // 256, mask=inside, other=0.0)
    most2 = tl.load(largest2 + block + at // 256, mask=inside, other=0.0)
    m = tl.load(map1 + code1.to(tl.int32)) * most1
    v = tl.load(map2 + code2.to(tl.int32)) * most2
    finite = tl.abs(g) < float("inf")
    m = tl.where(finite, m * beta1 + (1.0 - beta1) * g, 0.0)
    v = tl.where(finite, v * beta2 + (1.0 - beta2) * g * g, 0.0)
    new = (p + size * (m / (tl.sqrt(v) + eps))) * kept
    tl.store(parameter, tl.where(finite, new, p), mask=inside)
    new1 = tl.max(tl.abs(m).reshape(rows, 256), axis=1)
    new2 = tl.max(v.reshape(rows, 256), axis=1)
    tl.store(largest1 + block + row, new1, mask=there)
    tl.store(largest2 + block + row, new2, mask=there)
    share1 = (1.0 / tl.where(new1 > 0, new1, float("inf")))[:, None]
    share2 = (1.0 / tl.where(new2 > 0, new2, float("inf")))[:, None]
    share1 = tl.broadcast_to(share1, (rows, 256)).reshape(rows * 256)
    share2 = tl.broadcast_to(share2, (rows, 256)).reshape(rows * 256)
    place = _nearest(tl.abs(m) * share1, 1)
    # What is negative stays so: it has no zero, and no 1 either.
    below = 127 - tl.minimum(tl.maximum(place, 1), 127)
    tl.store(codes1, tl.where(m < 0, below, 127 + place).to(tl.uint8), mask=inside)
    tl.store(codes2, _nearest(v * share2, 2).to(tl.uint8), mask=inside)
