"""Control tokens that are written out in the data: they stay text, and forge no turn.

A tokenizer reads `<|im_end|>` as the token wherever it stands. Cut behind its first character, and encoded in
two pieces, it is text like any other, and decodes to itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ragtune.base.errors import UsageError
from ragtune.base.text import shortened
from ragtune.data.example import Example, Passage
from ragtune.data.prompt import PromptBuilder
from ragtune.data.tokenizer import encoded, special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANCHORS = ("\n", ".", "x", "")
"""A piece is encoded behind one of these, for some tokenizers put a space before every text."""
_PRIVATE = range(0xF0000, 0xFFFFE)
"""Characters for private use: some that a text doesn't hold mark what is where in it."""
_ADVICE = "Leave it out of the data, or set prompt.chat_template to one that doesn't write it."


class ControlTokens:
    """The tokens that no data may become: the special ones, and the added ones that the chat template writes.

    Other added tokens (Gemma's `<table>`, runs of blanks) are words of the tokenizer's, and stay what they are.

    Args:
        tokenizer: with its chat template.
        prompt: the ids of one that the template wrote; its control tokens are those of every prompt.
        stop_id: the token that ends an answer.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], stop_id: int
    ) -> None:
        self.tokenizer = tokenizer
        special = special_ids(tokenizer) | {stop_id}
        added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        texts = added | {i: tokenizer.convert_ids_to_tokens(i) for i in special - added.keys()}
        self.texts = {
            i: text
            for i, text in texts.items()
            if text.replace("▁", " ").strip()
            and (i in special or i in prompt or text in tokenizer.chat_template)
        }
        self.pattern = re.compile(
            "|".join(map(re.escape, sorted(self.texts.values(), key=len, reverse=True))) or r"(?!)"
        )
        # What a tokenizer has no token for becomes this one, too: it is told by its text.
        self._unknown = tokenizer.unk_token_id
        self._unknown_text = self.texts.get(-1 if self._unknown is None else self._unknown)
        self._ids = self.texts.keys() - {self._unknown}
        self._own = self.among(prompt)

    def among(self, ids: Iterable[int]) -> list[int]:
        """The control tokens of a text, in order."""
        return [*filter(self._ids.__contains__, ids)]

    def may_be_forged(self, text: str, ids: Sequence[int]) -> bool:
        """Whether a prompt has other control tokens than the one of the template alone."""
        written = self._unknown_text is not None and self._unknown_text in text
        return written or self.among(ids) != self._own

    def written_out(self, example: Example, passages: int) -> dict[str, tuple[str, str]]:
        """Where an example writes out control tokens: by the place a text of it, and the token there.

        Args:
            example: as it was read.
            passages: how many of its first ones are shown.
        """
        shown = example.passages[:passages]
        places = {
            "the question": [example.question],
            "a passage": [p.text for p in shown],
            "a title": [p.title for p in shown],
            "an answer": example.answers,
        }
        return {
            place: (text, match[0])
            for place, texts in places.items()
            for text in reversed(texts)
            if (match := self.pattern.search(text))
        }

    def pieces(self, text: str, **options: bool) -> list[str]:
        """A text of the data, cut so that no piece holds a control token; joined they are the text.

        Args:
            text: of the data.
            options: with which the tokenizer encodes the pieces.

        Raises:
            UsageError: a token of one character is written out, which can't be cut.
        """
        spans = self._spans(text, **options)
        if not spans:
            return [text]
        cuts = [0]
        for start, end in spans:
            token = text[start:end].strip()  # some take in the blanks beside them
            if len(token) < 2:  # noqa: PLR2004 - two pieces
                raise UsageError(
                    f"{token!r} is a token of the chat template, and can't be written as text.",
                    _ADVICE,
                )
            cuts.append(text.index(token, start) + 1)
        parts = [text[start:end] for start, end in pairwise([*cuts, len(text)])]
        # What is left may hold others; of many parts most are the same.
        known = {part: self.pieces(part, **options) for part in dict.fromkeys(parts)}
        return [piece for part in parts for piece in known[part]]

    def marked(
        self, builder: PromptBuilder, question: str, passages: Sequence[Passage]
    ) -> tuple[str, str]:
        """The user's message with a mark wherever it has to be cut, and the mark.

        What the prompt template writes out itself is meant, and isn't cut.

        Raises:
            UsageError: as `pieces`; or the template uses its own tokens so that they can't be told from
                those of the data.
        """
        plain = builder.text(question, passages)
        free = _unused(builder.template + plain)
        mark = next(free)
        sign_of: dict[str, str] = defaultdict(partial(next, free))
        sign = partial(self.pattern.sub, lambda match: sign_of[match[0]])
        content = ""
        with suppress(UsageError):  # what isn't written, such as a filter's name, was a token
            content = builder.text(question, passages, sign)
        token_of = {sign: token for token, sign in sign_of.items()}
        parts = re.split(f"([{''.join(token_of)}])", content) if token_of else [content]
        if "".join(token_of.get(p, p) for p in parts) != plain:
            raise UsageError(
                f"{builder.where}: it uses a token of the chat template that the data write out, too "
                f"({shortened(repr(self.pattern.findall(plain)[0]))}): which is whose can't be told.",
                _ADVICE,
            )
        return "".join(token_of.get(p) or mark.join(self.pieces(p)) for p in parts), mark

    def _spans(self, text: str, **options: bool) -> list[tuple[int, int]]:
        """Where the tokenizer reads control tokens: it normalises a text before it looks for some."""
        if not self.tokenizer.is_fast:
            if options.get("split_special_tokens"):
                return []
            return [match.span() for match in self.pattern.finditer(text)]
        found: Any = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, **options
        )
        return [
            (start, end)
            for i, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True)
            if i in self._ids
            or (i == self._unknown and text[start:end].strip() == self._unknown_text)
        ]

    def cut(self, answer: str, **options: bool) -> tuple[str, str]:
        """An answer with a mark wherever it has to be cut, and the mark; raises as `pieces`."""
        mark = next(_unused(answer))
        return mark.join(self.pieces(answer, **options)), mark

    def joined(
        self, begin: list[int], pieces: Sequence[str], harmless: Sequence[int], **options: bool
    ) -> list[int]:
        """The ids of a text in pieces, in which the control tokens are those of `harmless`.

        Args:
            begin: the ids of the first piece.
            pieces: the others.
            harmless: the ids of the same text, with a letter in each place where it was cut.
            options: with which the tokenizer encodes the pieces.

        Raises:
            UsageError: the tokenizer makes a control token of a piece.
        """
        known = {piece: self._continued(piece, **options) for piece in dict.fromkeys(pieces)}
        ids = [*begin, *(i for piece in pieces for i in known[piece])]
        if self.among(ids) != self.among(harmless):
            raise UsageError(
                "A token of the chat template is written out, and this tokenizer can't encode it as text.",
                _ADVICE,
            )
        return ids

    def _continued(self, text: str, **options: bool) -> list[int]:
        """The ids of a piece that stands behind another one."""
        for anchor in _ANCHORS:
            before = encoded(self.tokenizer, anchor)
            ids: list[int] = self.tokenizer.encode(
                anchor + text, add_special_tokens=False, **options
            )
            if ids[: len(before)] == before:
                return ids[len(before) :]
        raise AssertionError  # nothing stands before the last one


def _unused(text: str) -> Iterator[str]:
    """Characters that a text doesn't hold."""
    return (c for c in map(chr, _PRIVATE) if c not in text)
