"""Answers that can't be invented: which tokens may follow one another so that they write a span of a passage.

It is a matter of bytes: any tokens will do whose bytes, joined, are those of the span, however the tokenizer
cuts the passage itself. Nodes are places between two bytes of a text, edges tokens that stand there.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ragtune.base.errors import UsageError
from ragtune.data.turn import Turn
from ragtune.data.words import begins_inside, ends_inside

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = "The 3 cats, and a dog."
_BLANK = "▁"
"""A blank, as SentencePiece writes it in its tokens; a byte is <0x41> there."""


Shown = Sequence[tuple[int, str]]
"""Passages as a prompt shows them, in its order: each one's index among the example's, and its text."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an answer was copied from: characters `start` to `end` of a passage's text."""

    passage: int
    """Its index among the example's passages."""
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Paths:
    """The answers that may be given to one question: every way from a first node to a last one."""

    starts: list[int]
    """Of each edge the node where it begins; likewise the token, and the node where it ends."""
    tokens: list[int]
    ends: list[int]
    first: list[int]
    """Nodes where an answer begins."""
    last: list[int]
    """Nodes where it may stop."""
    nodes: int


class Spans:
    """What an encoder's tokens can copy: whole words of one passage, or the whole refusal.

    An answer begins and ends at the borders of words and numbers, as an answer that counts as standing in a
    passage does (`ragtune.data.words`); in Japanese between any two characters. Blanks may stand before it:
    those of the chat template, or one. With nothing to copy it is empty.

    Args:
        tokenizer: of the prompts.
        turn: what stands before an answer and behind it.
        control: ids of tokens that no text becomes.
        refusal: that may be given instead, if there is one.

    Raises:
        UsageError: it isn't known which bytes the tokenizer's tokens are.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        turn: Turn,
        control: Collection[int],
        refusal: str | None,
    ) -> None:
        self.refusal = refusal and refusal.strip()
        self._closing = turn.closing
        self._leads = {lead.encode() for lead in (" ", turn.lead) if lead}
        self._bytes = _bytes_of(tokenizer, control)
        self._ids: dict[bytes, list[int]] = defaultdict(list)
        for i, data in self._bytes.items():
            self._ids[data].append(i)
        lengths: dict[int, set[int]] = defaultdict(set)
        for data in self._ids:
            lengths[data[0]].add(len(data))
        self._lengths = {byte: sorted(found) for byte, found in lengths.items()}
        self.longest = max(map(len, self._ids), default=0)
        """Bytes of a token, at most."""

    def paths(self, texts: Sequence[str]) -> Paths:
        """The answers that texts of passages, and the refusal, allow."""
        made = _Made(self)
        made.close(self._closing.encode())
        for text in texts:
            at = [*accumulate((len(sign.encode()) for sign in text), initial=0)]
            made.add(
                text.encode(),
                [at[i] for i in range(len(text)) if _may_begin(text, i)],
                {at[i] for i in range(1, len(text) + 1) if _may_end(text, i)},
            )
        if self.refusal is not None:
            data = self.refusal.encode()
            made.add(data, [0], {len(data)})
        made.open(sorted(self._leads))
        return made.paths()

    def read(self, ids: Sequence[int], shown: Shown, *, stopped: bool) -> tuple[str, Source | None]:
        """The answer that tokens of `paths` write, and the first place of the prompt where it stands.

        An answer that was cut off is as much of the span as there is in whole characters; a refusal is whole,
        as nothing else could have followed.

        Args:
            ids: without the stop token.
            shown: the passages.
            stopped: whether the answer ended by itself.
        """
        written = b"".join(self._bytes[i] for i in ids).decode("utf-8", "ignore").lstrip()
        closing = self._closing
        for count in (len(closing),) if stopped else range(len(closing), -1, -1):
            text = written.removesuffix(closing[:count]).rstrip()
            if not text or text == self.refusal:
                return text, None
            for passage, whole in shown:
                if (start := _place(whole, text, stopped=stopped)) is not None:
                    return text, Source(passage, start, start + len(text))
        assert self.refusal is not None  # nothing else is left
        return self.refusal, None

    def at(self, data: bytes, place: int) -> Iterator[tuple[int, int]]:
        """Tokens that stand at a place of some bytes, and how many bytes each has."""
        for length in self._lengths.get(data[place], ()) if place < len(data) else ():
            if place + length > len(data):
                return
            for i in self._ids.get(data[place : place + length], ()):
                yield i, length


class _Made:
    """Paths that are being made. No edge leads where no way goes on to a last node."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self.edges: list[tuple[int, int, int]] = []
        self.first: list[int] = []
        self.last: list[int] = []
        self.nodes = 0
        self.begins: list[tuple[int, bytes, bytearray]] = []
        """Nodes where a text may begin, what stands behind each, and which places there go on to an end."""
        self.closes: list[tuple[int, int]] = []
        """Tokens that may follow where a text may end, and the nodes they lead to."""
        self.ended = 0
        """The node behind everything."""

    def close(self, closing: bytes) -> None:
        """What stands behind every answer, before the stop token; first of all."""
        size = len(closing)
        good = bytearray(size) + b"\x01"
        for place in range(size - 1, -1, -1):
            for i, length in self.spans.at(closing, place):
                if good[place + length]:
                    good[place] = 1
                    if place:
                        self.edges.append((place, i, place + length))
                    else:
                        self.closes.append((i, length))
        self.ended, self.nodes = size, size + 1
        self.last.append(size)

    def add(self, data: bytes, begins: Sequence[int], ends: Collection[int]) -> None:
        """A text with the places where an answer may begin, and where it may end."""
        base, good = self.nodes, bytearray(len(data) + 1)
        for place in range(len(data), -1, -1):
            if place in ends:
                good[place] = 1
                if self.ended:
                    self.edges += [(base + place, i, node) for i, node in self.closes]
                else:
                    self.last.append(base + place)
            for i, length in self.spans.at(data, place):
                if good[place + length]:
                    good[place] = 1
                    self.edges.append((base + place, i, base + place + length))
        longest = self.spans.longest
        self.begins += [
            (base + place, data[place : place + longest], good[place : place + longest + 1])
            for place in begins
            if good[place]
        ]
        self.nodes += len(data) + 1

    def open(self, leads: Iterable[bytes]) -> None:
        """Where answers begin: before a text or before the blanks that may stand there; last of all."""
        if not self.begins:
            self.first.append(self.ended)  # with nothing to copy an answer ends where it begins
            return
        entry = self._open(b"", self.nodes)
        for lead in leads:
            self._open(lead, entry)

    def _open(self, lead: bytes, entry: int) -> int:
        """The node before some blanks, behind which the texts begin; they begin themselves at `entry`."""
        base, size = self.nodes, len(lead)
        good = bytearray(size) + b"\x01"
        for place in range(max(size - 1, 0), -1, -1):
            rest, edges = size - place, len(self.edges)
            for i, length in self.spans.at(lead[place:], 0):
                if good[place + length]:
                    end = base + place + length if length < rest else entry
                    self.edges.append((base + place, i, end))
            for node, data, leads_on in self.begins:
                for i, length in self.spans.at(lead[place:] + data, 0):
                    if length > rest and leads_on[length - rest]:
                        self.edges.append((base + place, i, node + length - rest))
            good[place] = len(self.edges) > edges
        self.first += [base] if good[0] else []
        self.nodes += max(size, 1)
        return base

    def paths(self) -> Paths:
        starts, tokens, ends = ([edge[k] for edge in self.edges] for k in range(3))
        return Paths(starts, tokens, ends, self.first, self.last, self.nodes)


def _may_begin(text: str, start: int) -> bool:
    return not text[start].isspace() and not begins_inside(text, start)


def _may_end(text: str, end: int) -> bool:
    return not text[end - 1].isspace() and not ends_inside(text, end)


def _place(text: str, answer: str, *, stopped: bool) -> int | None:
    """The first place of a text where an answer may stand; one that was cut off may end anywhere."""
    start = text.find(answer)
    while start >= 0:
        if _may_begin(text, start) and (not stopped or _may_end(text, start + len(answer))):
            return start
        start = text.find(answer, start + 1)
    return None


def _bytes_of(tokenizer: PreTrainedTokenizerBase, control: Collection[int]) -> dict[int, bytes]:
    """The bytes of each token that text may become. Raises UsageError where that isn't known."""
    if not tokenizer.is_fast:
        raise _unknown("it has no tokenizer.json")
    decoder = json.loads(tokenizer.backend_tokenizer.decoder.__getstate__() or "null")
    kinds = set(_kinds(decoder))
    if "ByteLevel" in kinds:
        letters = _letters()
    elif kinds & {"Metaspace", "Replace"}:
        letters = None
    else:
        raise _unknown(f"its decoder is of the kind {', '.join(sorted(kinds)) or 'null'}")
    added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
    found: dict[int, bytes] = {}
    for token, i in tokenizer.get_vocab().items():
        if i in control:
            continue
        if i in added:  # a word of its own, as it is written
            data = token.encode() if tokenizer.decode([i]) == added[i] else b""
        elif letters is None:
            byte = re.fullmatch("<0x([0-9A-F]{2})>", token) if "ByteFallback" in kinds else None
            data = bytes.fromhex(byte[1]) if byte else token.replace(_BLANK, " ").encode()
        else:
            data = bytes(letters[sign] for sign in token) if letters.keys() >= {*token} else b""
        if data:
            found[i] = data
    ids = tokenizer.encode(_SAMPLE, add_special_tokens=False)
    if b"".join(found.get(i, b"?") for i in ids).lstrip() != _SAMPLE.encode():
        raise _unknown("it changes texts")
    return found


def _unknown(problem: str) -> UsageError:
    return UsageError(
        f"evaluate.copy: it isn't known which text each token of this tokenizer is: {problem}.",
        "Set evaluate.copy=false: then answers are written freely.",
    )


def _kinds(decoder: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """The kinds of a decoder's parts, as tokenizer.json says them."""
    if isinstance(decoder, dict):
        yield str(decoder["type"])
        for part in decoder.get("decoders", ()):
            yield from _kinds(part)


def _letters() -> dict[str, int]:
    """GPT-2's letters, each of which stands for a byte: itself where it can be seen, else one from 256 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {
        chr(256 + n): byte for n, byte in enumerate(others)
    }
