"""Whether a model was loaded with all of its weights, and with nothing that it has no place for.

transformers draws a weight that it does not find, and leaves one that it has no place for unread, both
without a word: every process would have another model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypedDict

from torch import nn
from transformers import PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.base.text import named
from ragtune.model.configuration import keys_with

REPORTED = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""How `from_pretrained` is asked for the report of `require_all`; shapes that differ stand in it, too."""
_AGAIN = "The files are incomplete, or config.json is another model's: get the model again, all of its files."
_CONSTANT = re.compile(r"(^|\.)(masked_bias|causal_mask|rotary_emb\.inv_freq)$")
"""What older classes wrote and newer ones compute: masks, and the frequencies of positions."""
_FURTHER = {"eh_proj", "enorm", "hnorm", "shared_head"}
"""What a layer that predicts further tokens has, and a decoder layer has not."""
_ADAPTER = re.compile(r"(^|\.)(lora_\w+|base_layer|base_model)(\.|$)")


class Report(TypedDict):
    """What transformers says of a load, as `output_loading_info` gives it."""

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, tuple[int, ...], tuple[int, ...]]]
    """Name, shape in the files, shape in the model."""


def require_all(
    report: Report,
    model: PreTrainedModel,
    where: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Counter[str]:
    """Require that a model was loaded with all of its weights, and with nothing that it can't place.

    Args:
        report: what transformers says of the load.
        model: that was loaded.
        where: its folder, file or name.
        shapes: in the files, by name; None where `compare` has seen them already.

    Returns:
        How many tensors were left unread of each part that the class does not have, or computes.

    Raises:
        UsageError: a tensor is missing or of another shape, or a part of the model has one too many.
    """
    missing = sorted(report["missing_keys"])
    if missing:
        raise UsageError(
            f"model.id: the weights of {where} lack {named(missing)}. In their place would be random "
            "numbers.",
            _AGAIN,
        )
    others = sorted(report["mismatched_keys"])
    if others:
        name, found, wanted = others[0]
        more = f" (and {len(others) - 1:,} more)" if len(others) > 1 else ""
        raise UsageError(
            f"model.id: in the weights of {where}, {name} has the shape {list(found)}, and by config.json"
            f"{keys_with(model.config, set(wanted) - set(found))} it is {list(wanted)}{more}.",
            _AGAIN,
        )
    parts = unread_parts(report["unexpected_keys"], model, shapes)
    foreign = [name for name, part in parts.items() if part is None]
    if foreign:
        raise UsageError(
            f"model.id: the weights of {where} have {named(foreign)}, and {type(model).__name__}, as "
            "config.json describes it, has no place for that.",
            _AGAIN,
        )
    return Counter(part for part in parts.values() if part)


def unread_parts(
    names: Iterable[str], model: PreTrainedModel, shapes: Mapping[str, tuple[int, ...]] | None
) -> dict[str, str | None]:
    """To which part each tensor belongs that a model leaves unread and may; None where it may not.

    A part of its own may be left: a vision tower beside a class for text, a module or layer that predicts
    further tokens. So may masks and what else the class computes. A bias or a norm within a layer may
    not, nor a layer too many.
    """
    found = {name: innermost(name, model) for name in sorted(names)}
    further = {
        (id(modules[-1]), rest[0])
        for modules, rest in found.values()
        if isinstance(modules[-1], nn.ModuleList) and rest[1:] and rest[1] in _FURTHER
    }
    parts: dict[str, str | None] = {}
    for name, (modules, rest) in found.items():
        path = name.removesuffix(".".join(rest))
        whole = path if path or len(modules) == 1 else f"{model.base_model_prefix}."
        if _ADAPTER.search(name):
            parts[name] = None
        elif (id(modules[-1]), rest[0]) in further:
            parts[name] = whole + rest[0]
        elif _computed(name, modules[-1], rest, shapes, model.base_model_prefix):
            parts[name] = ".".join(name.split(".")[-2:])
        else:
            within = any(isinstance(m, (nn.ModuleList, nn.Sequential)) for m in modules)
            parts[name] = None if within or len(rest) == 1 or not all(rest) else whole + rest[0]
    return parts


def innermost(name: str, model: PreTrainedModel) -> tuple[list[nn.Module], list[str]]:
    """The modules of a model that a tensor's name leads through, and the rest of the name."""
    prefix = f"{model.base_model_prefix}."
    found: list[tuple[list[nn.Module], list[str]]] = []
    for one in (name, prefix + name.removeprefix(prefix)):  # a file may leave the prefix out
        modules, rest = list[nn.Module]([model]), one.split(".")
        while len(rest) > 1 and isinstance(child := getattr(modules[-1], rest[0], None), nn.Module):
            modules.append(child)
            rest = rest[1:]
        found.append((modules, rest))
    return max(found, key=lambda one: len(one[0]))


def _computed(
    name: str,
    part: nn.Module,
    rest: list[str],
    shapes: Mapping[str, tuple[int, ...]] | None,
    prefix: str,
) -> bool:
    """Whether a class computes a tensor of a file itself: a buffer that it does not store, or a mask."""
    if _CONSTANT.search(name):
        return True
    if len(rest) > 1:
        return False
    if rest[0] in part._non_persistent_buffers_set:  # noqa: SLF001 - no public way to ask
        return True
    if rest != ["bias"] or not any(part.children()):  # that of a layer is a weight
        return False
    if shapes is None:
        return True
    shape = shapes.get(name) or shapes.get(name.removeprefix(f"{prefix}.")) or ()
    return len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]  # noqa: PLR2004 - dimensions of 1, 1, n, n
