"""An adapter in the dtype of its products, which is learned in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from ragtune.base.errors import is_out_of_memory
from ragtune.base.screen.console import note
from ragtune.model.fast.lora import Matrices, groups_of, is_packed
from ragtune.model.hardware import gpu_memory
from ragtune.model.memory import LITTLE


class Rounded:
    """An adapter's matrices in the dtype of its products: rounded once for a step, or for many questions.

    At every use that is some thirty small kernels for each layer of a Llama in a step. Nothing is kept where
    the matrices are in that dtype anyway, nor beside a base in NF4 that is dequantised at every use, nor where
    it would take more than LITTLE of a GPU's memory.

    Args:
        model: with fused layers, or others, which stay as they are.
    """

    def __init__(self, model: PeftModel | PreTrainedModel) -> None:
        weight = model.get_input_embeddings().weight
        self._dtype: torch.dtype = weight.dtype
        self._groups = [
            group
            for group in groups_of(model)
            if group.parameters[0].dtype != self._dtype and not any(map(is_packed, group.bases))
        ]
        numbers = sum(p.numel() for group in self._groups for p in group.parameters)
        device: torch.device = weight.device
        if device.type == "cuda":
            little = numbers * self._dtype.itemsize <= LITTLE * gpu_memory(device)
            self._groups = self._groups if little else []

    @torch.no_grad()
    def take(self) -> None:
        """Round what was learned so far, where it stands if it was taken before: a graph reads it there."""
        there = [(g, g.rounded) for g in self._groups if g.rounded]
        if there and len(there) == len(self._groups):
            parts, learned = [], []
            for group, known in there:
                pairs = zip(known.a.split_with_sizes(group.ranks), known.b, strict=True)
                parts += [part for pair in pairs for part in pair]
                learned += [parameter.data for parameter in group.parameters]
            torch._foreach_copy_(parts, learned)
            return
        try:
            for group in self._groups:
                group.rounded = Matrices.of(group.parameters, self._dtype)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.give_up()
            note(
                "The adapter is rounded at every use: there is too little memory to keep it rounded."
            )

    def drop(self) -> None:
        """Give the memory back."""
        for group in self._groups:
            group.rounded = None

    def give_up(self) -> None:
        """Give the memory back, and take no more."""
        self.drop()
        self._groups = []

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Within, it is there for what is answered; and afterwards, where a training had taken it before."""
        kept = any(group.rounded for group in self._groups)
        try:
            self.take()
            yield
        finally:
            if not kept:
                self.drop()
