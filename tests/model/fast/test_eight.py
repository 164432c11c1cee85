"""Products in 8 bits: on the CPU torch's own product with a scale for each row, which GPUs have, too."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from torch import nn

from ragtune.base.errors import UsageError
from ragtune.data.encode import Sample
from ragtune.model.fast import eight
from ragtune.model.fast.attention import using_packed
from ragtune.model.fast.eight import (
    EightBit,
    PackedEightBit,
    beside,
    join,
    joined,
    plain_product,
    product,
    quantize,
    unrounded,
)
from ragtune.model.fast.lora import fuse
from ragtune.model.fast.probe import probe
from ragtune.model.fast.to_eight import convert
from ragtune.model.lora import save_adapter
from ragtune.model.nf4 import linear_layers, pack, packed, round_to_nf4
from ragtune.model.targets import ordinary_layers
from ragtune.model.wrapping import digest_of
from ragtune.training.rows import RowCollator, read_row
from tests.conftest import tiny_model
from tests.model.fast.test_lora import (
    LINEARS,
    loss_and_gradients,
    require_same_if_recomputed,
    some_ids,
    with_adapter,
)

GPUS_NAN = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.float() - exact.float()).norm() / exact.float().norm())


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def in_eight_bits(family: str = "llama", rate: float = 0.0, targets: Any = LINEARS) -> Any:
    """`with_adapter` with the same weights, the frozen ones in 8 bits."""
    whole = with_adapter(family, rate, targets)
    base = tiny_model(family)
    base.load_state_dict(copy.deepcopy(tiny_model_of(whole)))
    convert(base, ordinary_layers(base))
    model = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, lora_dropout=rate, target_modules=targets)
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = whole.get_parameter(name).data.clone()
    return model.train()


def tiny_model_of(tuned: Any) -> dict[str, torch.Tensor]:
    names = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in tuned.state_dict().items()
    }
    return {name: value for name, value in names.items() if "lora_" not in name}


def nf4(weight: torch.Tensor) -> torch.Tensor:
    """What NF4 makes of a weight, in blocks of 64 (Dettmers et al. 2023, appendix E)."""
    codes = torch.tensor([
        -1.0, -0.6961928, -0.5250730, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
        0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
    ])  # fmt: skip
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / scale).unsqueeze(-1).sub(codes).abs().argmin(-1)
    return (codes[nearest] * scale).view_as(weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_as_near_as_three_bits_of_mantissa_allow(dtype: torch.dtype) -> None:
    x, weight = drawn(64, 256, dtype=dtype), drawn(96, 256, dtype=dtype, seed=1) * 0.02
    exact = x.float() @ weight.float().T
    rows, columns = quantize(x), quantize(weight)
    found = product(rows, columns, dtype)
    assert found.dtype == dtype
    assert 0.03 < error(found, exact) < 0.045  # 3.75 %
    assert error(found, plain_product(rows, columns)) < (1e-5 if dtype == torch.float32 else 0.005)
    # Beside it: what the weights lose in NF4 alone.
    assert 0.08 < error(x.float() @ nf4(weight.float()).T, exact) < 0.11


def test_the_older_way_to_call_it_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = quantize(drawn(5, 32)), quantize(drawn(48, 32, seed=1))
    found = product(rows, columns, torch.float32)
    monkeypatch.delattr(torch.nn.functional, "scaled_mm")
    assert torch.equal(product(rows, columns, torch.float32), found)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_row_has_a_scale_of_its_own(dtype: torch.dtype) -> None:
    x = drawn(4, 64) * torch.tensor([[1e-12], [1.0], [3e4], [0.0]])
    x[2, 0] = 448 * 2.0**9  # the largest that a scale can meet, to the bit
    values, scale = quantize(x, dtype=dtype)
    assert values.float().isfinite().all()
    assert torch.equal(torch.exp2(torch.log2(scale).round()), scale)
    back = values.float() * scale
    for row in range(3):
        assert error(back[row], x[row]) < (0.04 if dtype == torch.float8_e4m3fn else 0.08)
    assert not back[3].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), GPUS_NAN])
def test_what_is_not_finite_is_seen(bad: float | torch.Tensor) -> None:
    x = drawn(2, 32)
    x[0, 3] = bad
    assert not quantize(x).scale[0].isfinite()
    found = product(quantize(x), quantize(drawn(16, 32, seed=1)), torch.float32)
    assert not found[0].isfinite().any()
    assert found[1].isfinite().all()


def test_parts_beside_each_other_have_one_scale() -> None:
    parts = [drawn(7, 32), drawn(7, 48, seed=1) * 20]
    values, scale = quantize(*parts)
    whole = quantize(torch.cat(parts, 1))
    assert torch.equal(values.float(), whole.values.float())
    assert torch.equal(scale, whole.scale)


def test_both_layouts_are_the_same_weights() -> None:
    layer = EightBit(nn.Linear(64, 48, bias=False, dtype=torch.bfloat16))
    values, scale = layer.by_input
    weight = layer.dequantized(torch.bfloat16)
    assert torch.equal(weight.float(), layer.dequantized(torch.float32))
    # A scale is a power of two: only the smallest numbers of a row lose something once more.
    assert error((values.float() * scale).T, weight) < 1e-3


def test_weights_that_share_an_input_are_joined_and_kept_once() -> None:
    layers = [EightBit(nn.Linear(64, size, bias=False)) for size in (48, 32)]
    before = [(one.by_input.values.float() * one.by_input.scale) for one in layers]
    whole = join(layers)
    assert whole.values.shape == (64, 80)
    for layer, one in zip(layers, before, strict=True):
        values, scale = layer.by_input
        assert values.untyped_storage().data_ptr() == whole.values.untyped_storage().data_ptr()
        assert error(values.float() * scale, one) < 1e-3
        gradient = drawn(5, layer.out_features)
        assert (
            error(eight.to_input([gradient], layer.by_input, torch.float32), gradient @ one.T)
            < 0.05
        )


def test_a_layer_and_its_gradient() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 96)
    rounded = EightBit(layer)
    x, dy = drawn(2, 9, 64).requires_grad_(), drawn(2, 9, 96, seed=1)
    expected = layer(x)
    (wanted,) = torch.autograd.grad(expected, x, dy)
    found = rounded(x)
    assert error(found, expected) < 0.05
    assert error(torch.autograd.grad(found, x, dy)[0], wanted) < 0.05
    with unrounded():  # the weights' error is left
        exact = rounded(x)
    assert 0.01 < error(exact, expected) < 0.04
    assert error(found, exact) < 0.04


def packed_twice(layers: Sequence[nn.Linear]) -> tuple[list[EightBit], list[EightBit]]:
    """Layers in 8 bits whose weights stay in NF4, and others with both layouts of the same weights."""
    pytest.importorskip("bitsandbytes")
    kept = copy.deepcopy([*layers])
    round_to_nf4(kept)
    return (
        [PackedEightBit(packed(one, torch.bfloat16)) for one in layers],
        [*map(EightBit, kept)],
    )


def test_weights_that_stay_in_nf4_are_multiplied_as_those_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(64, size, bias=size == 48, dtype=torch.bfloat16) for size in (48, 32)]
    stay, kept = packed_twice(layers)
    assert stay[0].weight.nbytes == 48 * 64 // 2
    x = drawn(9, 64, dtype=torch.bfloat16).requires_grad_()
    for one, other in zip(stay, kept, strict=True):
        for a, b in ((one.by_output, other.by_output), (one.by_input, other.by_input)):
            assert torch.equal(a.values.float(), b.values.float())
            assert torch.equal(a.scale, b.scale)
            # In the order in which a GPU multiplies, also where no kernel of ours makes them.
            assert a.values.is_contiguous()
            assert b.values.is_contiguous()
        assert torch.equal(one(x), other(x))
        gradients = [torch.autograd.grad(which(x).sum(), x)[0] for which in (one, other)]
        assert torch.equal(*gradients)
    made, whole = beside(stay), join(kept)
    assert torch.equal(made.values.float(), whole.values.float())
    assert torch.equal(made.scale, whole.scale)
    dys = [drawn(9, size, dtype=torch.bfloat16, seed=2) for size in (48, 32)]
    expected = joined(kept)(dys, torch.bfloat16)
    for at_a_time in (4, 9, 100):
        monkeypatch.setattr(eight, "AT_A_TIME", at_a_time)
        assert torch.equal(joined(stay)(dys, torch.bfloat16), expected)


def test_adapters_on_weights_that_stay_in_nf4_learn_the_same() -> None:
    pytest.importorskip("bitsandbytes")
    results = []
    for make in (pack_layers, lambda model: round_to_nf4(linear_layers(model))):
        torch.manual_seed(0)
        base = tiny_model("llama").bfloat16()
        make(base)
        assert convert(base, ordinary_layers(base)) == 14
        model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS)).train()
        for number, (name, parameter) in enumerate(model.named_parameters()):
            if "lora_" in name:
                parameter.data = drawn(*parameter.shape, seed=number) * 0.1
        assert fuse(model) == 14
        results.append(loss_and_gradients(model, some_ids(2, 24)))
    (found, gradients), (expected, wanted) = results
    assert found == expected
    assert all(torch.equal(gradients[name], wanted[name]) for name in wanted)


def pack_layers(model: Any) -> None:
    pack(model, linear_layers(model), torch.bfloat16)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_adapters_on_it_learn_what_they_would_learn(family: str) -> None:
    model, reference = in_eight_bits(family), with_adapter(family)
    ids = some_ids(4, 40)
    alone, its_gradients = loss_and_gradients(model, ids)  # PEFT's way
    assert fuse(model) == 7 * model.config.num_hidden_layers
    found, gradients = loss_and_gradients(model, ids)
    expected, wanted = loss_and_gradients(reference, ids)
    assert found == pytest.approx(alone, rel=1e-5)
    assert found == pytest.approx(expected, rel=5e-3)
    assert gradients.keys() == wanted.keys()
    together = [
        torch.cat([g[name].flatten() for name in wanted])
        for g in (gradients, wanted, its_gradients)
    ]
    assert error(together[0], together[1]) < 0.2  # of narrow layers of random weights
    assert error(together[0], together[2]) < 0.02


def test_a_layer_without_an_adapter_lets_gradients_through() -> None:
    model, reference = (make(targets=["q_proj"]) for make in (in_eight_bits, with_adapter))
    fuse(model)
    ids = some_ids(2, 20)
    (found, gradients), (expected, wanted) = (
        loss_and_gradients(m, ids) for m in (model, reference)
    )
    assert found == pytest.approx(expected, rel=5e-3)
    assert all(error(gradients[name], wanted[name]) < 0.25 for name in wanted)
    assert len(wanted) == 2 * model.config.num_hidden_layers


def test_a_group_is_of_one_kind() -> None:
    torch.manual_seed(0)
    base = tiny_model("llama")
    names = [name for name in ordinary_layers(base) if not name.endswith("k_proj")]
    convert(base, names)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=LINEARS))
    fuse(model)
    groups = {m.forward.group for m in model.modules() if hasattr(m, "lora_A")}
    assert all(len(group.eight) in (0, len(group.layers)) for group in groups)
    assert loss_and_gradients(model.train(), some_ids(1, 9))[1]


def test_packed_rows_give_the_logits_of_each_sample_alone() -> None:
    model = in_eight_bits().eval()
    fuse(model)
    assert probe(model.get_base_model()) is None
    samples = [
        Sample(str(n), some_ids(n)[:-3].tolist(), some_ids(n)[-3:].tolist()) for n in (9, 21, 5)
    ]
    collate = RowCollator(packed=True)
    with torch.no_grad(), using_packed(model.get_base_model()):
        _, packed = read_row(model, collate([{"index": 0, "samples": samples}]))
        alone = torch.cat([
            read_row(model, collate([{"index": 0, "samples": [one]}]))[1] for one in samples
        ])  # fmt: skip
    assert error(packed, alone) < 1e-3  # a token's scale is its own


def test_recomputed_activations_give_the_same_gradients() -> None:
    require_same_if_recomputed(lambda: in_eight_bits(rate=0.4))


@pytest.mark.parametrize("targets", [LINEARS, ["o_proj"]])
def test_an_output_may_be_changed_in_place(targets: list[str]) -> None:
    config = hf.OlmoConfig(
        vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, clip_qkv=0.05, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    base = hf.OlmoForCausalLM(config)
    convert(base, ordinary_layers(base))
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets)).train()
    fuse(model)
    assert loss_and_gradients(model, some_ids(2, 9))[1]


def test_training_lowers_the_loss_as_without_it() -> None:
    ids, losses = some_ids(4, 24), []
    for make in (with_adapter, in_eight_bits):
        model = make()
        fuse(model)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
        found = []
        for _ in range(30):
            found.append(loss_and_gradients(model, ids)[0])
            optimizer.step()
        losses.append(found)
    exact, rounded = losses
    assert exact[-1] < exact[0] - 0.25
    assert rounded[-1] == pytest.approx(exact[-1], abs=0.05)


def test_an_adapter_on_it_is_saved_alone(tmp_path: Path) -> None:
    model, reference = in_eight_bits(), with_adapter()
    for one, folder in ((model, tmp_path / "a"), (reference, tmp_path / "b")):
        save_adapter(one, folder, None)
    first, second = ((tmp_path / n / "adapter_model.safetensors").read_bytes() for n in "ab")
    assert first == second


def test_its_weights_are_frozen_bytes_of_one_digest() -> None:
    one, other = in_eight_bits(), in_eight_bits()
    assert digest_of(one) == digest_of(other)
    assert {p.dtype for n, p in one.named_parameters() if n.endswith("base_layer.weight")} == {
        torch.uint8
    }
    assert all("lora_" in n for n, p in one.named_parameters() if p.requires_grad)


def test_which_layers_it_is_for() -> None:
    model = tiny_model("afmoe")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    left = {name for name in linear if ".experts." in name or "router" in name or name == "lm_head"}
    names = ordinary_layers(model)
    assert left
    assert {*names} == {*linear} - left
    odd = nn.Sequential(nn.Linear(64, 40), nn.Linear(40, 32), nn.Linear(32, 16))
    assert convert(odd, ["0", "1", "2"]) == 1
    assert [type(layer) for layer in odd] == [nn.Linear, nn.Linear, EightBit]
    with pytest.raises(UsageError, match="multiples of 16") as caught:
        convert(odd, ["0", "1"], "evaluate.products")
    assert caught.value.message.startswith("evaluate.products: fp8: none of")


@pytest.mark.parametrize("key", ["train.products", "evaluate.products"])
@pytest.mark.parametrize("what", ["is wrong", "fails"])
def test_a_device_that_multiplies_otherwise_is_refused(
    what: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = eight.product

    def wrong(*args: Any) -> torch.Tensor:
        if what == "fails":
            raise RuntimeError("no kernel image\nis available")
        return right(*args) * 1.05

    monkeypatch.setattr(eight, "product", wrong)
    said = r"fails \(no kernel image\)" if what == "fails" else "differs by 0.05"
    with pytest.raises(UsageError, match=said) as raised:
        convert(nn.Sequential(nn.Linear(32, 16)), ["0"], key)
    assert raised.value.message.startswith(f"{key}: fp8: on this device")
    assert f"{key}=null" in raised.value.advice


def test_out_of_memory_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(eight, "product", full)
    with pytest.raises(torch.OutOfMemoryError):
        convert(nn.Sequential(nn.Linear(32, 16)), ["0"])


def on_card() -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no products of 8-bit floats here")


@pytest.mark.gpu
@pytest.mark.parametrize("gradients", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("fast", [False, True])
def test_the_cards_products_are_those_of_float32(
    gradients: torch.dtype, monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> None:
    on_card()
    monkeypatch.setattr(eight, "FAST_SUMS", fast)
    layers = [
        EightBit(nn.Linear(512, size, device="cuda", dtype=torch.bfloat16)) for size in (768, 256)
    ]
    joined = join(layers)
    for tokens in (1, 2, 3, 64, 1000):
        x = drawn(tokens, 512, dtype=torch.bfloat16).cuda()
        rows = quantize(x)
        for layer in layers:
            found = product(rows, layer.by_output, torch.bfloat16)
            assert error(found, plain_product(rows, layer.by_output)) < 0.01
        dys = [
            drawn(tokens, one.out_features, dtype=torch.bfloat16, seed=2).cuda() for one in layers
        ]
        rows = quantize(*dys, dtype=gradients)
        assert error(product(rows, joined, torch.bfloat16), plain_product(rows, joined)) < 0.01


@pytest.mark.gpu
@pytest.mark.parametrize("to", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_kernel_rounds_as_the_plain_form_does(dtype: torch.dtype, to: torch.dtype) -> None:
    on_card()
    sizes = torch.tensor([[1e-12], [1.0], [3e4], [0.0], [1e-4]]).repeat(9, 1)
    for widths in ([16], [640], [11008], [22016], [4096, 1024, 1024], [11008, 11008], [48, 16, 4112, 32]):  # fmt: skip
        parts = [
            (drawn(45, n, seed=i) * sizes).clamp(-6e4, 6e4).to(dtype).cuda()
            for i, n in enumerate(widths)
        ]
        require_rounded(parts, to)
    whole = drawn(64, 320, dtype=dtype).cuda()
    require_rounded([whole[:, 16:80], whole[:, 80:], whole[:, :7]], to)
    require_rounded([whole.T], to)
    require_rounded([whole[:1].expand(64, 320), whole[:, :1].expand(64, 48)], to)
    require_rounded([whole[:0]], to)
    for row, bad in enumerate((float("nan"), float("inf"), -float("inf"), 448.0, 449.0, 57345.0)):
        whole[row, 200] = bad
    require_rounded([whole], to)
    assert not quantize(whole, dtype=to).scale[:3].isfinite().any()


def require_rounded(parts: list[torch.Tensor], to: torch.dtype) -> None:
    """Require the kernel's bits to be those of the plain form, on the card and on the processor."""
    values, scale = quantize(*parts, dtype=to)
    for plain in (parts, [part.cpu() for part in parts]):
        expected = eight.quantized_plainly(plain, to)
        torch.testing.assert_close(scale.cpu(), expected.scale.cpu(), rtol=0, atol=0)
        torch.testing.assert_close(
            values.cpu().float(), expected.values.cpu().float(), rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.gpu
@pytest.mark.parametrize("recompute", [False, True])
def test_adapters_on_it_on_a_card(monkeypatch: pytest.MonkeyPatch, *, recompute: bool) -> None:
    on_card()
    ids = some_ids(2, 64)
    with monkeypatch.context() as patch:  # not every torch has these products on a processor
        patch.setattr(eight, "product", lambda a, b, dtype: plain_product(a, b).to(dtype))
        model = in_eight_bits()
        fuse(model)
        expected, wanted = loss_and_gradients(model, ids)
    base = tiny_model("llama")
    base.load_state_dict(tiny_model_of(with_adapter()))
    base.to("cuda", torch.bfloat16)
    convert(base, ordinary_layers(base))
    card = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS)).train()
    for name, parameter in card.named_parameters():
        if "lora_" in name:
            parameter.data = model.get_parameter(name).data.cuda()
    fuse(card)
    if recompute:
        card.gradient_checkpointing_enable({"use_reentrant": False})
    losses = []
    optimizer = torch.optim.AdamW([p for p in card.parameters() if p.requires_grad], lr=2e-2)
    for step in range(30):
        with torch.autocast("cuda", torch.bfloat16):
            found, gradients = loss_and_gradients(card, ids.cuda())
        if step == 0:
            assert found == pytest.approx(expected, rel=1e-2)
            together = [
                torch.cat([g[n].flatten().cpu() for n in wanted]) for g in (gradients, wanted)
            ]
            assert error(*together) < 0.15
        losses.append(found)
        optimizer.step()
    assert losses[-1] < losses[0] - 0.25


@pytest.mark.gpu
def test_weights_that_stay_in_nf4_on_a_card() -> None:
    on_card()
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    layers = [nn.Linear(512, size, device="cuda", dtype=torch.bfloat16) for size in (768, 256)]
    stay, kept = packed_twice(layers)
    made, whole = beside(stay), join(kept)
    assert torch.equal(made.values.float(), whole.values.float())
    assert torch.equal(made.scale, whole.scale)
    x = drawn(64, 512, dtype=torch.bfloat16).cuda().requires_grad_()
    for one, other in zip(stay, kept, strict=True):
        assert torch.equal(one(x), other(x))
        gradients = [torch.autograd.grad(which(x).sum(), x)[0] for which in (one, other)]
        assert torch.equal(*gradients)
