"""Answers that can't be invented: which tokens may follow one another so that they write a span of a passage.

It is a matter of bytes: any tokens will do whose bytes, joined, are those of the span, however the tokenizer
cuts the passage itself. Nodes are places between two bytes of a text, edges tokens that stand there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from ragtune.data.token_bytes import Tokens, bytes_of
from ragtune.data.turn import Turn
from ragtune.data.words import begins_inside, ends_inside

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
        self.tokens = Tokens(bytes_of(tokenizer, control))
        self._leads = sorted({lead.encode() for lead in (" ", turn.lead) if lead})
        self.behind = {
            (rest := lead[place:]): self.tokens.behind(rest)
            for lead in self._leads
            for place in range(len(lead))
        }
        """Of what is left of a lead the tokens that go on into the text, by what they hold of that."""

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
        made.open(self._leads)
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
        written = b"".join(self.tokens.written[i] for i in ids).decode("utf-8", "ignore").lstrip()
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


@dataclass(frozen=True, slots=True)
class _Text:
    """A text of which spans may be copied; its first node, and which of its places go on to an end."""

    base: int
    data: bytes
    good: bytearray
    begins: list[int]
    """Places where an answer may begin."""
    ways: list[slice]
    """The edges that lead on from each of these."""


class _Edges:
    """Three columns: objects for each edge would keep Python's garbage collector busy."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.tokens: list[int] = []
        self.ends: list[int] = []

    def add(self, start: int, tokens: list[int], end: int) -> None:
        """An edge for each token."""
        self.tokens += tokens
        for _ in tokens:
            self.starts.append(start)
            self.ends.append(end)

    def repeat(self, start: int, edges: slice) -> None:
        """Some edges once more, from another node."""
        tokens = self.tokens[edges]
        self.tokens += tokens
        self.ends += self.ends[edges]
        self.starts += [start] * len(tokens)


class _Made:
    """Paths that are being made. No edge leads where no way goes on to a last node."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self.edges = _Edges()
        self.first: list[int] = []
        self.last: list[int] = []
        self.nodes = 0
        self.texts: list[_Text] = []
        self.closes: list[tuple[list[int], int]] = []
        """Tokens that may follow where a text may end, and the nodes they lead to."""
        self.ended = 0
        """The node behind everything."""

    def close(self, closing: bytes) -> None:
        """What stands behind every answer, before the stop token; first of all."""
        size = len(closing)
        good = bytearray(size) + b"\x01"
        for place in range(size - 1, -1, -1):
            for length, ids in self.spans.tokens.at(closing, place):
                if good[place + length]:
                    good[place] = 1
                    if place:
                        self.edges.add(place, ids, place + length)
                    else:
                        self.closes.append((ids, length))
        self.ended, self.nodes = size, size + 1
        self.last.append(size)

    def add(self, data: bytes, begins: Sequence[int], ends: Collection[int]) -> None:
        """A text with the places where an answer may begin, and where it may end."""
        base, good, edges = self.nodes, bytearray(len(data) + 1), self.edges
        ways: dict[int, slice] = {}
        for place in range(len(data), -1, -1):
            if place in ends:
                good[place] = 1
                if self.ended:
                    for ids, node in self.closes:
                        edges.add(base + place, ids, node)
                else:
                    self.last.append(base + place)
            before = len(edges.tokens)
            for length, ids in self.spans.tokens.at(data, place):
                if good[place + length]:
                    edges.add(base + place, ids, base + place + length)
            if len(edges.tokens) > before:
                good[place] = 1
                ways[place] = slice(before, len(edges.tokens))
        found = [place for place in begins if place in ways]
        if found:
            self.texts.append(_Text(base, data, good, found, [ways[place] for place in found]))
        self.nodes += len(data) + 1

    def open(self, leads: Iterable[bytes]) -> None:
        """Where answers begin: before a text or before the blanks that may stand there; last of all."""
        if not self.texts:
            self.first.append(self.ended)  # with nothing to copy an answer ends where it begins
            return
        entry = self.nodes
        for text in self.texts:
            for way in text.ways:
                self.edges.repeat(entry, way)
        self.first.append(entry)
        self.nodes += 1
        for lead in leads:
            self._open(lead, entry)

    def _open(self, lead: bytes, entry: int) -> None:
        """The node before some blanks, behind which the texts begin; they begin themselves at `entry`."""
        base, size = self.nodes, len(lead)
        good = bytearray(size) + b"\x01"
        for place in range(size - 1, -1, -1):
            before = len(self.edges.tokens)
            for length, ids in self.spans.tokens.at(lead, place):
                if good[place + length]:
                    end = base + place + length if place + length < size else entry
                    self.edges.add(base + place, ids, end)
            tokens = self.spans.behind[lead[place:]]
            for text in self.texts if tokens else ():
                for begin in text.begins:
                    for length, ids in tokens.at(text.data, begin):
                        if text.good[begin + length]:
                            self.edges.add(base + place, ids, text.base + begin + length)
            good[place] = len(self.edges.tokens) > before
        self.first += [base] if good[0] else []
        self.nodes += size

    def paths(self) -> Paths:
        edges = self.edges
        return Paths(edges.starts, edges.tokens, edges.ends, self.first, self.last, self.nodes)


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
