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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ragtune.model.fast import dropout as masks

_ADAPTER = "default"


class Group:
    """LoRA layers that are always given the same input.

    What they are made of is looked up once: in a step of a large model Python's own time is felt.
    """

    def __init__(self, layers: list[Any], rate: float) -> None:
        self.layers = layers
        self.rate = rate
        self.scale = float(layers[0].scaling[_ADAPTER])
        self.bases = [layer.get_base_layer() for layer in layers]
        pairs = [(layer.lora_A[_ADAPTER], layer.lora_B[_ADAPTER]) for layer in layers]
        self.parameters = [module.weight for pair in pairs for module in pair]
        self.ranks = [a.weight.shape[0] for a, _ in pairs]
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
            return Group([self.layers[index]], self.rate).call(0, x)
        rate = self.rate if self.layers[0].training else 0.0
        first, *rest = _LoraFunction.apply(x, self, rate, *self.parameters)  # type: ignore[no-untyped-call]
        self.waiting = [(x, output) for output in rest]
        return first  # type: ignore[no-any-return]


class _LoraFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, group: Group, rate: float, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        dtype = _compute_dtype(x)
        # The dropout masks are drawn in the order of memory, which must be that of the backward pass.
        given = x.to(dtype).contiguous()
        flat = given.view(-1, x.shape[-1])
        a = torch.cat(parameters[::2]).to(dtype)
        seed = masks.new_seed() if rate else 0
        dropped = masks.dropout(flat, rate, seed) if rate else flat
        low = _scaled_product(dropped, a.T, group.scale)
        del dropped
        outputs = []
        parts = torch.split(low, group.ranks, dim=1)  # type: ignore[no-untyped-call]
        for base, b, part in zip(group.bases, parameters[1::2], parts, strict=True):
            y = nn.functional.linear(given, _weight(base, dtype), _bias(base, dtype))
            y.view(-1, y.shape[-1]).addmm_(part, b.to(dtype).T)
            outputs.append(y)  # no view: some models change it in place
        ctx.save_for_backward(flat, low, *parameters)
        ctx.group, ctx.rate, ctx.seed, ctx.shape, ctx.dtype = group, rate, seed, x.shape, x.dtype
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        flat, low, *parameters = ctx.saved_tensors
        group: Group = ctx.group
        dtype = flat.dtype
        low_gradient = torch.empty_like(low)
        x_gradient: Tensor | None = None
        b_gradients = []
        for base, b, part, low_part, gradient in zip(
            group.bases,
            parameters[1::2],
            torch.split(low, group.ranks, dim=1),  # type: ignore[no-untyped-call]
            torch.split(low_gradient, group.ranks, dim=1),  # type: ignore[no-untyped-call]
            gradients,
            strict=True,
        ):
            dy = gradient.reshape(-1, gradient.shape[-1]).to(dtype)
            torch.mm(dy, b.to(dtype), out=low_part)
            b_gradients.append((dy.T @ part).to(b.dtype))
            if ctx.needs_input_grad[0]:
                weight = _weight(base, dtype)
                if x_gradient is None:
                    x_gradient = dy @ weight
                else:
                    x_gradient.addmm_(dy, weight)
            del dy
        dropped = masks.dropout(flat, ctx.rate, ctx.seed) if ctx.rate else flat
        a_gradient = _scaled_product(low_gradient.T, dropped, group.scale).to(parameters[0].dtype)
        del dropped
        if x_gradient is not None:
            a = torch.cat(parameters[::2]).to(dtype)
            if ctx.rate:
                product = _scaled_product(low_gradient, a, group.scale)
                masks.add_dropped(x_gradient, product, ctx.rate, ctx.seed)
            else:
                x_gradient.addmm_(low_gradient, a, alpha=group.scale)
            x_gradient = x_gradient.view(ctx.shape).to(ctx.dtype)
        a_gradients = torch.split(a_gradient, group.ranks)  # type: ignore[no-untyped-call]
        pairs = zip(a_gradients, b_gradients, strict=True)
        return (x_gradient, None, None, *(gradient for pair in pairs for gradient in pair))


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Scale · a b, scaled inside the product."""
    nothing = torch.empty((), dtype=a.dtype, device=a.device)
    return torch.addmm(nothing, a, b, beta=0, alpha=scale)


def _compute_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _weight(base: Any, dtype: torch.dtype) -> Tensor:
    """A base layer's weight [out, in]; one in NF4 is dequantised for this use."""
    # bitsandbytes' name: tested by tests/model/test_fused.py (GPU) against PEFT's own layer.
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        weight: Tensor = base.weight
    else:
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(base.weight.data, state)
    return weight.to(dtype)


def _bias(base: Any, dtype: torch.dtype) -> Tensor | None:
    return None if base.bias is None else base.bias.to(dtype)


def fuse(model: Any) -> int:
    """Let the LoRA layers of a PEFT model compute as described above; returns how many do.

    Layers of other kinds (convolutions, experts, DoRA) keep PEFT's way. Which layers share an input
    is observed on a short row, so no architecture is named here.
    """
    calls: list[tuple[str, Any, Tensor | None]] = []
    names = {module: name for name, module in model.named_modules() if _can_fuse(module)}
    hooks = [
        module.register_forward_pre_hook(
            lambda module, args: calls.append((names[module], module, args[0] if args else None))
        )
        for module in names
    ]
    training = model.training
    model.eval()
    device = model.get_input_embeddings().weight.device
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros((1, 3), dtype=torch.long, device=device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    counts: dict[Any, int] = {}
    for _, module, _ in calls:
        counts[module] = counts.get(module, 0) + 1
    groups: list[tuple[str, Tensor | None, list[Any]]] = []
    for name, module, x in calls:
        if counts[module] > 1 or x is None:  # used twice, or called in a way of its own
            continue
        parent = name.rpartition(".")[0]
        same = groups and groups[-1][0] == parent and groups[-1][1] is x
        if same and groups[-1][2][0].scaling[_ADAPTER] == module.scaling[_ADAPTER]:
            groups[-1][2].append(module)
        else:
            groups.append((parent, x, [module]))
    for _, _, layers in groups:
        rate = {float(getattr(layer.lora_dropout[_ADAPTER], "p", 0.0)) for layer in layers}
        group = Group(layers, rate.pop())
        for index, layer in enumerate(layers):
            layer.forward = _Forward(group, index)
    return sum(len(layers) for _, _, layers in groups)


@dataclass(eq=False)
class _Forward:
    """A fused layer's forward."""

    group: Group
    index: int

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self.group.layers[self.index]
        if layer.disable_adapters or layer.merged:
            output: Tensor = type(layer).forward(layer, x, *args, **kwargs)
            return output
        return self.group.call(self.index, x)


def forget(model: Any) -> None:
    """Drop what a forward pass that was cut off has left for layers that were not reached.

    It would keep that pass's whole graph, and with it the memory that ran out.
    """
    for module in model.modules():
        if isinstance(module.forward, _Forward):
            module.forward.group.waiting.clear()


def _can_fuse(module: Any) -> bool:
    from peft.tuners.lora import LoraLayer

    # Which classes compute as above: tested by tests/model/test_fused.py against PEFT's own layers.
    return (
        isinstance(module, LoraLayer)
        # A layer that PEFT reaches by its weight has the matrices of one that it reaches by its name.
        and type(module).__name__ in ("Linear", "Linear4bit", "ParamWrapper")
        and type(module.get_base_layer()).__name__ in ("Linear", "Linear4bit")
        and list(module.active_adapters) == [_ADAPTER]
        and _ADAPTER in module.lora_A
        and not module.lora_variant
        and not any(module.lora_bias.values())
        and not getattr(module, "fan_in_fan_out", False)
    )
