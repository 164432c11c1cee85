"""The question and the answer in what a model wrote: a stranger's text, of which little is believed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ragtune.base.screen.visible import visible
from ragtune.building.synthesis.answers import MOST
from ragtune.building.synthesis.prompts import CONTROL
from ragtune.data.example import is_text

LONGEST_QUESTION = 400
LONGEST_ANSWER = 100
"""Characters."""
_TRIES = 100
"""Places at which an object may begin: what nests without end is not looked at from each."""
_THINKS = re.compile(r"\s*<think(?:ing)?>", re.IGNORECASE)
_THOUGHT = re.compile(r".*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
"""What a model that thinks wrote before its answer: drafts, too."""
_POINTING = re.compile(
    r"\b(?:this|the|above|given|provided) (?:passage|text|paragraph|article|document|excerpt)\b"
    r"|(?:この|上の|次の)(?:文章|文|段落|記事|文書|テキスト)|(?<!日)本文(?!化|学|字)|(?<!論)文中|上記|文章(?:中|によ|に基づ)",
    re.IGNORECASE,
)
_KANA = re.compile(r"[\u3041-\u309f\u30a1-\u30fa\uff66-\uff9d]")
_SCRIPTS = {
    "cjk": re.compile(r"[\u3040-\u30ff\u3400-\u9fff]"),
    "hangul": re.compile(r"[\u1100-\u11ff\uac00-\ud7af]"),
    "cyrillic": re.compile(r"[\u0400-\u052f]"),
    "greek": re.compile(r"[\u0370-\u03ff]"),
    "arabic": re.compile(r"[\u0600-\u06ff]"),
    "hebrew": re.compile(r"[\u0590-\u05ff]"),
    "devanagari": re.compile(r"[\u0900-\u097f]"),
    "thai": re.compile(r"[\u0e00-\u0e7f]"),
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A question and its answer, as a model wrote them."""

    question: str
    answer: str


def read_reply(text: str) -> Reply | None:
    """The question and answer in a text; None if there are none that could be used.

    The first JSON object that holds both counts, whatever stands around it (a fence, words, the same once
    more). Both have to be short texts on one line, without control tokens.
    """
    text = without_thought(text)
    decoder, start = json.JSONDecoder(), 0
    for _ in range(_TRIES):
        if (start := text.find("{", start)) < 0:
            break
        try:
            found, _end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and {"question", "answer"} <= found.keys():
            return _usable(found["question"], found["answer"])
        start += 1
    return None


def without_thought(text: str) -> str:
    """What a model wrote when it had thought; nothing, if that came to no end."""
    text = text[:MOST]
    thought = _THOUGHT.match(text)
    if thought is None and _THINKS.match(text):
        return ""
    return text[thought.end() :] if thought else text


def _usable(question: object, answer: object) -> Reply | None:
    if not (isinstance(question, str) and isinstance(answer, str)):
        return None
    question, answer = " ".join(question.split()), answer.strip()
    within = 0 < len(question) <= LONGEST_QUESTION and 0 < len(answer) <= LONGEST_ANSWER
    if not within or len(answer.splitlines()) > 1 or CONTROL.search(question + "\n" + answer):
        return None
    if (
        not (is_text(question) and is_text(answer))
        or visible(question + answer) != question + answer
    ):
        return None
    return Reply(question, answer)


def same_language(question: str, passage: str, language: str) -> bool:
    """Whether a question is written as its passage is: in the same script; Japanese, with kana.

    Languages of one script (English and German) aren't told apart.
    """
    if language == "ja":
        return _KANA.search(question) is not None
    if language == "zh" and _KANA.search(question):
        return False
    return _script(question) == _script(passage)


def points(question: str) -> bool:
    """Whether a question speaks of the text that it was written for (in English or Japanese)."""
    return _POINTING.search(question) is not None


def _script(text: str) -> str:
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    return max(counts, key=lambda name: counts[name])
