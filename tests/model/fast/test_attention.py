from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragtune.data.encode import Sample
from ragtune.model.fast.attention import NAME, PackedAttentionError, packed_attention
from ragtune.model.fast.probe import probe
from ragtune.training.rows import RowCollator
from tests.conftest import tiny_model

PACKABLE = ("llama", "qwen3", "gemma3", "afmoe")


def samples_of(lengths: list[tuple[int, int]]) -> list[Sample]:
    generator = torch.Generator().manual_seed(sum(a * 31 + b for a, b in lengths))
    draw = lambda n: torch.randint(3, 500, (n,), generator=generator).tolist()  # noqa: E731
    return [Sample(str(i), draw(p), draw(c)) for i, (p, c) in enumerate(lengths)]


def packed_loss(model: Any, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = RowCollator(packed=True)([{"index": 0, "samples": samples}])
    for name in ("labels", "places", "row"):
        batch.pop(name)
    targets = batch.pop("targets")
    logits = model(**batch, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum"), logits


def single_loss(model: Any, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """One sample at a time under the model's own attention, all logits."""
    losses, kept = [], []
    for sample in samples:
        ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
        logits = model(input_ids=ids, use_cache=False).logits[0]
        start = len(sample.prompt_ids) - 1
        kept.append(logits[start:-1])
        losses.append(
            torch.nn.functional.cross_entropy(
                logits[start:-1], torch.tensor(sample.completion_ids), reduction="sum"
            )
        )
    return torch.stack(losses).sum(), torch.cat(kept)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", PACKABLE)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6)), min_size=1, max_size=5))
def test_packed_equals_one_at_a_time_in_logits_and_gradients(
    family: str, lengths: list[tuple[int, int]]
) -> None:
    model = tiny_model(family)
    samples = samples_of(lengths)
    expected, expected_logits = single_loss(model, samples)
    expected_gradients = gradients(model, expected)
    model.set_attn_implementation(NAME)
    loss, logits = packed_loss(model, samples)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    found = gradients(model, loss)
    assert found.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("family", PACKABLE)
def test_probe_finds_packing_right(family: str) -> None:
    model = tiny_model(family)
    before = model.config._attn_implementation
    assert probe(model) is None
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("family", "why"),
    [("gemma2", "softcap"), ("gpt_oss", "s_aux"), ("lfm2", "see each other")],
)
def test_probe_recognises_families_that_packing_would_get_wrong(family: str, why: str) -> None:
    model = tiny_model(family)
    assert why in (probe(model) or "")


def test_a_leak_between_samples_would_be_seen() -> None:
    """The probe is no tautology: ordinary causal attention over the row fails it."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    model = tiny_model("llama")

    def leaky(
        layer: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **_: Any
    ) -> Any:
        return sdpa_attention_forward(
            layer, query, key, value, None, scaling=scaling, is_causal=True
        )

    AttentionInterface.register(NAME, leaky)
    try:
        assert probe(model)
    finally:
        AttentionInterface.register(NAME, packed_attention)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"softcap": 50.0}, "softcap"),
        ({"s_aux": torch.zeros(4)}, "s_aux"),
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"dropout": 0.1}, "attention dropout"),
        ({"attention_mask": torch.zeros(1)}, "attention_mask"),
        ({"cu_seq_lens_q": None}, "without borders"),
    ],
)
def test_what_is_not_implemented_is_refused(arguments: dict[str, Any], named: str) -> None:
    q = torch.zeros(1, 4, 3, 8)
    options = {
        "attention_mask": None,
        "cu_seq_lens_q": torch.tensor([0, 3], dtype=torch.int32),
        **arguments,
    }
    with pytest.raises(PackedAttentionError, match=named):
        packed_attention(torch.nn.Linear(1, 1), q, q, q, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("family", PACKABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probe_on_cuda(family: str, dtype: torch.dtype) -> None:
    assert probe(tiny_model(family).to("cuda", dtype)) is None


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 7])
def test_varlen_equals_by_sample_on_cuda(window: int | None) -> None:
    from ragtune.model.fast import attention

    torch.manual_seed(0)
    # The last samples of a row that is filled up may have no tokens.
    borders = torch.tensor([0, 5, 40, 70, 70, 70], dtype=torch.int32, device="cuda")
    given = [torch.randn(1, h, 70, 64, device="cuda", dtype=torch.bfloat16) for h in (8, 2, 2)]
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        q, k, v = (t.to(dtype, copy=True).requires_grad_() for t in given)
        if dtype == torch.bfloat16:
            out = attention._varlen(q, k, v, 0.125, window, borders, 70)
        else:
            out = attention._by_sample(q, k, v, 0.125, window, [5, 35, 30], shared=False)
        out.float().pow(2).sum().backward()  # type: ignore[no-untyped-call]
        found.append([out, q.grad, k.grad, v.grad])
    for fast, slow in zip(*found, strict=True):
        # bfloat16 rounds by 0.4 %; a few of many numbers come to be further away.
        assert (fast.float() - slow).norm() < 0.02 * slow.norm()


def test_a_rotary_embedding_that_depends_on_the_row_is_not_packed() -> None:
    model = tiny_model("llama")
    assert probe(model) is None
    model.config.rope_parameters = {"full": {"rope_type": "longrope", "factor": 2.0}}
    assert "rotary" in (probe(model) or "")


def test_a_window_that_is_in_the_mask_alone_is_not_packed() -> None:
    import transformers as hf

    shape = {"sliding_window": 16, "num_local_experts": 2, "num_experts_per_tok": 1, "hidden_size": 32,
             "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64,
             "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    model = hf.AutoModelForCausalLM.from_config(hf.PhimoeConfig(**shape)).float().eval()
    assert probe(model) == "its sliding window is in the mask alone"
