"""Questions that several ranks answer: batches from a common queue, the longest first."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from pydantic import JsonValue

from ragtune.data.spans import Shown
from ragtune.distributed.world import World
from ragtune.model.fast.cache import Room

Batch = Sequence[tuple[str, list[int]]]
"""Prompts: a qid and token ids each."""
Row = tuple[list[int], float]
"""The new tokens behind a prompt, and the logarithm of their probability, the stop token included."""
Rows = list[Row]
Answered = Iterator[tuple[Batch, Rows]]
"""Prompts, as soon as they are answered, and what was answered to them."""
Ask = Callable[[Batch], Answered]
"""Answers a batch, in one part or, where memory runs out, in several."""


class Shared:
    """A queue of batches that every rank of a world takes from.

    Args:
        world: the ranks.
        name: of the queue; no other has it.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.shown: dict[str, Shown] = {}
        """By qid what may be copied; empty where answers are written freely."""

    def lead(self, batches: Sequence[Batch], room: Room, ask: Ask) -> Answered:
        """Share batches out, all of which have that room, and answer some of them here.

        Raises:
            LostError: a rank is gone.
        """
        world, waiting = self.world, set(range(1, len(batches)))
        # Whoever knows how many there are waits for the first of them.
        world.put(self._key("count"), [len(batches), room.samples, room.slots])
        with ThreadPoolExecutor(1, "sharing") as pool:
            shared_out = pool.submit(self._share_out, batches)  # not to be waited for
            yield from ask(batches[0])
            shared_out.result()
        while (index := world.next(self._key("next")) + 1) < len(batches):
            world.forget(self._key("batch", index))
            yield from ask(batches[index])
            waiting.remove(index)
            for other in sorted(waiting):
                if world.has(self._key("rows", other)):
                    waiting.remove(other)
                    yield batches[other], self._rows(other)
        world.rest()
        for other in sorted(waiting):
            yield batches[other], self._rows(other)

    def follow(self, asker: Callable[[Room], Ask]) -> None:
        """Answer batches, for which there is that room, until there are no more."""
        world = self.world
        count, samples, slots = cast("list[int]", world.take(self._key("count")))
        ask = asker(Room(samples, slots))
        while (index := world.next(self._key("next")) + 1) < count:
            packed, shown = cast(
                "tuple[list[tuple[str, str]], dict[str, Shown]]",
                world.take(self._key("batch", index), forget=True),
            )
            self.shown |= shown
            batch = [(qid, _ids(text)) for qid, text in packed]
            rows = [row for _, part in ask(batch) for row in part]
            world.put(self._key("rows", index), cast("JsonValue", rows))
        world.rest()

    def _share_out(self, batches: Sequence[Batch]) -> None:
        """Leave all batches but the first, which is this rank's own, for whoever takes them."""
        for index, batch in enumerate(batches[1:], 1):
            shown = {qid: self.shown[qid] for qid, _ in batch if qid in self.shown}
            packed = [[qid, _packed(ids)] for qid, ids in batch]
            self.world.put(self._key("batch", index), cast("JsonValue", [packed, shown]))

    def _rows(self, index: int) -> Rows:
        rows = self.world.take(self._key("rows", index), forget=True)
        return [cast("Row", tuple(row)) for row in cast("list[list[list[int] | float]]", rows)]

    def _key(self, *parts: object) -> str:
        return "/".join(map(str, ("shared", self.name, *parts)))


def _packed(ids: Sequence[int]) -> str:
    """Token ids as text, which is read and written in a third of the time of a list."""
    return base64.b64encode(array("i", ids)).decode()


def _ids(packed: str) -> list[int]:
    return array("i", base64.b64decode(packed)).tolist()
