"""A model's class, and the model without weights: its layers and their sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from ragtune.base.errors import UsageError
from ragtune.model.load import quiet


def auto_class(config: Any) -> Any:
    """The Auto class that loads a model as the class its checkpoint names.

    Models with vision have two classes in transformers, the whole one and one for the text alone. An
    adapter or a merged model fits one of them only, and people load the one that `config.json` names.

    Args:
        config: the model's configuration.

    Raises:
        UsageError: it is no model that writes text, or it has an encoder for its input.
    """
    import transformers

    kinds = (
        transformers.AutoModelForCausalLM,
        transformers.AutoModelForImageTextToText,
        transformers.AutoModelForMultimodalLM,
    )
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(
            f"model.id: no causal language model: {config.model_type} reads with an encoder of its own.",
            "Name a model that has nothing but a decoder.",
        )
    # A configuration of such a module means that its code was trusted, and ran, already.
    if type(config).__module__.startswith("transformers_modules."):
        return kinds[0]
    known = {
        kind._model_mapping[type(config)].__name__: kind  # noqa: SLF001 - no public way to ask
        for kind in reversed(kinds)
        if type(config) in kind._model_mapping  # noqa: SLF001
    }
    if not known:
        raise UsageError(
            f"model.id: no causal language model: transformers {transformers.__version__} has none of "
            f"{config.model_type}.",
            "Name a model that generates text and has nothing but a decoder.",
        )
    named = next((n for n in config.architectures or () if n in known), None)
    if named is None:  # a configuration that names none: the whole model
        whole = config.get_text_config() is not config
        named = list(known)[0 if whole else -1]
    return known[named]


def skeleton(config: Any) -> Any:
    """A model without weights: its layers and their sizes, of any architecture.

    Raises:
        UsageError: it is no causal language model.
    """
    kind = auto_class(config)
    trusted = type(config).__module__.startswith("transformers_modules.")
    try:
        with quiet(), torch.device("meta"):
            return kind.from_config(config, trust_remote_code=trusted)
    except ImportError as error:
        raise UsageError(
            f"model.id: {config.model_type} needs a package that is missing: {_flat(error)}",
            "Install it, and run the same command again.",
        ) from error
    except ValueError as error:
        if not trusted:  # `auto_class` has found a class: it is something else
            raise
        raise UsageError(
            f"model.id: no causal language model: {str(error).splitlines()[0]}",
            "Name a model that generates text and has nothing but a decoder.",
        ) from error


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())


def language_model(model: Any) -> tuple[str, Any]:
    """The part of a model that reads and writes text, without its output layer; its name and itself.

    It is the smallest part that holds the input embedding and has linear layers: a vision tower and
    what connects it stand outside.
    """
    embedding = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embedding)
    while name:
        name = name.rpartition(".")[0]
        part = model.get_submodule(name)
        if any(is_linear(m) for m in part.modules()):
            return name, part
    return "", model


def stays_float32(model: Any) -> Callable[[str], bool]:
    """Whether transformers keeps a parameter or buffer, by its name, in float32 in every dtype."""
    modules = model._keep_in_fp32_modules_strict or ()  # noqa: SLF001 - no public way to ask
    pattern = re.compile("|".join(rf"(^|\.){name}($|\.)" for name in modules) or r"(?!)")
    return lambda name: pattern.search(name) is not None


def is_linear(module: Any) -> bool:
    """Whether a module is a linear layer in the way of torch or of GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (torch.nn.Linear, Conv1D))
