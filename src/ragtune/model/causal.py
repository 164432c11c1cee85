"""Whether a model is causal: what stands later in a text must not change what is said of earlier tokens."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ragtune.base.errors import UsageError

_EARLIER, _LATER = 7, 4
"""Tokens that stay, and tokens that are others, of the two rows that are compared."""


def require_causal(model: PreTrainedModel, name: str) -> None:
    """Require that a model writes text from left to right.

    Two rows that differ in their last tokens alone must have the same logits before these; an encoder
    (BERT, XLNet) sees them. Both have one length, so that the products are the same but for rounding.

    Args:
        model: of any dtype, on its device; its mode is kept.
        name: what users call it.

    Raises:
        UsageError: it doesn't, or its logits are not finite.
    """
    one, other = _logits_of_two(model)
    if not (one.isfinite().all() and other.isfinite().all()):
        raise UsageError(
            f"model.id: {name} can't be asked: its logits are not finite.",
            "Set model.dtype=float32, or copy the model again: its weights may be damaged.",
        )
    difference = (one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-12)
    exact = model.dtype == torch.float32
    # Equal to the bit but where experts get other groups: in half precision one token may then take
    # another expert. What an encoder sees, all tokens see.
    seen = float(difference.max() if exact else difference.median())
    if seen > (1e-4 if exact else 1e-3):
        raise UsageError(
            f"model.id: {name} can't write text from left to right: later tokens change the logits of "
            f"earlier ones (by {seen:.2g}).",
            "Name a model that was made to generate; an encoder (BERT, say) was not.",
        )


def _logits_of_two(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [earlier tokens, vocabulary] in two rows of drawn tokens whose later ones differ."""
    embedding = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(embedding.shape[0], (2, _EARLIER + _LATER), generator=generator)
    rows[1, :_EARLIER] = rows[0, :_EARLIER]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            one, other = (
                model(input_ids=row[None], use_cache=False).logits[0, :_EARLIER].float()
                for row in rows.to(embedding.device)
            )
    finally:
        model.train(was_training)
    return one, other
