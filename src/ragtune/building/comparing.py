"""Retrievers side by side on a corpus's own questions: whether another one pays here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note
from ragtune.base.text import nearest
from ragtune.building.examples import Gold, judge
from ragtune.building.indexing import retriever_of
from ragtune.building.questions import Question
from ragtune.building.retrieval.compare import DEPTHS, Comparison, compare
from ragtune.building.retrieval.retriever import Hit
from ragtune.building.searching import read_found, search_all
from ragtune.building.shelf import Shelf
from ragtune.recipe.corpus import Corpus

KINDS = ("lexical", "dense", "hybrid", "file")
_MISSED = ""
"""Stands for a right passage that no retriever found."""


def require_kinds(corpus: Corpus, kinds: Sequence[str]) -> None:
    """See that retrievers can be compared.

    Raises:
        UsageError: an unknown one, only one, or one that needs what the corpus doesn't name.
    """
    for kind in kinds:
        if kind not in KINDS:
            near = nearest(kind, list(KINDS))
            raise UsageError(
                f"--compare: there is no retriever {kind!r}."
                + (f" Did you mean {near}?" if near else ""),
                f"There are: {', '.join(KINDS)}.",
            )
        if kind in ("dense", "hybrid") and corpus.retrieval.model is None:
            raise UsageError(
                f"--compare: {kind} needs retrieval.model.",
                "Name a model of sentence-transformers: retrieval.model=OWNER/NAME.",
            )
        if kind == "file" and corpus.retrieval.retrieved is None:
            raise UsageError("--compare: file needs retrieval.retrieved, the file.", "Name it.")
    if len(set(kinds)) != len(kinds) or len(kinds) == 1:
        raise UsageError(
            "--compare: name two retrievers or more, each once.", "--compare lexical,dense"
        )


def compare_retrievers(
    shelf: Shelf,
    corpus: Corpus,
    kinds: Sequence[str],
    folder: Path,
    asked: Sequence[tuple[Question, Gold]],
    language: str,
) -> Comparison:
    """Ask several retrievers the same questions, in the whole corpus.

    A question counts if it has an answer or names a passage or document. What is right is what any of the
    retrievers found and is positive: what none of them finds counts as missed by all.

    Raises:
        UsageError: there is no such question; a model or a file can't be used.
    """
    questions = [question for question, gold in asked if question.answers or gold]
    golds = [gold for question, gold in asked if question.answers or gold]
    found: dict[str, list[list[Hit]]] = {}
    for kind in kinds:
        note(f"Retriever: {kind}")
        retriever = retriever_of(shelf, corpus.retrieval, kind, folder / "index", language)
        path = folder / "work" / f"compared-{kind}.jsonl"
        path.unlink(missing_ok=True)
        search_all(retriever, questions, max(DEPTHS), path)
        found[kind] = list(read_found(path))
        path.unlink()
    positives = [
        _right(shelf, question, gold, [hits[number] for hits in found.values()])
        for number, (question, gold) in enumerate(zip(questions, golds, strict=True))
    ]
    return compare(found, positives, corpus.seed)


def _right(shelf: Shelf, question: Question, gold: Gold, found: Sequence[list[Hit]]) -> set[str]:
    ids = list(dict.fromkeys(hit.passage_id for hits in found for hit in hits))
    there = shelf.passages(ids)
    passages = [there[one] for one in ids if one in there]
    judged = judge(question, gold, passages, shelf.document_of(ids))
    return {str(passages[i].passage_id) for i in judged.positive} or {_MISSED}
