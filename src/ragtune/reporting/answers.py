"""The questions with their answers, as rows that the report's script can show."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragtune.data.example import Example, Passage
from ragtune.data.select import accepted, shown_passages
from ragtune.data.words import find_answer
from ragtune.recipe.schema import Recipe
from ragtune.scoring.metrics import refused, score
from ragtune.scoring.score import load_predictions

CHUNK = 25
"""Rows whose passages and prompts are parsed together, when the first of them is opened."""


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A question with the passages that were shown, and its answers, as far as there are any.

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

    @property
    def outcome(self) -> str | None:
        """What tuning did to the answer; None without an answer before and one after."""
        if self.before is None or self.after is None:
            return None
        if self.before_right:
            return "right" if self.after_right else "broken"
        return "fixed" if self.after_right else "wrong"

    @property
    def language(self) -> str | None:
        """`ja` where there is kana: Chinese characters are then drawn and broken as in Japan."""
        text = self.question + "".join(p.text for p in self.passages)
        return "ja" if re.search(r"[\u3041-\u30ff]", text) else None


def answer_rows(
    recipe: Recipe,
    examples: Sequence[Example],
    before: Path,
    after: Path,
    prompts: Mapping[str, str] | None = None,
) -> list[AnswerRow]:
    """Each asked question with its passages and its answers, as far as there are any.

    Args:
        recipe: which passages are shown, which answers are accepted.
        examples: the questions that were asked.
        before: the folder of the answers before tuning; it may be missing.
        after: the same after tuning.
        prompts: the text that the model read, by qid.
    """
    old, new = (
        load_predictions(f) if (f / "metrics.json").exists() else {} for f in (before, after)
    )
    refusal = recipe.data.refusal
    rows = []
    for example in examples:
        first, second = old.get(example.qid), new.get(example.qid)
        last = first if second is None else second
        right = accepted(example, recipe) if example.answers else ()
        more = example.alternatives(recipe.data.alternatives)
        rows.append(
            AnswerRow(
                example.qid,
                example.question,
                right,
                shown_passages(
                    example,
                    recipe.data.max_passages,
                    shuffle=recipe.data.shuffle_passages,
                    seed=recipe.seed,
                ),
                before=first,
                after=second,
                before_right=_right(recipe, first, right),
                after_right=_right(recipe, second, right),
                selected=bool(example.extra["selected"]),
                refused=None not in (refusal, last) and refused(last or "", refusal or ""),
                prompt=(prompts or {}).get(example.qid),
                others=tuple(a for a in (*example.answers, *more) if a not in right),
                alternatives=more,
            )
        )
    return rows


def _right(recipe: Recipe, text: str | None, answers: tuple[str, ...]) -> bool:
    if text is None:
        return False
    if not answers:
        return recipe.data.refusal is not None and refused(text, recipe.data.refusal)
    metric = recipe.evaluate.metric
    return score([text], [answers], (metric,))[metric][0] == 1


def outcomes(rows: Iterable[AnswerRow]) -> dict[str, int]:
    """How many of the selected questions were right both times, fixed, broken, wrong both times."""
    found = Counter(row.outcome for row in rows if row.selected)
    return {name: found[name] for name in ("right", "fixed", "broken", "wrong")}


def pieces(text: str, answers: Sequence[str]) -> list[str]:
    """A text cut at the answers in it: every second piece is an answer, the first one is not.

    Of answers that begin at one place the longest counts; inside a word there is none.
    """
    found, done = [], 0
    while places := [
        (start, -len(a))
        for a in answers
        if a.strip() and (start := find_answer(text, a, done)) >= 0
    ]:
        start, length = min(places)
        found += [text[done:start], text[start : start - length]]
        done = start - length
    return [*found, text[done:]]


def islands(rows: Sequence[AnswerRow]) -> tuple[str, list[str]]:
    """The rows as JSON that may stand in a page: what is listed, and chunks of what opens.

    Nothing in it can end the element or begin a comment, and no line separator is left as it is.
    """
    return (
        island([_listed(row) for row in rows]),
        [
            island([_opened(row) for row in rows[start : start + CHUNK]])
            for start in range(0, len(rows), CHUNK)
        ],
    )


def island(value: Any) -> str:
    """A value as JSON without a character that HTML or an old JavaScript could take amiss."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _listed(row: AnswerRow) -> dict[str, Any]:
    filters = [row.outcome if row.selected else None, "refused" if row.refused else None]
    return {
        "qid": row.qid,
        "question": row.question,
        "answers": row.answers,
        "before": row.before,
        "after": row.after,
        "right": [row.before_right, row.after_right],
        "outcome": row.outcome,
        "kinds": [k for k in (*filters, None if row.selected else "unanswerable") if k],
        "lang": row.language,
    }


def _opened(row: AnswerRow) -> dict[str, Any]:
    return {
        "passages": [[p.title, pieces(p.text, row.answers)] for p in row.passages],
        "others": row.others,
        "prompt": row.prompt,
    }
