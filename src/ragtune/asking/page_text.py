"""What the page shows, as HTML: every text of documents, questions and models is escaped in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ragtune.asking.answer import Answer, Which
from ragtune.base.errors import RagtuneError
from ragtune.data.citations import FORM
from ragtune.data.example import Passage
from ragtune.reporting.wording import duration, rendered

TITLES: dict[Which, str] = {"tuned": "Tuned", "base": "Base model"}
_TEMPLATE = "asked.html.j2"
_KANA = re.compile(r"[\u3041-\u30ff]")


@dataclass(frozen=True, slots=True)
class Card:
    """An answer on the page, whole or as far as it is written."""

    which: Which
    text: str = ""
    facts: str = ""
    note: str = ""
    """What stands in the place of an answer that there is none of."""
    writing: bool = False

    @property
    def title(self) -> str:
        return TITLES[self.which]


@dataclass(frozen=True, slots=True)
class Row:
    """A passage on the page."""

    title: str
    place: str
    pieces: tuple[str, ...]
    """Its text, cut at the answers in it: every second piece is one."""

    @property
    def holds(self) -> bool:
        """Whether an answer stands in it."""
        return len(self.pieces) > 1

    @property
    def language(self) -> str | None:
        return _language("".join(self.pieces))


def card(answer: Answer, seconds: float) -> Card:
    """A whole answer, and the seconds that it took with its passages."""
    facts = [duration(seconds), _found(answer), *_cited(answer)]
    if answer.probability is not None:
        facts.append(f"probability {answer.probability:.2f}")
    if not answer.finished:
        facts.append("cut off: the answer was longer than allowed")
    note = "" if answer.text.strip() else "The model wrote nothing."
    return Card(answer.which, answer.text, " · ".join(filter(None, facts)), note)


def answers(question: str, cards: Sequence[Card]) -> str:
    """The answers to a question, side by side."""
    language = _language(question + "".join(card.text for card in cards))
    return rendered(_TEMPLATE, what="answers", question=question, cards=cards, language=language)


def passages(found: Sequence[Passage], answer: Answer | None = None) -> str:
    """Passages, with the places marked where the answer stands in them."""
    marks = answer.stands_at if answer else ((),) * len(found)
    rows = [
        Row(p.title, _place(p), cut(p.text, spans)) for p, spans in zip(found, marks, strict=True)
    ]
    heading = f"{len(rows)} passages, best first" if len(rows) > 1 else "The passage"
    return rendered(_TEMPLATE, what="passages", rows=rows, heading=heading)


def told(error: RagtuneError) -> str:
    """A message for the user, and what to do."""
    return rendered(_TEMPLATE, what="told", message=error.message, advice=error.advice)


def waiting(ahead: int) -> str:
    """What who waits for others sees."""
    return rendered(_TEMPLATE, what="waiting", ahead=ahead)


def head(name: str, *, retrieves: bool) -> str:
    """The page's head."""
    return rendered(_TEMPLATE, what="head", name=name, retrieves=retrieves)


def kept(words: str, path: str, after: str) -> str:
    """A line of the page with a file's name in it."""
    return rendered(_TEMPLATE, what="kept", words=words, path=path, after=after)


def cut(text: str, spans: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """A text cut at spans, which don't overlap: every second piece is one of them."""
    pieces, done = [], 0
    for start, end in spans:
        pieces += [text[done:start], text[start:end]]
        done = end
    return (*pieces, text[done:])


def _found(answer: Answer) -> str:
    if not answer.text.strip():
        return ""
    if answer.unsure:
        return "refused: the model was not sure enough of its answer"
    if answer.refused:
        return "says that the passages don’t answer it"
    holding = [str(i) for i, spans in enumerate(answer.stands_at, 1) if spans]
    if not holding:
        return "stands in none of the passages" if answer.passages else ""
    if answer.source is not None:
        return f"copied from passage {answer.source.passage + 1}"
    return f"stands in passage {' and '.join(filter(None, (', '.join(holding[:-1]), holding[-1])))}"


def _cited(answer: Answer) -> Iterable[str]:
    if answer.quote:
        missing = "" if answer.quote_found else ", which stands in none of the passages"
        yield f"quotes “{answer.quote}”{missing}"
    if answer.citations:
        yield f"cites {', '.join(map(FORM.format, answer.citations))}"
    if answer.malformed:
        yield f"cites {', '.join(map(FORM.format, answer.malformed))}, which no passage is"


def _place(passage: Passage) -> str:
    if passage.place is not None:
        where = passage.place.in_words()
        return "" if where == passage.title else where
    return "" if passage.passage_id is None else str(passage.passage_id)


def _language(text: str) -> str | None:
    """`ja` where there is kana: Chinese characters are then drawn and broken as in Japan."""
    return "ja" if _KANA.search(text) else None
