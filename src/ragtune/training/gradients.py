"""Whether what is called trained gets a gradient: one backward pass on a short row."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ragtune.data.encode import Sample
from ragtune.gpu import autocast
from ragtune.model.wrapping import ADAPTER, adapters
from ragtune.training.rows import RowCollator

_LENGTHS = (33, 17, 9)
_TRAINED = 4


def freeze_unreached(tuned: Any, *, packed: bool) -> list[str]:
    """Freeze the adapters that a row of text gives no gradient, and name what they adapt.

    A layer of a vision tower is one, or one whose weight a kernel reads without calling the layer. An
    adapter starts with B = 0, so that A gets its first gradient after a step; B shows it at once.

    Args:
        tuned: a PEFT model with a fresh adapter, as it is trained.
        packed: whether it takes packed rows.
    """
    embedding = tuned.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(2)
    samples = []
    for length in _LENGTHS if packed else _LENGTHS[:1]:
        ids = torch.randint(embedding.shape[0], (length,), generator=generator).tolist()
        samples.append(Sample("probe", ids[:-_TRAINED], ids[-_TRAINED:]))
    row = RowCollator(packed=packed)([{"index": 0, "samples": samples}])
    inputs = {
        k: v.to(embedding.device) if isinstance(v, torch.Tensor) else v for k, v in row.items()
    }
    targets = inputs.pop("targets")
    for name in ("row", "labels"):
        del inputs[name]
    was_training = tuned.training
    tuned.eval()
    with torch.enable_grad(), autocast(tuned):
        logits = tuned(**inputs, use_cache=False).logits[0]
        functional.cross_entropy(logits.float(), targets).backward()  # type: ignore[no-untyped-call]
    unreached = [
        (name, layer)
        for name, layer in adapters(tuned).items()
        if not _any(layer.lora_B[ADAPTER].weight.grad)
    ]
    tuned.zero_grad(set_to_none=True)
    for _, layer in unreached:
        for matrices in (layer.lora_A, layer.lora_B):
            matrices.requires_grad_(requires_grad=False)
    tuned.train(was_training)
    return [name for name, _ in unreached]


def _any(gradient: torch.Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())
