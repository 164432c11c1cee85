"""Counters of what passes by while a corpus is built, which need not fit into memory."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from ragtune.building.figures import SHOWN, Lengths, Recall, Unfound, Whose
from ragtune.building.retrieval.compare import DEPTHS
from ragtune.data.words import stands
from ragtune.scoring.statistics import rate_of


class RecallCount:
    """Counts at which rank the first right passage of each question stands.

    Args:
        of: what is right.
        asked: whose questions these are.
        depth: how many passages were retrieved: nothing is known of ranks beyond.
    """

    def __init__(self, of: Literal["answer", "gold"], asked: Whose, depth: int) -> None:
        self._of: Literal["answer", "gold"] = of
        self._asked: Whose = asked
        self._ranks = [rank for rank in DEPTHS if rank <= depth] or [depth]
        self._found = [0] * len(self._ranks)
        self.n = 0

    def add(self, right: Iterable[bool]) -> None:
        """Count a question: of the passages retrieved for it, best first, which are right."""
        self.n += 1
        first = next((i for i, one in enumerate(right) if one), None)
        for place, rank in enumerate(self._ranks):
            self._found[place] += first is not None and first < rank

    def recall(self) -> Recall | None:
        """What was counted; None without a question."""
        if not self.n:
            return None
        at = {r: rate_of(f, self.n) for r, f in zip(self._ranks, self._found, strict=True)}
        return Recall(self._of, self._asked, self.n, at)


class LengthCount:
    """Counts lengths; what it keeps grows with how many different ones there are, not with how many."""

    def __init__(self) -> None:
        self._often: Counter[int] = Counter()

    def add(self, length: int) -> None:
        self._often[length] += 1

    def lengths(self) -> Lengths | None:
        """What was counted; None without one."""
        if not self._often:
            return None
        lengths = sorted(self._often)
        until, n, total = [], 0, 0
        for length in lengths:
            n += self._often[length]
            total += length * self._often[length]
            until.append(n)

        def at(place: float) -> float:
            below, part = divmod(place, 1)
            low, high = (
                lengths[bisect.bisect_right(until, min(int(below) + i, n - 1))] for i in (0, 1)
            )
            return low + part * (high - low)

        return Lengths(lengths[0], at((n - 1) / 2), at((n - 1) * 0.95), lengths[-1], total)


@dataclass(slots=True)
class FirstOnes:
    """The questions without a right passage: how many, and the first by their qid, whatever their order."""

    count: int = 0
    first: list[Unfound] = field(default_factory=list)

    def add(self, one: Unfound) -> None:
        self.count += 1
        bisect.insort(self.first, one, key=lambda unfound: unfound.qid)
        del self.first[SHOWN:]

    def look_into(self, passage: str) -> None:
        """Whether a passage of the corpus holds the answer of one of the first: retrieval missed it then."""
        for place, one in enumerate(self.first):
            if not one.elsewhere:
                here = any(stands(passage, answer) for answer in one.answers)
                self.first[place] = replace(one, elsewhere=here)
