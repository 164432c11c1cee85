"""An adapter in the dtype of its products, which is learned in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from ragtune.base.errors import is_out_of_memory
from ragtune.model.fast.lora import Group, Matrices, groups_of, is_packed


class Rounded:
    """An adapter's matrices in the dtype of its products: rounded once for a step, or for many questions.

    At every use they were a sixth of all kernels in a step of a 7B. Each group's A stand in one matrix, too.
    Nothing is kept where they are in the products' dtype, nor beside a base in NF4 that is dequantised at every
    use: there memory is short, and rounding is little of what is done.

    Args:
        model: with fused layers, or others, which stay as they are.
    """

    def __init__(self, model: PeftModel | PreTrainedModel) -> None:
        self._dtype = model.get_input_embeddings().weight.dtype
        self._groups = [
            group
            for group in groups_of(model)
            if group.parameters[0].dtype != self._dtype and not any(map(is_packed, group.bases))
        ]
        self._parts: list[Tensor] = []
        """Of all parameters of all groups, in their order."""

    @torch.no_grad()
    def take(self) -> None:
        """Round what was learned so far. A graph that was captured reads it where it stood."""
        if self._parts:
            learned = [parameter.data for group in self._groups for parameter in group.parameters]
            torch._foreach_copy_(self._parts, learned)
            return
        try:
            for group in self._groups:
                self._begin(group)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.drop()  # it saves time, and is not needed

    def _begin(self, group: Group) -> None:
        a_QI = torch.cat(group.parameters[::2]).to(self._dtype)
        group.rounded = Matrices(a_QI, [b.to(self._dtype) for b in group.parameters[1::2]])
        pairs = zip(a_QI.split_with_sizes(group.ranks), group.rounded.b, strict=True)
        self._parts += [part for pair in pairs for part in pair]

    def drop(self) -> None:
        """Give the memory back."""
        self._parts.clear()
        for group in self._groups:
            group.rounded = None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Within, it is taken for what is answered; what a training has taken is there again afterwards."""
        before = [group.rounded for group in self._groups]
        self.take()
        try:
            yield
        finally:
            self.drop()
            for group, known in zip(self._groups, before, strict=True):
                group.rounded = known
