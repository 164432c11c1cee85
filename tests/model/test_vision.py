"""Models with vision: the whole class is tuned, saved and merged, and what is not tuned stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import PeftModel
from safetensors.torch import load_file, save_file

import ragtune
from ragtune.base.files import read_json
from tests.families.build import build
from tests.families.table import FAMILIES

WRAPPERS = ["qwen3_5", "gemma3 (vision)", "qwen2_5_vl"]
"""The other families' wrappers are in tests/families."""
UNREAD = "mtp.layers.0.weight"
"""A tensor that transformers' class leaves unread in Qwen 3.5's files."""


def made(name: str, folder: Path) -> Path:
    """A tiny base in bfloat16, with a processor's file."""
    build(next(f for f in FAMILIES if f.name == name), folder)
    weights = folder / "model.safetensors"
    tensors = {k: v.to(torch.bfloat16) for k, v in load_file(weights).items()}
    if name == "qwen3_5":
        tensors[UNREAD] = torch.randn(4, 4).to(torch.bfloat16)
    save_file(tensors, weights, metadata={"format": "pt"})
    (folder / "config.json").write_text(
        (folder / "config.json").read_text("utf-8").replace('"float32"', '"bfloat16"'), "utf-8"
    )
    (folder / "preprocessor_config.json").write_text('{"size": 1}\n', "utf-8")
    return folder


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_model_with_vision_keeps_it(
    name: str, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    base = made(name, tmp_path / "base")
    tiny_recipe["model"]["id"] = str(base)
    tiny_recipe["lora"] = {"rank": 4, "alpha": 8, "dropout": 0.0}
    run = tmp_path / "run"
    ragtune.run(tiny_recipe, run_dir=run)
    before, after = (load_file(f / "model.safetensors") for f in (base, run / "merged"))
    assert before.keys() == after.keys()
    tuned = set(load_file(run / "adapter" / "adapter_model.safetensors"))
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert 0 < len(changed) <= len(tuned) // 2
    assert not any(part in k for k in changed for part in ("vision", "visual", "mtp", "embed"))
    assert (run / "merged" / "preprocessor_config.json").read_bytes() == (
        base / "preprocessor_config.json"
    ).read_bytes()
    named = read_json(base / "config.json")["architectures"]
    assert read_json(run / "merged" / "config.json")["architectures"] == named
    assert read_json(run / "run.json")["train"]["auto_class"] == "AutoModelForImageTextToText" or (
        name.startswith("gemma3")  # of which both have the whole class
    )
    # What people load from the Hub: base and adapter, or the merged model.
    kind = getattr(hf, named[0])
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        plain = kind.from_pretrained(base, dtype=torch.float32).eval()
        without = plain(input_ids=ids).logits
        adapted = (
            PeftModel.from_pretrained(plain, str(run / "adapter")).eval()(input_ids=ids).logits
        )
        merged = (
            kind.from_pretrained(run / "merged", dtype=torch.float32).eval()(input_ids=ids).logits
        )
    effect = (adapted - without).norm()
    assert effect > 0.01 * without.norm()
    assert (merged - adapted).norm() < 0.2 * effect  # bfloat16 rounds the weights
