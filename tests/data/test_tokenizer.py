"""What a tokenizer's tokens are shown as."""

from __future__ import annotations

from ragtune.data.tokenizer import BROKEN, pieces
from tests.conftest import build_tokenizer


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
