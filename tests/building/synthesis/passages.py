"""Passages about made-up rivers, and a model that knows what to ask of them."""

from __future__ import annotations

import json
import re

from ragtune.data.example import Passage, Place

NAMES = ["Aro", "Belu", "Cesk", "Dorva", "Elun", "Fasti", "Goru", "Halm"]
_PASSAGE = re.compile(r"The river (\w+) rises at (\d+) metres")
_QUESTION = re.compile(r"At what height does the river (\w+) rise\?")


def height(name: str) -> str:
    return str(1000 + 111 * NAMES.index(name))


def text_of(name: str) -> str:
    return (
        f"The river {name} rises at {height(name)} metres in the northern hills, and runs through three valleys "
        "before it comes to the sea. Along its banks stand mills, of which some are still at work today."
    )


def passages(count: int = 8, each: int = 1) -> list[Passage]:
    """Passages of documents with `each` of them."""
    found = []
    for i, name in enumerate(NAMES[:count]):
        text, n = text_of(name), i % each
        place = Place(f"rivers-{i // each}.md", 500 * n, 500 * n + len(text))
        found.append(Passage(text, "Rivers", f"rivers-{i // each}.md#{n + 1}", place))
    return found


def asks(said: str) -> str | None:
    """The river that a request to write a question is about."""
    found = _PASSAGE.search(said)
    return found[1] if found and not _QUESTION.search(said) else None


def written(name: str, answer: str | None = None) -> str:
    question = f"At what height does the river {name} rise?"
    return json.dumps({"question": question, "answer": answer or f"{height(name)} metres"})


def good(said: str) -> str:
    """What a good model says: it asks, finds the answer, and doesn't know it without the passage."""
    if name := asks(said):
        return written(name)
    name = _QUESTION.search(said)[1]  # type: ignore[index]
    return f"{height(name)} metres." if _PASSAGE.search(said) else "I don't know."
