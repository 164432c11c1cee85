"""What stands around an answer: behind it citations, numbers of passages that it rests on (`Paris [2]`).

A passage's number is its place in the prompt, from 1: a prompt that asks for citations shows it in the same
form. Before the answer a quote may stand (quotes.py). What a model wrote is taken apart here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ragtune.data.example import Example
from ragtune.data.quotes import quoting, unquoted
from ragtune.data.select import positives_left, shown_indices, target_answer
from ragtune.recipe.data import Prompt
from ragtune.recipe.schema import Recipe

FORM = "[{}]"
"""Of a citation, and of a passage's number in the prompt."""
# The end of a text, read backwards: so it takes a time that grows with what is found, not with the text.
_BACKWARDS = re.compile(r"[\s.。]*(?:\][0-9]{1,6}\[[\s,、.。]*)*\][0-9]{1,6}\[\s*")
_NUMBER = re.compile(r"\[([0-9]+)\]")


@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer without quote and citations, the numbers that it cites, each once, and what it quotes."""

    answer: str
    numbers: tuple[int, ...] = ()
    quote: str = ""


def cite(answer: str, numbers: Sequence[int]) -> str:
    """An answer with its citations behind it; without any as it is."""
    return f"{answer} {''.join(map(FORM.format, numbers))}" if numbers else answer


def parse(text: str, prompt: Prompt) -> Parsed:
    """What a model wrote, as answer and what the prompt wants around it.

    Citations are those at the end, whatever parts them, a quote the lines at the beginning that start with >.
    A text without any stays as it is. What is left never ends in a citation.
    """
    quote, text = unquoted(text) if prompt.quote else ("", text)
    found = _BACKWARDS.match(text[::-1]) if prompt.citations else None
    if found is None:
        return Parsed(text, (), quote)
    end = len(text) - found.end()
    numbers = dict.fromkeys(int(number) for number in _NUMBER.findall(text, end))
    return Parsed(text[:end], tuple(numbers), quote)


def said(recipe: Recipe, text: str) -> str:
    """The answer in what a model wrote, without what may stand around it."""
    return parse(text, recipe.prompt).answer


def trained(example: Example, recipe: Recipe, kept: Sequence[tuple[int, str]]) -> str:
    """The text that is trained: the answer and, if the recipe wants it, its quote and all that support it.

    Args:
        example: one without answers is refused, quotes and cites nothing.
        recipe: which answer is trained.
        kept: index and text of each passage of the prompt (`Encoder.kept`).
    """
    answer = target_answer(example, recipe.data, recipe.seed)
    if not example.answers:
        return answer
    answer = quoting(example, answer, recipe, kept)
    return cite(answer, positives_left(example, kept)) if recipe.prompt.citations else answer


def numbered(example: Example, recipe: Recipe) -> list[tuple[int, str]]:
    """Index and shown text of each passage of a prepared question, in the order of their numbers."""
    left = example.extra.get("left_in_prompt")
    if left is not None:
        return [(index, example.passages[index].text[:length]) for index, length in left]
    return [(index, example.passages[index].text) for index in shown_indices(example, recipe)]
