"""What a run takes of a GPU's memory: predicted from the model's shape, before anything is loaded.

The formulas were checked against measured peaks (tests/model/test_memory.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from ragtune.model.fast.eight import AT_A_TIME
from ragtune.model.hardware import Hardware, gpu_memory
from ragtune.model.quantized import SCALE_BYTES
from ragtune.model.skeleton import is_linear, parameters_of, skeleton
from ragtune.model.targets import Targets, find_targets
from ragtune.recipe.schema import Recipe

PREFILL_TOKENS = 8_192
"""Prompts of an evaluation are read in rows of about so many tokens, of a 7B model."""
MOST_PREFILL_TOKENS = 65_536
"""The same of a small one, at most. Reasoned, not measured: what is read should not crowd out the cache."""
CPU_PREFILL_TOKENS = 2_048
"""The same on a CPU, whose caches longer rows don't fit (SmolLM2-135M on an AMD EPYC, 5,605 tokens: 9.6 s of
processor time by 8,192, 8.4 s by 2,048, 8.9 s by 1,024, 9.9 s by 256)."""

NF4_BYTES = 0.5 + SCALE_BYTES
"""Of a weight in NF4, with its scale."""
HALF = 2
"""Bytes of a number of 16 bits."""
LITTLE = 0.02
"""Of a GPU's memory, what may be taken only to save time."""
NCCL_BYTES = 2**30
"""What NCCL takes on each of several GPUs, outside of torch's memory: up to 32 channels, each with buffers
of 10 MiB for each of three neighbours in rings and trees (NVIDIA/nccl, issue 1685). Not measured here."""


def row_tokens(usual: int, parameters: int) -> int:
    """Tokens of a row that has `usual` ones of a 7B model: more of a smaller one.

    Whatever a model's size, a row takes Python as long, and a GPU waits for it. Of Gemma 3 270M's shape rows
    of 16,800 tokens instead of 8,400 were measured in training (bench/results/small-h200.json: 226,870 tokens
    a second instead of 192,592). That a row may be longer in proportion is reasoned from that.

    Args:
        usual: tokens.
        parameters: of the model, as `parameters_of` counts them.
    """
    return max(usual, usual * 6_500_000_000 // max(1, parameters))


def prefill_tokens(parameters: int) -> int:
    """Tokens of prompts that a GPU reads in a row."""
    return min(row_tokens(PREFILL_TOKENS, parameters), MOST_PREFILL_TOKENS)


@dataclass(frozen=True)
class Shape:
    """What memory depends on in a model: parameters, and sizes of one of its layers."""

    linear: int
    """Parameters of the linear layers, which NF4 quantises."""
    largest_linear: int
    other: int
    """The other parameters: embeddings, output layer, norms."""
    trained: int
    """Parameters of the adapter, or all of them."""
    experts: int
    """Parameters of the experts that have an adapter, which makes a copy of them."""
    largest_experts: int
    """Of one tensor of them."""
    by_weight: bool
    """Whether PEFT adapts layers by their weights, which then can't be packed in 4 bits."""
    routed: int
    """Experts that a token goes to; 0 without experts."""
    rank: int
    """0 without an adapter: all weights are trained."""
    adapted: int
    """Layers with an adapter, in one block."""
    more_norms: int
    """Numbers of a token that go into a layer's norms beside the usual two, as those of queries and keys."""
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        return self.linear + self.other

    @classmethod
    def of(cls, config: PreTrainedConfig, recipe: Recipe) -> Shape:
        """Of a configuration and of what the recipe trains; no weights are made.

        Raises:
            UsageError: it is no causal language model.
        """
        model = skeleton(config)
        text = config.get_text_config()
        head = model.get_output_embeddings()
        every = parameters_of(model)
        targets = Targets((), trained=every) if recipe.full else find_targets(config, recipe.lora)
        sizes = [m.weight.numel() for m in model.modules() if m is not head and is_linear(m)] or [0]
        experts = [model.get_parameter(name).numel() for name in targets.experts]
        hidden = _number(text, "hidden_size", 1024)
        layers = _number(text, "num_hidden_layers", 32)
        heads = _number(text, "num_attention_heads", max(1, hidden // 128))
        kv_heads = _number(text, "num_key_value_heads", heads)
        head_dim = _number(text, "head_dim", hidden // heads)
        normed = sum(
            norm.numel() * (1 if norm.numel() != head_dim else kv_heads if ".k_" in name else heads)
            for name, norm in model.named_parameters()
            if norm.dim() == 1 and "norm" in name
        )
        return cls(
            linear=sum(sizes),
            largest_linear=max(sizes),
            other=every - sum(sizes),
            trained=targets.trained,
            experts=sum(experts),
            largest_experts=max(experts, default=0),
            by_weight=bool(targets.by_weight),
            routed=_routed(text),
            rank=0 if recipe.full else recipe.lora.saved_rank,
            adapted=math.ceil(len(targets.layers) / layers),
            more_norms=max(0, (normed - hidden) // layers - 2 * hidden),
            layers=layers,
            hidden=hidden,
            inner=_inner(text, hidden),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocabulary=_number(text, "vocab_size", 1),
        )


def _inner(config: PreTrainedConfig, hidden: int) -> int:
    """Numbers between the two halves of a layer's MLP, for a token: of all experts that it goes to."""
    dense = _number(config, "intermediate_size", 4 * hidden)
    expert, routed = _number(config, "moe_intermediate_size", 0), _routed(config)
    return max(dense, routed * (expert or dense)) if routed else dense


def _routed(config: PreTrainedConfig) -> int:
    """Experts that a token goes to, by the families' names for it; 0 without."""
    # Tested by the peaks of five mixtures. Of one that calls it otherwise the plan counts less than it takes.
    names = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k")
    return max(_number(config, name, 0) for name in names)


def _number(config: PreTrainedConfig, name: str, default: int) -> int:
    """A size in a configuration: the largest, if layers differ; the default where it has none."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # transformers refuses what differs from layer to layer
        value = None
    if isinstance(value, (list, tuple)):
        value = max((v for v in value if isinstance(v, int)), default=None)
    return int(value) if value else default


@dataclass(frozen=True)
class Estimate:
    """Bytes that a run takes on a GPU, under some choices."""

    shape: Shape
    width: int
    """Bytes of a number in the base's dtype."""
    nf4: bool
    dequantized: bool
    recompute: bool
    dropout: bool
    optimizer: str
    fused_kernels: bool
    averaged: bool = False
    nf4_bytes: float = NF4_BYTES
    """Bytes of a weight of the linear layers in NF4, or of those of a base that comes quantised."""
    fp8: bool = False
    """Whether products of the linear layers' weights are in 8 bits, to train or to answer. Unless they stay
    packed, they are then kept in two layouts; otherwise in the dtype, which takes as much."""
    shares: int = 1
    """GPUs that the weights are spread over."""
    memory: float = 0.0
    """Bytes that there are, where it is known."""

    @property
    def weights(self) -> float:
        """What the weights take; spread ones with what is gathered of them at a time."""
        s = self.shape
        packed = self.packed
        linear = self.nf4_bytes if packed else 2 if self.fp8 else self.width
        whole = s.linear * linear + s.other * self.width
        if self.shares == 1:
            return whole
        if packed:  # the scales stay whole
            linear -= SCALE_BYTES
            whole += (self.shares - 1) * s.linear * SCALE_BYTES
        # What is outside of the layers, a layer, what arrives for the next, and what did for the last one.
        return whole / self.shares + s.other * self.width + 3 * s.linear * linear / s.layers

    @property
    def packed(self) -> bool:
        """Whether weights are dequantised at every use."""
        return self.nf4 and not self.dequantized

    @property
    def adapter(self) -> float:
        return self.shape.trained * 4

    @property
    def rounded(self) -> float:
        """The adapter in the dtype of its products, while it is trained or answers; see `rounded.py`."""
        found = self.shape.trained * HALF
        half = self.shape.rank > 0 and self.width == HALF and not self.packed
        return found if half and found <= LITTLE * self.memory else 0.0

    @property
    def gradients(self) -> float:
        return self.shape.trained * 4

    @property
    def moments(self) -> float:
        """AdamW's two moments, and the weights' mean; paged moments leave the GPU when others need the room."""
        mean = 4 if self.averaged else 0
        return self.shape.trained * ({"adamw": 8, "adamw_8bit": 2}.get(self.optimizer, 0) + mean)

    @property
    def layer(self) -> float:
        """Bytes that a token keeps of one layer for the backward pass.

        Inputs of the two norms and their outputs, which the adapters read; q, k, v and the result of
        attention; gate, up and their product; the low-rank products. Without fused kernels the
        norms and the activation function keep more, about 12 kB of a 7B Llama (measured).
        """
        s = self.shape
        attention = 4 * s.heads * s.head_dim
        numbers = 4 * s.hidden + attention + 3 * s.inner + s.adapted * s.rank + s.more_norms
        # Each token is copied for every expert that it goes to, and so is what comes back.
        numbers += 2 * s.routed * s.hidden
        extra = 0 if self.fused_kernels else 3 * s.hidden
        if s.rank == 0:  # norms in float32 give float32, of which products keep copies
            extra += 4 * s.hidden * 4
        return numbers * self.width + 4 * s.heads + extra

    def activations(self, tokens: int) -> float:
        """What a row keeps until the backward pass: all layers, or the layers' inputs alone."""
        s = self.shape
        kept = s.hidden * self.width if self.recompute else self.layer
        # PEFT adds an expert's update to a copy of its weights, which the backward pass needs.
        copies = 0 if self.recompute else s.experts * self.width
        last = s.hidden * self.width  # the input of the last norm
        return tokens * (s.layers * kept + last) + copies

    def working(self, tokens: int, trained: int) -> float:
        """What is needed beside for a while: for the loss first, then for a layer's backward pass.

        The loss has the logits of the trained tokens in three forms at a time, in float32. A layer
        has gradients, copies that live briefly and, recomputed, its activations.
        """
        s = self.shape
        loss = trained * s.vocabulary * 12
        copies = 2 * s.inner if self.dropout else s.inner
        copies += 2 * s.routed * s.hidden
        again = self.layer if self.recompute else 0
        weight: float = s.largest_linear * self.width if self.packed else 0
        # The gradients for gate and up beside each other, a byte a number.
        eighths = 2.0 * s.inner if self.fp8 else 0.0
        if self.fp8 and self.packed:
            # Both weights in the dtype, to be rounded; then these beside gradients of some tokens.
            weight = s.largest_linear * max(6, 2 + AT_A_TIME * eighths / s.largest_linear)
            eighths = 0.0
        # The gradient of a copy of the experts' weights, and recomputed, that copy.
        weight += s.largest_experts * self.width * (2 if self.recompute else 1)
        return max(loss, tokens * (again + eighths + (copies + s.hidden) * self.width) + weight)

    def training(self, tokens: int, trained: int, rows: int) -> float:
        """The peak of training with rows of so many tokens, `trained` of them, so many rows a step.

        A step of one row has no gradients yet when its activations are at their peak.
        """
        fixed = self.weights + self.adapter + self.rounded + self.moments
        backward = self.activations(tokens) + self.working(tokens, trained)
        if rows > 1:
            backward += self.gradients
        # The optimizer has the gradients and a copy of them, in one piece.
        return fixed + max(backward, 2 * self.gradients)

    @property
    def cached_token(self) -> float:
        """Keys and values of one token of an answer or its prompt."""
        s = self.shape
        return 2 * s.layers * s.kv_heads * s.head_dim * self.width

    def evaluation(self, cached: int, questions: int) -> float:
        """The peak of an evaluation with so many tokens in the cache."""
        s = self.shape
        row = min(cached, prefill_tokens(s.parameters))
        reading = row * (3 * s.inner + 4 * s.hidden) * self.width
        reading += row * s.inner if self.fp8 else 0
        # Between the steps of a training in 8 bits it is rounded, too.
        weight = s.largest_linear * (self.width + self.fp8) if self.packed else 0
        logits = questions * s.vocabulary * 10
        copies = 2 * s.largest_experts * self.width
        # A whole model is asked in the dtype of the run.
        fixed = self.weights + (self.adapter + self.rounded if s.rank else 0) + copies
        return fixed + cached * self.cached_token + reading + weight + logits


def available(hardware: Hardware) -> int:
    """Bytes that each process of a run may have on its GPU, what this one has already included.

    Of GPUs that share the work the smallest counts, as if as much of it were in use as of this one's: to
    ask another GPU what is free takes some of it. On each there are NCCL's buffers, too.
    """
    device = hardware.device
    others = total_of(device) - smallest(hardware) + NCCL_BYTES * (len(hardware.gpus) > 1)
    return gpu_memory(device) - others


def smallest(hardware: Hardware) -> int:
    """Bytes of the smallest of the GPUs that share the work."""
    return min([total_of(hardware.device), *(gpu.memory for gpu in hardware.gpus)])


def total_of(device: torch.device) -> int:
    """Bytes of a GPU."""
    return int(torch.cuda.get_device_properties(device).total_memory)
