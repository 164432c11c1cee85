"""What is merged tensor by tensor is, byte for byte, what PEFT and transformers make with the model in memory."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragtune.base.files import sha256
from ragtune.data.encode import Encoder
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.model import merge as merge_module
from ragtune.model import merge_parts
from ragtune.model.hardware import Hardware
from ragtune.model.load import load_model, load_tokenizer
from ragtune.model.lora import attach, save_adapter
from ragtune.model.merge import merge
from ragtune.model.source import ModelSource
from ragtune.model.tensor_file import TensorFile
from ragtune.recipe.lora import Lora
from ragtune.recipe.schema import Recipe
from tests.families.build import build
from tests.families.table import FAMILIES

CPU = Hardware(torch.device("cpu"), torch.float32, "test", "CPU")
IN_PARTS = ("llama", "gpt2", "gemma3", "qwen3")
"""Of these every tensor is written as it is read."""
WHOLE = ("glm4_moe (experts)", "mixtral")
"""Of these some are made of several, or have an adapter that is no matrix."""


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def both_ways(
    source: ModelSource, folder: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, bytes], dict[str, bytes], bool]:
    """What is merged as ragtune does, what with the model in memory, and whether the first was in parts."""
    config = Recipe.model_validate(recipe)
    encoder = Encoder(prepare_tokenizer(load_tokenizer(source), config), config, 1024)
    tuned = attach(load_model(source, CPU, nf4=False), Lora(rank=4, alpha=8), 0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    for name in ("adapter", "parts", "whole"):
        (folder / name).mkdir()
    save_adapter(tuned, folder / "adapter", None)
    written = []
    write = merge_parts.write_parts
    monkeypatch.setattr(merge_module, "write_parts", lambda *a: [written.append(a), write(*a)])
    merge(source, folder / "adapter", encoder, folder / "parts")
    for path in (folder / "parts").glob(
        "*.safetensors"
    ):  # by the checksum that was made on the way
        assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(merge_module, "_in_parts", lambda *_: None)
    merge(source, folder / "adapter", encoder, folder / "whole")
    return contents(folder / "parts"), contents(folder / "whole"), bool(written)


@pytest.mark.parametrize("shards", ["one", "many"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*IN_PARTS, *WHOLE])
def test_the_same_bytes(
    name: str,
    dtype: torch.dtype,
    shards: str,
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if shards == "many":
        for module in (merge_module, merge_parts):
            monkeypatch.setattr(module, "SHARD_SIZE", "20KB")
    base = tmp_path / "base"
    build(next(f for f in FAMILIES if f.name == name), base)
    if dtype != torch.float32:
        weights = load_file(base / "model.safetensors")
        save_file({n: t.to(dtype) for n, t in weights.items()}, base / "model.safetensors")
        config = json.loads((base / "config.json").read_text("utf-8"))
        (base / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}), "utf-8")
    parts, whole, in_parts = both_ways(
        ModelSource(str(base), None), tmp_path, tiny_recipe, monkeypatch
    )
    assert in_parts is (name in IN_PARTS)
    assert parts.keys() == whole.keys()
    assert [name for name in whole if parts[name] != whole[name]] == []
    assert ("model.safetensors.index.json" in whole) is (shards == "many")


def test_a_disk_that_fills_up_is_told(tmp_path: Path) -> None:
    """What a thread meets reaches whoever waits, and nothing hangs; what was lent comes back."""
    done: list[torch.Tensor] = []
    tensors = [torch.full((4,), float(i)) for i in range(20)]
    with TensorFile(tmp_path / "whole", done.append) as file:
        for tensor in tensors:
            file.put(tensor)
    assert all(one is other for one, other in zip(done, tensors, strict=True))
    assert (tmp_path / "whole").read_bytes() == b"".join(t.numpy().tobytes() for t in tensors)

    def full(_: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    def fill() -> None:
        with TensorFile(tmp_path / "cut", done.append) as file:
            file._write = full
            file.write(b"head")

    with pytest.raises(OSError, match="full"):
        fill()
