"""Attention over packed rows: several samples in one row, none of which sees another.

`DataCollatorWithFlattening` puts samples behind each other and says where they begin
(`cu_seq_lens_q`, int32, one more entry than samples). transformers hands these through the model to
the attention function, which is ours: variable-length attention on CUDA from compute capability
8.0, one `scaled_dot_product_attention` a sample elsewhere. When answers are written, each sample has
one new token and its past in a `RaggedCache`; that is the function's other form.

What the function does not implement it refuses, and `probe` compares a packed row with its samples
one at a time, because some families would be silently wrong (convolutions or states that run over
the border between samples).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.nn import functional

from ragtune.base.errors import is_out_of_memory
from ragtune.model.gpu import has_triton

NAME = "ragtune_packed"

# Arguments that models pass and that change nothing in the result here: tested by `probe`, which compares
# with the model's own attention.
_HARMLESS = {
    "position_ids", "cu_seq_lens_k", "max_length_k", "use_cache", "cache_position", "output_attentions",
    "output_hidden_states", "num_items_in_batch", "is_causal", "return_dict", "logits_to_keep",
    "output_router_logits", "deterministic", "seq_idx",
}  # fmt: skip

_PROBE_LENGTHS = (5, 11, 3)
_KERNEL_BLOCK = 64  # positions that the kernel for new tokens looks at together


_windows: set[int | None] = set()
"""The sliding windows that packed attention was given since a probe began."""


class PackedAttentionError(ValueError):
    """The model asks for something that packed attention does not implement."""


def register() -> None:
    """Make `attn_implementation="ragtune_packed"` known to transformers.

    No mask function is registered with it, so that transformers builds no mask: the row's borders do
    the masking. (With one that returns None it would first look for packed samples in the position
    ids, which waits for the GPU at every row.)
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


@cache
def _varlen_style() -> str | None:
    """How this torch's varlen_attn says causal: 'window_size', 'is_causal', or None if it is absent."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    names = inspect.signature(varlen_attn).parameters
    return (
        "window_size" if "window_size" in names else "is_causal" if "is_causal" in names else None
    )


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    cache_lengths: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sample of one row; or of one new token a sample to its past.

    Args:
        module: the attention layer.
        query: [1, heads, tokens, head_dim], or as `cache_lengths` says
        key: [1, kv_heads, tokens, head_dim]
        value: the same.
        attention_mask: must be None: the borders mask.
        scaling: of the scores; 1/sqrt(head_dim) by default.
        dropout: of the attention weights; refused unless 0.
        sliding_window: how many positions back a token sees, itself included.
        cu_seq_lens_q: [samples + 1] int32, where each sample begins, and the end.
        max_length_q: the longest sample.
        cache_lengths: [samples], the tokens in the cache before the new one. If given, query is
            [samples, heads, 1, head_dim] and key and value are the cache's, [samples, kv_heads,
            positions, head_dim], new token included.
        kwargs: anything that would change the result is refused.

    Returns:
        [1, tokens, heads, head_dim] ([samples, 1, heads, head_dim] for new tokens), and None for
        the weights.

    Raises:
        PackedAttentionError: an argument that is not implemented.
    """
    new_tokens = cache_lengths is not None
    refused = [
        *(k for k, v in kwargs.items() if v is not None and k not in _HARMLESS),
        *(["attention_mask"] if attention_mask is not None else []),
        *(["attention dropout"] if dropout else []),
        *(["a row without borders"] if cu_seq_lens_q is None and not new_tokens else []),
        *(["more than one row"] if len(query) != 1 and not new_tokens else []),
        *(["several new tokens"] if new_tokens and query.shape[2] != 1 else []),
        *(["values of another size"] if new_tokens and value.shape[3] != query.shape[3] else []),
    ]
    if refused:
        raise PackedAttentionError(
            f"{type(module).__name__} asks for {', '.join(refused)}, which packed attention lacks"
        )
    _windows.add(sliding_window)
    # Where a layer does not say so: tested by `causal` when the model is loaded, and by `probe`.
    if getattr(module, "is_causal", True) is False:
        raise PackedAttentionError(f"{type(module).__name__} is not causal")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if cache_lengths is not None:
        return _to_cache(query, key, value, scale, sliding_window, cache_lengths), None
    borders: Any = cu_seq_lens_q
    # Contiguous, as transformers' own functions give it: AFMoE takes a view of it.
    if _use_varlen(query, sliding_window):
        row = _varlen(query, key, value, scale, sliding_window, borders, max_length_q)
        return row.contiguous(), None
    return _by_sample(query, key, value, scale, sliding_window, borders).contiguous(), None


def _use_varlen(query: torch.Tensor, sliding_window: int | None) -> bool:
    style = _varlen_style()
    # The kernel knows half precision only; a float32 model without autocast is to stay exact.
    half = query.dtype != torch.float32 or torch.is_autocast_enabled("cuda")
    return (
        query.is_cuda
        and half
        and style is not None
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and (sliding_window is None or style == "window_size")
        and query.shape[-1] <= 256  # noqa: PLR2004 - the flash kernel's limit
    )


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    borders: torch.Tensor,
    longest: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    # [1, heads, tokens, dim] -> [tokens, heads, dim]
    half = torch.get_autocast_dtype("cuda") if query.dtype == torch.float32 else query.dtype
    q, k, v = (t.squeeze(0).transpose(0, 1).to(half) for t in (query, key, value))
    top = int(longest) if longest is not None else int(borders.diff().max())
    causal: dict[str, Any] = (
        {"window_size": (-1 if window is None else window - 1, 0)}
        if _varlen_style() == "window_size"
        else {"is_causal": True}
    )
    out: Any = varlen_attn(q, k, v, borders, borders, top, top, scale=scale, **causal)
    packed: torch.Tensor = out[None].to(query.dtype)
    return packed


def _by_sample(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    borders: torch.Tensor,
) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    sizes = borders.diff().tolist()
    outputs = []
    for q, k, v in zip(*(torch.split(t, sizes, dim=2) for t in (query, key, value)), strict=True):
        length = q.shape[2]
        if window is not None and length > window:
            ahead = torch.arange(length, device=q.device)
            distance = ahead[:, None] - ahead[None, :]
            mask = (distance >= 0) & (distance < window)
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        else:
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        outputs.append(out)
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _to_cache(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    lengths: torch.Tensor,
) -> torch.Tensor:
    samples, heads, _, size = query.shape
    positions = key.shape[2]
    window = positions if window is None else window
    if query.is_cuda and has_triton():
        from ragtune.model.fast import kernels

        out = torch.empty((samples, 1, heads, size), dtype=query.dtype, device=query.device)
        kernels.attend[(samples, heads)](
            query, key, value, out, lengths, scale, window, *query.stride()[:2],
            key.stride(0), key.stride(2), key.stride(1),
            value.stride(0), value.stride(2), value.stride(1),
            heads // key.shape[1], size, 1 << (size - 1).bit_length(), _KERNEL_BLOCK,
        )  # fmt: skip
        return out
    place = torch.arange(positions, device=query.device)
    seen = (place <= lengths[:, None]) & (place > lengths[:, None] - window)
    # The heads that share keys stand where queries of several positions would: nothing is repeated.
    grouped = query.reshape(samples, key.shape[1], heads // key.shape[1], size)
    mixed = functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=seen[:, None, None], scale=scale
    )
    return mixed.reshape(samples, 1, heads, size)


def set_packed(model: Any) -> None:
    """Let a model use packed attention (for training)."""
    register()
    model.set_attn_implementation(NAME)


@contextlib.contextmanager
def using_packed(model: Any) -> Iterator[None]:
    """Packed attention for as long as the block runs."""
    before = model.config._attn_implementation  # noqa: SLF001 - transformers has no public getter
    set_packed(model)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def probe(model: Any, *, training: bool = False, any_length: bool = True) -> str | None:
    """Why packing would be wrong for a model, or None if packed equals one at a time.

    Three short samples of random tokens in one row must give the logits of each alone under the
    model's own attention; and other tokens in the first sample must leave those of the others as
    they are, to the bit but for rounding, which shows even a faint leak. With `training`, what a
    model asks for in train mode only (dropout of the attention) is seen, too. The model keeps the
    attention that it had. What changes with the length of a row is a reason only where rows may have
    `any_length`; else the caller tries its longest text (`probe_texts` in lengths.py).

    Returns:
        A reason in words, or None.
    """
    # These two are taken from names, on the safe side. Nothing tests what has such a length by another
    # name and is longer than the probe's samples.
    if getattr(model.config.get_text_config(), "attention_chunk_size", None):
        # Longer than this probe. A name that isn't known here is found by the real texts (lengths.py).
        return "its attention works in chunks"
    if any_length and _rope_types(model.config) & {"longrope", "dynamic"}:
        return "its rotary embedding changes with the length of the row"  # the same
    before = model.config._attn_implementation  # noqa: SLF001 - transformers has no public getter
    device = model.get_input_embeddings().weight.device
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    first, other, *rest = (
        torch.randint(vocabulary, (1, n), generator=generator).to(device)
        for n in (_PROBE_LENGTHS[0], *_PROBE_LENGTHS)
    )
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = torch.cat(
                [model(input_ids=s, use_cache=False).logits[0].float() for s in (first, *rest)]
            )
            set_packed(model)
            _windows.clear()
            if model.config._attn_implementation != NAME:  # noqa: SLF001
                return "its attention can't be replaced"
            packed = _packed_logits(model, [first, *rest])
            changed = _packed_logits(model, [other, *rest])
            if training:
                _packed_logits(model.train(), [first, *rest])
    except PackedAttentionError as error:
        return str(error)
    except Exception as error:  # a model's own code may raise anything on a row of our kind
        if is_out_of_memory(error):
            raise
        return f"it fails on packed rows ({(str(error).splitlines() or ['no message'])[0][:120]})"
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)
    if _window(model.config) and not any(_windows):
        return "its sliding window is in the mask alone"  # and longer than this probe: see above
    # float32 agrees to rounding; half precision rounds differently in another kernel.
    allowed = 1e-3 if model.dtype == torch.float32 else 0.1
    worst = relative(packed, alone)
    if not worst <= allowed:
        return f"packed and single logits differ by {worst:.2g}"
    behind = slice(_PROBE_LENGTHS[0], None)
    leak = relative(changed[behind], packed[behind])
    if not leak <= 1e-6:  # noqa: PLR2004 - the same operations on the same numbers
        return f"samples of a row see each other (logits change by {leak:.2g})"
    return None


def _window(config: Any) -> int | None:
    """The sliding window that some layer of a model has; None where rows can't be as long."""
    # Tested by `probe`, which sees the windows that the layers ask for.
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    if not window or getattr(text, "use_sliding_window", True) is False:
        return None
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return window if window < getattr(text, "max_position_embeddings", window + 1) else None


def _rope_types(config: Any) -> set[str]:
    """The kinds of rotary embedding in a configuration, whatever its layers have."""
    text = config.get_text_config()
    pending = [getattr(text, n, None) for n in ("rope_parameters", "rope_scaling")]
    found = set()
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            found.add(str(one.get("rope_type", one.get("type"))))
            pending += one.values()
    return found


def _packed_logits(model: Any, samples: list[torch.Tensor]) -> torch.Tensor:
    """Logits [tokens, vocabulary] of samples [1, n] in one row."""
    sizes = [s.shape[1] for s in samples]
    device = samples[0].device
    borders = torch.tensor([0, *sizes], device=device).cumsum(0).to(torch.int32)
    output = model(
        input_ids=torch.cat(samples, dim=1),
        position_ids=torch.cat([torch.arange(n, device=device) for n in sizes])[None],
        cu_seq_lens_q=borders,
        cu_seq_lens_k=borders,
        max_length_q=max(sizes),
        max_length_k=max(sizes),
        use_cache=False,
    )
    logits: torch.Tensor = output.logits[0].float()
    return logits


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest relative difference of a token's logits."""
    difference = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-12)
    return float(difference.max())
