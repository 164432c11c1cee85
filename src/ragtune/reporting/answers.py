"""The questions with their answers, as rows that the report's script can show."""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from ragtune.base.screen.visible import BEGIN, END, named
from ragtune.data.citations import numbered, said
from ragtune.data.example import Example, Passage
from ragtune.data.select import accepted
from ragtune.data.words import find_answer, refused
from ragtune.recipe.schema import Recipe
from ragtune.scoring.metrics import score

CHUNK = 25
"""Rows whose passages and prompts are parsed together, when the first of them is opened."""


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A question with the passages as its prompt held them, and its answers, as far as there are any.

    `answers` are the accepted ones, `others` are named in the record and not accepted; `alternatives`
    stand in the record beside its `answers`. `prompt` is the text that the model read.
    """

    qid: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    before: str | None
    after: str | None
    before_right: bool
    after_right: bool
    selected: bool = True
    refused: bool = False
    prompt: str | None = None
    others: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    synthetic: bool = False
    """Whether a model wrote the question."""

    @property
    def outcome(self) -> str | None:
        """What tuning did to the answer; None without an answer before and one after."""
        if self.before is None or self.after is None:
            return None
        if self.before_right:
            return "right" if self.after_right else "broken"
        return "fixed" if self.after_right else "wrong"

    @property
    def kinds(self) -> list[str]:
        """The filters of the report's list that leave this question."""
        kinds = {
            self.outcome or "": self.selected,
            "refused": self.refused,
            "unanswerable": not self.selected,
            "synthetic": self.synthetic,
        }
        return [kind for kind, is_one in kinds.items() if kind and is_one]

    @property
    def language(self) -> str | None:
        """`ja` where there is kana: Chinese characters are then drawn and broken as in Japan."""
        text = self.question + "".join(p.text for p in self.passages)
        return "ja" if re.search(r"[\u3041-\u30ff]", text) else None


def answer_rows(
    recipe: Recipe,
    examples: Sequence[Example],
    before: Mapping[str, str],
    after: Mapping[str, str],
    prompts: Mapping[str, str],
) -> list[AnswerRow]:
    """Each asked question with its passages and its answers, as far as there are any.

    Args:
        recipe: which passages are shown, which answers are accepted.
        examples: the questions that were asked.
        before: the answers before tuning, by qid.
        after: the same after tuning.
        prompts: the text that the model read, by qid.
    """
    refusal = recipe.data.refusal
    rows = []
    for example in examples:
        first, second = before.get(example.qid), after.get(example.qid)
        last = first if second is None else second
        right = accepted(example, recipe) if example.answers else ()
        more = example.alternatives(recipe.data.alternatives)
        rows.append(
            AnswerRow(
                example.qid,
                example.question,
                right,
                tuple(
                    replace(example.passages[i], text=text) for i, text in numbered(example, recipe)
                ),
                before=first,
                after=second,
                before_right=_right(recipe, example, first),
                after_right=_right(recipe, example, second),
                selected=bool(example.extra["selected"]),
                refused=last is not None and refused(said(recipe, last), refusal),
                prompt=prompts.get(example.qid),
                others=tuple(a for a in (*example.answers, *more) if a not in right),
                alternatives=more,
                synthetic=bool(example.extra.get("synthetic")),
            )
        )
    return rows


def _right(recipe: Recipe, example: Example, text: str | None) -> bool:
    metric = recipe.evaluate.metric
    return score(recipe, [example], [text], (metric,))[metric][0] == 1


def outcomes(rows: Iterable[AnswerRow]) -> dict[str, int]:
    """How many of the selected questions were right both times, fixed, broken, wrong both times."""
    found = Counter(row.outcome for row in rows if row.selected)
    return {name: found[name] for name in ("right", "fixed", "broken", "wrong")}


def pieces(text: str, answers: Sequence[str]) -> list[str]:
    """A text cut at the answers in it: every second piece is an answer, the first one is not.

    Of answers that begin at one place the longest counts; inside a word there is none.
    """
    found, done = [], 0
    # Where each answer stands next. A heap: so each of them is looked for only once in all of the text.
    places = [
        (start, -len(a), a) for a in answers if a.strip() and (start := find_answer(text, a)) >= 0
    ]
    heapq.heapify(places)
    while places:
        start, length, answer = places[0]
        if start >= done:
            found += [text[done:start], answer]
            done = start - length
        start = find_answer(text, answer, done)
        if start >= 0:
            heapq.heapreplace(places, (start, length, answer))
        else:
            heapq.heappop(places)
    return [*found, text[done:]]


def islands(rows: Sequence[AnswerRow]) -> tuple[Markup, list[Markup]]:
    """The rows as JSON that may stand in a page: what is listed, and chunks of what opens.

    Characters that can't be seen are there by their names (`visible.named`), for the script to mark.
    """
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return island([*map(_listed, rows)]), [island([*map(_opened, chunk)]) for chunk in chunks]


def island(value: object) -> Markup:
    """A value as JSON without a character that HTML or an old JavaScript could take amiss.

    Nothing in it can end the element or begin a comment, and no line separator, nor what marks the names
    of hidden characters, is left as it is.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    safe = re.sub(f"[<>&\u2028\u2029{BEGIN}{END}]", lambda found: f"\\u{ord(found[0]):04x}", text)
    return Markup(safe)  # noqa: S704 - there is no < > & in it


def _listed(row: AnswerRow) -> dict[str, Any]:
    return {
        "qid": named(row.qid),
        "question": named(row.question),
        "answers": [*map(named, row.answers)],
        "before": row.before and named(row.before),
        "after": row.after and named(row.after),
        "right": [row.before_right, row.after_right],
        "outcome": row.outcome,
        "kinds": row.kinds,
        "lang": row.language,
    }


def _opened(row: AnswerRow) -> dict[str, Any]:
    return {
        "passages": [
            [
                named(p.title),
                [*map(named, pieces(p.text, row.answers))],
                *([named(p.place.in_words())] if p.place else ()),
            ]
            for p in row.passages
        ],
        "others": [*map(named, row.others)],
        "prompt": row.prompt and named(row.prompt),
    }
