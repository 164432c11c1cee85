"""A tiny model of a family with random weights, and a tokenizer with a chat template, in a folder."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.conftest import CHATML, build_tokenizer
from tests.data import chat_templates
from tests.data.templates import GEMMA, TAGS
from tests.families.table import SHAPE, Family

EOS = {"bos_token": "<s>", "eos_token": "</s>"}
PLAIN: dict[str, dict[str, Any]] = {
    "chatml": {
        "specials": {"eos_token": "<|im_end|>", "pad_token": "<pad>", "start": "<|im_start|>"},
        "template": CHATML,
    },
    "gemma": {
        "specials": {**EOS, "pad_token": "<pad>", "sot": "<start_of_turn>", "eot": "<end_of_turn>"},
        "template": GEMMA,
        "bos": True,
    },
    "tags": {"specials": {**EOS, "u": "<|user|>", "a": "<|assistant|>"}, "template": TAGS},
}
"""Manners that many families have: the arguments of `build_tokenizer`."""


def tokenizer_of(manner: str) -> Any:
    """A tokenizer of a manner: one of PLAIN, or of a family in tests/data/chat_templates.py."""
    if manner in PLAIN:
        return build_tokenizer(**PLAIN[manner])
    return chat_templates.FAMILIES[manner].tokenizer()


def build(family: Family, folder: Path) -> None:
    """Write a family's model and tokenizer into a folder as the Hub would have them."""
    tokenizer = tokenizer_of(family.manner)
    tokenizer.save_pretrained(folder)
    config = configuration(family, tokenizer)
    kinds = {
        "text": hf.AutoModelForCausalLM,
        "vision": hf.AutoModelForImageTextToText,
        "encoder": hf.AutoModelForMaskedLM,
    }
    torch.manual_seed(0)
    model = kinds[family.kind].from_config(config, dtype=torch.float32)
    spread(model)
    model.save_pretrained(folder)


def configuration(family: Family, tokenizer: Any) -> Any:
    """A family's configuration: SHAPE as far as it is known there, the overrides, the token ids."""
    tokens = {
        f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")
    }
    if tokens["pad_token_id"] is None:
        tokens["pad_token_id"] = tokens["eos_token_id"]
    kind = getattr(hf, family.config)
    overrides = dict(family.overrides)
    for part in ("text_config", "vision_config"):
        if part in overrides:
            inner = kind.sub_configs[part]
            if part == "text_config":
                # Which configuration a wrapper's text has may be a choice of the model's.
                inner = type(kind().text_config) if inner is hf.AutoConfig else inner
                overrides[part] = _known(inner) | tokens | overrides[part]
            if inner is hf.AutoConfig:
                default = kind().vision_config
                overrides[part] = {"model_type": default.model_type, **overrides[part]}
            elif part == "text_config":
                overrides[part] = {"model_type": inner.model_type, **overrides[part]}
    if "text_config" in overrides:
        return kind(**overrides)
    return kind(**{**_known(kind), **tokens, **overrides})


def _known(kind: Any) -> dict[str, Any]:
    """The part of SHAPE that a configuration knows."""
    names = set(inspect.signature(kind.__init__).parameters) | set(kind().to_dict())
    return {k: v for k, v in SHAPE.items() if k in names}


def spread(model: Any) -> None:
    """Widen what a family draws narrow or begins at zero: what is zero lets no gradient through."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            narrow = weight.ndim > 1 and "embed" not in name and float(weight.std()) < 0.1
            if narrow or not weight.any():
                weight.copy_(torch.randn_like(weight) * 0.2)
