"""Our kernels are compiled by a thread, while the data are prepared and the model is loaded.

Triton compiles a kernel where it is first used, for what it is given: the dtypes, and of most whole numbers
whether they are 1 or multiples of 16. So each is used here by the same functions as in a run, at the model's
widths, for two tokens of nothing. What isn't foreseen, as Liger's kernels, is compiled where it is first used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from threading import Thread, main_thread
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ragtune.base.sparing import await_import
from ragtune.base.stopping import asked
from ragtune.model.fast.attention import packed_attention
from ragtune.model.fast.cache import RaggedCache
from ragtune.model.fast.dropout import Draw, add_dropped, dropout
from ragtune.model.fast.eight import quantize
from ragtune.model.fast.norm import norm_gradient
from ragtune.model.fast.to_eight import MULTIPLE, rounded
from ragtune.model.hardware import keep_kernels

Use = Callable[[], object]
"""Uses a kernel once."""
_ahead: list[Thread] = []


def compile_ahead(uses: Iterable[Use], device: torch.device) -> None:
    """Begin to use kernels, which compiles them; a model's loading waits until that is done.

    Args:
        uses: taken one after the other, by a thread.
        device: a GPU, for which Triton compiles.
    """
    await_kernels()  # those of a run of this process that failed before it loaded a model
    keep_kernels()
    thread = Thread(target=_compile, args=(uses, device), name="compiling kernels")
    thread.start()
    _ahead.append(thread)


def await_kernels() -> None:
    """Wait for what was begun: while a CUDA graph is captured, no other thread may launch or allocate."""
    while _ahead:
        _ahead[-1].join()
        _ahead.pop()


def _compile(uses: Iterable[Use], device: torch.device) -> None:
    await_import()  # it imports parts of Triton, too
    # Whatever fails here, a GPU, a compiler or a configuration that is unlike others, is dropped: who uses the
    # kernel hears of it, and knows what to do or to say. Nothing that a run computes comes from here.
    with contextlib.suppress(Exception), torch.cuda.device(device):
        for use in uses:
            if asked() or not main_thread().is_alive():  # the process would end but for this thread
                return
            with contextlib.suppress(Exception):
                use()


@dataclass(frozen=True)
class Wanted:
    """What of a run uses kernels of ours."""

    answers: bool
    """They are written with a cache of ours."""
    products: bool
    """Some are in 8 bits."""
    gradients: bool
    """Those of training are."""
    dropout: bool
    """It comes before adapters that are fused."""
    norms: bool
    """Liger's kernels compute them, and their weights are frozen."""


class _Sizes(NamedTuple):
    """Of a model, 0 where its configuration has no such number, or one for each layer."""

    hidden: int
    inner: int
    heads: int
    shared: int
    """Heads of keys and values."""
    head: int

    @property
    def layers(self) -> list[tuple[int, tuple[int, ...]]]:
        """Linear layers that share an input: its width, and their outputs'; without what isn't known."""
        asked, given = self.heads * self.head, self.shared * self.head
        found = [
            (self.hidden, (asked, given, given)),
            (asked, (self.hidden,)),
            (self.hidden, (self.inner, self.inner)),
            (self.inner, (self.hidden,)),
        ]
        return [(width, outputs) for width, outputs in found if width and all(outputs)]


def uses_of(
    config: PreTrainedConfig, wanted: Wanted, device: torch.device, dtype: torch.dtype
) -> Iterator[Use]:
    """Uses of the kernels that a run will need, in the order in which it comes to them.

    Args:
        config: the model's; of what it doesn't say nothing is given.
        wanted: what the run does.
        device: where the kernels are used.
        dtype: of the model's numbers.
    """
    sizes = _sizes(config)
    nothing = partial(torch.zeros, dtype=dtype, device=device)
    if wanted.answers and sizes.heads and sizes.shared and sizes.head:
        yield partial(_answer, sizes, nothing)
    for widths in _rounded(sizes, wanted):
        yield partial(_round, widths, nothing)
    for width in sorted({width for width, _ in sizes.layers}) if wanted.dropout else ():
        for add in (False, True):
            yield partial(_drop, width, nothing, add=add)
    # Some families norm queries and keys as well, head by head.
    for width in sorted({sizes.hidden, sizes.head} - {0}) if wanted.norms else ():
        yield partial(_norm, width, nothing)


def _sizes(config: PreTrainedConfig) -> _Sizes:
    text = config.get_text_config()

    def size(name: str) -> int:
        value = getattr(text, name, None)
        return value if isinstance(value, int) and value > 0 else 0

    hidden, heads = size("hidden_size"), size("num_attention_heads")
    head = size("head_dim") or (hidden // heads if heads else 0)
    shared = size("num_key_value_heads") or heads
    return _Sizes(hidden, size("intermediate_size"), heads, shared, head)


Nothing = Callable[..., Tensor]
"""Makes zeros of a shape, in the model's dtype unless another is given."""


def _answer(sizes: _Sizes, nothing: Nothing) -> None:
    """Two prompts of a token each are stored, and a new token behind each, which attends to both."""

    def drawn(heads: int, *outer: int) -> Tensor:
        return nothing(*outer, heads, sizes.head).transpose(1, 2)  # as a projection leaves them

    first = nothing(2, dtype=torch.long)
    cache = RaggedCache(2, 2, first.device)
    prompts, new = drawn(sizes.shared, 1, 2), drawn(sizes.shared, 2, 1)
    cache.put(torch.arange(2, device=first.device), first)
    cache.update(prompts, prompts, 0)
    cache.grow(lengths_S := first + 1, None)
    query, past = drawn(sizes.heads, 2, 1), cache.update(new, new, 0)
    packed_attention(
        nn.Module(), query, *past, None, cache_lengths=lengths_S, cache_starts=cache.starts_S
    )


def _rounded(sizes: _Sizes, wanted: Wanted) -> Iterable[tuple[int, ...]]:
    """The widths of what is rounded beside each other, each once."""
    found: list[tuple[int, ...]] = []
    for width, outputs in sizes.layers if wanted.products else ():
        fitting = [n for n in outputs if not (width % MULTIPLE or n % MULTIPLE)]
        for output in fitting:
            found += rounded(width, output)
        if wanted.gradients and fitting:
            found.append(tuple(fitting))
    return dict.fromkeys(found)


def _round(widths: tuple[int, ...], nothing: Nothing) -> None:
    quantize(*(nothing(2, width) for width in widths))


def _drop(width: int, nothing: Nothing, *, add: bool) -> None:
    draw = Draw(0, nothing(1, dtype=torch.long), 1, nothing(2, dtype=torch.long))
    if add:
        add_dropped(nothing(2, width), nothing(2, width), 0.5, draw)
    else:
        dropout(nothing(2, width), 0.5, draw)


def _norm(width: int, nothing: Nothing) -> None:
    dy, x, scale_2 = nothing(2, width), nothing(2, width), nothing(2, dtype=torch.float32)
    norm_gradient(dy, x, nothing(width), scale_2, 0.0, in_place=False)
