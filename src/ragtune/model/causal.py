"""Whether a model is causal: what stands later in a text must not change what is said of earlier tokens."""

from __future__ import annotations

from typing import Any

import torch

from ragtune.base.errors import UsageError

_EARLIER, _LATER = 7, 4
"""Tokens that stay, and tokens that are others, of the two rows that are compared."""


def causal(model: Any) -> str | None:
    """Why a model can't write text from left to right, or None if it can.

    Two rows that differ in their last tokens alone must have the same logits before these; an encoder
    (BERT, XLNet) sees them. Both have one length, so that the products are the same but for rounding.

    Args:
        model: of any dtype, on its device; its mode is kept.

    Returns:
        A reason in words, or None.

    Raises:
        FloatingPointError: the logits are not finite, and show nothing.
    """
    embedding = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    size = (2, _EARLIER + _LATER)
    rows = torch.randint(embedding.shape[0], size, generator=generator)
    rows[1, :_EARLIER] = rows[0, :_EARLIER]
    rows = rows.to(embedding.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            one, other = (
                model(input_ids=row[None], use_cache=False).logits[0, :_EARLIER].float()
                for row in rows
            )
    finally:
        model.train(was_training)
    if not (one.isfinite().all() and other.isfinite().all()):
        raise FloatingPointError("its logits are not finite")
    difference = (one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-12)
    exact = model.dtype == torch.float32
    # Equal to the bit but where experts get other groups: in half precision one token may then take
    # another expert. What an encoder sees, all tokens see.
    seen = float(difference.max() if exact else difference.median())
    if seen <= (1e-4 if exact else 1e-3):
        return None
    return f"later tokens change the logits of earlier ones (by {seen:.2g})"


def see_causal(model: Any, name: str) -> None:
    """See that a model, which users call by this name, is causal.

    Raises:
        UsageError: it isn't, or its logits are not finite.
    """
    try:
        reason = causal(model)
    except FloatingPointError as error:
        raise UsageError(
            f"model.id: {name} can't be asked: {error}.",
            "Set model.dtype=float32, or copy the model again: its weights may be damaged.",
        ) from error
    if reason:
        raise UsageError(
            f"model.id: {name} can't write text from left to right: {reason}.",
            "Name a model that was made to generate; an encoder (BERT, say) was not.",
        )
