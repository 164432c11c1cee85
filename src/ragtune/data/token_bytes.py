"""The bytes that each token of a tokenizer is, and the tokens that stand at a place of some bytes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ragtune.base.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = "The 3 cats, and a dog."
_BLANK = "▁"
"""A blank, as SentencePiece writes it in its tokens; a byte is <0x41> there."""


class Tokens:
    """Tokens by their bytes.

    Args:
        written: the bytes of each id; some may have the same.
    """

    def __init__(self, written: Mapping[int, bytes]) -> None:
        self.written = written
        self._ids: dict[bytes, list[int]] = defaultdict(list)
        lengths: dict[int, set[int]] = defaultdict(set)
        for i, data in written.items():
            self._ids[data].append(i)
            lengths[data[0]].add(len(data))
        self._lengths = {byte: sorted(found) for byte, found in lengths.items()}

    def at(self, data: bytes, place: int) -> list[tuple[int, list[int]]]:
        """How many bytes tokens have that stand at a place of some bytes, and which these are."""
        lengths = self._lengths.get(data[place]) if place < len(data) else None
        if lengths is None:
            return []
        ids, most = self._ids, len(data) - place
        return [
            (length, ids[written])
            for length in lengths
            if length <= most and (written := data[place : place + length]) in ids
        ]

    def __bool__(self) -> bool:
        return bool(self.written)

    def behind(self, first: bytes) -> Tokens:
        """Those that begin with some bytes and are longer, without these."""
        size = len(first)
        return Tokens({
            i: data[size:] for i, data in self.written.items()
            if len(data) > size and data.startswith(first)
        })  # fmt: skip


def bytes_of(tokenizer: PreTrainedTokenizerBase, control: Collection[int]) -> dict[int, bytes]:
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
