"""Whether texts as long as the real ones can be packed: what no short probe reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ragtune.base.errors import is_out_of_memory
from ragtune.model.fast.attention import probe, relative, using_packed

_COMPARED = 8  # positions at the end of a text
_HALF = 0.1  # what half precision may differ by in another shape


def probe_texts(model: Any, texts: Sequence[list[int]], *, training: bool = False) -> str | None:
    """Why packing texts (token ids) would be wrong for a model, or None.

    What `probe` tries, and the shortest and the longest text in one row, each against itself alone:
    the longest lies behind every window and every change of RoPE that a row can reach.
    """
    if reason := probe(model, training=training, any_length=False):
        return reason
    short, long = (torch.tensor(pick(texts, key=len)) for pick in (min, max))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = [_alone(model, text) for text in (short, long)]
            with using_packed(model):
                packed = _packed(model, [short, long])
    except Exception as error:  # a model's own code may raise anything on a row of our kind
        if is_out_of_memory(error):
            raise
        return f"it fails on packed rows ({(str(error).splitlines() or ['no message'])[0][:120]})"
    finally:
        model.train(was_training)
    allowed = 1e-3 if model.dtype == torch.float32 else _HALF
    worst = max(relative(one, other) for one, other in zip(packed, alone, strict=True))
    if not worst <= allowed:
        return f"packed and single logits of the data's longest and shortest text differ by {worst:.2g}"
    return None if model.dtype == torch.float32 else row_matters(model, texts)


def row_matters(model: Any, texts: Sequence[list[int]]) -> str | None:
    """What the length of another text in the row changes in the shortest one; or None.

    Half precision rounds otherwise in a row of another shape, which can hide a small difference. So
    all rows are as long as each other, and in one of them the longest text is cut into short ones.
    Experts see another number of tokens there: what other tokens in the longest text change is taken
    for rounding (that samples see each other `probe` would have found).
    """
    short, long = (torch.tensor(pick(texts, key=len)) for pick in (min, max))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), using_packed(model):
            whole, *_ = _packed(model, [short, long])
            moved, *_ = _packed(model, [short, long.roll(1)])
            cut, *_ = _packed(model, [short, *torch.split(long, len(short))])
    finally:
        model.train(was_training)
    changed = relative(cut, whole)
    if not changed <= min(1e-3 + 4 * relative(moved, whole), _HALF):
        return f"its logits change with the length of the row's other texts (by {changed:.2g})"
    return None


def _alone(model: Any, text: Tensor) -> Tensor:
    device = model.get_input_embeddings().weight.device
    ids = text[None].to(device)
    logits: Tensor = model(ids, use_cache=False, logits_to_keep=_COMPARED).logits[0].float()
    return logits


def _packed(model: Any, texts: Sequence[Tensor]) -> list[Tensor]:
    """Logits [positions, vocabulary] at the end of each text, all in one row."""
    device = model.get_input_embeddings().weight.device
    sizes = torch.tensor([len(t) for t in texts])
    borders = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    ends = [torch.arange(max(b - _COMPARED, a), b) for a, b in borders.unfold(0, 2, 1).tolist()]
    on_device = borders.to(device, torch.int32)
    output = model(
        input_ids=torch.cat(list(texts))[None].to(device),
        position_ids=torch.cat([torch.arange(len(t)) for t in texts])[None].to(device),
        cu_seq_lens_q=on_device,
        cu_seq_lens_k=on_device,
        max_length_q=int(sizes.max()),
        max_length_k=int(sizes.max()),
        use_cache=False,
        logits_to_keep=torch.cat(ends).to(device),
    )
    return list(torch.split(output.logits[0].float(), [len(e) for e in ends]))
