"""The pre-tokenizers that llama.cpp has under a name of its own, told apart by what they do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Steps = tuple[tuple[str, object], ...]
"""What happens to a text before it is cut into tokens, one step after the other."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

PRE_TOKENIZERS: Mapping[str, tuple[Steps, bool]] = {
    "gpt-2": ((("cut", _GPT2),), False),
    "smollm": ((("digits", True), ("cut", _GPT2)), False),
    "llama-bpe": ((("cut", _LLAMA3),), True),
    "qwen2": ((("cut", _QWEN2),), False),
    "tekken": ((("cut", _TEKKEN),), True),
}
"""llama.cpp's name: the steps, and whether a word of the vocabulary is taken whole, whatever the merges
say. After the last step, all of them spell bytes as letters."""


def name_of(tokenizer: Mapping[str, Any]) -> str | None:
    """llama.cpp's name of the pre-tokenizer of a byte-level BPE; None if it has none.

    Args:
        tokenizer: as tokenizer.json says it.
    """
    found = (_steps(tokenizer.get("pre_tokenizer")), bool(tokenizer["model"].get("ignore_merges")))
    return next((name for name, known in PRE_TOKENIZERS.items() if known == found), None)


def in_words(tokenizer: Mapping[str, Any]) -> str:
    """A pre-tokenizer that has no name there, as its file says it."""
    return json.dumps(tokenizer.get("pre_tokenizer"), ensure_ascii=False)


def _steps(part: Mapping[str, Any] | None) -> Steps | None:
    """The steps of a pre-tokenizer of tokenizer.json; None if it is none that ends in bytes as letters."""
    if part is None:
        return None
    parts: list[Mapping[str, Any]] = part["pretokenizers"] if part["type"] == "Sequence" else [part]
    *before, last = parts
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    steps = [_step(one) for one in before]
    if last.get("use_regex", True):
        steps.append(("cut", _GPT2))
    return tuple(steps)


def _step(part: Mapping[str, Any]) -> tuple[str, object]:
    if part["type"] == "Digits":
        return ("digits", part["individual_digits"])
    if part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
        return ("cut", part["pattern"].get("Regex"))
    return ("unknown", json.dumps(part))
