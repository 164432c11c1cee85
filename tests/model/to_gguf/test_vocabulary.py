"""llama.cpp cuts texts as the model's own tokenizer does, or the tokenizer is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from ragtune.answering.llama_process import Llama
from ragtune.base.errors import UsageError
from ragtune.data.chat import render
from ragtune.model.to_gguf.pre_tokenizers import PRE_TOKENIZERS
from ragtune.model.to_gguf.vocabulary import vocabulary_of
from tests.model.to_gguf.vocabularies import byte_level, corpus, encoder_of, sentencepiece, written

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


def unlike(file: Path, tokenizer: Any, begin: str = "") -> dict[str, tuple[list[str], list[str]]]:
    """The texts that llama.cpp cuts otherwise behind `begin`, with both cuts."""
    cut = tokenizer.convert_ids_to_tokens
    with Llama(file, 256, 1) as llama:
        texts = [begin + text for text in corpus()]
        found = {
            text: (tokenizer.encode(text, add_special_tokens=False), llama.ids(text))
            for text in texts
        }
    return {text: (cut(own), cut(there)) for text, (own, there) in found.items() if own != there}


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_bytes_as_letters(name: str, tmp_path: Path) -> None:
    encoder = encoder_of(byte_level(name))
    assert vocabulary_of(encoder, 1600).pre == name
    assert unlike(written(encoder, tmp_path), encoder.tokenizer) == {}


@pytest.mark.parametrize("kind", ["gemma", "llama", "first", "never", "always"])
def test_sentencepiece(kind: str, tmp_path: Path) -> None:
    encoder = encoder_of(sentencepiece(kind))
    found = vocabulary_of(encoder, 3000)
    assert (found.model, found.pre, found.space_before, found.begins) == (
        "llama",
        "default",
        kind in ("llama", "always"),
        True,
    )
    begin = "<s>" if kind == "first" else ""  # a prompt begins so, and then nothing else is first
    other = unlike(written(encoder, tmp_path), encoder.tokenizer, begin)
    if (
        kind == "always"
    ):  # before a blank it writes none, and llama.cpp does: at the start, or behind a token
        assert other
        other = {text: cuts for text, cuts in other.items() if not re.search(r"(^|>) ", text)}
    assert other == {}


def test_letters_and_marks_that_stand_apart_are_said_to_be_read_otherwise() -> None:
    assert vocabulary_of(encoder_of(byte_level("qwen2")), 1600).composes
    assert not vocabulary_of(encoder_of(byte_level("gpt-2")), 1600).composes


def odd_pre_tokenizer(inner: Tokenizer) -> None:
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def blank_first(inner: Tokenizer) -> None:
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def lower_case(inner: Tokenizer) -> None:
    inner.normalizer = normalizers.Lowercase()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            odd_pre_tokenizer,
            r"none of those known here \(gpt-2, smollm, llama-bpe, qwen2, tekken\): .*Punctuation",
        ),
        (blank_first, "is none of those known here"),
        (lower_case, "it changes texts first: .*Lowercase"),
    ],
)
def test_what_llama_cpp_lacks_is_refused(change: Any, words: str) -> None:
    tokenizer = byte_level("gpt-2")
    change(tokenizer.backend_tokenizer)
    with pytest.raises(UsageError, match=words) as raised:
        vocabulary_of(encoder_of(tokenizer), 1600)
    assert "publish.format=merged" in raised.value.advice


def test_a_unigram_tokenizer_is_refused() -> None:
    tokenizer = byte_level("gpt-2")
    words = [(word, 0.0) for word in tokenizer.get_vocab()]
    tokenizer.backend_tokenizer.model = models.Unigram(words)
    with pytest.raises(UsageError, match="of the kind Unigram"):
        vocabulary_of(encoder_of(tokenizer), 1600)


def test_a_blank_before_the_first_text_alone_is_refused_where_no_token_stands_before_it() -> None:
    tokenizer = sentencepiece("first")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>\n{% endfor %}"
    with pytest.raises(UsageError, match="before SentencePiece is not known"):
        vocabulary_of(encoder_of(tokenizer), 3000)


def test_more_tokens_than_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="the model's embedding 1,000 rows"):
        vocabulary_of(encoder_of(byte_level("gpt-2")), 1000)


EVERY_TURN = "{% for m in messages %}{{ bos_token + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"


@pytest.mark.parametrize("every_turn", [False, True])
def test_bos_stands_where_the_template_writes_it_and_nowhere_else(
    every_turn: bool, tmp_path: Path
) -> None:
    tokenizer = sentencepiece("gemma")
    if every_turn:
        tokenizer.chat_template = EVERY_TURN
    encoder = encoder_of(tokenizer)
    assert vocabulary_of(encoder, 3000).begins != every_turn
    messages = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "There."},
    ] * 2
    messages.append({"role": "user", "content": "Why?"})
    own = render(tokenizer, messages, generation=True)
    with Llama(written(encoder, tmp_path), 256, 1) as llama:
        asked = {"messages": messages, "max_tokens": 1}
        there = llama.ask("/v1/chat/completions", asked)["usage"]["prompt_tokens"]
        assert there == len(tokenizer.encode(own, add_special_tokens=False))
        raw = llama.ask("/tokenize", {"content": "x", "add_special": True})["tokens"]
    assert (raw[0] == tokenizer.bos_token_id) != every_turn
