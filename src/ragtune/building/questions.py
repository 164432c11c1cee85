"""The questions that a corpus is to answer: read from any format, with where their answers stand, if said."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note, warn
from ragtune.base.text import named, one_or_many, shortened
from ragtune.data.example import Example, Passage, parse_example
from ragtune.data.formats.format import is_list_of
from ragtune.data.formats.reading import How, as_records
from ragtune.data.overlap import question_key
from ragtune.data.read import records
from ragtune.recipe.corpus import Questions

Tick = Callable[[int, int], None]

_SHOWN = 3
"""Places that a message names."""
_PARTING = (";", "；", "|", "｜", "、", "/")
"""Signs by which people part several answers in a cell."""
_OFTEN = 0.1
"""Share of the questions from which on that looks like more than an accident."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its accepted answers."""

    qid: str
    question: str
    answers: tuple[str, ...]
    """Without any the documents are not expected to answer it."""
    documents: tuple[str, ...]
    """Names of documents or passages where the answer stands, if the record names some."""
    passages: tuple[Passage, ...]
    """Where the answer stands, if the record brings that itself."""
    extra: dict[str, Any]
    where: str
    """File and line."""


@dataclass
class _Seen:
    """What was read so far, to tell what comes again."""

    by_qid: dict[str, str] = field(default_factory=dict)
    by_content: set[str] = field(default_factory=set)
    by_text: set[int] = field(default_factory=set)
    equal: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    joined: Counter[str] = field(default_factory=Counter)
    """How many questions have one answer that holds a sign which often parts several."""


def read_questions(
    sources: list[str], questions: Questions, tick: Tick = lambda *_: None
) -> Iterator[Question]:
    """Yield the questions of all sources, each once, in their order.

    The same question with the same answers and the same passages is left out when it comes again. What was
    left out, what was asked again with other answers, and what has no answer is said at the end.

    Args:
        sources: files, or datasets of the Hub, as `data.read.locate` has them.
        questions: their format, their fields, the separator of answers.
        tick: told the bytes (or records) of a source that were read, and its total (0: unknown).

    Raises:
        UsageError: a source can't be read, a bad record, a `qid` that occurs twice, no question at all.
    """
    how = How(
        questions.format, {str(k): v for k, v in questions.fields.items()}, questions.separator
    )
    seen = _Seen()
    for source in sources:
        before = len(seen.by_qid)
        for where, record in as_records(records(source, "train", tick), source, how):
            question = _new(record, where, seen)
            if question is not None:
                yield question
        if len(seen.by_qid) == before and not seen.equal:
            raise UsageError(f"{source} holds no question.", "Each source needs at least one.")
    _tell(seen, questions.separator)


def _new(record: object, where: str, seen: _Seen) -> Question | None:
    """The question of a record; None for one that was read before."""
    question = _question(record, where)
    text = question_key(question.question)
    passages = [p.text for p in question.passages]
    content = _digest([text, sorted(question.answers), question.documents, passages])
    if question.qid in seen.by_qid and content not in seen.by_content:
        raise UsageError(
            f"{where}: qid {shortened(question.qid)!r} was already used at {seen.by_qid[question.qid]}.",
            "A qid names one question of all files: give one of the two another, or leave the column out.",
        )
    if content in seen.by_content:
        seen.equal.append(where)
        return None
    if text in seen.by_text and not question.passages:
        seen.other.append(where)
    if not question.answers:
        seen.unanswered.append(where)
    if len(question.answers) == 1:
        seen.joined.update(sign for sign in _PARTING if sign in question.answers[0].strip(sign))
    seen.by_qid[question.qid] = where
    seen.by_content.add(content)
    seen.by_text.add(text)
    return question


def _question(record: object, where: str) -> Question:
    """Checked as an example is, which a question is with the passages that it may bring."""
    if isinstance(record, dict) and {"question", "answers"} <= record.keys():
        record = {"passages": [], **record}
    example = parse_example(record, where)
    extra = dict(example.extra)
    documents = extra.pop("documents") if is_list_of(str, extra.get("documents")) else []
    # Those that merely hold the answer's text are no more than what an index finds.
    gold = () if example.positives_computed else example.positive_passage_indices
    return Question(
        qid=_qid(record, example),
        question=example.question,
        answers=example.answers,
        documents=tuple(documents),
        passages=tuple(example.passages[i] for i in gold),
        extra=extra,
        where=where,
    )


def _qid(record: object, example: Example) -> str:
    """The record's; else a hash, in which the answers count, too: there may be no passage to tell two apart."""
    if isinstance(record, dict) and record.get("qid") not in (None, ""):
        return example.qid
    return _digest([example.question, list(example.answers), [p.text for p in example.passages]])[
        :16
    ]


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def _tell(seen: _Seen, separator: str | None) -> None:
    sign, count = max(seen.joined.items(), key=lambda one: one[1], default=("", 0))
    if separator is None and count > _OFTEN * len(seen.by_qid):
        note(
            f"{count:,} of {len(seen.by_qid):,} questions {'has' if count == 1 else 'have'} an answer with "
            f"{sign} in it. Each is one "
            f'answer; if {sign} parts several, set questions.separator: "{sign}".'
        )
    if seen.equal:
        note(
            one_or_many(
                len(seen.equal),
                "question stands there twice and is",
                "questions stand there twice and are",
            )
            + f" taken once: {_places(seen.equal)}."
        )
    if seen.other:
        warn(
            f"{one_or_many(len(seen.other), 'question is', 'questions are')} asked again with other answers: "
            f"{_places(seen.other)}. Put the "
            "answers to one question into one record."
        )
    if seen.unanswered:
        warn(
            f"{one_or_many(len(seen.unanswered), 'question has', 'questions have')} no answer: "
            f"{_places(seen.unanswered)}. What has none counts as a question that the documents don't answer; "
            "a run asks it only with data.refusal."
        )


def _places(places: list[str]) -> str:
    return named(places, _SHOWN)
