"""What all texts of a row begin with, read once: an instruction that stands before every question.

A token's hidden states depend on those before it alone, so those of a common beginning are the same in every
text, but for rounding. The row has it as its first part; `packed_attention` lets all others see it. Dropout and
noise draw for each sample, so that there is nothing in common where a training has them.

T are the tokens of a packed row that has every text whole, R those of the row that has the beginning once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

import torch
from torch import Tensor

_LEAST = 16
"""Tokens below which it isn't worth the masks."""


def common(prompts: Sequence[list[int]]) -> int:
    """The tokens that all prompts of a row begin with, and each goes on behind; 0 where that isn't worth it."""
    if len(prompts) < 2:  # noqa: PLR2004 - one has nothing in common with itself
        return 0
    # Of all in their order the first and the last have the least in common.
    pairs = zip(min(prompts), max(prompts), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    first = min(same, min(map(len, prompts)) - 1)
    return first if first >= _LEAST else 0


@dataclass(frozen=True)
class Shared:
    """Where the tokens of texts stand in a row that has their beginning once."""

    kept: Tensor
    """[R]: which tokens of the whole texts the row has."""
    places: Tensor
    """[T]: where in the row each token of the whole texts is."""
    sizes: list[int]
    """Tokens of the beginning, and of what follows it in each text."""

    @property
    def borders(self) -> Tensor:
        """[texts + 2], int32: where each part begins, and the end."""
        return torch.tensor([*accumulate(self.sizes, initial=0)], dtype=torch.int32)


def shared(sizes: Sequence[int], first: int) -> Shared:
    """The row of texts of so many tokens, the `first` of which are the same in all."""
    ends = [*accumulate(sizes)]
    rest = [torch.arange(end - size + first, end) for end, size in zip(ends, sizes, strict=True)]
    kept_R = torch.cat([torch.arange(first), *rest])
    where_T = torch.empty(ends[-1], dtype=torch.long)
    for end, size in zip(ends, sizes, strict=True):
        where_T[end - size : end - size + first] = torch.arange(first)
    where_T[kept_R] = torch.arange(len(kept_R))
    return Shared(kept_R, where_T, [first, *map(len, rest)])
