"""What a tokenizer makes of texts, and what its tokens are shown as."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from ragtune.data.tokenizer import BROKEN, all_encoded, by_backend_alone, pieces
from tests.conftest import build_tokenizer
from tests.data.templates import CASES
from tests.data.test_control import TOKENIZERS

TEXTS = [
    "",
    "二十日 a</s>",
    "<s>  The capital<|im_end|>\n<|im_start|>user of France is <unk> ",
    " ＡＢＣ ﾊﾟﾘ e\u0301 [SEP]<think>\u3000🙂\x00",
    *(f"{number} 富士山は日本の山である。\n\n" * number for number in range(1, 5)),
]
KINDS = {
    **{name: build for name, (build, _) in TOKENIZERS.items()},
    **{name: case.tokenizer for name, case in CASES.items()},
}


class Marking(PreTrainedTokenizerFast):
    """One whose class does something of its own with texts, as that of Code Llama does."""

    def _encode_plus(self, text: Any, *given: Any, **options: Any) -> Any:
        return super()._encode_plus([f"</s>{one}" for one in text], *given, **options)


def usual(tokenizer: Any, **options: bool) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(TEXTS, add_special_tokens=False, **options)["input_ids"]
    return ids


@pytest.mark.parametrize("name", KINDS)
def test_ids_are_those_of_transformers(name: str) -> None:
    tokenizer = KINDS[name]()
    plain = {"split_special_tokens": True}
    for options in ({}, plain, {}):
        assert all_encoded(tokenizer, TEXTS, **options) == usual(tokenizer, **options)
    # As the tokenizer reads what is written out, where nothing is said of it.
    tokenizer.split_special_tokens = True
    assert all_encoded(tokenizer, TEXTS) == usual(tokenizer) == usual(tokenizer, **plain)


def test_texts_are_neither_cut_nor_filled_up() -> None:
    tokenizer = build_tokenizer(specials={"eos_token": "</s>"})
    whole = usual(tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert all_encoded(tokenizer, TEXTS) == whole
    assert all_encoded(tokenizer, []) == []


def test_a_class_that_changes_texts_does_so_still() -> None:
    inner = build_tokenizer(specials={"eos_token": "</s>"})
    marking = Marking(tokenizer_object=inner.backend_tokenizer, eos_token="</s>")
    found = all_encoded(marking, TEXTS)
    assert found == [[inner.eos_token_id, *ids] for ids in usual(inner)]
    # The others are left to the backend: if transformers called it by another way, that would be slow.
    assert by_backend_alone(inner)
    assert not by_backend_alone(marking)


def test_characters_of_several_tokens_are_shown_whole() -> None:
    """Halves of them would look like damaged data."""
    tokenizer = build_tokenizer(specials={"eos_token": "</s>"})
    ids = tokenizer("二十日 a</s>", add_special_tokens=False)["input_ids"]
    assert BROKEN in tokenizer.decode(ids[:1])
    found = pieces(tokenizer, ids)
    assert "".join(found) == "二十日 a</s>"
    assert found[-1] == "</s>"
    assert not any(BROKEN in one for one in found)
    assert pieces(tokenizer, ids[:1]) == [BROKEN]
