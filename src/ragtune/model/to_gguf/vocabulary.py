"""A tokenizer as llama.cpp has it: byte-level BPE, or SentencePiece's BPE with bytes for the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragtune.base.errors import UsageError
from ragtune.base.text import named, shortened
from ragtune.data.encode import Encoder
from ragtune.data.example import Passage
from ragtune.model.to_gguf.pre_tokenizers import PRE_TOKENIZERS, in_words, name_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""llama.cpp's kinds of tokens."""
_SPACE = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_BYTES = 256
_TO_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_PREPEND = {"type": "Prepend", "prepend": _SPACE}
_LONGEST = 300
OTHERWISE = "Set publish.format=merged: the merged model with its own tokenizer runs in transformers and vLLM."


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer."""

    model: str
    """llama.cpp's kind of tokenizer: gpt2 (byte-level BPE) or llama (SentencePiece)."""
    pre: str
    """llama.cpp's name of the pre-tokenizer."""
    tokens: list[str]
    kinds: list[int]
    scores: list[float] | None
    merges: list[str] | None
    space_before: bool
    """Whether a text gets a blank before it."""
    composes: bool
    """Whether it composes letters and their marks first (NFC), which llama.cpp doesn't."""
    special: Mapping[str, int]
    """Ids by the names of the writer's methods, without `add_` and `_token_id`."""
    begins: bool
    """Whether a text begins with bos (`begins_with_bos`): then llama.cpp writes it, once."""
    template: str


def vocabulary_of(encoder: Encoder, rows: int) -> Vocabulary:
    """The vocabulary of a run.

    Args:
        encoder: its tokenizer, with the chat template, and the stop token.
        rows: of the model's embedding; those without a token are filled up.

    Raises:
        UsageError: llama.cpp would cut texts otherwise than this tokenizer.
    """
    tokenizer = encoder.tokenizer
    data = _json_of(tokenizer)
    _require_plain(data)
    byte_level = not data["model"].get("byte_fallback")
    token_first = _begins_with_token(data, encoder)
    pre = _pre_of(data) if byte_level else "default"
    space = not byte_level and _space_before(data, token_first=token_first)
    tokens, kinds = _tokens(data, rows, byte_level=byte_level)
    return Vocabulary(
        model="gpt2" if byte_level else "llama",
        pre=pre,
        tokens=tokens,
        kinds=kinds,
        scores=None if byte_level else _scores(data, tokens),
        merges=[" ".join(pair) for pair in _merges(data)] if byte_level else None,
        space_before=space,
        composes=data["normalizer"] == {"type": "NFC"},
        special=_special(encoder),
        begins=begins_with_bos(encoder),
        template=tokenizer.chat_template,
    )


def _json_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer as tokenizer.json says it."""
    if not tokenizer.is_fast:
        raise _refused("it has no tokenizer.json")
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found


def _refused(problem: str) -> UsageError:
    return UsageError(
        f"publish.format=gguf: llama.cpp would cut texts otherwise than this model's tokenizer: {problem}.",
        OTHERWISE,
    )


def _prompt(encoder: Encoder) -> str:
    messages = encoder.builder.messages("?", [Passage("x")])
    return encoder.turn.prompt(encoder.tokenizer, messages, encoder.form)


def begins_with_bos(encoder: Encoder) -> bool:
    """Whether the chat template writes bos where a prompt begins, and nowhere else.

    A token that begins every message is no sign of a text's beginning, whatever it is called.
    """
    text, bos = _prompt(encoder), encoder.tokenizer.bos_token
    return bos is not None and text.startswith(bos) and text.count(bos) == 1


def _begins_with_token(data: Mapping[str, Any], encoder: Encoder) -> bool:
    text = _prompt(encoder)
    return any(text.startswith(token["content"]) for token in data["added_tokens"])


def _require_plain(data: Mapping[str, Any]) -> None:
    """Refuse what llama.cpp's tokenizers don't do, whatever their pre-tokenizer."""
    model = data["model"]
    if model["type"] != "BPE":
        raise _refused(f"it is of the kind {model['type']}, and only BPE is written here")
    if model.get("dropout"):
        raise _refused("it drops merges at random")
    if model.get("byte_fallback") and model.get("ignore_merges"):
        raise _refused("it takes words whole, whatever its merges say")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _refused(f"it has a {key}")
    odd = [
        t["content"] for t in data["added_tokens"] if t["single_word"] or t["lstrip"] or t["rstrip"]
    ]
    if odd:
        raise _refused(f"{named(odd)} take the blanks beside them in, or stand only between words")


def _pre_of(data: Mapping[str, Any]) -> str:
    """llama.cpp's name of the pre-tokenizer of a byte-level BPE."""
    name = name_of(data)
    normalizer = data["normalizer"]
    if name is None:
        raise _refused(
            f"its pre-tokenizer is none of those known here ({', '.join(PRE_TOKENIZERS)}): "
            f"{shortened(in_words(data), _LONGEST)}"
        )
    if normalizer not in (None, {"type": "NFC"}):
        raise _refused(f"it changes texts first: {shortened(json.dumps(normalizer), _LONGEST)}")
    return name


def _space_before(data: Mapping[str, Any], *, token_first: bool) -> bool:
    """Whether a SentencePiece-like tokenizer puts a blank before a text, as llama.cpp then does.

    Args:
        data: the tokenizer.
        token_first: whether prompts begin with a token that stands outside of texts.
    """
    normalizer, pre = data["normalizer"], data["pre_tokenizer"]
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
             "invert": False}  # fmt: skip
    if pre in (None, split):  # the latter finds nothing, as the normalizer left no blank
        if normalizer == _TO_SPACE:
            return False
        if normalizer == {"type": "Sequence", "normalizers": [_PREPEND, _TO_SPACE]}:
            return True
    elif normalizer is None and pre["type"] == "Metaspace" and not pre["split"]:
        scheme = pre["prepend_scheme"] if pre["replacement"] == _SPACE else None
        # Behind a special token the first text isn't the first any more.
        if scheme == "never" or (scheme == "first" and token_first):
            return False
        if (
            scheme == "always"
        ):  # but where a text begins with a blank: llama.cpp then writes one more
            return True
    words = json.dumps({"normalizer": normalizer, "pre_tokenizer": pre}, ensure_ascii=False)
    raise _refused(f"what it does before SentencePiece is not known: {shortened(words, _LONGEST)}")


def _tokens(data: Mapping[str, Any], rows: int, *, byte_level: bool) -> tuple[list[str], list[int]]:
    """Every token and its kind, by its id."""
    words = {i: word for word, i in data["model"]["vocab"].items()}
    added = {token["id"]: token for token in data["added_tokens"]}
    count = max((*words, *added)) + 1
    if count > rows:
        raise UsageError(
            f"The tokenizer has {count:,} tokens, and the model's embedding {rows:,} rows.",
            "Save the model again after model.resize_token_embeddings(len(tokenizer)).",
        )
    unknown = data["model"].get("unk_token") if not byte_level else None
    tokens, kinds = [], []
    for i in range(rows):
        text = added[i]["content"] if i in added else words.get(i)
        tokens.append(f"[PAD{i}]" if text is None else text)
        if text is None:
            kinds.append(UNUSED)
        elif text == unknown:
            kinds.append(UNKNOWN)
        elif i in added:
            kinds.append(CONTROL if added[i]["special"] else USER_DEFINED)
        else:
            kinds.append(BYTE if not byte_level and _BYTE.fullmatch(text) else NORMAL)
    if not byte_level and kinds.count(BYTE) != _BYTES:
        raise _refused(f"{kinds.count(BYTE)} of 256 bytes have a token")
    return tokens, kinds


def _merges(data: Mapping[str, Any]) -> list[Sequence[str]]:
    """The merges as pairs; older files have them as texts."""
    return [m.split(" ") if isinstance(m, str) else m for m in data["model"]["merges"]]


def _scores(data: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    """What SentencePiece joins first has the highest score: by the order of the merges.

    Raises:
        UsageError: the merges of a token lie apart, so that no score could say the same.
    """
    first: dict[str, int] = {}
    count: dict[str, int] = {}
    for place, (left, right) in enumerate(_merges(data)):
        token = left + right
        if place != first.setdefault(token, place) + count.setdefault(token, 0):
            raise _refused(
                f"its merges are in no order of what they give: {token!r} stands among others"
            )
        count[token] += 1
    return [-float(first.get(token, 0)) for token in tokens]


def _special(encoder: Encoder) -> dict[str, int]:
    """The ids that llama.cpp is told: eos and, where that is another token, the one that ends an answer."""
    tokenizer = encoder.tokenizer
    found = {
        name: int(i)
        for name in ("bos", "eos", "unk", "pad")
        if (i := getattr(tokenizer, f"{name}_token_id")) is not None
    }
    found.setdefault("eos", encoder.stop_id)
    if found["eos"] != encoder.stop_id:
        found["eot"] = encoder.stop_id
    return found
