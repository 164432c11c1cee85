"""What was found, put in order by a cross-encoder, which reads the question and a passage together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.console import note
from ragtune.base.screen.progress import busy
from ragtune.building.retrieval.retriever import Hit, Retriever
from ragtune.building.retrieval.sentence_models import load_cross_encoder, model_folder
from ragtune.model.quiet import quiet

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_DEPTH = 30
"""How many passages are read again for a question, at least: each costs as much as an answer's prompt."""
_BATCH = 32
_KEY = "retrieval.reranker"


@dataclass(frozen=True)
class Reranked:
    """What a retriever finds, in the order of a cross-encoder's scores."""

    retriever: Retriever
    name: str
    model: Path
    text_of: Callable[[str], str]

    @classmethod
    def open(cls, retriever: Retriever, model: str, text_of: Callable[[str], str]) -> Reranked:
        """Put a cross-encoder behind a retriever.

        Args:
            retriever: what finds the passages.
            model: of sentence-transformers, a folder or owner/name on the Hub.
            text_of: the text of a passage, by its id.

        Raises:
            UsageError: sentence-transformers is not installed; the model isn't found or not safe to load.
            RagtuneError: the Hub can't be asked.
        """
        return cls(retriever, model, model_folder(model, _KEY), text_of)

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """At most k passages for each question, best first; equal scores in the order of their ids.

        Raises:
            UsageError: the model is no cross-encoder with one score.
        """
        found = self.retriever.search(questions, max(k, _DEPTH))
        ordered = []
        with busy("putting in order", len(questions), unit="questions") as update:
            for question, hits in zip(questions, found, strict=True):
                ordered.append(self._ordered(question, hits)[:k])
                update(len(ordered))
        return ordered

    def _ordered(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        if not hits:
            return []
        pairs = [(question, self.text_of(hit.passage_id)) for hit in hits]
        with quiet():
            scores = np.asarray(
                self._encoder.predict(pairs, batch_size=_BATCH, show_progress_bar=False),
                dtype=np.float64,
            )
        if not np.isfinite(scores).all():
            raise RagtuneError(
                f"{_KEY}: {self.name} gives scores that are no numbers.", "Choose another model."
            )
        # The same text gets scores that differ in the seventh digit by what else was in its batch.
        read = [
            Hit(hit.passage_id, round(float(s), 6)) for hit, s in zip(hits, scores, strict=True)
        ]
        return sorted(read, key=lambda hit: (-hit.score, hit.passage_id))

    @functools.cached_property
    def _encoder(self) -> CrossEncoder:
        encoder = load_cross_encoder(self.model, _KEY)
        if encoder.num_labels != 1:
            raise UsageError(
                f"{_KEY}: {self.name} gives {encoder.num_labels} scores; a reranker gives one.",
                "Choose a model that was trained to rank, such as cross-encoder/ms-marco-MiniLM-L6-v2.",
            )
        note(f"{self.name}: on {encoder.device}, reads at most {encoder.max_length} tokens.")
        return encoder
