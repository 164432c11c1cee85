"""An answer in pieces: whatever the tokenizer, joined they are its text, and none is taken back."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ragtune.answering.prediction import Prediction
from ragtune.answering.ragged import Heard
from ragtune.asking.pieces import in_pieces
from ragtune.data.turn import Turn
from tests.conftest import build_tokenizer

TEXTS = (
    "Paris", " 富士山（3776 m）。", "🗼を見た", "do n't . , '", "a\ufffdb", "", "線\n\n改行", "葛󠄀城", "é\u0301",
)  # fmt: skip

RECIPE = SimpleNamespace(evaluate=SimpleNamespace(copy=False, refuse_below=None, orders=1))


def byte_level() -> Any:
    return build_tokenizer(specials={"eos_token": "</s>", "pad_token": "</s>"})


def sentence_piece(*more: str) -> Any:
    """As SentencePiece with bytes for letters that it doesn't know: a blank before every word."""
    words = [
        "<unk>",
        "</s>",
        *(f"<0x{n:02X}>" for n in range(256)),
        "▁",
        "▁Paris",
        "a",
        "b",
        "富",
        "士",
        "山",
        *more,
    ]
    inner = Tokenizer(
        models.BPE({w: i for i, w in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")


def cleaning() -> Any:
    tokenizer = byte_level()
    tokenizer.clean_up_tokenization_spaces = True
    return tokenizer


def told(
    tokenizer: Any, ids: list[int], lead: str = "", closing: str = ""
) -> tuple[list[str], str]:
    """The pieces of an answer of these tokens, and its text as evaluation has it."""
    turn = Turn(0, lead, closing, "", (False, False))
    whole = turn.answer(tokenizer.decode(ids, skip_special_tokens=True))

    def answer(heard: Heard) -> Prediction:
        for token in [*ids, tokenizer.eos_token_id]:
            heard(token)
        return Prediction("q", whole, ids, stopped=True)

    encoder: Any = SimpleNamespace(tokenizer=tokenizer, turn=turn, recipe=RECIPE)
    return [*in_pieces(answer, encoder)], whole


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("make", [byte_level, sentence_piece, cleaning])
def test_pieces_are_the_answer(make: Any, text: str) -> None:
    tokenizer = make()
    ids = tokenizer.encode(text, add_special_tokens=False)
    for end in range(len(ids) + 1):  # cut off in the middle of a letter, too
        pieces, whole = told(tokenizer, ids[:end])
        assert "".join(pieces) == whole
    assert "" not in pieces


def test_a_letter_comes_when_it_is_whole() -> None:
    tokenizer = byte_level()
    pieces, whole = told(tokenizer, tokenizer.encode("🗼🗼", add_special_tokens=False))
    assert pieces in (["🗼", "🗼"], ["🗼🗼"])
    assert whole == "🗼🗼"


@pytest.mark.parametrize("text", ["\nParis\n.", "\n", "Paris\n.", "\nParis\n", "\n\n.\n."])
def test_what_the_template_writes_is_no_part_of_it(text: str) -> None:
    tokenizer = byte_level()
    pieces, whole = told(
        tokenizer, tokenizer.encode(text, add_special_tokens=False), lead="\n", closing="\n."
    )
    assert "".join(pieces) == whole


def test_a_failure_is_raised_and_who_goes_away_ends_it() -> None:
    heard_of: list[int] = []
    tokenizer = byte_level()
    turn = Turn(0, "", "", "", (False, False))
    encoder: Any = SimpleNamespace(tokenizer=tokenizer, turn=turn, recipe=RECIPE)

    def fails(heard: Heard) -> Prediction:
        heard(tokenizer.encode("a")[0])
        raise MemoryError("none left")

    pieces = in_pieces(fails, encoder)
    assert next(pieces) == "a"
    with pytest.raises(MemoryError, match="none left"):
        next(pieces)

    def endless(heard: Heard) -> Prediction:
        while True:
            heard_of.append(1)
            heard(tokenizer.encode("a")[0])

    pieces = in_pieces(endless, encoder)
    assert next(pieces)
    pieces.close()
    count = len(heard_of)
    assert count == len(heard_of)  # its thread has ended
    assert isinstance(pieces, Iterator)
