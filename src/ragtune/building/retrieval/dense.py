"""Passages found by the vectors that a model of sentence-transformers makes of them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_json, write_json
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import busy
from ragtune.building.retrieval.pieces import pieces
from ragtune.building.retrieval.retriever import Entry, Hit
from ragtune.building.retrieval.sentence_models import digest_of, load_encoder, model_folder
from ragtune.building.retrieval.vectors import ROWS, Matrix, Vectors
from ragtune.model.quiet import quiet

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_AT_ONCE = 2048
"""Questions that are searched at a time."""
_BATCH = 32
"""Texts that a model reads at a time: sentence-transformers' own default."""
_KEY = "retrieval.model"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class DenseIndex:
    """Passages in a folder, found by the nearest of their vectors: every one is compared, none is guessed.

    A passage that is added again unchanged isn't encoded again, so what was broken off goes on.
    """

    folder: Path
    name: str
    model: Path
    digest: str
    vectors: Vectors = field(repr=False)

    @classmethod
    def open(cls, folder: Path, model: str) -> DenseIndex:
        """Open the index in a folder, or begin one.

        Args:
            folder: the index's own.
            model: of sentence-transformers, a folder or owner/name on the Hub.

        Raises:
            UsageError: sentence-transformers is not installed; the model isn't found or not safe to load;
                the index was made with another one.
            RagtuneError: the index is damaged, or the Hub can't be asked.
        """
        where = model_folder(model, _KEY)
        digest = digest_of(where)
        manifest = folder / _MANIFEST
        made = read_json(manifest) if manifest.is_file() else None
        if made is not None and made.get("digest") != digest:
            raise UsageError(
                f"{_KEY}: the index in {folder} was made with {made.get('model')}, and {model} "
                + ("has other files now." if made.get("model") == model else "is another model."),
                "Delete this folder to make the index anew, or name the model that it was made with.",
            )
        return cls(folder, model, where, digest, Vectors(folder))

    @classmethod
    def read(cls, folder: Path, model: str) -> DenseIndex:
        """Open an index to search only. Raises as `open`, and UsageError where there is none."""
        if not (folder / _MANIFEST).is_file():
            raise UsageError(
                f"{folder} holds no index of vectors.", "Run ragtune build again: it makes it."
            )
        return cls.open(folder, model)

    def __len__(self) -> int:
        return len(self.vectors)

    def index(self, passages: Iterable[Entry]) -> None:
        """Add passages; one whose id is there already is replaced.

        They are there after a crash in pieces of some thousand, in their order. Raises as `open`.
        """
        with busy("making vectors", unit="passages") as update:
            seen = 0
            for piece in pieces(passages, ROWS):
                self._add({entry.passage_id: _text(entry) for entry in piece})
                seen += len(piece)
                update(seen)

    def remove(self, passage_ids: Iterable[str]) -> None:
        """Remove passages; ids that aren't there are no error."""
        self.vectors.remove(passage_ids)

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """At most k passages for each question, best first; equal scores in the order of their ids."""
        if len(self) == 0:
            return [[] for _ in questions]
        found: list[list[Hit]] = []
        with busy("searching by vectors", len(questions), unit="questions") as update:
            for piece in pieces(questions, _AT_ONCE):
                found += self.vectors.nearest(self._encoded(piece, query=True), k)
                update(len(found))
        return found

    def _add(self, texts: dict[str, str]) -> None:
        digests = {one: hashlib.sha256(text.encode()).hexdigest() for one, text in texts.items()}
        known = self.vectors.digests(list(texts))
        new = [one for one in texts if known.get(one) != digests[one]]
        if new:
            vectors_ND = self._encoded([texts[one] for one in new], query=False)
            self._write_down(vectors_ND.shape[1])
            self.vectors.add(new, [digests[one] for one in new], vectors_ND)

    def _write_down(self, dimension: int) -> None:
        """Write what the index is made with, before the first vector is there."""
        if not (self.folder / _MANIFEST).is_file():
            made = {"model": self.name, "digest": self.digest, "dimension": dimension}
            how = {"dtype": "float32", "normalised": self._normalised}
            write_json(self.folder / _MANIFEST, {**made, **how})

    def _encoded(self, texts: Sequence[str], *, query: bool) -> Matrix:
        """The vectors of texts, with the model's own prompt for questions or for passages."""
        encode = self._encoder.encode_query if query else self._encoder.encode_document
        with quiet():
            vectors: Matrix = encode(
                list(texts),
                batch_size=_BATCH,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=self._normalised,
            ).astype(np.float32)
        if not np.isfinite(vectors).all():
            raise RagtuneError(
                f"{_KEY}: {self.name} makes vectors that are no numbers.", "Choose another model."
            )
        return vectors

    @functools.cached_property
    def _encoder(self) -> SentenceTransformer:
        """The model, loaded when it is needed."""
        encoder = load_encoder(self.model, _KEY)
        kind = encoder.similarity_fn_name
        if kind not in ("cosine", "dot"):
            raise UsageError(
                f"{_KEY}: {self.name} compares by {kind}; ragtune knows cosine and dot.",
                "Choose another model.",
            )
        if encoder.max_seq_length:
            note(
                f"{self.name}: on {encoder.device}, {kind}; of a text it reads at most "
                f"{encoder.max_seq_length:,} tokens, and what follows is not searched."
            )
        else:
            warn(f"{self.name} does not say how long a text may be.")
        return encoder

    @property
    def _normalised(self) -> bool:
        return bool(self._encoder.similarity_fn_name == "cosine")


def _text(entry: Entry) -> str:
    """A passage as it is encoded: its title stands for what the sentences take for granted."""
    return f"{entry.title}\n{entry.text}" if entry.title else entry.text
