"""Retrievers: the one that a corpus names, with its indexes brought up to date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from ragtune.base.files import remove, sha256
from ragtune.base.screen.console import note
from ragtune.base.screen.progress import progress
from ragtune.base.stopping import stop_if_asked
from ragtune.building.language import find_languages
from ragtune.building.retrieval.dense import DenseIndex
from ragtune.building.retrieval.distributed import OnRay
from ragtune.building.retrieval.fused import Fused
from ragtune.building.retrieval.known import Known, KnownPassages
from ragtune.building.retrieval.lexical import LexicalIndex
from ragtune.building.retrieval.manifest import Manifest
from ragtune.building.retrieval.rerank import Reranked
from ragtune.building.retrieval.retrieved import Retrieved
from ragtune.building.retrieval.retriever import Entry, Index, Retriever
from ragtune.building.retrieval.sentence_models import digest_of
from ragtune.building.retrieval.shard import LexicalShard
from ragtune.building.shelf import Shelf
from ragtune.recipe.corpus import Retrieval

_AT_ONCE = 20_000
"""Passages between two commits of an index: what a kill costs."""
_LOOKED_AT = 1000
"""Passages by which the language is found."""


def language_of(shelf: Shelf, wanted: str) -> str:
    """The language that an index is made for: the wanted one, or what is found in a sample; that is said."""
    if wanted != "auto":
        return wanted
    found = find_languages(shelf.sample(_LOOKED_AT))
    # It isn't always the language of most: see `find_languages`.
    other = found.main in found.shares and found.main != next(iter(found.shares))
    why = ", and finds words in Latin letters, too" if other else ""
    note(
        f"Languages: {found.in_words()}. The index is made for {found.main}{why} "
        "(passages.language sets it)."
    )
    return found.main


def retriever_of(
    shelf: Shelf, settings: Retrieval, kind: str, folder: Path, language: str
) -> Retriever:
    """A retriever of this kind, with its indexes up to date.

    Args:
        shelf: what is to be found.
        settings: of the corpus.
        kind: lexical, dense, hybrid or file.
        folder: where indexes lie.
        language: of the lexical index.
    """
    if kind == "file":
        assert settings.retrieved is not None
        # Whoever retrieved has put it in order.
        return Retrieved.open(Path(settings.retrieved), known(shelf))
    if kind == "hybrid":
        found: Retriever = Fused(
            [_index(shelf, settings, one, folder, language) for one in ("lexical", "dense")]
        )
    else:
        found = _index(shelf, settings, kind, folder, language)
    if settings.reranker is None:
        return found
    return Reranked.open(found, settings.reranker, lambda name: shelf.passages([name])[name].text)


def retriever_to_read(
    settings: Retrieval, folder: Path, text_of: Callable[[str], str]
) -> Retriever:
    """The retriever that a corpus names, of indexes that are there; nothing is changed.

    Args:
        settings: of the corpus; not of `file`, which knows the answers to its own questions alone.
        folder: where its indexes lie.
        text_of: the text of a passage, by its id.

    Raises:
        UsageError: an index isn't there, or was made with something else.
    """
    if settings.retriever == "hybrid":
        found: Retriever = Fused([_to_read(settings, one, folder) for one in ("lexical", "dense")])
    else:
        found = _to_read(settings, settings.retriever, folder)
    return found if settings.reranker is None else Reranked.open(found, settings.reranker, text_of)


def _to_read(settings: Retrieval, kind: str, folder: Path) -> Retriever:
    if kind == "dense":
        assert settings.model is not None
        return DenseIndex.read(folder / kind, settings.model)
    if settings.shards == 1:  # a question or two are no work for a cluster
        return LexicalIndex.read(folder / kind)
    assert settings.ray is not None
    places = sorted(folder.glob(f"lexical-*-{settings.shards}/*"), key=lambda one: int(one.name))
    return OnRay([partial(LexicalShard.read, one.absolute()) for one in places], settings.ray)


def made_with(retriever: Retriever, language: str) -> list[object]:
    """What answers depend on beside passages, settings and questions: other files may lie under a name."""
    if isinstance(retriever, Fused):
        return [made_with(one, language) for one in retriever.retrievers]
    if isinstance(retriever, Reranked):
        return [made_with(retriever.retriever, language), digest_of(retriever.model)]
    if isinstance(retriever, DenseIndex):
        return [retriever.digest]
    if isinstance(retriever, Retrieved):
        return [sha256(retriever.path)]
    return [asdict(Manifest.here(language))]


def known(shelf: Shelf) -> Known:
    """What retrievers that are not ours may find."""
    return KnownPassages.of(
        Entry(str(p.passage_id), p.title, p.text) for p, _ in shelf.every_passage()
    )


def _index(shelf: Shelf, settings: Retrieval, kind: str, folder: Path, language: str) -> Retriever:
    if not shelf.knows(kind):  # what lies there is of a shelf that was deleted
        remove(folder / kind)
    if kind == "dense":
        assert settings.model is not None
        dense = DenseIndex.open(folder / kind, settings.model)
        update(shelf, dense, kind, empty=len(dense) == 0)
        return dense
    if settings.ray is not None:
        return _on_ray(shelf, settings.ray, settings.shards, folder, language)
    index = LexicalIndex.open(folder / kind, language)
    update(shelf, index, kind, empty=len(index) == 0)
    return index


def _on_ray(shelf: Shelf, address: str, shards: int, folder: Path, language: str) -> Retriever:
    """The index of words, searched by a cluster; of several shards each is made there, too."""
    if shards == 1:
        path = (folder / "lexical").absolute()
        index = LexicalIndex.open(path, language)
        update(shelf, index, "lexical", empty=len(index) == 0)
        return OnRay([partial(LexicalIndex.read, path)], address)
    # Another number of shards, or another language, is another index.
    name = f"lexical-{language}-{shards}"
    places = [(folder / name / str(number)).absolute() for number in range(shards)]
    cluster = OnRay([partial(LexicalShard.open, place, language) for place in places], address)
    # A worker makes a shard again, and empty, that was made with something else.
    here = Manifest.here(language)
    update(shelf, cluster, name, empty=not all(Manifest.read(one) == here for one in places))
    return cluster


def update(shelf: Shelf, index: Index, name: str, *, empty: bool) -> None:
    """Give an index what it doesn't have yet, some at a time."""
    waiting = shelf.attach(name, empty=empty)
    if not waiting:
        return
    done = 0
    with progress(f"Indexing ({name})", waiting, unit="passages") as told:
        while True:
            stop_if_asked()
            ids, entries = shelf.waiting(name, _AT_ONCE)
            if not ids:
                return
            there = {entry.passage_id for entry in entries}
            index.remove([one for one in ids if one not in there])
            index.index(entries)
            shelf.done(name, ids)
            done += len(ids)
            told(done)
