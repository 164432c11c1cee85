"""What the answers so far make of each passage: a question that is kept, a reason against it, or a request.

A pure function of the answers: after a break it begins again, and comes to where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ragtune.building.language import UNPARTED
from ragtune.building.synthesis.answers import Answer, Request, key_of
from ragtune.building.synthesis.prompts import prompts_for
from ragtune.building.synthesis.reply import (
    Reply,
    points,
    read_reply,
    same_language,
    without_thought,
)
from ragtune.data.chat import Message
from ragtune.data.example import Passage
from ragtune.data.words import stands, stands_by_rule
from ragtune.scoring.normalise import NORMALISERS

"""Languages whose words aren't parted, or not always alike: compared by the Japanese rules."""


class Reason(StrEnum):
    """Why a passage gave no question."""

    REFUSED = "refused"
    UNREADABLE = "unreadable"
    OTHER_LANGUAGE = "other_language"
    POINTING = "pointing"
    NOT_IN_PASSAGE = "not_in_passage"
    GIVEN_AWAY = "given_away"
    REPEATED = "repeated"
    UNCONFIRMED = "unconfirmed"
    KNOWN = "known"

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Reason.REFUSED: "don't fit into the model's context, or the server refuses them",
    Reason.UNREADABLE: "have no JSON with a short question and a short answer",
    Reason.OTHER_LANGUAGE: "ask in another language",
    Reason.POINTING: "speak of a text that nobody sees who asks",
    Reason.NOT_IN_PASSAGE: "have an answer that isn't in the passage",
    Reason.GIVEN_AWAY: "give the answer away in the question",
    Reason.REPEATED: "ask what is asked already",
    Reason.UNCONFIRMED: "get another answer when they are asked with the passage",
    Reason.KNOWN: "get the answer without the passage, too, and test no reading",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Of whom what is asked."""

    passages: Sequence[Passage]
    """Each with an id of its own."""
    others: Sequence[str]
    """Questions that are there already."""
    language: str
    writer: str
    """The model and where it is: what another one answered doesn't count."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """Where things stand."""

    kept: Sequence[tuple[Passage, Reply]]
    dropped: Mapping[Reason, int]
    undecided: Sequence[Passage]
    wanted: Sequence[Request]
    """What is to be asked next: all of one kind, as the questions are compared with each other."""
    turn: int
    """Of which kind: 0 to write, 1 to answer with the passage, 2 without."""
    used: Sequence[Answer]
    """The answers that this rests on."""
    unreadable: str | None
    """The first reply that could not be read."""


def assess(asked: Asked, answers: Mapping[str, Answer]) -> Assessment:
    """Judge each passage by the answers that are known."""
    seen = {normal(question, asked.language) for question in asked.others}
    kept: list[tuple[Passage, Reply]] = []
    dropped: Counter[Reason] = Counter()
    undecided: list[Passage] = []
    wanted: dict[int, dict[str, Request]] = {}
    used: dict[str, Answer] = {}
    unreadable: str | None = None
    for passage in asked.passages:
        steps = _steps(asked, passage, seen)
        outcome: Request | Reason | Reply = next(steps)
        turn = 0
        while isinstance(outcome, Request) and (answer := answers.get(outcome.key)) is not None:
            used[answer.key] = answer
            outcome = Reason.REFUSED if answer.text is None else steps.send(answer.text)
            if outcome is Reason.UNREADABLE:
                unreadable = answer.text if unreadable is None else unreadable
            turn += 1
        if isinstance(outcome, Request):
            undecided.append(passage)
            wanted.setdefault(turn, {})[outcome.key] = outcome
        elif isinstance(outcome, Reason):
            dropped[outcome] += 1
        else:
            kept.append((passage, outcome))
    turn = min(wanted, default=0)
    requests = [*wanted[turn].values()] if wanted else []
    return Assessment(kept, dropped, undecided, requests, turn, [*used.values()], unreadable)


def _steps(
    asked: Asked, passage: Passage, seen: set[str]
) -> Generator[Request | Reason | Reply, str, None]:
    """What is asked for a passage, one after the other, and at last what becomes of it.

    Args:
        asked: the model and the language.
        passage: of which a question is wanted.
        seen: the questions that are there, in their normal form; this one is added.
    """
    prompts = prompts_for(asked.language)

    def request(messages: list[Message]) -> Request:
        return Request(key_of(asked.writer, messages), str(passage.passage_id), messages)

    reply = read_reply((yield request(prompts.to_write(passage))))
    if reply is None:
        yield Reason.UNREADABLE
        return
    if (reason := _unfit(reply, passage, asked.language)) is not None:
        yield reason
        return
    question = normal(reply.question, asked.language)
    if question in seen:
        yield Reason.REPEATED
        return
    seen.add(question)
    again = yield request(prompts.to_answer(reply.question, passage))
    if not _same(without_thought(again), reply.answer, asked.language):
        yield Reason.UNCONFIRMED
        return
    alone = without_thought((yield request(prompts.to_remember(reply.question))))
    # Whoever says it in a sentence knows it, too.
    known = _same(alone, reply.answer, asked.language) or stands_by_rule(alone, reply.answer)
    yield Reason.KNOWN if known else reply


def _unfit(reply: Reply, passage: Passage, language: str) -> Reason | None:
    """What a look at the question and the answer finds wrong."""
    if not same_language(reply.question, passage.text, language):
        return Reason.OTHER_LANGUAGE
    if points(reply.question):
        return Reason.POINTING
    if not stands(passage.text, reply.answer):
        return Reason.NOT_IN_PASSAGE
    if stands_by_rule(reply.question, reply.answer):
        return Reason.GIVEN_AWAY
    return None


def _same(one: str, other: str, language: str) -> bool:
    """Whether two answers are the same; what is nothing but signs is none."""
    return normal(one, language) == normal(other, language) != ""


def normal(text: str, language: str) -> str:
    """A question or an answer in the form in which it is compared."""
    if language in UNPARTED:
        return NORMALISERS["aio"][0](NORMALISERS["jsquad"][0](text))
    return NORMALISERS["squad"][0](text)
