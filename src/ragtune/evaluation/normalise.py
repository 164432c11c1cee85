"""How two answers are made comparable; each rule as its source has it."""

from __future__ import annotations

import re
import string
import unicodedata


def strict(text: str) -> str:
    """The notebook's: nothing is changed."""
    return text


def squad(text: str) -> str:
    """SQuAD v1.1's evaluation script: lower, no punctuation, no articles, single spaces.

    Rajpurkar et al., 2016; punctuation is ASCII's.
    """
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def aio(text: str) -> str:
    """AI王's official rule.

    In this order: ～ to 〜, NFKC, lower, 「x」 to x, 『x』 to x, delete ・ = -, delete white space.
    """
    text = unicodedata.normalize("NFKC", text.replace("～", "〜")).lower()
    text = re.sub(r"「(.*?)」", r"\1", text)
    text = re.sub(r"『(.*?)』", r"\1", text)
    return re.sub(r"\s", "", re.sub(r"[・=\-]", "", text))
