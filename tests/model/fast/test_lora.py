from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

from ragtune.model.fast.dropout import Masks, places
from ragtune.model.fast.lora import Group, fuse
from tests.conftest import tiny_model

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def with_adapter(family: str = "llama", rate: float = 0.0, targets: Any = LINEARS) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(
        tiny_model(family),
        LoraConfig(r=4, lora_alpha=8, lora_dropout=rate, target_modules=targets),
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def drawing(model: Any, tokens: int) -> Any:
    """A model that reads a row of so many tokens, with its dropout."""
    masks = Masks(7)
    masks.take_over(model)
    masks.read(0, places([tokens], [0]))
    return model


def loss_and_gradients(model: Any, ids: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return float(loss), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def some_ids(*shape: int) -> torch.Tensor:
    return torch.randint(3, 500, shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_fused_adapters_compute_what_pefts_do(family: str) -> None:
    plain, fused = with_adapter(family), with_adapter(family)
    assert fuse(fused) == 7 * plain.config.num_hidden_layers
    ids = some_ids(2, 13)
    expected, expected_gradients = loss_and_gradients(plain, ids)
    found, gradients = loss_and_gradients(fused, ids)
    assert found == pytest.approx(expected, rel=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_layers_with_one_input_are_one_group() -> None:
    model = with_adapter()
    fuse(model)
    groups = {m.forward.group for m in model.modules() if hasattr(m, "lora_A")}
    sizes = sorted(len(g.layers) for g in groups)
    assert sizes == sorted([1, 1, 2, 3] * model.config.num_hidden_layers)


def test_only_some_of_the_layers_may_have_an_adapter() -> None:
    plain, fused = (with_adapter(targets=["v_proj", "up_proj"]) for _ in range(2))
    fuse(fused)
    ids = some_ids(1, 9)
    assert loss_and_gradients(fused, ids)[0] == pytest.approx(loss_and_gradients(plain, ids)[0])


def test_other_kinds_of_adapter_keep_pefts_way() -> None:
    model = get_peft_model(
        tiny_model("llama"), LoraConfig(r=4, target_modules=LINEARS, use_dora=True)
    )
    assert fuse(model) == 0


def test_recomputed_activations_draw_the_same_dropout() -> None:
    require_same_if_recomputed(lambda: with_adapter(rate=0.4))


def require_same_if_recomputed(make: Callable[[], Any]) -> None:
    """Require of a model, its adapters fused and with dropout, the same gradients when it recomputes."""
    ids = some_ids(1, 20)
    results = []
    for recompute in (False, True):
        model = drawing(make(), 20)
        fuse(model)
        if recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        results.append(loss_and_gradients(model, ids))
    assert results[0][0] == results[1][0]
    for name, gradient in results[0][1].items():
        assert torch.equal(gradient, results[1][1][name]), name


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_gradients_against_finite_differences(rate: float) -> None:
    model = drawing(with_adapter(rate=rate).double(), 10)
    layers = [m for n, m in model.named_modules() if n.endswith(("q_proj", "k_proj", "v_proj"))][:3]
    group = Group(layers)
    x = torch.randn(2, 5, layers[0].in_features, dtype=torch.float64, requires_grad=True)
    parameters = [p.weight for m in layers for p in (m.lora_A["default"], m.lora_B["default"])]

    def run(given: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(group.call(i, given) for i in range(3))

    assert torch.autograd.gradcheck(run, (x, *parameters))


def test_dropout_is_off_when_answers_are_made() -> None:
    model = with_adapter(rate=0.9)
    fuse(model)
    plain = with_adapter(rate=0.9).eval()
    ids = some_ids(1, 6)
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(ids).logits, plain(ids).logits)


def test_a_layer_that_is_called_alone_or_with_another_input() -> None:
    model = with_adapter()
    plain = copy.deepcopy(model)
    fuse(model)
    find = lambda m, end: next(x for n, x in m.named_modules() if n.endswith(end))  # noqa: E731
    q, k = find(model, "q_proj"), find(model, "k_proj")
    a, b = torch.randn(2, 3, q.in_features)
    torch.testing.assert_close(k(b), find(plain, "k_proj")(b))
    torch.testing.assert_close(q(a), find(plain, "q_proj")(a))
    torch.testing.assert_close(k(b), find(plain, "k_proj")(b))
    torch.testing.assert_close(k(a), find(plain, "k_proj")(a))


@pytest.mark.gpu
@pytest.mark.parametrize("window", [1_000_000, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_for_new_tokens(dtype: torch.dtype, window: int) -> None:
    from ragtune.model.fast.attention import _to_cache

    torch.manual_seed(0)
    query = torch.randn(5, 8, 1, 80, device="cuda", dtype=dtype)
    key, value = (torch.randn(5, 301, 2, 80, device="cuda", dtype=dtype) for _ in range(2))
    key[0, 1:] = float("nan")  # behind a sample's tokens anything may stand
    lengths = torch.tensor([0, 3, 63, 64, 300], device="cuda")
    starts = torch.arange(5, device="cuda") * 301
    slots = (t.flatten(0, 1).transpose(0, 1)[None] for t in (key, value))
    found = _to_cache(query, *slots, 0.2, window, lengths, starts)
    key[0, 1:] = 0
    expected = _to_cache(
        *(t.float().cpu() for t in (query, key.transpose(1, 2), value.transpose(1, 2))),
        0.2,
        window,
        lengths.cpu(),
        None,
    )
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.float().cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("recompute", [False, True])
def test_fused_adapters_on_cuda_in_bfloat16(recompute: bool) -> None:
    ids = some_ids(1, 64).to("cuda")
    reference = with_adapter().to("cuda")
    expected, wanted = loss_and_gradients(reference, ids)
    fused = with_adapter().to("cuda", torch.bfloat16)
    for name, parameter in fused.named_parameters():
        if "lora_" in name:
            parameter.data = reference.get_parameter(name).data.clone()
    fuse(fused)
    if recompute:
        fused.gradient_checkpointing_enable({"use_reentrant": False})
    with torch.autocast("cuda", torch.bfloat16):
        found, gradients = loss_and_gradients(fused, ids)
    assert found == pytest.approx(expected, rel=1e-2)
    for name, gradient in wanted.items():
        error = (gradients[name] - gradient).norm() / gradient.norm()
        assert error < 0.05, name
        assert gradients[name].dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_weights_kept_dequantised_are_those_that_nf4_computes_with(
    family: str, tmp_path: Any
) -> None:
    pytest.importorskip("bitsandbytes")
    from ragtune.model.hardware import Hardware
    from ragtune.model.load import load_model
    from ragtune.model.source import ModelSource

    tiny_model(family).save_pretrained(tmp_path)
    hardware = Hardware(torch.device("cuda", 0), torch.bfloat16, "test", "GPU")
    source = ModelSource(str(tmp_path), None)
    ids = some_ids(3, 40).to("cuda")
    packed = load_model(source, hardware, nf4=True)
    kept = load_model(source, hardware, nf4=True, dequantized=True)
    plain = load_model(source, hardware, nf4=False)
    with torch.inference_mode():
        expected = packed(ids).logits
        assert torch.equal(kept(ids).logits, expected)
        assert not torch.equal(plain(ids).logits, expected)


def test_an_input_that_is_not_contiguous_has_one_mask() -> None:
    model = drawing(with_adapter(rate=0.3).double(), 5)
    layer = next(m for n, m in model.named_modules() if n.endswith("q_proj"))
    group = Group([layer])
    x = torch.randn(layer.in_features, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: group.call(0, given.T), (x,))


def test_an_output_may_be_changed_in_place() -> None:
    config = hf.OlmoConfig(
        vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, clip_qkv=0.05, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    results = []
    for fused in (False, True):
        torch.manual_seed(0)
        base = hf.OlmoForCausalLM(config)
        model = get_peft_model(base, LoraConfig(r=4, target_modules=LINEARS)).train()
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        if fused:
            fuse(model)
        results.append(loss_and_gradients(model, some_ids(1, 9)))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-3, atol=1e-6)


def test_pefts_own_switches_hold() -> None:
    model = with_adapter()
    ids = some_ids(1, 6)
    with torch.no_grad(), model.disable_adapter():
        expected = model(ids).logits
    fuse(model)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(model(ids).logits, expected)
