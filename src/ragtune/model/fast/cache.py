"""The keys and values of a batch of questions of unlike length, without padding on the left."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache


class RaggedCache(Cache):
    """Room for `samples` questions of up to `positions` tokens each, question and answer.

    A sample's tokens stand at 0, 1, 2 …, whatever the length of the others, and are written in place:
    nothing is copied when an answer grows. The prompts come packed in rows (`put` says whose token is
    which), then one new token a sample at a time (`grow`).
    """

    def __init__(self, samples: int, positions: int) -> None:
        super().__init__(layers=[])
        self.samples = samples
        self.positions = positions
        self.keys: list[Tensor] = []
        """One a layer: [samples, positions, kv_heads, head_dim]"""
        self.values: list[Tensor] = []
        self.growing = False
        self._top = self.positions
        self._rows: Any = None
        self._places: Any = None

    def put(self, rows: Tensor, places: Tensor) -> None:
        """The next tokens belong to these samples [tokens], at these positions [tokens]."""
        self._rows, self._places = rows, places

    def grow(self, lengths: Tensor, longest: int | None) -> None:
        """The next token of each sample stands behind its `lengths` [samples] tokens.

        Args:
            lengths: on the device.
            longest: the largest of them, so that no more positions are looked at; None for all.
        """
        self.growing = True
        self.put(torch.arange(len(lengths), device=lengths.device), lengths)
        self._top = self.positions if longest is None else longest + 1

    def keep(self, samples: Tensor) -> None:
        """Drop all but these samples [kept], indices in the present order."""
        self.samples = len(samples)
        for kept in (self.keys, self.values):
            for layer, tensor in enumerate(kept):
                kept[layer] = tensor.index_select(0, samples)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values [_, kv_heads, tokens, head_dim].

        Returns:
            The same while prompts are read, which attend to themselves alone; the layer's whole
            cache [samples, kv_heads, used positions, head_dim] when answers grow.
        """
        while len(self.keys) <= layer_idx:
            for kept, states in ((self.keys, key_states), (self.values, value_states)):
                shape = (self.samples, self.positions, states.shape[1], states.shape[3])
                # Zeros: what is masked is multiplied by 0, and must be finite.
                kept.append(torch.zeros(shape, dtype=states.dtype, device=states.device))
        for kept, states in ((self.keys, key_states), (self.values, value_states)):
            tokens = states.transpose(1, 2).reshape(-1, states.shape[1], states.shape[3])
            kept[layer_idx].index_put_((self._rows, self._places), tokens)
        if not self.growing:
            return key_states, value_states
        keys, values = (kept[layer_idx][:, : self._top] for kept in (self.keys, self.values))
        return keys.transpose(1, 2), values.transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - transformers' signature
        """0: the positions are always given, never counted (tested by `_probe_cache` on every model)."""
        return 0
