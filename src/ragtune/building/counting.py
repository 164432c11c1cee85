"""What is counted while a build asks and writes, for build.json."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

from ragtune.base.screen.progress import busy
from ragtune.building.counters import FirstOnes, LengthCount, RecallCount
from ragtune.building.examples import Judged, Side
from ragtune.building.figures import (
    SHOWN,
    BuildFigures,
    DocumentFigures,
    Nearest,
    PassageFigures,
    QuestionFigures,
    Synthetic,
    Unfound,
    Unread,
    Whose,
)
from ragtune.building.questions import Question
from ragtune.building.shelf import Shelf
from ragtune.building.synthesis.generate import Counts
from ragtune.building.twins import Twins
from ragtune.data.example import Example, Passage


class Counting:
    """Takes what a build does, as it does it.

    Args:
        depth: passages retrieved for a question.
    """

    def __init__(self, depth: int) -> None:
        self._recall = {
            (of, whose): RecallCount(of, whose, depth)
            for of in ("answer", "gold")
            for whose in ("real", "synthetic")
        }
        self._unfound = FirstOnes()
        self._by_answer = self._by_gold = 0
        self._answering: set[str] = set()
        """Documents with a positive."""
        self._written: Counter[tuple[Side, Whose]] = Counter()
        self.dropped: Counter[str] = Counter()
        self._writer: tuple[str, Counts] | None = None
        self._shown: dict[Side, dict[str, None]] = {"train": {}, "eval": {}}
        """Of training every passage that is shown, of evaluation the positives."""

    def asked(
        self,
        question: Question,
        whose: Whose,
        passages: list[Passage],
        judged: Judged,
        documents: dict[str, str],
    ) -> None:
        """Count a question that was asked of the whole corpus."""
        if question.answers:
            right = set(judged.by_answer)
            self._recall["answer", whose].add(i in right for i in range(len(passages)))
        if judged.named:
            right = set(judged.by_gold)
            self._recall["gold", whose].add(i in right for i in range(len(passages)))
        self._by_answer += bool(judged.by_answer) and not judged.named
        self._by_gold += bool(judged.by_gold)
        for i in judged.positive:
            self._answering.add(documents[str(passages[i].passage_id)])
        if question.answers and not judged.positive:
            nearest = Nearest.of(passages[0]) if passages else None
            self._unfound.add(Unfound(question.qid, question.question, question.answers, nearest))

    def written_by(self, model: str, counts: Counts) -> None:
        """Count what a model wrote."""
        self._writer = model, counts

    def wrote(self, side: Side, whose: Whose, each: Example) -> None:
        """Count an example that was written."""
        self._written[side, whose] += 1
        shown = range(len(each.passages)) if side == "train" else each.positive_passage_indices
        self._shown[side].update((str(each.passages[i].passage_id), None) for i in shown)

    def written(self, side: Side) -> int:
        """How many examples of a side were written."""
        return self._written[side, "real"] + self._written[side, "synthetic"]

    def figures(self, shelf: Shelf) -> BuildFigures:
        """Everything that was counted."""
        recall = [count.recall() for count in self._recall.values()]
        with busy("Comparing passages"):
            passages = self._passages(shelf)
            trained = Twins()
            for passage in shelf.in_order(self._shown["train"]):
                trained.add(passage)
            trained.divide()
            for passage in shelf.in_order(self._shown["eval"]):
                trained.add(passage)
        return BuildFigures(
            recall=tuple(one for one in recall if one),
            documents=self._documents(shelf),
            passages=passages,
            questions=self._questions(),
            trained=trained.figures(lambda name: _passage(shelf, name)),
        )

    def _passages(self, shelf: Shelf) -> PassageFigures:
        lengths, twins = LengthCount(), Twins()
        n = 0
        for passage, _ in shelf.every_passage():
            n += 1
            lengths.add(len(passage.text))
            twins.add(passage)
            self._unfound.look_into(passage.text)
        return PassageFigures(
            n, lengths.lengths(), twins.figures(lambda name: _passage(shelf, name))
        )

    def _documents(self, shelf: Shelf) -> DocumentFigures:
        kinds: Counter[str] = Counter()
        empty = unasked = 0
        idle: list[str] = []
        for name, file, passages in shelf.documents():
            kinds[PurePath(file).suffix.lower() or "others"] += 1
            empty += passages == 0
            if passages and name not in self._answering:
                unasked += 1
                idle += [name] * (len(idle) < SHOWN)
        unread = shelf.unread()
        return DocumentFigures(
            read=sum(kinds.values()),
            kinds=dict(kinds.most_common()),
            empty=empty,
            unread=len(unread),
            unread_files=tuple(Unread(name, problem) for name, problem, _ in unread[:SHOWN]),
            unasked=unasked,
            unasked_files=tuple(idle),
        )

    def _questions(self) -> QuestionFigures:
        return QuestionFigures(
            train=self.written("train"),
            eval=self.written("eval"),
            dropped=dict(self.dropped),
            by_answer=self._by_answer,
            by_gold=self._by_gold,
            unfound=self._unfound.count,
            unfound_first=tuple(self._unfound.first),
            synthetic=self._synthetic(),
        )

    def _synthetic(self) -> Synthetic | None:
        if self._writer is None:
            return None
        model, counts = self._writer
        return Synthetic(
            model=model,
            train=self._written["train", "synthetic"],
            eval=self._written["eval", "synthetic"],
            dropped={why.words: n for why, n in counts.dropped.items()},
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
        )


def _passage(shelf: Shelf, name: str) -> Passage:
    return shelf.passages([name])[name]
