"""Attention over packed rows: several samples in one row, none of which sees another.

`DataCollatorWithFlattening` puts samples behind each other and says where they begin
(`cu_seq_lens_q`, int32, one more entry than samples). transformers hands these through the model to
the attention function, which is ours: variable-length attention on CUDA from compute capability
8.0, that of `half` on a CPU in bfloat16, one `scaled_dot_product_attention` a sample elsewhere. When
answers are written, each sample has one new token and its past in a `RaggedCache`; that is the
function's other form.

What the function does not implement it refuses, and `probe` compares a packed row with its samples
one at a time, because some families would be silently wrong (convolutions or states that run over
the border between samples).

Axes in names: S samples, T tokens of a row, P positions of the cache, H heads of queries, G heads of
keys and values (H / G queries share one), D numbers a head; 1 is an axis of length 1.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from ragtune.model.fast import half

NAME = "ragtune_packed"

windows_seen: set[int | None] = set()
"""The sliding windows that packed attention was given since `probe` last cleared it."""

# Arguments that models pass and that change nothing in the result here: tested by `probe`, which compares
# with the model's own attention.
_HARMLESS = {
    "position_ids", "cu_seq_lens_k", "max_length_k", "use_cache", "cache_position", "output_attentions",
    "output_hidden_states", "num_items_in_batch", "is_causal", "return_dict", "logits_to_keep",
    "output_router_logits", "deterministic", "seq_idx",
}  # fmt: skip

_KERNEL_BLOCK = 64  # positions that the kernel for new tokens looks at together
_KERNEL_HEAD = 256  # the largest head of the flash kernel
_KNOWN = inspect.signature(varlen_attn).parameters
# Newer ones of torch know windows, and causal is one that ends at the token itself.
_HAS_WINDOWS = "window_size" in _KNOWN
_HAS_GROUPS = "enable_gqa" in _KNOWN


class PackedAttentionError(ValueError):
    """The model asks for something that packed attention does not implement."""


def packed_attention(  # noqa: PLR0913 - transformers calls it so
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    cache_lengths: Tensor | None = None,
    cache_starts: Tensor | None = None,
    shared_prefix: bool = False,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Causal attention within each sample of one row; or of one new token a sample to its past.

    In a row query is [1, H, T, D], key and value are [1, G, T, D], and `cu_seq_lens_q` [S + 1], int32,
    says where each sample begins, and the end. New tokens have `cache_lengths` [S], the tokens in the
    cache before them; query is [S, H, 1, D], key and value are the cache's [S, G, P, D], new token
    included; with `cache_starts` [S] they are all slots of a flat one. With a sliding window a token sees so
    many positions back, itself included. With `shared_prefix` a row's first part is what the others begin with.

    Returns:
        [1, T, H, D] ([S, 1, H, D] for new tokens), and None for the weights.

    Raises:
        PackedAttentionError: an argument that is not implemented.
    """
    new_tokens = cache_lengths is not None
    wrong = {
        "attention_mask": attention_mask is not None,
        "attention dropout": bool(dropout),
        "a row without borders": cu_seq_lens_q is None and not new_tokens,
        "more than one row": len(query) != 1 and not new_tokens,
        "several new tokens": new_tokens and query.shape[2] != 1,
        "values of another size": new_tokens and value.shape[3] != query.shape[3],
    }
    refused = [k for k, v in kwargs.items() if v is not None and k not in _HARMLESS]
    refused += [name for name, found in wrong.items() if found]
    if refused:
        raise PackedAttentionError(
            f"{type(module).__name__} asks for {', '.join(refused)}, which packed attention lacks"
        )
    windows_seen.add(sliding_window)
    # Where a layer does not say so: tested by `causal` when the model is loaded, and by `probe`.
    if getattr(module, "is_causal", True) is False:
        raise PackedAttentionError(f"{type(module).__name__} is not causal")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    how = (query, key, value, scale, sliding_window)
    if cache_lengths is not None:
        return _to_cache(*how, cache_lengths, cache_starts), None
    assert cu_seq_lens_q is not None
    # Contiguous, as transformers' own functions give it: AFMoE takes a view of it.
    if _has_kernel(query, sliding_window) and not shared_prefix:
        out_1THD = _varlen(*how, cu_seq_lens_q, max_length_q)
    else:
        out_1THD = _by_sample(*how, cu_seq_lens_q.diff().tolist(), shared_prefix)
    return out_1THD.contiguous(), None


def _has_kernel(query: Tensor, window: int | None) -> bool:
    """Whether torch's kernel for rows of unlike samples can be used."""
    # It knows half precision only; a float32 model without autocast is to stay exact.
    half = query.dtype != torch.float32 or torch.is_autocast_enabled("cuda")
    return (
        query.is_cuda
        and half
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and (window is None or _HAS_WINDOWS)
        and query.shape[-1] <= _KERNEL_HEAD
    )


def _varlen(
    q_1HTD: Tensor,
    k_1GTD: Tensor,
    v_1GTD: Tensor,
    scale: float,
    window: int | None,
    borders: Tensor,
    longest: int | None,
) -> Tensor:
    options: dict[str, Any] = {"scale": scale}
    if _HAS_GROUPS:
        options["enable_gqa"] = k_1GTD.shape[1] != q_1HTD.shape[1]
    else:
        k_1GTD, v_1GTD = (_for_each_query(t, q_1HTD.shape[1]) for t in (k_1GTD, v_1GTD))
    half = torch.get_autocast_dtype("cuda") if q_1HTD.dtype == torch.float32 else q_1HTD.dtype
    q_THD, k_TGD, v_TGD = (t.squeeze(0).transpose(0, 1).to(half) for t in (q_1HTD, k_1GTD, v_1GTD))
    top = int(longest) if longest is not None else int(borders.diff().max())
    if _HAS_WINDOWS:
        options["window_size"] = (-1 if window is None else window - 1, 0)
    else:
        options["is_causal"] = True
    out_THD: Any = varlen_attn(q_THD, k_TGD, v_TGD, borders, borders, top, top, **options)
    out_1THD: Tensor = out_THD[None].to(q_1HTD.dtype)
    return out_1THD


def _by_sample(
    q_1HTD: Tensor,
    k_1GTD: Tensor,
    v_1GTD: Tensor,
    scale: float,
    window: int | None,
    sizes: list[int],
    shared: bool,
) -> Tensor:
    if half.attends(q_1HTD, sizes, shared=shared):
        return half.attention(q_1HTD, k_1GTD, v_1GTD, scale, window, sizes, shared)
    k_1HTD, v_1HTD = (_for_each_query(t, q_1HTD.shape[1]) for t in (k_1GTD, v_1GTD))
    samples = zip(*(torch.split(t, sizes, dim=2) for t in (q_1HTD, k_1HTD, v_1HTD)), strict=True)
    outputs: list[Tensor] = []
    for q, own_k, own_v in samples:
        k, v = own_k, own_v
        if shared and outputs:
            k, v = (
                torch.cat([t[:, :, : sizes[0]], own], 2) for t, own in ((k_1HTD, k), (v_1HTD, v))
            )
        length = k.shape[2]
        if q.shape[2] < length or (window is not None and length > window):
            places = torch.arange(length, device=q.device)
            distance = places[-q.shape[2] :, None] - places[None, :]
            mask = (distance >= 0) & (distance < (window or length))
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        else:
            out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        outputs.append(out)
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _for_each_query(kv_1GTD: Tensor, heads: int) -> Tensor:
    """Keys or values as [1, H, T, D], each once for every query that it serves."""
    groups = heads // kv_1GTD.shape[1]
    return kv_1GTD.repeat_interleave(groups, dim=1) if groups > 1 else kv_1GTD


def _to_cache(
    q_SH1D: Tensor,
    k_SGPD: Tensor,
    v_SGPD: Tensor,
    scale: float,
    window: int | None,
    lengths_S: Tensor,
    starts_S: Tensor | None,
) -> Tensor:
    samples, heads, _, size = q_SH1D.shape
    _, shared, positions, _ = k_SGPD.shape
    window = positions if window is None else window
    if starts_S is not None:
        from ragtune.model.fast import kernels  # noqa: PLC0415 - Triton is on GPU machines alone

        out_S1HD = q_SH1D.new_empty((samples, 1, heads, size))
        kernels.attend[(samples, heads)](
            q_SH1D, k_SGPD, v_SGPD, out_S1HD, starts_S, lengths_S, scale, window,
            *q_SH1D.stride()[:2],
            k_SGPD.stride(2), k_SGPD.stride(1), v_SGPD.stride(2), v_SGPD.stride(1),
            heads // shared, size, 1 << (size - 1).bit_length(), _KERNEL_BLOCK,
        )  # fmt: skip
        return out_S1HD
    place_P = torch.arange(positions, device=q_SH1D.device)
    seen_SP = (place_P <= lengths_S[:, None]) & (place_P > lengths_S[:, None] - window)
    # The heads that share keys stand where queries of several positions would: nothing is repeated.
    grouped = q_SH1D.reshape(samples, shared, heads // shared, size)
    mixed = scaled_dot_product_attention(
        grouped, k_SGPD, v_SGPD, attn_mask=seen_SP[:, None, None], scale=scale
    )
    return mixed.reshape(samples, 1, heads, size)


# No mask function is registered with it, so that transformers builds no mask: the row's borders do the
# masking. (With one that returns None it would first look for packed samples in the position ids, which
# waits for the GPU at every row.)
AttentionInterface.register(NAME, packed_attention)


@contextlib.contextmanager
def using_packed(model: PreTrainedModel) -> Iterator[None]:
    """Packed attention for as long as the block runs."""
    with using_attention(model, NAME):
        yield


@contextlib.contextmanager
def using_attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """An attention, by transformers' name for it, for as long as the block runs."""
    before = model.config._attn_implementation  # noqa: SLF001 - transformers has no public getter
    try:
        model.set_attn_implementation(name)
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for as long as the block runs."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
