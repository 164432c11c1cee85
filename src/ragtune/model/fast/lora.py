"""LoRA layers without their waste.

PEFT's LoRA layer casts its input to the adapter's float32, draws a dropout copy for each layer, and
lets autograd keep all of it. Here the layers that read the same input (q, k and v; gate and up) are
one autograd function: it keeps the input once, in the base's dtype, computes their low-rank products
together, adds into the base's product in place, and draws the dropout mask again in the backward
pass instead of keeping it. The values are PEFT's but for rounding; with dropout, layers that share
an input share its mask.

With x [T, in], W [out, in], A [r, in], B [out, r], scale s and dropout d:
    y = x Wᵀ + s·d(x) Aᵀ Bᵀ
    ∂B = s·∂yᵀ (d(x) Aᵀ),  ∂A = (s·∂y B)ᵀ d(x),  ∂x = ∂y W + d'(s·∂y B A)
(Hu et al. 2021, https://arxiv.org/abs/2106.09685.)
Where the bases' products are in 8 bits (`eight.py`), x is rounded once for all of them, and the sum over
layers of ∂y W is one product.

Axes in names: T tokens, I and O numbers in and out of a layer, R ranks of a layer, Q ranks of all
layers of a group; ∂ is written d.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from ragtune.model.fast.attention import evaluating
from ragtune.model.fast.dropout import Draw, Dropout, add_dropped, dropout
from ragtune.model.fast.eight import (
    EightBit,
    PackedEightBit,
    compute_dtype,
    joined,
    quantize,
    rounds,
    shaped_like,
)
from ragtune.model.wrapping import ADAPTER


@dataclass(frozen=True, eq=False)
class Matrices:
    """An adapter's, of a group's layers, in the dtype of their products."""

    a: Tensor
    """[Q, I], of all layers."""
    b: Sequence[Tensor]
    """[O, R] of each layer."""

    @classmethod
    def of(cls, parameters: Sequence[Tensor], dtype: torch.dtype) -> Matrices:
        """What A and B of one layer after the other are in a dtype."""
        a_QI = torch.cat([*parameters[::2]]).to(dtype)
        return cls(a_QI, [b_OR.to(dtype) for b_OR in parameters[1::2]])


class Group:
    """LoRA layers that are always given the same input.

    What they are made of is looked up once: in a step of a large model Python's own time is felt.
    """

    def __init__(self, layers: list[LoraLayer]) -> None:
        self.layers = layers
        self.dropout = layers[0].lora_dropout[ADAPTER]
        self.scale = float(layers[0].scaling[ADAPTER])
        self.bases: list[nn.Linear] = [layer.get_base_layer() for layer in layers]
        pairs = [(layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]) for layer in layers]
        self.parameters = [module.weight for pair in pairs for module in pair]
        self.ranks = [a.weight.shape[0] for a, _ in pairs]
        self.eight = [base for base in self.bases if isinstance(base, EightBit)]
        self.to_input = joined(self.eight) if self.eight else None
        """Gives what the bases make of gradients where products are in 8 bits: those of all, or none."""
        self.rounded: Matrices | None = None
        """As they were when a step, or answering, began (`model/rounded.py`)."""
        self.waiting: list[tuple[Tensor, Tensor]] = []
        """(input, output) of the layers that are yet to be called, in their order."""

    def call(self, index: int, x: Tensor) -> Tensor:
        """The output of a layer; the first layer's call computes all of them."""
        if index > 0:
            if len(self.waiting) == len(self.layers) - index:
                given, output = self.waiting.pop(0)
                if given is x:
                    return output
            # Out of order, or with another input: on its own.
            self.waiting.clear()
            return Group([self.layers[index]]).call(0, x)
        first, *rest = _LoraFunction.apply(x, self, *self._drawn(), *self.parameters)  # type: ignore[no-untyped-call]
        self.waiting = [(x, output) for output in rest]
        return first  # type: ignore[no-any-return]

    def matrices(self, dtype: torch.dtype) -> Matrices:
        """The adapter's matrices in a dtype."""
        if self.rounded and self.rounded.a.dtype == dtype:
            return self.rounded
        return Matrices.of(self.parameters, dtype)

    def products(self, x: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
        """What each base makes of their input, which is in that dtype; in 8 bits it is rounded once."""
        if self.eight and rounds():
            x_TI = quantize(x.view(-1, x.shape[-1]))
            for eight in self.eight:
                yield shaped_like(x, eight.product(x_TI, dtype))
            return
        for base in self.bases:
            bias_O = None if base.bias is None else base.bias.to(dtype)
            yield nn.functional.linear(x, _weight(base, dtype), bias_O)

    def _drawn(self) -> tuple[float, Draw | None]:
        """The rate of dropout, and what is drawn for it; nothing where answers are made."""
        rate = float(getattr(self.dropout, "p", 0.0))
        if not rate or not self.layers[0].training:
            return 0.0, None
        assert isinstance(self.dropout, Dropout), "Masks.take_over comes before training"
        return rate, self.dropout.masks.of(self.dropout.number)


class _Context(torch.autograd.function.FunctionCtx):
    """What a forward pass leaves for its backward pass."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    group: Group
    rate: float
    draw: Draw | None
    shape: torch.Size
    dtype: torch.dtype


class _LoraFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, x: Tensor, group: Group, rate: float, draw: Draw | None, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        dtype = compute_dtype(x)
        # Masks are drawn for tokens in the order of memory.
        given = x.to(dtype).contiguous()
        x_TI = given.view(-1, x.shape[-1])
        matrices = group.matrices(dtype)
        dropped_TI = dropout(x_TI, rate, draw) if draw else x_TI
        low_TQ = _scaled_product(dropped_TI, matrices.a.T, group.scale)
        del dropped_TI
        outputs = []
        parts = low_TQ.split_with_sizes(group.ranks, 1)
        products = group.products(given, dtype)
        for y, b_OR, low_TR in zip(products, matrices.b, parts, strict=True):
            y.view(-1, y.shape[-1]).addmm_(low_TR, b_OR.T)
            outputs.append(y)  # no view: some models change it in place
        ctx.save_for_backward(x_TI, low_TQ, *parameters)
        ctx.group, ctx.rate, ctx.draw, ctx.shape, ctx.dtype = group, rate, draw, x.shape, x.dtype
        return tuple(outputs)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_TI, low_TQ, *parameters = ctx.saved_tensors
        group = ctx.group
        dtype, learned = x_TI.dtype, parameters[0].dtype
        matrices = group.matrices(dtype)
        dlow_TQ = torch.empty_like(low_TQ)
        dx_TI: Tensor | None = None
        b_gradients = []
        for base, b_OR, low_TR, dlow_TR, gradient in zip(
            group.bases,
            matrices.b,
            low_TQ.split_with_sizes(group.ranks, 1),
            dlow_TQ.split_with_sizes(group.ranks, 1),
            gradients,
            strict=True,
        ):
            dy_TO = gradient.reshape(-1, gradient.shape[-1]).to(dtype)
            _scaled_product(dy_TO, b_OR, group.scale, out=dlow_TR)
            b_gradients.append(_product(dy_TO.T, low_TR, learned))
            if ctx.needs_input_grad[0] and group.to_input is None:
                weight_OI = _weight(base, dtype)
                if dx_TI is None:
                    dx_TI = dy_TO @ weight_OI
                else:
                    dx_TI.addmm_(dy_TO, weight_OI)
            del dy_TO
        if ctx.needs_input_grad[0] and group.to_input is not None:
            flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
            dx_TI = group.to_input(flat, dtype)
        dropped_TI = dropout(x_TI, ctx.rate, ctx.draw) if ctx.draw else x_TI
        da_QI = _product(dlow_TQ.T, dropped_TI, learned)
        del dropped_TI
        dx: Tensor | None = None
        if dx_TI is not None:
            if ctx.draw:
                add_dropped(dx_TI, dlow_TQ @ matrices.a, ctx.rate, ctx.draw)
            else:
                dx_TI.addmm_(dlow_TQ, matrices.a)
            dx = dx_TI.view(ctx.shape).to(ctx.dtype)
        a_gradients = da_QI.split_with_sizes(group.ranks)
        pairs = zip(a_gradients, b_gradients, strict=True)
        return (dx, None, None, None, *(gradient for pair in pairs for gradient in pair))


def _scaled_product(a: Tensor, b: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """Scale · a b, scaled inside the product."""
    nothing = torch.empty((), dtype=a.dtype, device=a.device)
    return torch.addmm(nothing, a, b, beta=0, alpha=scale, out=out)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """What a b is, in a dtype: a GPU sums in float32, and need not round to 16 bits in between."""
    if a.is_cuda and dtype == torch.float32 != a.dtype:
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


def _weight(base: nn.Linear, dtype: torch.dtype) -> Tensor:
    """A base layer's weight [O, I]; one in NF4, or in 8 bits, is dequantised for this use."""
    if isinstance(base, EightBit):
        return base.dequantized(dtype)
    state = _state(base)
    if state is None:
        return base.weight.to(dtype)
    from bitsandbytes.functional import dequantize_4bit  # noqa: PLC0415 - an extra

    weight: Tensor = dequantize_4bit(base.weight.data, state)
    return weight.to(dtype)


def is_packed(base: nn.Linear) -> bool:
    """Whether a base layer's weight is dequantised at every use."""
    return isinstance(base, PackedEightBit) or _state(base) is not None


def _state(base: nn.Linear) -> object | None:
    """How bitsandbytes has quantised a layer's weight; None where it has not."""
    # Its name: tested by tests/model/fast/test_lora.py (GPU) against PEFT's own layer.
    # A weight that is spread is another object in each pass: its layer knows.
    return getattr(base.weight, "quant_state", None) or getattr(base, "quant_state", None)


def fuse(model: PeftModel) -> int:
    """Let the LoRA layers of a PEFT model compute as described above; returns how many do.

    Layers of other kinds (convolutions, experts, DoRA) keep PEFT's way. Which layers share an input
    is observed on a short row, so no architecture is named here.
    """
    parents = {m: n.rpartition(".")[0] for n, m in model.named_modules() if _can_fuse(m)}
    calls: list[tuple[LoraLayer, Tensor | None]] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, args: calls.append((layer, args[0] if args else None))
        )
        for layer in parents
    ]
    device = model.get_input_embeddings().weight.device
    try:
        with evaluating(model):
            model(input_ids=torch.zeros((1, 3), dtype=torch.long, device=device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    counts = Counter(layer for layer, _ in calls)
    # Not those that are used twice, or called in a way of their own.
    usable = [(layer, x) for layer, x in calls if counts[layer] == 1 and x is not None]
    for _, same in groupby(usable, lambda c: (parents[c[0]], id(c[1]), *_kind(c[0]))):
        layers = [layer for layer, _ in same]
        group = Group(layers)
        for index, layer in enumerate(layers):
            layer.forward = _Forward(group, index)
    return len(usable)


def _kind(layer: LoraLayer) -> tuple[float, bool]:
    """What layers of a group have in common beside their input."""
    return layer.scaling[ADAPTER], isinstance(layer.get_base_layer(), EightBit)


@dataclass(eq=False)
class _Forward:
    """A fused layer's forward."""

    group: Group
    index: int

    def __call__(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        layer = self.group.layers[self.index]
        if layer.disable_adapters or layer.merged:
            output: Tensor = type(layer).forward(layer, x, *args, **kwargs)
            return output
        return self.group.call(self.index, x)


def groups_of(model: nn.Module) -> list[Group]:
    """Those of a model's fused layers."""
    fused = [m.forward.group for m in model.modules() if isinstance(m.forward, _Forward)]
    return [*dict.fromkeys(fused)]


def drop_waiting(model: nn.Module) -> None:
    """Drop what a forward pass that was cut off has left for layers that were not reached.

    It would keep that pass's whole graph, and with it the memory that ran out.
    """
    for module in model.modules():
        if isinstance(module.forward, _Forward):
            module.forward.group.waiting.clear()


def _can_fuse(module: nn.Module) -> bool:
    # Which classes compute as above: tested by tests/model/fast/test_lora.py against PEFT's own layers.
    return (
        isinstance(module, LoraLayer)
        # A layer that PEFT reaches by its weight has the matrices of one that it reaches by its name.
        and type(module).__name__ in ("Linear", "Linear4bit", "ParamWrapper")
        and type(module.get_base_layer()).__name__
        in ("Linear", "Linear4bit", "EightBit", "PackedEightBit")
        and list(module.active_adapters) == [ADAPTER]
        and ADAPTER in module.lora_A
        and not module.lora_variant
        and not any(module.lora_bias.values())
        and not getattr(module, "fan_in_fan_out", False)
    )
