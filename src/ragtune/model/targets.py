"""Which weights of a model get an adapter: found in its structure, whatever their names.

By default these are the language model's linear layers but its output and its routers. Experts whose
weights are one tensor for all are no linear layers; they are adapted where the recipe asks for it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import peft
from peft import PeftModel
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.base.text import first_line
from ragtune.model.experts import joined, mixtures
from ragtune.model.quantized import without_quantization
from ragtune.model.skeleton import is_linear, language_model, skeleton
from ragtune.model.wrapping import adapters, trainable_parameters, wrap
from ragtune.recipe.lora import ALL_LINEAR, Lora


@dataclass(frozen=True)
class Targets:
    """The weights of a model that get an adapter, by their whole names, and what is left out."""

    layers: tuple[str, ...]
    """Linear layers."""
    by_weight: tuple[str, ...] = ()
    """Those of them that PEFT reaches by the name of their weight alone."""
    experts: tuple[str, ...] = ()
    """Tensors [experts, _, _] that hold the weights of all experts of a layer."""
    refused: tuple[str, ...] = ()
    """Ends of the names of layers that PEFT does not adapt in this model."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Parameters that no adapter reaches, by what they are."""
    every: int = 0
    """Parameters of the model."""
    trained: int = 0
    """Parameters of the adapter."""


_found: dict[tuple[type, str, str], Targets] = {}
"""A run asks several times, and trying takes a second for a large model."""


def find_targets(config: PreTrainedConfig, lora: Lora) -> Targets:
    """What the recipe's adapter goes on, tried with PEFT on a model without weights.

    Args:
        config: the model's.
        lora: which layers are asked for, and whether experts are.

    Raises:
        UsageError: the language model has no layer of a named end, its weights are shared, or PEFT
            refuses it.
    """
    plain = without_quantization(config)  # once it is loaded, a model's own may have one
    key = (type(config), plain.to_json_string(), lora.model_dump_json())
    if key not in _found:
        _found[key] = _find(skeleton(plain), lora)
    return _found[key]


class _Structure:
    """The parts of a model that matter to an adapter, by the names of its modules and tensors."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.kind = type(model).__name__
        self.prefix, self.part = language_model(model)
        head = model.get_output_embeddings()
        self.outputs = [name for name, module in model.named_modules() if module is head and name]
        self.linear = [
            joined(self.prefix, name)
            for name, module in self.part.named_modules()
            if module is not head and is_linear(module)
        ]
        found = mixtures(self.part, self.prefix)
        self.routers = {name for mixture in found for name in mixture.routers}
        self.stacked = tuple(name for mixture in found for name in mixture.tensors)
        lists = tuple(f"{name}." for mixture in found for name in mixture.modules)
        self.in_experts = {name for name in self.linear if name.startswith(lists)}
        self.has_experts = bool(found)
        self.shared = _sharing(model)

    @property
    def ordinary(self) -> list[str]:
        """The linear layers but those of the output, of routers and experts, and those that share weights."""
        apart = self.routers | self.in_experts | self.shared
        return [name for name in self.linear if name not in apart]


def ordinary_layers(model: PreTrainedModel) -> list[str]:
    """The names of a language model's linear layers but its output, routers and experts, and shared ones."""
    return _Structure(model).ordinary


def _sharing(model: nn.Module) -> set[str]:
    """The modules whose weights are those of another one, too: output and embedding, or blocks used twice."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _find(model: PreTrainedModel, lora: Lora) -> Targets:
    parts = _Structure(model)
    every = lora.target_modules == [ALL_LINEAR]
    # Who names the output layer gets it.
    candidates = parts.linear if every else [*parts.linear, *parts.outputs]
    wanted = set(parts.ordinary) if every else _named(parts, candidates, lora.target_modules)
    if lora.experts:
        if not parts.has_experts:
            raise UsageError(
                f"lora.experts: {parts.kind} has no experts.",
                "Leave it out, or set it to false.",
            )
        wanted |= parts.in_experts
    experts = parts.stacked if lora.experts else ()
    wanted_layers = [name for name in candidates if name in wanted]
    tuned = _tried(model, lora, wanted_layers)
    by_weight, refused = _reach(model, lora, wanted_layers) if isinstance(tuned, str) else ((), {})
    if refused and not every:
        raise UsageError(
            f"lora.target_modules: PEFT adapts no {', '.join(refused)} of {parts.kind}: "
            f"{next(iter(refused.values()))}.",
            f"Leave it out, or use [{ALL_LINEAR}].",
        )
    layers = tuple(name for name in wanted_layers if _end(name) not in refused)
    if isinstance(tuned, str) or experts:
        tuned = wrap(copy.deepcopy(model), lora, layers, by_weight, experts)
    if set(adapters(tuned)) != {*layers, *experts}:
        raise UsageError(
            f"lora: PEFT {peft.__version__} adapts other weights of {parts.kind} than were asked for.",
            "Set lora.target_modules to fewer layers, or lora.experts=false.",
        )
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return Targets(
        layers=layers,
        by_weight=by_weight,
        experts=experts,
        refused=tuple(refused),
        left_out=_left_out(parts, sizes, {*layers, *experts}),
        every=sum(sizes.values()),
        trained=trainable_parameters(tuned),
    )


def _left_out(parts: _Structure, sizes: dict[str, int], adapted: set[str]) -> dict[str, int]:
    """Parameters that no adapter reaches, by what they are, of a model's parameters and their sizes."""
    read = tuple(f"{name}." for name in (parts.prefix, *parts.outputs)) if parts.prefix else ("",)
    layers = {*parts.linear} - adapted
    elsewhere = {*parts.in_experts, *parts.routers, *parts.shared}
    names = {
        "experts": [
            *(n for n in parts.stacked if n not in adapted),
            *(f"{n}.weight" for n in layers & parts.in_experts),
        ],
        # Of weights that are shared a model names one owner only.
        "layers that share their weights": [
            f"{n}.weight" for n in parts.linear if n in parts.shared and f"{n}.weight" in sizes
        ],
        "other linear layers": [f"{n}.weight" for n in layers - elsewhere],
        "parts that do not read text": [n for n in sizes if not n.startswith(read)],
    }
    found = {what: sum(sizes[name] for name in those) for what, those in names.items()}
    return {what: size for what, size in found.items() if size}


def _named(parts: _Structure, linear: list[str], ends: list[str]) -> set[str]:
    """The layers whose names end so.

    Raises:
        UsageError: there is none, or it shares its weights.
    """
    named = {name for name in linear if any(_ends_in(name, end) for end in ends)}
    if both := _ends(named & parts.shared):
        raise UsageError(
            f"lora.target_modules: the weights of {', '.join(both)} are shared with other layers of "
            f"{parts.kind}, and an adapter on one of them can't be merged.",
            "Leave them out of lora.target_modules.",
        )
    missing = [end for end in ends if not any(_ends_in(name, end) for name in linear)]
    if missing:
        weights = [name for name, _ in parts.part.named_parameters()]
        experts = any(_ends_in(name, end) for name in weights for end in missing)
        raise UsageError(
            f"lora.target_modules: {parts.kind} has no linear layer {', '.join(missing)}.",
            "What is called so are the weights of its experts: leave them out, and set lora.experts=true "
            "to train them."
            if experts
            else f"Its linear layers are {', '.join(_ends(linear))}; or use [{ALL_LINEAR}].",
        )
    return named


def _reach(
    model: PreTrainedModel, lora: Lora, layers: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """How PEFT reaches layers, not all of which it adapts as they are: by their weights alone, or not at all.

    In mixtures of experts PEFT takes `gate_proj` and the like for names that older versions of
    transformers gave to the experts, and adapts these instead: such a layer is reached by the name of
    its weight. What is refused are all layers whose names end so: each end comes with PEFT's reason.
    """
    by_weight: set[str] = set()
    refused = {}
    for end in _ends(layers):
        same = [name for name in layers if _end(name) == end]
        if not isinstance(_tried(model, lora, same), str):
            continue
        tried = _tried(model, lora, same, same)
        if isinstance(tried, str):
            refused[end] = tried
        else:
            by_weight.update(same)
    return tuple(name for name in layers if name in by_weight), refused


def _tried(
    model: PreTrainedModel, lora: Lora, layers: Sequence[str], by_weight: Sequence[str] = ()
) -> PeftModel | str:
    """A copy with an adapter on just these layers, as PEFT makes it; or why it makes none."""
    try:
        tuned = wrap(copy.deepcopy(model), lora, layers, by_weight)
    except ValueError as error:
        return first_line(error).rstrip(".")
    return tuned if set(adapters(tuned)) == set(layers) else "it adapts other layers instead"


def _ends(names: Sequence[str] | set[str]) -> list[str]:
    """The last parts of names, each once, sorted."""
    return sorted(set(map(_end, names)))


def _end(name: str) -> str:
    return name.rpartition(".")[2]


def _ends_in(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")


def packed_weight(name: str, how: str) -> UsageError:
    """What to say of a layer that PEFT reaches by its weight alone, which is quantised."""
    return UsageError(
        f"lora.target_modules: PEFT reaches {name} by its weight alone, which is packed ({how}).",
        "Set lora.target_modules to layers of the attention, or take a base that is not quantised.",
    )


def describe(targets: Targets, lora: Lora) -> list[str]:
    """What is trained and what is not, in words, a line each."""
    lines = [
        f"{targets.trained:,} parameters: {lora.in_words} on {', '.join(_ends(targets.layers)) or 'no layer'}"
        + (f" and {len(targets.experts)} tensors of experts" if targets.experts else "")
    ]
    if lora.dropout and targets.experts:
        lines.append(
            "the experts' adapters have no dropout: PEFT adapts their weights, not what they read"
        )
    if targets.refused:
        lines.append(f"PEFT adapts no {', '.join(targets.refused)} in this model: left out")
    for what, size in targets.left_out.items():
        hint = "; lora.experts=true trains them" if what == "experts" else ""
        lines.append(f"{what}, {size / targets.every:.0%} of the model, get no adapter{hint}")
    return lines
