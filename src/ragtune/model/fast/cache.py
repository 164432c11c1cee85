"""The keys and values of a batch of questions of unlike length, without padding on the left.

Axes in names: S samples, P positions of a sample, N tokens, Q slots (each has room for a token), G heads of
keys and values, D numbers a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from ragtune.model.hardware import has_triton


@dataclass(frozen=True, slots=True)
class Room:
    """What is needed for each of several batches, which are asked one after the other."""

    samples: int = 0
    slots: int = 0
    """Samples times positions."""


NO_ROOM = Room()


def is_flat(device: torch.device) -> bool:
    """Whether there are kernels that look up where a sample starts."""
    return device.type == "cuda" and has_triton()


class RaggedCache(Cache):
    """Room for `samples` questions of up to `positions` tokens each, question and answer.

    A sample's tokens stand at 0, 1, 2 …, whatever the length of the others, and are written in place:
    nothing is copied when an answer grows. The prompts come packed in rows (`put` says whose token is
    which), then one new token a sample at a time (`grow`).

    On a GPU with Triton it is `flat`: kernels look up where a sample starts. Batches that `room` is enough
    for then take the same memory, and a CUDA graph of a step holds for all of them: samples that a batch
    has less write to a slot of their own, which nobody else reads.
    """

    def __init__(
        self, samples: int, positions: int, device: torch.device, room: Room = NO_ROOM
    ) -> None:
        super().__init__(layers=[])
        self.flat = is_flat(device)
        self.samples, self.positions = samples, positions
        self.width = max(samples, room.samples) if self.flat else samples
        """Samples, with those that aren't there."""
        self.slots = max(samples * positions, room.slots) if self.flat else samples * positions
        self.keys_QGD: dict[int, Tensor] = {}
        """By layer, of those that have some."""
        self.values_QGD: dict[int, Tensor] = {}
        self.starts_S = torch.empty(self.width, dtype=torch.long, device=device)
        """Each sample's first slot."""
        self._slots_N: Tensor
        self._which_N: Tensor | None = None
        self._begin()

    def renew(self, samples: int, positions: int) -> bool:
        """Take other questions in the place of those that are there; False if there is no room for them."""
        if not self.flat or samples > self.width or samples * positions > self.slots:
            return False
        self.samples, self.positions = samples, positions
        self._begin()
        return True

    def _begin(self) -> None:
        self.growing = False
        self._top = self.positions
        if len(self.starts_S) != self.width:  # some were dropped
            self.starts_S = self.starts_S.new_empty(self.width)
        self.starts_S.fill_(self.slots)
        there = torch.arange(self.samples, device=self.starts_S.device)
        self.starts_S[: self.samples] = there * self.positions

    def put(self, samples_N: Tensor, places_N: Tensor, which_N: Tensor | None = None) -> None:
        """The next tokens belong to these samples, at these positions.

        `which_N` says which of them belongs there, if they don't do so one after the other.
        """
        self._slots_N, self._which_N = self.starts_S[samples_N] + places_N, which_N

    def grow(self, lengths_S: Tensor, longest: int | None) -> None:
        """The next token of each sample stands behind the tokens that it has.

        Args:
            lengths_S: how many these are; on the device.
            longest: the largest of them, so that no more positions are looked at; None for all.
        """
        self.growing = True
        self._slots_N, self._which_N = self.starts_S[: len(lengths_S)] + lengths_S, None
        self._top = self.positions if longest is None else longest + 1

    def keep(self, samples: Tensor) -> None:
        """Drop all but these samples, indices in the present order."""
        self.samples = len(samples)
        if self.flat:
            self.starts_S = self.starts_S[samples]
            return
        for layers_QGD in (self.keys_QGD, self.values_QGD):
            for layer, kept in layers_QGD.items():  # each is given back before the next is made
                layers_QGD[layer] = self._by_sample(kept).index_select(0, samples).flatten(0, 1)
        self.starts_S = self.starts_S[: self.samples]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values [1, G, N, D]; [S, G, 1, D] when answers grow.

        Returns:
            The same while prompts are read, which attend to themselves alone. When answers grow, the
            layer's whole cache [S, G, used positions, D]; a flat one is all slots, [1, G, Q, D].
        """
        both = ((self.keys_QGD, key_states), (self.values_QGD, value_states))
        for layers_QGD, new in both:
            if layer_idx not in layers_QGD:
                layers_QGD[layer_idx] = self._made(new)
            self._store(layers_QGD[layer_idx], new)
        if not self.growing:
            return key_states, value_states
        keys, values = (self._seen(layers_QGD[layer_idx]) for layers_QGD, _ in both)
        return keys, values

    def _made(self, new: Tensor) -> Tensor:
        heads, size = new.shape[1], new.shape[3]
        if self.flat:  # what isn't written is never read
            return new.new_empty((self.slots + 1, heads, size))
        # Zeros: what is masked is multiplied by 0, and must be finite.
        return new.new_zeros((self.slots, heads, size))

    def _store(self, room_QGD: Tensor, new: Tensor) -> None:
        if self.flat:
            from ragtune.model.fast import kernels  # noqa: PLC0415 - Triton is on GPU machines alone

            which_N = self._slots_N if self._which_N is None else self._which_N
            heads, size = room_QGD.shape[1:]
            kernels.store[(len(self._slots_N),)](
                new, room_QGD, self._slots_N, which_N,
                new.stride(0 if self.growing else 2), new.stride(1), self._which_N is not None,
                heads, size, *(1 << (n - 1).bit_length() for n in (heads, size)),
            )  # fmt: skip
            return
        new_NGD = new.transpose(1, 2).reshape(-1, *room_QGD.shape[1:])
        if self._which_N is not None:
            new_NGD = new_NGD[self._which_N]
        room_QGD.index_put_((self._slots_N,), new_NGD)

    def _seen(self, room_QGD: Tensor) -> Tensor:
        if self.flat:
            return room_QGD.transpose(0, 1)[None]
        return self._by_sample(room_QGD)[:, : self._top].transpose(1, 2)

    def _by_sample(self, room_QGD: Tensor) -> Tensor:
        return room_QGD.view(-1, self.positions, *room_QGD.shape[1:])

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - transformers' signature
        """0: the positions are always given, never counted (tested by `_probe_cache` on every model)."""
        return 0
