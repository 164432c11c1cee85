"""Mixtures of experts in a model, told by their shape: no name and no class is asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from ragtune.model.skeleton import is_linear, language_model

_STACKED = 3
"""Dimensions of a tensor that holds a matrix of every expert."""


@dataclass(frozen=True)
class Mixture:
    """One mixture of experts, by the names of its parts."""

    tensors: list[str]
    """Weights [experts, _, _], where all experts are one tensor."""
    modules: list[str]
    """Lists of experts, where each is a module."""
    routers: list[str]
    """Linear layers that choose among the experts, or weigh the shared one."""


def mixtures(part: nn.Module, prefix: str) -> list[Mixture]:
    """The mixtures of experts in a part of a model; names begin with `prefix`.

    A part M is one if a child of it holds N ≥ 2 equal sets of weights (tensors [N, _, _], or a list of
    N modules of equal shape) and M has a matrix with N rows beside, by which a token chooses.
    """
    found = []
    for name, module in part.named_modules():
        for child_name, child in module.named_children():
            count, own = _experts_in(child)
            routers = _routers(module, child, count) if count else None
            if routers is None:
                continue
            where = joined(prefix, joined(name, child_name))
            found.append(
                Mixture(
                    tensors=[f"{where}.{tensor}" for tensor in own],
                    modules=[] if own else [where],
                    routers=[joined(prefix, joined(name, router)) for router in routers],
                )
            )
    return found


def _experts_in(module: nn.Module) -> tuple[int, list[str]]:
    """How many experts a module holds (0: it holds none), and their tensors where these are fused."""
    convolution = isinstance(module, nn.modules.conv._ConvNd)  # noqa: SLF001 - torch's own base class
    tensors = {
        name: p.shape[0]
        for name, p in module.named_parameters(recurse=False)
        if p.ndim == _STACKED and p.shape[0] > 1 and not convolution
    }
    if tensors:
        return next(iter(tensors.values())), list(tensors)
    if isinstance(module, nn.ModuleList) and len(module) > 1:
        shapes = Counter(
            tuple((n, tuple(p.shape)) for n, p in one.named_parameters()) for one in module
        )
        if len(shapes) == 1 and next(iter(shapes)):
            return len(module), []
    return 0, []


def _routers(block: nn.Module, experts: nn.Module, count: int) -> list[str] | None:
    """The linear layers of a block that weigh its experts; None if nothing chooses among `count`.

    A router has as many rows as there are experts; a gate of the shared expert has one. Either stands
    in the block itself, or alone in a child of it.
    """
    inside = {id(m) for m in experts.modules()}
    chooses = False
    routers = []
    for name, module in block.named_modules():
        if id(module) in inside or name.count(".") > 1:
            continue
        rows = [p.shape[0] for p in module.parameters(recurse=False) if p.ndim == 2]  # noqa: PLR2004 - a matrix
        parent = block.get_submodule(name.rpartition(".")[0])
        alone = parent is block or sum(is_linear(m) for m in parent.children()) == 1
        if not alone or not any(n in (1, count) for n in rows):
            continue
        chooses |= count in rows
        if is_linear(module):
            routers.append(name)
    return routers if chooses else None


def joined(prefix: str, name: str) -> str:
    """A module's name within another's."""
    return f"{prefix}.{name}".strip(".")


def expert_lists(model: PreTrainedModel) -> tuple[str, ...]:
    """With what the names of experts begin that are modules of their own."""
    prefix, part = language_model(model)
    return tuple(f"{name}." for one in mixtures(part, prefix) for name in one.modules)
