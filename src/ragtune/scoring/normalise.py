"""How two answers are made comparable; each rule as its source has it."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from functools import lru_cache

from ragtune.data.words import aio

_KEPT = 65_536
"""Texts whose normal form is kept: each is compared with several others, by several metrics."""


def strict(text: str) -> str:
    """The notebook's: nothing is changed."""
    return text


@lru_cache(_KEPT)
def squad(text: str) -> str:
    """SQuAD v1.1's evaluation script: lower, no punctuation, no articles, single spaces.

    Rajpurkar et al., 2016; punctuation is ASCII's.
    """
    text = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


@lru_cache(_KEPT)
def jsquad(text: str) -> str:
    """JGLUE's rule for JSQuAD: lower, no 。 at the end, single spaces (Kurihara et al., 2022)."""
    return " ".join(text.lower().rstrip("。").split())


_PUNCTUATION = frozenset(string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")

NORMALISERS: dict[str, tuple[Callable[[str], str], str]] = {
    "strict": (strict, "1"),
    "squad": (squad, "1.1"),
    "aio": (aio, "1"),
    "jsquad": (jsquad, "1"),
}
"""Each rule with its version, which is written beside the figures: a rule that changes gets another."""
