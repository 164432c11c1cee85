"""A build: documents and questions in; training and evaluation examples, and an index that stays, out.

What is done is kept: files that didn't change aren't read again, an index takes what it doesn't have, and
retrieval goes on where it was stopped. The examples appear when they are whole, build.json last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from ragtune.base.disk import disk_errors
from ragtune.base.errors import UsageError
from ragtune.base.files import json_line, sha256, writing
from ragtune.base.lock import locked
from ragtune.base.screen.console import heading, note, warn
from ragtune.base.screen.progress import busy, progress
from ragtune.base.stopping import stop_if_asked
from ragtune.base.text import named
from ragtune.building import reading
from ragtune.building.comparing import compare_retrievers, require_kinds
from ragtune.building.counting import Counting
from ragtune.building.examples import (
    SIDES,
    Gold,
    Side,
    example,
    judge,
    side_of_unanswered,
    sides_of,
)
from ragtune.building.figures import FILES, Built, Whose, write_built
from ragtune.building.indexing import known, language_of, made_with, retriever_of
from ragtune.building.questions import Question, read_questions
from ragtune.building.replaced import require_own
from ragtune.building.retrieval.own import as_retriever
from ragtune.building.retrieval.retriever import Hit, Retriever
from ragtune.building.searching import kept_while, read_found, search_all, search_within
from ragtune.building.shelf import Shelf
from ragtune.building.synthesis.generate import generate
from ragtune.data.example import Passage
from ragtune.recipe.corpus import Corpus
from ragtune.recipe.load import save

_DEEPER = 2
"""How much deeper than asked is searched at once: some of what is found is of the other side."""
_AT_ONCE = 128
"""Questions whose examples are made together."""


@dataclass(slots=True)
class Asked:
    """A question of this build."""

    question: Question
    side: Side | None
    """None: that of its document."""
    whose: Whose = "real"
    gold: Gold = field(default_factory=Gold)
    documents: frozenset[str] = frozenset()
    """Those that it names, or of which it names a passage."""
    main: str | None = None
    """The document by which it is put on a side: the one that it names, or that answers it first."""


def build(
    corpus: Corpus,
    folder: Path,
    *,
    retriever: object | None = None,
    compare: Sequence[str] = (),
    strict: bool = False,
) -> Built:
    """Build a corpus in a folder, or bring it up to date; returns what build.json says.

    Args:
        corpus: what to read, ask and write.
        folder: where it lies.
        retriever: one of the caller's own, instead of the corpus's: see `as_retriever`.
        compare: retrievers to be compared on the questions, such as lexical and dense.
        strict: whether one file that can't be read is an error.

    Raises:
        UsageError: files, columns or questions that aren't there, or something else that the user decides.
        RagtuneError: something failed; its message says what to do.
    """
    if compare:
        require_kinds(corpus, compare)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    require_own(folder)
    with locked(folder), Shelf.open(folder / "corpus.sqlite") as shelf:
        counting = Counting(corpus.retrieval.passages)
        asked, language = _prepare(corpus, folder, shelf, counting, strict=strict)
        heading("Retrieval")
        who, label, made = _retriever(corpus, folder, shelf, language, retriever)
        making = _Examples(corpus, folder, shelf, who, counting)
        compared = None
        key = made and [made, [[one.question.qid, one.question.question] for one in asked]]
        with kept_while(key, folder / "work") as path:
            making.ask(asked, path)
            if compare:
                pairs = [(one.question, one.gold) for one in asked]
                compared = compare_retrievers(shelf, corpus, compare, folder, pairs, language)
            making.write(asked, path)
        built = Built(
            name=corpus.name,
            seal={name: sha256(folder / name) for name in FILES.values()},
            language=language,
            retriever=label,
            figures=counting.figures(shelf),
            license=corpus.documents.license,
            attribution=corpus.documents.attribution,
            compared=compared,
        )
        save(corpus, folder / "corpus.yaml")
        write_built(folder, built)
        return built


def _retriever(
    corpus: Corpus, folder: Path, shelf: Shelf, language: str, own: object | None
) -> tuple[Retriever, str, list[object] | None]:
    """Who is asked, in words, too, and what the answers depend on; None where only its owner knows."""
    if own is not None:
        return (
            as_retriever(own, known(shelf)),
            f"own ({getattr(own, '__name__', type(own).__name__)})",
            None,
        )
    kind, reranker = corpus.retrieval.retriever, corpus.retrieval.reranker
    who = retriever_of(shelf, corpus.retrieval, kind, folder / "index", language)
    settings = corpus.retrieval.model_dump(mode="json")
    label = kind if reranker is None else f"{kind}, reranked"
    return who, label, [shelf.version, settings, made_with(who, language)]


def _prepare(
    corpus: Corpus, folder: Path, shelf: Shelf, counting: Counting, *, strict: bool
) -> tuple[list[Asked], str]:
    """The questions, with the documents on the shelf; and the corpus's language."""
    heading("Questions")
    asked = list(_questions(corpus))
    heading("Documents")
    brought = reading.brought_by([one.question for one in asked])
    reading.fill(shelf, corpus, brought, strict=strict)
    language = language_of(shelf, corpus.passages.language)
    if corpus.questions.generate is not None:
        heading("Synthetic questions")
        asked += _written(corpus, folder, shelf, language, asked, counting)
    _name_gold(shelf, asked, brought.of)
    return asked, language


def _questions(corpus: Corpus) -> Iterator[Asked]:
    """The questions of the files, each under its own qid."""
    seen: dict[str, str] = {}
    parted = bool(corpus.questions.eval)
    for files, side in (
        (corpus.questions.files, SIDES[0] if parted else None),
        (corpus.questions.eval, SIDES[1]),
    ):
        with busy("Reading questions") as update:
            for one in read_questions(files, corpus.questions) if files else ():
                if one.qid in seen:
                    raise UsageError(
                        f"{one.where}: qid {one.qid!r} was already used at {seen[one.qid]}.",
                        "A qid names one question: give one of the two another, or remove it.",
                    )
                seen[one.qid] = one.where
                yield Asked(one, side)
                update(len(seen))


def _written(
    corpus: Corpus,
    folder: Path,
    shelf: Shelf,
    language: str,
    asked: Sequence[Asked],
    counting: Counting,
) -> list[Asked]:
    """Questions that a model writes, of passages for training unless it is asked for others, too."""
    settings = corpus.questions.generate
    assert settings is not None
    share, seed = corpus.questions.eval_share, corpus.seed
    sides = sides_of((name for name, _, _ in shelf.documents()), (), share, seed)
    parted = not (settings.evaluate or corpus.questions.eval)
    passages = [
        p for p, document in shelf.every_passage() if not parted or sides[document] == "train"
    ]
    others = [one.question.question for one in asked]
    found = generate(passages, settings, language, seed, folder / "work", others=others)
    counting.written_by(settings.model, found.counts)
    side: Side | None = "train" if corpus.questions.eval else None
    return [Asked(question, side, "synthetic") for question in found.questions]


def _name_gold(shelf: Shelf, asked: Sequence[Asked], brought: dict[str, list[str]]) -> None:
    """Find the passages and documents that questions name, or bring."""
    named_by = [{*one.question.documents, *brought.get(one.question.qid, ())} for one in asked]
    names = set().union(*named_by)
    found = shelf.named(names)
    if lost := sorted(names - found.keys()):
        warn(
            f"Questions name documents or passages that aren't there, {len(lost):,} in all ({named(lost)}): "
            "what answers these questions is found by its text."
        )
    for one, own in zip(asked, named_by, strict=True):
        golds = [found[name] for name in own & found.keys()]
        one.documents = frozenset(d for documents, _ in golds for d in documents)
        # Of a document with a named passage that passage is right, and no other.
        one.gold = Gold(
            frozenset(d for documents, passages in golds if not passages for d in documents),
            frozenset(p for _, passages in golds for p in passages),
        )


@dataclass(slots=True)
class _Examples:
    """Makes the examples of a build."""

    corpus: Corpus
    folder: Path
    shelf: Shelf
    retriever: Retriever
    counting: Counting

    @property
    def _mixed(self) -> bool:
        """Whether a model's questions may be used for evaluation."""
        generate = self.corpus.questions.generate
        return generate is not None and generate.evaluate

    @property
    def _k(self) -> int:
        return self.corpus.retrieval.passages

    def ask(self, asked: Sequence[Asked], path: Path) -> None:
        """Ask the whole corpus everything, count, and find the document of each question."""
        questions = [one.question for one in asked]
        search_all(self.retriever, questions, _DEEPER * self._k, path)
        with progress("Looking for answers", len(asked), unit="questions") as told:
            for number, (one, hits) in enumerate(zip(asked, read_found(path), strict=True), 1):
                stop_if_asked()
                passages, documents = self._passages(hits[: self._k])
                judged = judge(one.question, one.gold, passages, documents)
                self.counting.asked(one.question, one.whose, passages, judged, documents)
                if one.documents:
                    one.main = min(one.documents)
                elif judged.positive:
                    one.main = documents[str(passages[judged.positive[0]].passage_id)]
                told(number)

    def _passages(self, hits: Sequence[Hit]) -> tuple[list[Passage], dict[str, str]]:
        """Passages, and their documents; what an index has and the shelf hasn't is left out."""
        ids = [hit.passage_id for hit in hits]
        there = self.shelf.passages(ids)
        return [there[one] for one in ids if one in there], self.shelf.document_of(ids)

    def write(self, asked: Sequence[Asked], path: Path) -> None:
        """Write the examples of both sides; they appear together, when they are whole."""
        sides = self._sides(asked)
        with ExitStack() as open_files:
            files = {
                side: open_files.enter_context(writing(self.folder / name))
                for side, name in FILES.items()
            }
            told = open_files.enter_context(progress("Examples", len(asked), unit="questions"))
            found = read_found(path)
            for start in range(0, len(asked), _AT_ONCE):
                stop_if_asked()
                some = asked[start : start + _AT_ONCE]
                hits = self._shown(some, [next(found) for _ in some], sides)
                for one, shown in zip(some, hits, strict=True):
                    self._write(one, shown, sides, files)
                told(start + len(some))
            for side in SIDES:
                _require_some(side, self.counting.written(side))

    def _shown(
        self, asked: Sequence[Asked], found: list[list[Hit]], sides: dict[str, Side] | None
    ) -> list[list[Hit]]:
        """The passages that each question is shown: the best of its side."""
        if sides is None:
            return [hits[: self._k] for hits in found]
        shown: list[list[Hit]] = [[] for _ in asked]
        for side in SIDES:
            places = [i for i, one in enumerate(asked) if one.side == side]
            best = search_within(
                self.retriever,
                [asked[i].question for i in places],
                self._k,
                partial(self._on, side, sides),
                [found[i] for i in places],
            )
            for i, hits in zip(places, best, strict=True):
                shown[i] = hits
        return shown

    def _on(self, side: Side, sides: dict[str, Side], hits: Sequence[Hit]) -> list[Hit]:
        documents = self.shelf.document_of(hit.passage_id for hit in hits)
        return [hit for hit in hits if sides.get(documents.get(hit.passage_id, "")) == side]

    def _write(
        self,
        one: Asked,
        hits: Sequence[Hit],
        sides: dict[str, Side] | None,
        files: dict[Side, IO[str]],
    ) -> None:
        assert one.side is not None
        if sides and any(sides[document] != one.side for document in one.documents):
            self.counting.dropped["named documents on both sides"] += 1
            return
        if one.whose == "synthetic" and one.side == "eval" and not self._mixed:
            self.counting.dropped["synthetic, of a document for evaluation"] += 1
            return
        passages, documents = self._passages(hits)
        each = example(one.question, passages, judge(one.question, one.gold, passages, documents))
        files[one.side].write(json_line(each.to_dict()))
        self.counting.wrote(one.side, one.whose, each)

    def _sides(self, asked: Sequence[Asked]) -> dict[str, Side] | None:
        """The side of each document, and put each question on one; None where the user has parted them."""
        if self.corpus.questions.eval:
            return None
        share, seed = self.corpus.questions.eval_share, self.corpus.seed
        used = {one.main for one in asked if one.main}
        sides = sides_of((name for name, _, _ in self.shelf.documents()), used, share, seed)
        apart = sum(side == "eval" for side in sides.values())
        note(f"For evaluation: {apart:,} of {len(sides):,} documents (questions.eval_share).")
        for one in asked:
            one.side = (
                sides[one.main] if one.main else side_of_unanswered(one.question.qid, share, seed)
            )
        return sides


def _require_some(side: Side, count: int) -> None:
    if not count:
        raise UsageError(
            f"No question is left for {'training' if side == 'train' else 'evaluation'}.",
            "The two are parted by document: see questions.eval_share, or name questions in questions.eval.",
        )
