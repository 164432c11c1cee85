"""Tokenizers of every kind that is written, trained on the spot, and texts on which they could differ."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import transformers as hf
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from ragtune.data.encode import Encoder
from ragtune.model.to_gguf.pre_tokenizers import PRE_TOKENIZERS
from ragtune.model.to_gguf.write import gguf_of, write_gguf
from ragtune.recipe.load import load_recipe
from tests.conftest import CHATML, tiny_model

HARD = (
    "",
    " ",
    "   leading, trailing   ",
    "a  b   c    d\t\te\t f",
    "line\n\nline\r\n\r\n\n\n   indented\n\tx \n",
    "I'll we've it's 'S don't CAN'T 'tis ''",
    "0 1 12 123 1234 12345 1,234,567.89 ２０２５年１２月 ٣٤ Ⅷ ½ x²",
    "ﾊﾝｶｸ ｶﾅ ｶﾞｷﾞ 全角ＡＢＣ ～ー〜・「」（）　全角の空白",
    "富士山は、日本の山である。標高3776m!? ……\n東京スカイツリー🗼😀👩‍👩‍👧‍👦🇯🇵✌🏽",
    "naïve café Ωmega Привет мир שלום عربى हिन्दी ไทย 한국어 中文",
    "<|im_start|>user\nHi<|im_end|>\n<unk> <0x0A> [PAD3] </s> <s> ▁ ▁▁x",
    "def f(x):\n    return {'a': [1, 2]}  # ==> != -->\n\n\n",
    "http://example.org/a?b=c&d=%20 user@example.org __init__ snake_case camelCase",
    "\u200b\u00a0\u3000\ufeff\u2028 \x00\x01\x7f \ufffd",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + "=" * 70 + " " * 70 + "\n" * 40,
)
"""Composed, as text is that is typed."""


def sample_texts(count: int) -> Iterator[str]:
    """Questions and passages of the shipped samples, in both languages."""
    for name in ("squad2.dev", "jaquad.dev"):
        path = files("ragtune") / "data" / "samples" / f"{name}.jsonl.gz"
        with path.open("rb") as file, gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in [next(lines) for _ in range(count)]:
                record = json.loads(line)
                yield record["question"]
                yield from (p["text"] for p in record["passages"][:2])


def corpus() -> list[str]:
    return [*HARD, *sample_texts(12)]


def _wrapped(inner: Tokenizer, bos: str | None = None) -> Any:
    found = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token=bos
    )
    found.chat_template = ("{{ bos_token }}" if bos else "") + CHATML
    return found


def _trained(inner: Tokenizer, size: int, bytes_first: bool, specials: list[str]) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet() if bytes_first else []
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator((text.replace("\0", "") for text in corpus()), trainer)


def byte_level(name: str) -> Any:
    """A byte-level BPE with one of the pre-tokenizers that have a name in llama.cpp."""
    steps, ignores = PRE_TOKENIZERS[name]
    inner = Tokenizer(models.BPE(ignore_merges=ignores))
    made = [
        pre_tokenizers.Digits(individual_digits=True)
        if kind == "digits"
        else pre_tokenizers.Split(Regex(what), "isolated")
        for kind, what in steps
    ]
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [*made, pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    if name == "qwen2":
        inner.normalizer = normalizers.NFC()
    _trained(inner, 1500, bytes_first=True, specials=["<|im_start|>", "<|im_end|>"])
    inner.add_tokens(["<think>"])
    return _wrapped(inner)


def sentencepiece(kind: str) -> Any:
    """A BPE like SentencePiece's, with bytes for what it has no piece for.

    Args:
        kind: `gemma` (no blank before a text), `llama` (one before every text), or `first` (one before
            the first, as Mistral's newer ones have it).
    """
    specials = ["<unk>", "<s>", "<|im_start|>", "<|im_end|>", *(f"<0x{i:02X}>" for i in range(256))]
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    _trained(inner, 2500, bytes_first=False, specials=specials)
    learnt = json.loads(inner.to_str())["model"]
    inner = Tokenizer(
        models.BPE(
            vocab=learnt["vocab"], merges=_every_pair(learnt["vocab"], learnt["merges"]), unk_token="<unk>",
            fuse_unk=True, byte_fallback=True,
        )
    )  # fmt: skip
    space = normalizers.Replace(" ", "▁")
    if kind == "llama":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
    elif kind == "gemma":
        inner.normalizer = space
        inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace("▁", kind, split=False)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    inner.add_special_tokens([AddedToken(s, normalized=False) for s in specials[:4]])
    return _wrapped(inner, bos="<s>")


def _every_pair(vocabulary: dict[str, int], merges: list[list[str]]) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third, in the order of the pieces: as SentencePiece's files hold it."""
    found = []
    for left, right in merges:
        whole = left + right
        pairs = [(whole[:i], whole[i:]) for i in range(1, len(whole))]
        found += [p for p in pairs if p[0] in vocabulary and p[1] in vocabulary]
    return list(dict.fromkeys(found))


def encoder_of(tokenizer: Any, **prompt: Any) -> Encoder:
    """An encoder with a recipe that says nothing special."""
    recipe = load_recipe(
        {
            "name": "tiny",
            "model": {"id": "x"},
            "data": {"train": "x", "eval": "x"},
            "prompt": {"preset": "english", **prompt},
            "train": {"steps": 1},
        },
        [],
    )
    return Encoder(tokenizer, recipe, 1024)


def written(encoder: Encoder, folder: Path) -> Path:
    """A GGUF file with an encoder's tokenizer, around a model of one narrow layer."""
    model = tiny_model("llama", vocab_size=len(encoder.tokenizer), num_hidden_layers=1)
    model.save_pretrained(folder)
    write_gguf(gguf_of(folder, "tiny", model.config, encoder), "BF16", folder / "tiny.gguf")
    return folder / "tiny.gguf"
