"""Which weights of a model get an adapter: found in its structure, whatever their names.

By default these are the language model's linear layers but its output and its routers. Experts whose
weights are one tensor for all are no linear layers; they are adapted where the recipe asks for it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ragtune.base.errors import UsageError
from ragtune.model.experts import joined, mixtures
from ragtune.model.quantized import without_quantization
from ragtune.model.skeleton import is_linear, language_model, skeleton
from ragtune.model.wrapping import adapted_names, trainable_parameters, wrap
from ragtune.recipe.schema import ALL_LINEAR, Lora


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


def find_targets(config: Any, lora: Lora) -> Targets:
    """What the recipe's adapter goes on, tried with PEFT on a model without weights.

    Args:
        config: the model's.
        lora: which layers are asked for, and whether experts are.

    Raises:
        UsageError: the language model has no layer of a named end, its weights are shared, or PEFT
            refuses it.
    """
    key = (type(config), config.to_json_string(), lora.model_dump_json())
    if key not in _found:
        _found[key] = _find(skeleton(without_quantization(config)), lora)
    return _found[key]


def _find(model: Any, lora: Lora) -> Targets:
    prefix, part = language_model(model)
    found = mixtures(part, prefix)
    routers = {name for mixture in found for name in mixture.routers}
    linear = _linear_layers(model, prefix, part)
    lists = tuple(f"{name}." for mixture in found for name in mixture.modules)
    in_experts = {name for name in linear if name.startswith(lists)} if lists else set()
    stacked = [name for mixture in found for name in mixture.tensors]
    shared = _sharing(model)
    every = lora.target_modules == [ALL_LINEAR]
    outputs: list[str] = []
    if not every:
        outputs = _output_names(model)  # who names it gets it
    asked = (
        linear if every else _named(model, part, [*linear, *outputs], shared, lora.target_modules)
    )
    wanted = set(asked) - (routers | in_experts | shared if every else set())
    if lora.experts:
        if not found:
            raise UsageError(
                f"lora.experts: {type(model).__name__} has no experts.",
                "Leave it out, or set it to false.",
            )
        wanted |= in_experts
    experts = tuple(stacked) if lora.experts else ()
    by_weight, refused = _reach(model, lora, [n for n in [*linear, *outputs] if n in wanted])
    if refused and not every:
        raise UsageError(
            f"lora.target_modules: PEFT adapts no {', '.join(refused)} of {type(model).__name__}: "
            f"{next(iter(refused.values()))}.",
            f"Leave it out, or use [{ALL_LINEAR}].",
        )
    layers = tuple(n for n in [*linear, *outputs] if n in wanted and _end(n) not in refused)
    tuned = wrap(copy.deepcopy(model), lora, layers, by_weight, experts)
    if adapted_names(tuned) != {*layers, *experts}:
        import peft

        raise UsageError(
            f"lora: PEFT {peft.__version__} adapts other weights of {type(model).__name__} than were "
            "asked for.",
            "Set lora.target_modules to fewer layers, or lora.experts=false.",
        )
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    read = tuple(f"{name}." for name in (prefix, *_output_names(model))) if prefix else ("",)
    left_out = {
        "experts": [
            *(n for n in stacked if n not in experts),
            *(f"{n}.weight" for n in in_experts if n not in layers),
        ],
        "layers that share their weights": [
            n for n in (f"{n}.weight" for n in linear if n in shared) if n in sizes
        ],
        "other linear layers": [
            f"{n}.weight" for n in linear if n not in {*layers, *in_experts, *routers, *shared}
        ],
        "parts that do not read text": [n for n in sizes if not n.startswith(read)],
    }
    left_sizes = {what: sum(sizes[n] for n in names) for what, names in left_out.items()}
    return Targets(
        layers=layers,
        by_weight=by_weight,
        experts=experts,
        refused=tuple(refused),
        left_out={what: size for what, size in left_sizes.items() if size},
        every=sum(sizes.values()),
        trained=trainable_parameters(tuned),
    )


def _linear_layers(model: Any, prefix: str, part: Any) -> list[str]:
    """The names of the language model's linear layers, but for an output layer among them."""
    head = model.get_output_embeddings()
    return [
        joined(prefix, name)
        for name, module in part.named_modules()
        if module is not head and is_linear(module)
    ]


def _output_names(model: Any) -> list[str]:
    """The name of the output layer; nothing if there is none."""
    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if module is head and name]


def _named(model: Any, part: Any, linear: list[str], shared: set[str], ends: list[str]) -> set[str]:
    """The layers whose names end so.

    Raises:
        UsageError: there is none, or it shares its weights.
    """
    both = _ends([n for n in linear if n in shared and any(_ends_in(n, e) for e in ends)])
    if both:
        raise UsageError(
            f"lora.target_modules: the weights of {', '.join(both)} are shared with other layers of "
            f"{type(model).__name__}, and an adapter on one of them can't be merged.",
            "Leave them out of lora.target_modules.",
        )
    missing = [e for e in ends if not any(_ends_in(name, e) for name in linear)]
    if missing:
        weights = [n for n, _ in part.named_parameters()]
        experts = any(_ends_in(n, e) for n in weights for e in missing)
        raise UsageError(
            f"lora.target_modules: {type(model).__name__} has no linear layer {', '.join(missing)}.",
            "What is called so are the weights of its experts: leave them out, and set lora.experts=true "
            "to train them."
            if experts
            else f"Its linear layers are {', '.join(_ends(linear))}; or use [{ALL_LINEAR}].",
        )
    return {name for name in linear if any(_ends_in(name, e) for e in ends)}


def _sharing(model: Any) -> set[str]:
    """The modules whose weights are those of another one, too: output and embedding, or blocks used twice."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _reach(model: Any, lora: Lora, layers: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """How PEFT reaches layers: those by their weights alone, and the ends of those that it refuses.

    In mixtures of experts PEFT takes `gate_proj` and the like for names that older versions of
    transformers gave to the experts, and adapts these instead: such a layer is reached by the name of
    its weight. Each refused end comes with PEFT's reason.
    """
    if _problem(model, lora, layers) is None:
        return (), {}
    by_weight: list[str] = []
    refused = {}
    for end in _ends(layers):
        same = [n for n in layers if _end(n) == end]
        if _problem(model, lora, same) is None:
            continue
        problem = _problem(model, lora, same, same)
        if problem is None:
            by_weight += same
        else:
            refused[end] = problem
    return tuple(n for n in layers if n in by_weight), refused


def _problem(
    model: Any, lora: Lora, layers: Sequence[str], by_weight: Sequence[str] = ()
) -> str | None:
    """Why PEFT does not adapt just these layers; None if it does."""
    try:
        reached = adapted_names(wrap(copy.deepcopy(model), lora, layers, by_weight))
    except ValueError as error:
        return (str(error).splitlines() or ["no reason given"])[0].rstrip(".")
    return None if reached == set(layers) else "it adapts other layers instead"


def _ends(names: Sequence[str]) -> list[str]:
    """The last parts of names, each once, sorted."""
    return sorted(set(map(_end, names)))


def _end(name: str) -> str:
    return name.rpartition(".")[2]


def _ends_in(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def packed_weight(name: str, how: str) -> UsageError:
    """What to say of a layer that PEFT reaches by its weight alone, which is quantised."""
    return UsageError(
        f"lora.target_modules: PEFT reaches {name} by its weight alone, which is packed ({how}).",
        "Set lora.target_modules to layers of the attention, or take a base that is not quantised.",
    )


def describe(targets: Targets, lora: Lora) -> list[str]:
    """What is trained and what is not, in words, a line each."""
    lines = [
        f"{targets.trained:,} parameters: rank {lora.rank} on {', '.join(_ends(targets.layers)) or 'no layer'}"
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
