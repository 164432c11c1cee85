"""A model's class, and the model without weights: its layers and their sizes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from itertools import chain

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from ragtune.base.commands import known_only
from ragtune.base.errors import UsageError
from ragtune.base.text import first_line
from ragtune.model.configuration import AGAIN, culprit, said
from ragtune.model.quiet import quiet

AutoClass = type[AutoModelForCausalLM | AutoModelForImageTextToText | AutoModelForMultimodalLM]

_KINDS: tuple[AutoClass, ...] = (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)
FOREIGN = (
    ValueError, TypeError, LookupError, AttributeError, RuntimeError, AssertionError, ArithmeticError,
    StrictDataclassError,
)  # fmt: skip
"""What a model's own code may raise at numbers that its author did not think of."""
MOST_TENSORS = 150_000
"""Of a model; Kimi K2 has 70,000, each expert's apart."""
_DECODER = "Name a model that generates text and has nothing but a decoder."


def auto_class(config: PreTrainedConfig) -> AutoClass:
    """The Auto class that loads a model as the class its checkpoint names.

    Models with vision have two classes in transformers, the whole one and one for the text alone. An
    adapter or a merged model fits one of them only, and people load the one that `config.json` names.

    Raises:
        UsageError: it is no model that writes text, or it has an encoder for its input.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(
            f"model.id: no causal language model: {config.model_type} reads with an encoder of its own.",
            "Name a model that has nothing but a decoder.",
        )
    if has_own_code(config):
        return _KINDS[0]
    known: dict[str, AutoClass] = {
        kind._model_mapping[type(config)].__name__: kind  # noqa: SLF001 - no public way to ask
        for kind in reversed(_KINDS)
        if type(config) in kind._model_mapping  # noqa: SLF001 - the same
    }
    if not known:
        raise UsageError(
            f"model.id: no causal language model: transformers {transformers.__version__} has none of "
            f"{config.model_type}.",
            _DECODER,
        )
    named = next((n for n in config.architectures or () if n in known), None)
    if named is None:  # a configuration that names none: the whole model
        whole = config.get_text_config() is not config
        named = list(known)[0 if whole else -1]
    return known[named]


def has_own_code(config: PreTrainedConfig) -> bool:
    """Whether a configuration's class comes with the model: its code was trusted, and ran, already."""
    return type(config).__module__.startswith("transformers_modules.")


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """A model without weights: its layers and their sizes, of any architecture.

    Raises:
        UsageError: it is no causal language model.
    """
    kind, trusted = auto_class(config), has_own_code(config)
    try:
        return _empty(kind, config, trusted=trusted)
    except ImportError as error:
        problem = known_only(" ".join(str(error).split()))
        raise UsageError(
            f"model.id: {config.model_type} needs a package that is missing: {problem}",
            "Install it, and run the same command again.",
        ) from error
    except FOREIGN as error:
        if trusted and isinstance(error, ValueError):  # `auto_class` has found no class
            raise UsageError(
                f"model.id: no causal language model: {first_line(error)}", _DECODER
            ) from error
        made = type(config).from_dict
        key = culprit(
            config.to_diff_dict(), lambda values: _empty(kind, made(values), trusted=trusted)
        )
        raise UsageError(
            f"model.id: config.json of {config.name_or_path or config.model_type} makes no model: "
            f"{said(error)}{key}",
            AGAIN,
        ) from error


def _empty(kind: AutoClass, config: PreTrainedConfig, *, trusted: bool) -> PreTrainedModel:
    with quiet(), torch.device("meta"), _limited(config):
        return kind.from_config(config, trust_remote_code=trusted)


@contextlib.contextmanager
def _limited(config: PreTrainedConfig) -> Iterator[None]:
    """Refuse to make a model of more tensors than any has: it would take hours, and all of the memory."""
    count = 0

    def registered(*_: object) -> None:
        nonlocal count
        count += 1
        if count > MOST_TENSORS:
            raise UsageError(
                f"model.id: config.json of {config.name_or_path or config.model_type} describes a model of "
                f"more than {MOST_TENSORS:,} tensors.",
                AGAIN,
            )

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()


def language_model(model: PreTrainedModel) -> tuple[str, nn.Module]:
    """The part of a model that reads and writes text, without its output layer; its name and itself.

    It is the smallest part that holds the input embedding and has linear layers: a vision tower and
    what connects it stand outside.
    """
    embedding = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embedding)
    while name:
        name = name.rpartition(".")[0]
        part: nn.Module = model.get_submodule(name)
        if any(is_linear(m) for m in part.modules()):
            return name, part
    return "", model


def stays_float32(model: PreTrainedModel) -> Callable[[str], bool]:
    """Whether transformers keeps a parameter or buffer, by its name, in float32 in every dtype."""
    modules = model._keep_in_fp32_modules_strict or ()  # noqa: SLF001 - no public way to ask
    pattern = re.compile("|".join(rf"(^|\.){name}($|\.)" for name in modules) or r"(?!)")
    return lambda name: pattern.search(name) is not None


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer in the way of torch or of GPT-2."""
    return isinstance(module, (nn.Linear, Conv1D))


def parameters_of(model: nn.Module) -> int:
    """A base model's parameters: as many with an adapter on it, and in few bits, several to a number."""
    plain = packed = 0
    with_bits = {id(layer.weight) for layer in model.modules() if _in_bits(layer)}
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and "lora_" not in name and id(weight) not in with_bits:
            plain += weight.numel()
    for layer in model.modules():
        own = chain(layer.parameters(recurse=False), layer.buffers(recurse=False))
        if _in_bits(layer) or not all(one.is_floating_point() for one in own):
            packed += getattr(layer, "in_features", 0) * getattr(layer, "out_features", 0)
    return plain + packed


def _in_bits(layer: nn.Module) -> bool:
    """Whether a layer's weight is bitsandbytes', which may keep bits as numbers of any dtype."""
    return getattr(layer, "quant_state", None) is not None
