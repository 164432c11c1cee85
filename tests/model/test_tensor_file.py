"""What is written beside its checksum is what safetensors writes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ragtune.base import files
from ragtune.base.files import sha256
from ragtune.model.lora import attach, save_adapter
from ragtune.model.tensor_file import save_tensors
from ragtune.recipe.lora import Lora
from tests.conftest import tiny_model


@pytest.mark.parametrize("other", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
@pytest.mark.parametrize("metadata", [{"format": "pt"}, {"steps": "12"}, {"b": "1", "a": "2"}])
def test_the_same_bytes(tmp_path: Path, other: torch.dtype, metadata: dict[str, str]) -> None:
    tensors = {
        "model.z": torch.randn(5, 7),
        "model.ä": torch.randn(3).to(other),
        "model.a": torch.tensor(2.5).to(other),
        "model.none": torch.empty(0, 4),
    }
    for write, name in ((save_file, "theirs"), (save_tensors, "ours"), (save_tensors, "ours")):
        write(tensors, tmp_path / name, metadata)
    theirs, ours = (tmp_path / name for name in ("theirs", "ours"))
    if len(metadata) == 1:  # else the order is another one each time
        assert ours.read_bytes() == theirs.read_bytes()
    assert sha256(ours) == hashlib.sha256(ours.read_bytes()).hexdigest()


def test_an_adapter_is_not_read_again_for_its_checksum(tmp_path: Path) -> None:
    save_adapter(attach(tiny_model("llama"), Lora(rank=4), 0), tmp_path, None)
    path = tmp_path / "adapter_model.safetensors"
    assert files._identity(path.stat()) in files._REMEMBERED
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
