"""Our kernels are compiled by a thread while a model is loaded.

Triton compiles a kernel where it is first used, for what it is given: the dtypes, and of most whole numbers
whether they are 1 or multiples of 16. So each is used here by the same functions as in a run, at the model's
widths, for two tokens of nothing: those that answer, and those that round weights to 8 bits. All others, as
Liger's, are compiled where they are first used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import Thread
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ragtune.base.sparing import await_import
from ragtune.base.stopping import asked
from ragtune.model.fast.attention import packed_attention
from ragtune.model.fast.cache import RaggedCache, is_flat
from ragtune.model.fast.eight import quantize
from ragtune.model.fast.to_eight import MULTIPLE, rounded
from ragtune.model.hardware import Hardware, keep_kernels

Use = Callable[[], object]
"""Uses a kernel once."""
Nothing = Callable[..., Tensor]
"""Makes zeros of a shape, in the model's dtype unless another is given."""


@contextlib.contextmanager
def compiling(config: PreTrainedConfig, hardware: Hardware, *, rounding: bool) -> Iterator[None]:
    """Within, a thread compiles kernels, if they are for this device; behind it none is at work.

    While a CUDA graph is captured, no other thread may launch anything or allocate.

    Args:
        config: of the model that is loaded; of what it doesn't say nothing is compiled.
        hardware: the device and dtype.
        rounding: whether its weights will be rounded to 8 bits.
    """
    device = hardware.device
    if not is_flat(device):
        yield
        return
    keep_kernels()
    uses = uses_of(config, device, hardware.dtype, rounding=rounding)
    thread = Thread(target=_compile, args=(uses, device), name="compiling kernels")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _compile(uses: Iterable[Use], device: torch.device) -> None:
    await_import()  # it imports parts of Triton, too
    # Whatever fails here, a GPU, a compiler or a configuration that is unlike others, is dropped: who uses the
    # kernel hears of it, and knows what to do or to say. Nothing that a run computes comes from here.
    with contextlib.suppress(Exception), torch.cuda.device(device):
        for use in uses:
            if asked():
                return
            with contextlib.suppress(Exception):
                use()


class _Sizes(NamedTuple):
    """Of a model, 0 where its configuration has no such number, or one for each layer."""

    hidden: int
    inner: int
    heads: int
    shared: int
    """Heads of keys and values."""
    head: int

    @property
    def layers(self) -> set[tuple[int, int]]:
        """Numbers in and out of the linear layers, as far as they are known."""
        asked_for, given = self.heads * self.head, self.shared * self.head
        found = {
            (self.hidden, asked_for),
            (self.hidden, given),
            (asked_for, self.hidden),
            (self.hidden, self.inner),
            (self.inner, self.hidden),
        }
        return {layer for layer in found if all(layer)}


def uses_of(
    config: PreTrainedConfig, device: torch.device, dtype: torch.dtype, *, rounding: bool
) -> Iterator[Use]:
    """Uses of the kernels that answer, and of those that round weights: in the order of a run.

    Args:
        config: the model's.
        device: where the kernels are used.
        dtype: of the model's numbers.
        rounding: whether any are rounded.
    """
    sizes = _sizes(config)
    nothing = partial(torch.zeros, dtype=dtype, device=device)
    if sizes.head and sizes.heads and sizes.shared and sizes.heads % sizes.shared == 0:
        yield partial(_answer, sizes, nothing)
    fitting = [layer for layer in sorted(sizes.layers) if not any(n % MULTIPLE for n in layer)]
    parts = [widths for layer in fitting for widths in rounded(*layer)] if rounding else []
    for widths in dict.fromkeys(parts):
        yield partial(_round, widths, nothing)


def _sizes(config: PreTrainedConfig) -> _Sizes:
    text = config.get_text_config()

    def size(name: str) -> int:
        value = getattr(text, name, None)
        return value if isinstance(value, int) and value > 0 else 0

    hidden, heads = size("hidden_size"), size("num_attention_heads")
    head = size("head_dim") or (hidden // heads if heads else 0)
    shared = size("num_key_value_heads") or heads
    return _Sizes(hidden, size("intermediate_size"), heads, shared, head)


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


def _round(widths: tuple[int, ...], nothing: Nothing) -> None:
    quantize(*(nothing(2, width) for width in widths))
