"""Tiny models of sentence-transformers with random weights, made on the spot."""

from __future__ import annotations

from pathlib import Path

WORDS = (
    "the a of is in city capital france japan tokyo paris pump valve oil close open lid year once tiger dog "
    "meat water high mountain fuji river long king queen war peace who what where when query passage :"
)


def save_bert(folder: Path, *, labels: int = 0, seed: int = 0) -> Path:
    """A BERT of two layers, with a head where `labels` says so."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        BertTokenizerFast,
    )

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS.split())]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, num_labels=labels or 2,
        initializer_range=0.5,
    )  # fmt: skip
    model = BertForSequenceClassification(config) if labels else BertModel(config)
    model.save_pretrained(folder)
    return folder


def save_encoder(folder: Path, *, seed: int = 0, **prompts: str) -> Path:
    """A model of sentence-transformers: the BERT, and the mean of its states."""
    from sentence_transformers import SentenceTransformer

    bert = save_bert(folder.with_name(f"{folder.name}-bert"), seed=seed)
    encoder = SentenceTransformer(str(bert), device="cpu", prompts=prompts or None)
    encoder.save(str(folder), create_model_card=False)
    return folder
