"""An answer piece by piece, as it is written: pieces that, joined, are the answer."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from ragtune.answering.prediction import Prediction
from ragtune.answering.ragged import Heard
from ragtune.base.stopping import stop_if_asked
from ragtune.data.encode import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""A token of SentencePiece that is a part of a letter."""
_UNFINISHED = "\ufffd"
"""What is decoded of a letter the rest of which is still to come."""
_LAST_WORDS = re.compile(r"\s*\S*\s*\S*\Z")


_PATIENCE = 5.0
"""Seconds."""


class _Gone(Exception):  # noqa: N818 - no error: nobody listens any more
    """Ends an answer that nobody waits for."""


def in_pieces(
    answer: Callable[[Heard], Prediction], encoder: Encoder
) -> Generator[str, None, Prediction]:
    """Let an answer be written in a thread of its own, and pass on what is sure of it; returns the whole.

    Args:
        answer: asks, and calls what it is given with every token.
        encoder: decodes.
    """
    said: queue.SimpleQueue[str | Prediction | BaseException] = queue.SimpleQueue()
    gone = threading.Event()
    text = _Text(encoder)

    def heard(token: int) -> None:
        if gone.is_set():
            raise _Gone
        stop_if_asked()  # not only when the answer is whole
        if piece := text.add(token):
            said.put(piece)

    def work() -> None:
        try:
            said.put(answer(heard))
        except BaseException as error:  # noqa: BLE001 - whoever reads gets it
            said.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while isinstance(piece := said.get(), str):
            yield piece
    finally:
        gone.set()
        thread.join(_PATIENCE)  # it ends with the next token; one of a server can't be told
    if isinstance(piece, BaseException):
        raise piece
    if rest := piece.prediction[text.told :]:
        yield rest
    return piece


class _Text:
    """The text of the tokens so far, as far as no later token can change it."""

    def __init__(self, encoder: Encoder) -> None:
        self.told = 0
        """Characters that were passed on."""
        self._tokenizer: PreTrainedTokenizerBase = encoder.tokenizer
        self._turn = encoder.turn
        self._copies = encoder.recipe.evaluate.copy
        evaluate = encoder.recipe.evaluate
        self._waits = evaluate.refuse_below is not None or evaluate.orders > 1
        self._ids: list[int] = []
        self._cleans = not self._copies and bool(
            getattr(encoder.tokenizer, "clean_up_tokenization_spaces", False)
        )

    def add(self, token: int) -> str:
        """What is new and sure; nothing where another answer may still stand in its place."""
        self._ids.append(token)
        if self._waits or _BYTE.fullmatch(self._tokenizer.convert_ids_to_tokens(token) or ""):
            return ""
        text = self._tokenizer.decode(
            self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=self._cleans
        )
        text = self._sure(text.rstrip(_UNFINISHED))
        piece = text[self.told :]
        self.told += len(piece)
        return piece

    def _sure(self, text: str) -> str:
        """Without what the template may have written around the answer, or a tokenizer still moves."""
        lead, closing = self._turn.lead, self._turn.closing
        if self._copies:  # a blank may stand before it, and is told behind it with what follows
            text = text.strip()
        if lead and (lead.startswith(text) or text.startswith(lead)):
            text = text[len(lead) :]
        ends = (n for n in range(len(closing), 0, -1) if text.endswith(closing[:n]))
        if ending := next(ends, 0):
            text = text[:-ending]
        if self._cleans:  # it takes blanks away before what comes next: "do n't"
            text = _LAST_WORDS.sub("", text)
        return text
