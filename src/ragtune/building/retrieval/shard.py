"""A shard of an index of words, which weighs them as the whole index would."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ragtune.building.retrieval.lexical import LexicalIndex
from ragtune.building.retrieval.retriever import Hit
from ragtune.building.retrieval.segments import TERMS
from ragtune.building.retrieval.terms import terms_of, weights_of

if TYPE_CHECKING:
    import tantivy


@dataclass(frozen=True, slots=True)
class Counts:
    """How common terms are."""

    passages: int = 0
    holding: dict[str, int] = field(default_factory=dict)
    """By term: the passages that hold it; those that were removed lately may still count."""

    @classmethod
    def sum(cls, every: Iterable[Counts]) -> Counts:
        """The counts of all shards together."""
        passages, holding = 0, Counter[str]()
        for counts in every:
            passages += counts.passages
            holding.update(counts.holding)
        return cls(passages, dict(holding))

    def rarity(self, term: str) -> float:
        """A term's weight in BM25, as tantivy has it: ln(1 + (N - n + 0.5) / (n + 0.5))."""
        holding = self.holding.get(term, 0)
        others = max(0, self.passages - holding)
        return math.log(1 + (others + 0.5) / (holding + 0.5))


class LexicalShard(LexicalIndex):
    """A shard. By itself it counts words in its own passages; `search_with` takes the counts of all shards.

    What stays its own is the mean length of passages, which hardly differs between shards cut by a hash.
    """

    _everywhere: Counts | None = None

    def counts(self, questions: Sequence[str]) -> Counts:
        """How common the terms of these questions are in this shard."""
        terms = {term for question in questions for term in terms_of(question, self._stem)}
        return self._counted(terms)

    def search_with(self, questions: Sequence[str], k: int, counts: Counts) -> list[list[Hit]]:
        """As `search`, with terms as rare as they are in all shards; scores then mean the same in each."""
        self._everywhere = counts
        try:
            return self.search(questions, k)
        finally:
            self._everywhere = None

    def _query(self, question: str) -> tantivy.Query:
        from tantivy import Occur, Query  # noqa: PLC0415 - an extra

        if self._everywhere is None:
            return super()._query(question)
        weights = weights_of(question, self._stem, self._language)
        here, everywhere = self._counted(weights), self._everywhere
        terms = [
            Query.boost_query(
                Query.term_query(self._schema, TERMS, term, "freq"),
                weight * everywhere.rarity(term) / here.rarity(term),
            )
            for term, weight in weights.items()
        ]
        return Query.boolean_query([(Occur.Should, term) for term in terms])

    def _counted(self, terms: Iterable[str]) -> Counts:
        searcher = self._searcher()
        return Counts(len(self), {term: searcher.doc_freq(TERMS, term) for term in terms})
