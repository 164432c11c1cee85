"""Liger's kernels for a model's norms, rotary embedding and gated activation; the losses are our own."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel

from ragtune.model.experts import mixtures
from ragtune.model.fast.norm import lighten_norms
from ragtune.model.skeleton import language_model

Rotary = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def has_liger(config: PreTrainedConfig) -> bool:
    """Whether Liger's norm, rotary embedding and gated activation are there for a model's family."""
    if importlib.util.find_spec("liger_kernel") is None:
        return False
    from liger_kernel.transformers.monkey_patch import (  # noqa: PLC0415 - an extra
        MODEL_TYPE_TO_APPLY_LIGER_FN,
    )

    # Liger's own table. Tested on the model: the probes before answers compare what its kernels compute in
    # packed rows and from the cache.
    return config.model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


def fuse_kernels(model: PreTrainedModel) -> None:
    """Let Liger's kernels do what they can for a model's family."""
    # When a kernel is first used, Liger warns of each of its other forms, for other hardware, that isn't there.
    logging.getLogger("liger_kernel.backends").setLevel(logging.ERROR)
    family = sys.modules[type(model).__module__]
    before = dict(vars(family))
    losses = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    # Liger's experts tune their kernels for minutes when they are first used (on an H100).
    dense = not mixtures(language_model(model)[1], "")
    kernels = {"rope": True, "rms_norm": True, "swiglu": dense, "geglu": dense}
    try:
        apply_liger_kernel(model, kernels | losses)
    except NotImplementedError:  # of some families Liger knows no rotary embedding
        apply_liger_kernel(model, kernels | losses | {"rope": False})
    # Liger also changes the family's module, for every later model of the process; and its kernels
    # don't run on a CPU.
    for name, changed in list(vars(family).items()):
        original = before.get(name)
        if isinstance(original, type):
            setattr(family, name, original)
        elif original is not changed and callable(original):
            kernel = _rotary(changed) if name == "apply_rotary_pos_emb" else changed
            setattr(family, name, _on_cuda(kernel, original))
    lighten_norms(model)


def _on_cuda(kernel: Callable[..., object], plain: Callable[..., object]) -> Callable[..., object]:
    def choose(first: torch.Tensor, *rest: object, **named: object) -> object:
        return (kernel if first.is_cuda else plain)(first, *rest, **named)

    return choose


def _rotary(kernel: Rotary) -> Rotary:
    """Liger's rotary embedding for queries and keys [samples, heads, positions, size].

    It takes the stride of the positions for that of a row, also where there is one position and the
    stride may be anything: after Gemma 3's norm every sample but the first was read from the wrong
    place.
    """

    def apply(
        query: torch.Tensor, key: torch.Tensor, *rest: object, **named: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if query.shape[2] == 1:
            query, key = (
                x.reshape(x.shape[0], 1, x.shape[1], x.shape[3]).transpose(1, 2)
                for x in (query, key)
            )
        return kernel(query, key, *rest, **named)

    return apply
