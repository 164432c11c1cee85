"""The keys and values of a batch of questions of unlike length, without padding on the left.

Axes in names: S samples, P positions of the cache, N tokens, G heads of keys and values, D numbers a
head.
"""

from __future__ import annotations

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
        self.keys_SPGD: list[Tensor] = []
        """One a layer."""
        self.values_SPGD: list[Tensor] = []
        self.growing = False
        self._top = self.positions
        self._samples_N: Tensor
        self._places_N: Tensor
        self._which_N: Tensor | None = None

    def put(self, samples_N: Tensor, places_N: Tensor, which_N: Tensor | None = None) -> None:
        """The next tokens belong to these samples, at these positions.

        `which_N` says which of them belongs there, if they don't do so one after the other.
        """
        self._samples_N, self._places_N, self._which_N = samples_N, places_N, which_N

    def grow(self, lengths_S: Tensor, longest: int | None) -> None:
        """The next token of each sample stands behind the tokens that it has.

        Args:
            lengths_S: how many these are; on the device.
            longest: the largest of them, so that no more positions are looked at; None for all.
        """
        self.growing = True
        self.put(torch.arange(len(lengths_S), device=lengths_S.device), lengths_S)
        self._top = self.positions if longest is None else longest + 1

    def keep(self, samples: Tensor) -> None:
        """Drop all but these samples, indices in the present order."""
        self.samples = len(samples)
        for layers_SPGD in (self.keys_SPGD, self.values_SPGD):
            for layer, kept in enumerate(layers_SPGD):  # each is given back before the next is made
                layers_SPGD[layer] = kept.index_select(0, samples)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values [1, G, N, D]; [S, G, 1, D] when answers grow.

        Returns:
            The same while prompts are read, which attend to themselves alone; the layer's whole
            cache [S, G, used positions, D] when answers grow.
        """
        both = ((self.keys_SPGD, key_states), (self.values_SPGD, value_states))
        for layers_SPGD, new in both:
            heads, size = new.shape[1], new.shape[3]
            while len(layers_SPGD) <= layer_idx:
                # Zeros: what is masked is multiplied by 0, and must be finite.
                layers_SPGD.append(new.new_zeros((self.samples, self.positions, heads, size)))
            new_NGD = new.transpose(1, 2).reshape(-1, heads, size)
            if self._which_N is not None:
                new_NGD = new_NGD[self._which_N]
            layers_SPGD[layer_idx].index_put_((self._samples_N, self._places_N), new_NGD)
        if not self.growing:
            return key_states, value_states
        k_SPGD, v_SPGD = (layers_SPGD[layer_idx][:, : self._top] for layers_SPGD, _ in both)
        return k_SPGD.transpose(1, 2), v_SPGD.transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - transformers' signature
        """0: the positions are always given, never counted (tested by `_probe_cache` on every model)."""
        return 0
