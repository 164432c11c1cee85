"""Questions that several ranks answer: batches from a common queue, the longest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from pydantic import JsonValue

from ragtune.data.spans import Shown
from ragtune.distributed.world import World

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

    def size(self, questions: int, most: int) -> int:
        """Questions a batch, so that each rank gets equally many batches of at most `most`."""
        rounds = -(-questions // (most * self.world.size))
        return -(-questions // (rounds * self.world.size))

    def lead(self, batches: Sequence[Batch], ask: Ask) -> Answered:
        """Share batches out, and answer some of them here.

        Raises:
            LostError: a rank is gone.
        """
        world, waiting = self.world, set(range(len(batches)))
        world.put(self._key("count"), len(batches))  # whoever knows it waits for the first of them
        for index, batch in enumerate(batches):
            shown = {qid: self.shown[qid] for qid, _ in batch if qid in self.shown}
            found = [[qid, [*ids]] for qid, ids in batch]
            world.put(self._key("batch", index), cast("JsonValue", [found, shown]))
        while (index := world.next(self._key("next"))) < len(batches):
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

    def follow(self, ask: Ask) -> None:
        """Answer batches until there are no more."""
        world = self.world
        count = world.take(self._key("count"))
        assert isinstance(count, int)
        while (index := world.next(self._key("next"))) < count:
            batch, shown = cast(
                "tuple[Batch, dict[str, Shown]]",
                world.take(self._key("batch", index), forget=True),
            )
            self.shown |= shown
            rows = [row for _, part in ask([(qid, ids) for qid, ids in batch]) for row in part]
            world.put(self._key("rows", index), cast("JsonValue", rows))
        world.rest()

    def _rows(self, index: int) -> Rows:
        rows = self.world.take(self._key("rows", index), forget=True)
        return [cast("Row", tuple(row)) for row in cast("list[list[list[int] | float]]", rows)]

    def _key(self, *parts: object) -> str:
        return "/".join(map(str, ("shared", self.name, *parts)))
