"""Loading a model's configuration, tokenizer and weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ragtune.base.errors import RagtuneError, is_panic
from ragtune.base.screen.console import note
from ragtune.base.sparing import await_import
from ragtune.base.stopping import stop_if_asked
from ragtune.base.web.hub_client import bound_client
from ragtune.base.web.network import hub_is_offline
from ragtune.distributed.world import World
from ragtune.model.complete import REPORTED, require_all
from ragtune.model.configuration import require_sane
from ragtune.model.fast.liger import fuse_kernels, has_liger
from ragtune.model.fast.to_eight import MULTIPLE, convert
from ragtune.model.generation import require_settings
from ragtune.model.hardware import Hardware, keep_kernels
from ragtune.model.headers import compare
from ragtune.model.hub_cache import folder_of, loads_without_hub, require_safe_snapshot
from ragtune.model.nf4 import linear_layers, round_to_nf4
from ragtune.model.quantized import loading, quantization_of, settle
from ragtune.model.quiet import quiet
from ragtune.model.safety import model_json
from ragtune.model.skeleton import auto_class
from ragtune.model.source import ModelSource
from ragtune.model.spread import NF4, spread
from ragtune.model.targets import ordinary_layers
from ragtune.model.unloadable import explained

T = TypeVar("T")

_NO_LIMIT = 1 << 20
"""Tokens that a model is taken to read if its configuration says nothing of it."""


@contextlib.contextmanager
def _loading(what: str, source: ModelSource) -> Iterator[None]:
    bound_client()
    try:
        with quiet():
            yield
    except RagtuneError:
        raise
    # Whatever transformers, tokenizers (in Rust, whose panic is no Exception) or a model's own code raise.
    except BaseException as error:
        stop_if_asked()  # Ctrl-C in the middle of an import looks like one that fails
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise explained(error, what, source) from error


def _pretrained(load: Callable[..., T], source: ModelSource, **options: object) -> T:
    """What a class's `from_pretrained` makes of a model."""
    # Left out, trust_remote_code would be asked on the screen.
    options |= {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    try:
        return load(source.path, **options)
    except OSError:
        # A Hub that refuses, as it does with a token that has expired, is asked for files that a model
        # need not have, too; with no network transformers takes the cache by itself.
        if hub_is_offline() or not loads_without_hub(source):
            raise
        with contextlib.suppress(OSError):
            return load(source.path, **options | {"local_files_only": True})
        raise


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a pad token.

    Raises:
        UsageError: there is none.
    """
    with _loading("tokenizer", source):
        tokenizer = _pretrained(AutoTokenizer.from_pretrained, source)
        ids = tokenizer.encode("Is it one?")  # some faults show only then
        if not ids or not isinstance(tokenizer.decode(ids), str):
            raise ValueError("it makes no tokens of a text, or no text of tokens")
    if tokenizer.pad_token_id is None:
        # Padding is masked everywhere, so any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_config(source: ModelSource) -> PreTrainedConfig:
    """The model's configuration.

    Raises:
        UsageError: there is none, or something is beside it that must not be loaded.
    """
    with _loading("configuration", source):
        known = folder_of(source)
        if known is None:  # of the Hub, and not here yet
            _pretrained(PreTrainedConfig.get_config_dict, source)
            known = folder_of(source)
        _require_sane(known, source)  # before lists as long as it says are made of it
        config = _pretrained(AutoConfig.from_pretrained, source)
        if (now := folder_of(source)) != known:
            _require_sane(now, source)
        require_safe_snapshot(source)  # now the commit is known, and nothing has been done yet
        return config


def _require_sane(folder: Path | None, source: ModelSource) -> None:
    if folder is not None and (folder / "config.json").exists():
        require_sane(model_json(folder / "config.json"), source.path)


def context_length(config: PreTrainedConfig) -> int:
    """The longest sequence that a model was made for, in tokens."""
    # The families' names for it. Nothing tests it: `check` says the number, and a wrong one only cuts or
    # allows longer prompts.
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return _NO_LIMIT


def load_model(
    source: ModelSource,
    hardware: Hardware,
    *,
    nf4: bool,
    dequantized: bool = False,
    world: World | None = None,
) -> PreTrainedModel:
    """A causal language model on its device, in eval mode, frozen.

    Args:
        source: where its files are.
        hardware: the device and dtype; on the device `meta` it has no weights, and all else.
        nf4: whether the linear layers' weights are quantised.
        dequantized: keep what NF4 makes of them in `hardware.dtype`: four times the memory, faster.
        world: the ranks that share its weights; None where each has all of them.

    Raises:
        UsageError: it is not found or no causal language model in safetensors, or has an adapter; it is
            quantised in a way that can't be trained.
        RagtuneError: too little memory.
    """
    how: NF4 | None = None if not nf4 else "rounded" if dequantized else "packed"
    keep_kernels()
    if nf4:
        await_import()
    if world:
        cpu = torch.device("cpu")
        return spread(
            lambda: _whole(source, hardware, cpu, nf4=nf4), hardware, world, nf4=how
        ).eval()
    model = _whole(source, hardware, hardware.device, nf4=nf4, packed=how == "packed")
    if how == "rounded":
        round_to_nf4(linear_layers(model))
    return model.eval()


def _whole(
    source: ModelSource,
    hardware: Hardware,
    device: torch.device,
    *,
    nf4: bool,
    packed: bool = False,
) -> PreTrainedModel:
    """A model with all of its weights, frozen, on a device, in NF4 if `packed`. Raises as `load_model`."""
    dtype = hardware.dtype
    options = _options(device, dtype, nf4=packed)
    config = load_config(source)
    kind = auto_class(config)
    quantized = quantization_of(config, device, nf4=nf4)
    if quantized:
        options |= loading(config, quantized, device, dtype)
    with _loading("model", source):
        source, asked = require_safe_snapshot(source)
        if folder := folder_of(source):
            require_settings(folder)
        compare(config, source)  # before memory is taken for shapes that no file has
        if not asked:
            # transformers would look for an adapter once more, and the network may be back by then.
            options |= {"local_files_only": True, "adapter_kwargs": {"local_files_only": True}}
        model, report = _pretrained(kind.from_pretrained, source, **options, **REPORTED)
        require_all(report, model, source.path)
        if "device_map" not in options:
            model.to(device)
    if hardware.device.type == "cuda" and has_liger(model.config):
        fuse_kernels(model)
    if quantized:
        settle(model, quantized, dtype)
    model.requires_grad_(requires_grad=False)
    return model


def multiply_in_8_bits(model: PreTrainedModel, key: str) -> None:
    """Let a model's linear layers, with weights in its dtype or in NF4, compute in 8 bits from now on.

    Args:
        model: it is changed in place.
        key: of the recipe, which asks for it.

    Raises:
        UsageError: they can't, here.
    """
    layers = ordinary_layers(model)
    count = convert(model, layers, key)
    left = "" if count == len(layers) else f": the others' sizes are no multiples of {MULTIPLE}"
    note(f"Products of {count} of {len(layers)} linear layers are in 8 bits{left}.")


def _options(device: torch.device, dtype: torch.dtype, *, nf4: bool) -> dict[str, object]:
    """What `from_pretrained` is given for every model."""
    options: dict[str, object] = {"dtype": dtype, "use_safetensors": True}
    if nf4:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    if device.type == "cuda":
        options["device_map"] = {"": device.index or 0}
    if device.type == "meta":
        options["device_map"] = {"": "meta"}
    return options
