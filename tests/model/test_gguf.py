"""A GGUF file is converted with all of its tensors or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as hf

from ragtune.base.errors import UsageError
from ragtune.model.gguf import _require_all_read
from ragtune.model.skeleton import skeleton
from tests.conftest import SHAPE

OF_LAYER = (
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down",
)  # fmt: skip
OWN = ["token_embd.weight", "output_norm.weight", "output.weight"] + [
    f"blk.{n}.{name}.weight" for n in range(2) for name in OF_LAYER
]


def read(path: Path, *more: str, scaling: str | None = None) -> str | None:
    gguf: Any = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
    for name in (*OWN, *more):
        writer.add_tensor(name, np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return _require_all_read(skeleton(hf.LlamaConfig(**{**SHAPE, "num_hidden_layers": 2})), path)


def test_every_tensor_has_a_place(tmp_path: Path) -> None:
    assert read(tmp_path / "a.gguf") is None


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "blk.2.attn_q.weight", "v.blk.0.ln1.weight"])
def test_a_tensor_that_transformers_would_drop_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"has {name}, and LlamaForCausalLM"):
        read(tmp_path / "a.gguf", name)


def test_scaled_positions_are_said_where_they_are_lost(tmp_path: Path) -> None:
    assert read(tmp_path / "a.gguf", "rope_freqs.weight") == "rope_freqs.weight"
    assert read(tmp_path / "b.gguf", scaling="yarn") == "llama.rope.scaling"
    assert read(tmp_path / "c.gguf", scaling="none") is None
