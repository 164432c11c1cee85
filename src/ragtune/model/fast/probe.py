"""Whether packed rows are right for a model: tried, each sample in the row against itself alone.

Axes in names: N tokens whose logits are compared, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from ragtune.base.errors import is_out_of_memory
from ragtune.base.text import first_line
from ragtune.model.fast.attention import (
    NAME,
    PackedAttentionError,
    evaluating,
    using_packed,
    windows_seen,
)
from ragtune.model.fast.eight import unrounded
from ragtune.model.fast.prefix import common, shared

_LENGTHS = (5, 11, 3)
_COMPARED = 8
"""Tokens at the end of a long text whose logits are compared."""
_LEAK = 1e-6
"""What rounding explains where the same operations see the same numbers."""
_EXACT = 1e-3
_HALF = 0.1
"""What half precision may differ by in another kernel or shape."""


def probe(model: PreTrainedModel, *, training: bool = False, any_length: bool = True) -> str | None:
    """Why packing would be wrong for a model, or None if packed equals one at a time.

    Three short samples of random tokens in one row must give the logits of each alone under the
    model's own attention; and other tokens in the first sample must leave those of the others as
    they are, to the bit but for rounding, which shows even a faint leak. With `training`, what a
    model asks for in train mode only (dropout of the attention) is seen, too. The model keeps the
    attention that it had. What changes with the length of a row is a reason only where rows may have
    `any_length`; else the caller tries its longest text (`probe_texts`).

    Returns:
        A reason in words, or None.
    """
    # These two are taken from names, on the safe side. Nothing tests what has such a length by another
    # name and is longer than the probe's samples, but `probe_texts`.
    if getattr(model.config.get_text_config(), "attention_chunk_size", None):
        return "its attention works in chunks"
    if any_length and _rope_types(model.config) & {"longrope", "dynamic"}:
        return "its rotary embedding changes with the length of the row"
    return _tried(lambda: _compare_short(model, training=training))


def probe_texts(
    model: PreTrainedModel, texts: Sequence[list[int]], *, training: bool = False
) -> str | None:
    """Why packing texts (token ids) would be wrong for a model, or None.

    What `probe` tries, and the shortest and the longest text in one row, each against itself alone:
    the longest lies behind every window and every change of RoPE that a row can reach.
    """
    reason = probe(model, training=training, any_length=False)
    reason = reason or _tried(lambda: _compare_long(model, texts))
    return reason or (None if model.dtype == torch.float32 else row_matters(model, texts))


def probe_shared(model: PreTrainedModel, texts: Sequence[list[int]]) -> bool:
    """Whether texts in a row that has what they begin with once give the logits that they give whole.

    What a row has in common, its shortest and its longest text have; a packed row of both holds already.
    """
    both = _shortest_and_longest(texts)
    first = common([text.tolist() for text in both])
    if not first:
        return False

    def compare() -> str | None:
        row = shared([*map(len, both)], first)
        sizes = row.borders.diff()[1:].tolist()
        kept = [torch.arange(n - min(n, _COMPARED), n) for n in sizes]
        last = torch.cat(
            [end - n + k for end, n, k in zip(row.borders[2:], sizes, kept, strict=True)]
        )
        device = model.get_input_embeddings().weight.device
        places = torch.cat([torch.arange(len(text)) for text in both])[row.kept]
        with evaluating(model), using_packed(model):
            whole_NV = torch.cat(
                [
                    part[-len(k) :]
                    for part, k in zip(_packed(model, both, _COMPARED), kept, strict=True)
                ]
            )
            found_NV = model(
                input_ids=torch.cat(both)[row.kept][None].to(device), position_ids=places[None].to(device),
                cu_seq_lens_q=row.borders.to(device), cu_seq_lens_k=row.borders.to(device),
                max_length_q=max(row.sizes), max_length_k=max(row.sizes), use_cache=False,
                shared_prefix=True, logits_to_keep=last.to(device),
            ).logits[0].float()  # fmt: skip
        return None if relative(found_NV, whole_NV) <= _allowed(model) else "they differ"

    return _tried(compare) is None


@unrounded()
def row_matters(model: PreTrainedModel, texts: Sequence[list[int]]) -> str | None:
    """What the length of another text in the row changes in the shortest one; or None.

    Half precision rounds otherwise in a row of another shape, which can hide a small difference. So
    all rows are as long as each other, and in one of them the longest text is cut into short ones.
    Experts see another number of tokens there: what other tokens in the longest text change is taken
    for rounding (that samples see each other `probe` would have found).
    """
    short, long = _shortest_and_longest(texts)
    with evaluating(model), using_packed(model):
        whole_NV, moved_NV, cut_NV = (
            _packed(model, [short, *others], _COMPARED)[0]
            for others in ([long], [long.roll(1)], torch.split(long, len(short)))  # type: ignore[no-untyped-call]
        )
    changed = relative(cut_NV, whole_NV)
    if not changed <= min(_EXACT + 4 * relative(moved_NV, whole_NV), _HALF):
        return f"its logits change with the length of the row's other texts (by {changed:.2g})"
    return None


def relative(found_NV: Tensor, expected_NV: Tensor) -> float:
    """The largest relative difference of a token's logits."""
    difference = (found_NV - expected_NV).norm(dim=-1) / expected_NV.norm(dim=-1).clamp_min(1e-12)
    return float(difference.max())


def _tried(compare: Callable[[], str | None]) -> str | None:
    """What a comparison finds; that it can't be made is a reason, too."""
    try:
        with unrounded():
            return compare()
    except PackedAttentionError as error:
        return str(error)
    except Exception as error:  # a model's own code may raise anything on a row of our kind
        if is_out_of_memory(error):
            raise
        return f"it fails on packed rows ({first_line(error)[:120]})"


def _compare_short(model: PreTrainedModel, *, training: bool) -> str | None:
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    first, other, *rest = (
        torch.randint(vocabulary, (n,), generator=generator) for n in (_LENGTHS[0], *_LENGTHS)
    )
    with evaluating(model):
        alone_NV = torch.cat([_alone(model, text) for text in (first, *rest)])
        windows_seen.clear()
        with using_packed(model):
            if model.config._attn_implementation != NAME:  # noqa: SLF001 - no public getter
                return "its attention can't be replaced"
            packed_NV = torch.cat(_packed(model, [first, *rest]))
            changed_NV = torch.cat(_packed(model, [other, *rest]))
            if training:
                _packed(model.train(), [first, *rest])
    if _window(model.config) and not any(windows_seen):
        return "its sliding window is in the mask alone"  # and longer than these texts
    worst = relative(packed_NV, alone_NV)
    if not worst <= _allowed(model):
        return f"packed and single logits differ by {worst:.2g}"
    leak = relative(changed_NV[_LENGTHS[0] :], packed_NV[_LENGTHS[0] :])
    if not leak <= _LEAK:
        return f"samples of a row see each other (logits change by {leak:.2g})"
    return None


def _compare_long(model: PreTrainedModel, texts: Sequence[list[int]]) -> str | None:
    both = _shortest_and_longest(texts)
    with evaluating(model):
        alone_NV = torch.cat([_alone(model, text, _COMPARED) for text in both])
        with using_packed(model):
            packed_NV = torch.cat(_packed(model, both, _COMPARED))
    worst = relative(packed_NV, alone_NV)
    if not worst <= _allowed(model):
        return f"packed and single logits of the data's longest and shortest text differ by {worst:.2g}"
    return None


def _allowed(model: PreTrainedModel) -> float:
    return _EXACT if model.dtype == torch.float32 else _HALF


def _shortest_and_longest(texts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    return torch.tensor(min(texts, key=len)), torch.tensor(max(texts, key=len))


def _alone(model: PreTrainedModel, text: Tensor, compared: int | None = None) -> Tensor:
    """Logits [N, V] of a text [n], or of its last tokens."""
    ids = text[None].to(model.get_input_embeddings().weight.device)
    kept = {} if compared is None else {"logits_to_keep": compared}
    logits_NV: Tensor = model(input_ids=ids, use_cache=False, **kept).logits[0].float()
    return logits_NV


def _packed(
    model: PreTrainedModel, texts: Sequence[Tensor], compared: int | None = None
) -> tuple[Tensor, ...]:
    """Logits [N, V] of each text [n], or of its last tokens, all texts in one row."""
    device = model.get_input_embeddings().weight.device
    sizes = [len(text) for text in texts]
    ends = list(accumulate(sizes, initial=0))
    borders = torch.tensor(ends, dtype=torch.int32, device=device)
    kept = {}
    if compared is not None:
        last = [torch.arange(max(b - compared, a), b) for a, b in pairwise(ends)]
        kept["logits_to_keep"] = torch.cat(last).to(device)
        sizes = [len(places) for places in last]
    output = model(
        input_ids=torch.cat(list(texts))[None].to(device),
        position_ids=torch.cat([torch.arange(len(text)) for text in texts])[None].to(device),
        cu_seq_lens_q=borders,
        cu_seq_lens_k=borders,
        max_length_q=max(map(len, texts)),
        max_length_k=max(map(len, texts)),
        use_cache=False,
        **kept,
    )
    return torch.split(output.logits[0].float(), sizes)  # type: ignore[no-untyped-call,no-any-return]


def _window(config: PretrainedConfig) -> int | None:
    """The sliding window that some layer of a model has; None where rows can't be as long."""
    # Tested by `probe`, which sees the windows that the layers ask for.
    text = config.get_text_config()
    window: int | None = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    if not window or getattr(text, "use_sliding_window", True) is False:
        return None
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return window if window < getattr(text, "max_position_embeddings", window + 1) else None


def _rope_types(config: PretrainedConfig) -> set[str]:
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
