"""How long a part of a document is: in characters, or in a model's tokens."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol

from ragtune.base.errors import UsageError
from ragtune.recipe.schema import Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AT_A_TIME = 8000
"""Characters that are encoded in one piece: some tokenizers take long for a text without blanks."""
_PIECES = 64
"""That are encoded at a time: where tokens stand takes a hundred bytes for each."""


class Ruler(Protocol):
    """Measures parts of one text."""

    def reach(self, start: int, count: int) -> int:
        """The furthest end of a part that begins at `start` and is at most `count` long."""
        ...

    def back(self, end: int, count: int) -> int:
        """The earliest start of a part that ends at `end` and is at most `count` long."""
        ...


class Characters:
    """Measures in characters (Unicode's code points, as Python counts)."""

    def reach(self, start: int, count: int) -> int:
        return start + count

    def back(self, end: int, count: int) -> int:
        return end - count


class Tokens:
    """Measures in tokens, as they are in the running text: a part alone may have one or two more.

    Args:
        ends: where each token ends, in order.
        length: of the text.
    """

    def __init__(self, ends: Sequence[int], length: int) -> None:
        self._ends = ends
        self._length = length

    def reach(self, start: int, count: int) -> int:
        first = bisect_right(self._ends, start)
        if first + count >= len(self._ends):
            return self._length
        # Several tokens may end at one place: the bytes of one sign.
        beyond = bisect_left(self._ends, self._ends[first + count])
        return self._ends[beyond - 1] if beyond > first else start

    def back(self, end: int, count: int) -> int:
        behind = bisect_right(self._ends, end)
        return self._ends[behind - count - 1] if behind > count else 0


class Tokenizer:
    """A model's tokenizer, which says where its tokens stand.

    Args:
        name: Hub id or folder of the model.

    Raises:
        UsageError: there is no such tokenizer, or it can't say where its tokens stand.
    """

    def __init__(self, name: str) -> None:
        self._tokenizer = _load(name)

    def ruler(self, text: str) -> Tokens:
        """A ruler for a text."""
        ends = array("q")
        for first in range(0, len(text), _AT_A_TIME * _PIECES):
            starts = range(first, min(first + _AT_A_TIME * _PIECES, len(text)), _AT_A_TIME)
            found = self._tokenizer(
                [text[start : start + _AT_A_TIME] for start in starts],
                add_special_tokens=False,
                return_offsets_mapping=True,
                return_attention_mask=False,
                verbose=False,
            )
            for start, offsets in zip(starts, found["offset_mapping"], strict=True):
                # In order, but for tokenizers that normalise in odd ways.
                ends.extend(sorted(start + end for _, end in offsets))
        return Tokens(ends, len(text))


@cache  # each language of a corpus has a Cutter of its own
def _load(name: str) -> PreTrainedTokenizerBase:
    from ragtune.model.load import load_tokenizer  # noqa: PLC0415 - torch, only for tokens
    from ragtune.model.source import resolve  # noqa: PLC0415 - the same

    try:
        tokenizer = load_tokenizer(resolve(Model(id=name)))
    except UsageError as error:
        message = error.message.replace("model.id", "passages.tokenizer")
        raise UsageError(message, error.advice.replace("model.id", "passages.tokenizer")) from error
    if not tokenizer.is_fast:
        raise UsageError(
            f"passages.tokenizer: the tokenizer of {name} can't say where its tokens stand in a text.",
            "Name another model's, or set passages.unit: characters.",
        )
    return tokenizer
