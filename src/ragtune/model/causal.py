"""Whether a model is causal: what stands later in a text must not change what is said of earlier tokens."""

from __future__ import annotations

from typing import Any

import torch

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
    difference = (one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-12)
    exact = model.dtype == torch.float32
    # Equal to the bit but where experts get other groups: in half precision one token may then take
    # another expert. What an encoder sees, all tokens see.
    seen = float(difference.max() if exact else difference.median())
    if seen <= (1e-4 if exact else 1e-3):
        return None
    return f"later tokens change the logits of earlier ones (by {seen:.2g})"
