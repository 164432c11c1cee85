"""A small copy of a model with random weights, on which a check tries what the run will do.

It has the model's own classes, in the same places, but fewer and narrower layers: what depends on the
architecture shows in it; what depends on the weights, or on the size, does not.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from typing import TypeGuard

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.model.quiet import quiet
from ragtune.model.skeleton import FOREIGN, auto_class, has_own_code, language_model, skeleton

LARGEST = 200_000_000
"""Parameters of a copy that is made: 0.8 GB in float32."""
_VOCABULARY = 256
_NARROWEST = 128
"""Of a copy's hidden states."""
_WIDTH = re.compile(r"_(size|dim|rank)$|^d_(model|ff|inner)$|^n_(embd|inner)$|_d_(ssm|head)$")
_NO_WIDTH = re.compile(r"vocab|chunk|patch|image|kernel|window|position|conv")
"""Which numbers of a configuration are divided. A guess by name: the copy is held against the model."""


class TrialError(RagtuneError):
    """No copy can be made; the message says why."""


def small_copy(config: PreTrainedConfig) -> tuple[PreTrainedModel, int]:
    """A copy of a model with each kind of its layers, narrower, with few tokens and random weights.

    Which kinds of layers there are is read off the model without weights and off what the
    configuration says of each layer. A copy whose parts have other names or classes is not taken.

    Returns:
        The copy, in float32 on the CPU, and how many of the model's layers it has.

    Raises:
        TrialError: none can be made.
        UsageError: it is no causal language model.
    """
    kinds = list(_kinds(skeleton(config), config))
    depth = max((kinds.index(kind) for kind in kinds), default=-1) + 1
    problem = "its layers stand in no list"
    for factor in _factors(config) if kinds else ():
        try:
            small = _reduced(config, len(kinds), depth, factor)
            empty = skeleton(small)
            size = sum(p.numel() for p in empty.parameters())
            if [k[:2] for k in _kinds(empty, small)] != [k[:2] for k in kinds[:depth]]:
                problem = "a smaller one has other parts"
            elif size > LARGEST:
                problem = f"{depth} of its layers have {size / 1e9:.1f} billion parameters"
            else:
                return _made(small), depth
        except (UsageError, *FOREIGN) as error:
            problem = f"a smaller one can't be made ({type(error).__name__})"
    raise TrialError(problem)


def _made(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    with quiet(), torch.no_grad():
        model = auto_class(config).from_config(
            config, dtype=torch.float32, trust_remote_code=has_own_code(config)
        )
        # Some sizes belong together in a way that shows only here.
        model.eval()(input_ids=torch.arange(3, 11)[None], use_cache=False)
    return model


def _kinds(model: PreTrainedModel, config: PreTrainedConfig) -> Iterator[tuple[object, ...]]:
    """What tells the layers of a model apart: their parts, and what the configuration says of each."""
    _, part = language_model(model)
    lists = [m for m in part.modules() if isinstance(m, nn.ModuleList)]
    sizes = [sum(p.numel() for p in m.parameters()) for m in lists]
    layers = lists[sizes.index(max(sizes))] if lists else nn.ModuleList()
    said = [v for v in vars(config.get_text_config()).values() if _is_list(v, len(layers))]
    for index, layer in enumerate(layers):
        parts = tuple((n, type(m).__name__) for n, m in layer.named_modules())
        weights = tuple((n, p.ndim) for n, p in layer.named_parameters())
        yield parts, weights, tuple(str(values[index]) for values in said)


def _is_list(value: object, length: int) -> TypeGuard[Sequence[object]]:
    """Whether a value says something of each layer, and does not number them."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == length
        and len(set(map(str, value))) < length
    )


def _widths(config: PreTrainedConfig) -> dict[str, int]:
    return {
        name: value
        for name, value in vars(config).items()
        if type(value) is int and value > 1 and _WIDTH.search(name) and not _NO_WIDTH.search(name)
    }


def _factors(config: PreTrainedConfig) -> list[int]:
    """By what the widths can be divided, the largest first: they stay whole, and even."""
    widths = _widths(config.get_text_config())
    hidden = max(widths.values(), default=0)
    return [
        factor
        for factor in (2**n for n in range(8, -1, -1))
        if factor == 1
        or (hidden >= factor * _NARROWEST and all(v % (2 * factor) == 0 for v in widths.values()))
    ]


def _reduced(config: PreTrainedConfig, layers: int, depth: int, factor: int) -> PreTrainedConfig:
    """The configuration with `depth` layers, widths divided by `factor`, and a small vocabulary."""
    small = copy.deepcopy(config)
    text = small.get_text_config()
    parts = [part for name in small.sub_configs if (part := getattr(small, name, None)) is not None]
    for other in (part for part in parts if part is not text):
        _narrow(other, factor)
        for name in {"num_hidden_layers", "depth"} & vars(other).keys():
            setattr(other, name, 1)
    _narrow(text, factor)
    for name, value in list(vars(text).items()):
        if "vocab_size" in name:
            setattr(text, name, _VOCABULARY)
        elif _is_list(value, layers):
            setattr(text, name, value[:depth])
    text.num_hidden_layers, text.vocab_size = depth, _VOCABULARY
    for one in (small, text):
        one.pad_token_id, one.bos_token_id, one.eos_token_id = 0, 1, 2
    return small


def _narrow(config: PreTrainedConfig, factor: int) -> None:
    """Divide those widths that stay whole, and even."""
    for name, value in _widths(config).items():
        if value % (2 * factor) == 0:
            setattr(config, name, value // factor)
