"""A GGUF file is converted with all of its tensors or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as hf

from ragtune.base.errors import UsageError
from ragtune.model.gguf import _parsed_once, _require_all_read
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


def test_a_file_is_parsed_once_while_it_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf: Any = pytest.importorskip("gguf")
    parsed: list[str] = []
    monkeypatch.setattr(gguf, "GGUFReader", lambda path: parsed.append(path) or object())
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    with _parsed_once():
        path = tmp_path / "a.gguf"
        assert gguf.GGUFReader(path) is gguf.GGUFReader(str(path))
        llama = gguf.MODEL_ARCH.LLAMA
        assert gguf.get_tensor_name_map(llama, 2) is gguf.get_tensor_name_map(llama, 2)
    assert parsed == [str(path)]
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
