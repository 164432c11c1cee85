"""Quotes: before an answer the sentence that it stands in, as a line of a Markdown quotation.

> The tower was built in Paris.
Paris
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ragtune.data.example import Example
from ragtune.data.select import positives_left
from ragtune.data.words import find_answer, stands
from ragtune.recipe.schema import Recipe

FORM = "> {}\n{}"
_QUOTED = re.compile(r"(?:\s*>[^\n]*\n+)+")
_ENDS = re.compile(
    r"\s*\n\s*"
    # What is said in brackets goes on behind them: 「行く。」と言った。
    r"|(?:[。｡！？!?]|．(?!\d))+(?![」』）)”\"'])"
    # No end: an initial, a title, an abbreviation that a name follows.
    r"|(?<!\b[A-Z])(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bNo)(?<!\bvs)(?<!\bMrs)(?<!\bca)"
    r"\.[)”\"']*(?=\s+[^\sa-z])"
)


def quoted(answer: str, quote: str) -> str:
    """An answer with a quote before it; without one as it is."""
    return FORM.format(quote, answer) if quote else answer


def unquoted(text: str) -> tuple[str, str]:
    """What a model wrote, as quote and answer; without the one or the other as it is, and no quote."""
    found = _QUOTED.match(text)
    if found is None or not text[found.end() :].strip():
        return "", text
    lines = (line.strip().removeprefix(">").strip() for line in found[0].split("\n"))
    return " ".join(filter(None, lines)), text[found.end() :]


def quote_of(example: Example, answer: str, kept: Sequence[tuple[int, str]]) -> str:
    """The first sentence of a positive in which an answer stands word for word, in one line; else "".

    Args:
        example: names its positives.
        answer: one of its own.
        kept: index and text of each passage of the prompt (`Encoder.kept`).
    """
    for place in positives_left(example, kept):
        text = kept[place - 1][1]
        start = find_answer(text, answer)
        if start >= 0:
            return sentence(text, start, start + len(answer))
    return ""


def sentence(text: str, start: int, end: int) -> str:
    """The sentence, or the sentences, of a text that text[start:end] is in, in one line.

    A line break ends one, too. A title that ends in a full stop may do so where it shouldn't: then it is a part
    of a sentence.
    """
    ends = [found.end() for found in _ENDS.finditer(text)]
    first = max((place for place in ends if place <= start), default=0)
    last = min((place for place in ends if place >= end), default=len(text))
    return " ".join(text[first:last].split())


def is_verbatim(quote: str, text: str) -> bool:
    """Whether a quote stands in a text as whole words, but for white space."""
    return stands(" ".join(text.split()), " ".join(quote.split()))


def quoting(example: Example, answer: str, recipe: Recipe, kept: Sequence[tuple[int, str]]) -> str:
    """An answer as it is trained: behind its quote, if the recipe wants one; the rest as of `quote_of`."""
    return quoted(answer, quote_of(example, answer, kept)) if recipe.prompt.quote else answer
