"""Where sentences end: Japanese by ja-sentence-segmenter, other languages by sentencex, with exact offsets.

Both get a copy of the same length in which some signs are others, and of what they return only the
lengths are taken: whatever they do, a sentence is text[start:end] of the text itself.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate, pairwise
from types import ModuleType

from ragtune.base.commands import install
from ragtune.base.errors import UsageError, is_panic

Span = tuple[int, int]

LINE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_ITEM = re.compile(
    r"[ \t\u3000]*(?:[*+\-–—|>#][ \t\u3000|#>-]|[‣•・●○■□◆◇▶※①-⑳]|[0-9０-９]{1,3}(?:[.)]\s|[．）、])"
    r"|[a-zA-Z][.)]\s|[(（][0-9０-９a-zA-Z]{1,3}[)）])"
)
"""How a line begins that continues no other: of a list, a table, a quotation or a numbering."""
_ROW = re.compile(r"\t| \| ")
"""What stands between the cells of a table's row, which no line continues."""
_ENDED = re.compile(r"[。！？｡][」』）)”’]*\s*$")
_FULL = 0.6
"""A line shorter than this share of its paragraph's longest was ended on purpose; others are wrapped."""
_TAIL = 12
"""Characters before an end that say what ended there."""
_OTHER_SPACE = re.compile(r"[^\S ]")
_KANA, _HAN = re.compile("[ぁ-ヿｦ-ﾟ]"), re.compile("[\u3400-\u9fff。｡]")


def sentence_spans(text: str, start: int, end: int, language: str) -> list[Span]:
    """The sentences of text[start:end], without the white space around them.

    A line break ends a sentence where a paragraph, an item of a list or a row of a table ends; other
    lines are wrapped ones. What is written in kana or Han is cut by the rules for Japanese, whatever the
    language (Han alone is not, where that is Chinese).

    Args:
        text: of the document.
        start: of the part that is cut, in characters.
        end: of the same.
        language: the code of the rest, such as en.

    Raises:
        UsageError: the extra `documents` is not installed.
    """
    spans: list[Span] = []
    for first, last in _blocks(text, start, end):
        block = text[first:last]
        # sentencex 1.0 panics at some white space that takes several bytes, such as U+2029.
        if _OTHER_SPACE.search(block):
            block = _OTHER_SPACE.sub(" ", block)
        if _is_japanese(block, language):
            stops = _japanese(block)
        else:
            stops = _other(block, "en" if language == "ja" else language)
        done = 0
        for stop in stops:
            sentence = block[done:stop].rstrip(" ")
            if bare := sentence.lstrip(" "):
                right = first + done + len(sentence)
                spans.append((right - len(bare), right))
            done = stop
    return spans


def _is_japanese(block: str, language: str) -> bool:
    if block.isascii():
        return False
    return bool(_KANA.search(block) or (language != "zh" and _HAN.search(block)))


# Lines.


def _blocks(text: str, start: int, end: int) -> Iterator[Span]:
    """What stands between line breaks that end a sentence."""
    lines: list[Span] = []
    at = start
    for found in LINE_BREAK.finditer(text, start, end):
        lines.append((at, found.start()))
        at = found.end()
    lines.append((at, end))
    paragraph: list[Span] = []
    for line in lines:
        if text[line[0] : line[1]].strip():
            paragraph.append(line)
        else:
            yield from _unwrapped(text, paragraph)
            paragraph = []
    yield from _unwrapped(text, paragraph)


def _unwrapped(text: str, lines: list[Span]) -> Iterator[Span]:
    """The lines of a paragraph, put together where they were wrapped."""
    if not lines:
        return
    full = _FULL * max(end - start for start, end in lines)
    first = lines[0][0]
    for (start, end), following in pairwise(lines):
        if (
            end - start < full
            or _ROW.search(text, start, end)
            or _ENDED.search(text[max(start, end - _TAIL) : end])
            or _ITEM.match(text, *following)
        ):
            yield first, end
            first = following[0]
    yield first, lines[-1][1]


# Japanese.

_ALIKE = (
    *zip("！？｡（）［］【】〔〕〈〉《》『』", "!?。()()()()()()「」", strict=True),
    ("∯", "_"),  # the library's own sign, which it would delete
)
"""What the library doesn't know, as what it knows."""
_NESTED = re.compile(r"[「(][^「」()]*(?:(?:「[^「」()]*」|\([^「」()]*\))[^「」()]*)+[」)]")
"""Brackets within brackets: the library keeps only the inner ones whole."""
_MARK = re.compile("[。!?]")
_NO_END = re.compile(
    r"[。!?](?:(?<=[!?])(?= ?[A-Za-z]|と(?!ころ|[あうきくたてなりに]))|(?<=[A-Za-z][!?])(?=[ぁ-ヿ一-龠])"
    r"|(?=[をっゃゅょー]|の(?![ちりどぞ])|は[、ァ-ヶ一-龠]|が[ァ-ヶ一-龠]|って|と[いの言思呼聞書叫述問答尋訊])"
    r"|(?=[」)”’\"']+[ぁ-ん、]))"
)
"""Marks within names and before what goes on: Yahoo! JAPAN, モーニング娘。の, 本当か?と聞いた."""
_FULL_STOP = re.compile(
    r"(?<![A-Za-zＡ-Ｚａ-ｚ0-9０-９])．(?![A-Za-zＡ-Ｚａ-ｚ0-9０-９])|(?<=[ぁ-ヿ一-龠)])\.(?![A-Za-z0-9.])"
)
"""As technical papers have it."""
_BEHIND = re.compile(r"[。!?…‥]*(?:[」)”’]|[\"'](?![^\W_]))*。? *")
"""What belongs to the sentence that ended before it."""


def _hidden(found: re.Match[str]) -> str:
    return _MARK.sub("_", found[0])


def _japanese(block: str) -> Iterator[int]:
    for sign, alike in _ALIKE:
        block = block.replace(sign, alike)
    if "．" in block or "." in block:
        block = _FULL_STOP.sub("。", block)
    block = _NO_END.sub("_", _NESTED.sub(_hidden, block))
    at = end = 0
    for sentence in _library("ja_sentence_segmenter.split.simple_splitter").split_punctuation(
        block
    ):
        at += len(sentence)
        if at > end:  # else it was only what belongs to the one before
            behind = _BEHIND.match(block, at)
            end = behind.end() if behind else at
            yield end
    assert at == len(block)


# Other languages.

_AT_A_TIME = 4000
"""Characters: sentencex 1.0 searches to the end of the text at each opening quotation mark."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHORT = re.compile(r"(?<!\w)Dr\.$")
_BEFORE_NUMBER = re.compile(r"(?<!\w)(?:[Vv]ols?|[Cc]h|[Ss]ec|[Ee]q|[Aa]pprox)\.$")
_FRENCH = re.compile(r"(?<!\w)(?:MM?|Mme|Mlle|Mgr|Pr)\.$")
_NUMBERING = re.compile(r"^ *(?:\d{1,3}|[a-zA-Z])\.$")
_ORDINAL = re.compile(r"(?<!\w)\d{1,2}\.$")
"""Abbreviations and numbers behind which sentencex ends a sentence."""
_WITH_ORDINALS = ("de", "da", "no", "fi", "hu", "tr")
"""Languages that write 3. for the third."""


def _other(block: str, language: str) -> Iterator[int]:
    if not block.isascii():
        block = _SURROGATE.sub("_", block)  # Rust's strings have none
    at = 0
    while at < len(block):
        window = block[at : at + _AT_A_TIME]
        stops = _stops(window, language)
        if at + len(window) < len(block):
            whole = stops[-2] if len(stops) > 1 else 0
            yield from (at + stop for stop in stops[:-1])  # the last goes on behind the window
            at += whole if whole > _AT_A_TIME // 2 else len(window)
        else:
            yield from (at + stop for stop in stops)
            at = len(block)


def _stops(window: str, language: str) -> list[int]:
    try:
        sentences: list[str] = _library("sentencex").segment(language, window)
    except BaseException as error:
        if not is_panic(error):
            raise
        return [len(window)]  # what is too long for a passage is cut at its marks anyway
    assert sum(map(len, sentences)) == len(window)
    stops = list(accumulate(map(len, sentences)))
    return [stop for stop in stops if stop == len(window) or not _goes_on(window, stop, language)]


def _goes_on(window: str, stop: int, language: str) -> bool:
    """Whether a sentence goes on where sentencex ends it: rather one too few than a name in two parts."""
    tail = window[max(0, stop - _TAIL) : stop].rstrip(" ")
    following = window[stop]
    if not tail.endswith("."):
        return False
    return bool(
        window[stop - 1] == "."  # no blank: .NET
        or following.islower()
        or _SHORT.search(tail)
        or (stop < _TAIL and _NUMBERING.search(tail))
        or (following.isdigit() and _BEFORE_NUMBER.search(tail))
        or (language == "fr" and _FRENCH.search(tail))
        or (language in _WITH_ORDINALS and _ORDINAL.search(tail))
    )


@cache
def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Cutting documents into passages needs {error.name}, which is not installed.",
            f"Run: {install('ja-sentence-segmenter', 'sentencex')}",
        ) from None
