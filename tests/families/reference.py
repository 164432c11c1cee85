"""Plain transformers and PEFT, one sample at a time: what ragtune is held against.

Nothing here is ragtune's but the samples and the adapter's files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from torch.nn import functional


def load(folder: Path, kind: str) -> Any:
    """A saved model as a class of transformers, in float32."""
    model, report = getattr(hf, kind).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.requires_grad_(requires_grad=False).eval()


def with_weights(base: Any, adapter: Path, weights: dict[str, torch.Tensor]) -> Any:
    """A model with an adapter of another's configuration and of these weights, ready for training."""
    config = PeftConfig.from_pretrained(str(adapter))
    config.inference_mode = False  # as it is saved
    model = get_peft_model(base, config)
    strange = set_peft_model_state_dict(model, weights).unexpected_keys
    assert not strange, strange
    return model


def with_adapter(base: Any, adapter: Path) -> Any:
    return PeftModel.from_pretrained(base, str(adapter)).eval()


def losses(
    model: Any, steps: Sequence[Sequence[Any]], learning_rate: float, most: float
) -> Iterator[float]:
    """The mean loss of each step's trained tokens, step after step of AdamW.

    Args:
        model: with its adapter.
        steps: ragtune's samples (`prompt_ids`, `completion_ids`).
        learning_rate: the same at every step.
        most: to which norm a step's gradient is cut.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    model.train()
    for step in steps:
        tokens = sum(len(s.completion_ids) for s in step)
        total = 0.0
        for sample in step:
            ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
            logits = model(input_ids=ids, use_cache=False).logits[0]
            first = len(sample.prompt_ids)
            targets = torch.tensor(sample.completion_ids)
            loss = functional.cross_entropy(logits[first - 1 : -1], targets, reduction="sum")
            (loss / tokens).backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(trained, most)
        optimizer.step()
        optimizer.zero_grad()
        yield total / tokens


def answer(model: Any, prompt: list[int], stops: list[int], pad: int, most: int) -> list[int]:
    """A prompt's greedy answer by itself, without the stop token."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=most,
            eos_token_id=stops,
            pad_token_id=pad,
        )
    row: list[int] = out[0, len(prompt) :].tolist()
    end = next((i for i, token in enumerate(row) if token in stops), None)
    return row if end is None else row[:end]


def logits(model: Any, samples: Sequence[Any]) -> list[torch.Tensor]:
    """The logits [tokens, vocabulary] of samples, one at a time."""
    model.eval()
    with torch.no_grad():
        return [
            model(input_ids=torch.tensor([s.prompt_ids + s.completion_ids]), use_cache=False)
            .logits[0]
            .float()
            for s in samples
        ]


def difference(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest relative difference of a token's logits."""
    return max(
        float(((a - b).norm(dim=-1) / b.norm(dim=-1).clamp_min(1e-12)).max())
        for a, b in zip(found, expected, strict=True)
    )
