"""A base model that comes quantised: what it is, what is needed, how it is loaded and merged.

What transformers can dequantise while it loads it (MXFP4, FP8, compressed-tensors) is dequantised, and
is a plain model from then on. So is what it can dequantise afterwards (bitsandbytes), but for 4 bits on a
GPU, where they save the memory for which they are chosen. The rest is trained as it is, if transformers
and PEFT say so, and not merged: nothing is merged into quantised weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.quantizers import AutoHfQuantizer, AutoQuantizationConfig, HfQuantizer

from ragtune.base.commands import install, install_in, known_only
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.text import first_line
from ragtune.model.quiet import quiet
from ragtune.model.skeleton import FOREIGN, skeleton, stays_float32

_OTHER = "Name the model as it was before it was quantised."
_OR_OTHER = f"Or n{_OTHER[1:]}"
SCALE_BYTES = 4 / 64
"""What the scales of a weight take at most: a float32 for 64 of them."""


@dataclass(frozen=True)
class Quantized:
    """How a quantised base is used here."""

    kind: str
    """In words: mxfp4, bitsandbytes with 4 bits, …"""
    dequantized: bool
    """Whether it is dequantised when it is loaded; if not, it is trained as it is."""
    mergeable: bool
    """Whether it can be dequantised at all, so that an adapter can be merged into it."""
    linear_bytes: float | None = None
    """Bytes of a weight of the linear layers, on average, where it is trained as it is; None: not known."""

    @property
    def words(self) -> str:
        if self.dequantized:
            return f"quantised already ({self.kind}); it is dequantised when it is loaded, and stays so"
        merging = (
            "is dequantised to be merged"
            if self.mergeable
            else "an adapter can't be merged into it"
        )
        return f"quantised already ({self.kind}); it is trained as it is, and {merging}"


def quantization_of(
    config: PreTrainedConfig, device: torch.device, *, nf4: bool = False
) -> Quantized | None:
    """How a base is used that its configuration says to be quantised; None for any other.

    transformers' own quantizer is asked what it needs, and PEFT whether it adapts the layers.

    Args:
        config: the model's configuration; stays as it is.
        device: of the run.
        nf4: whether the recipe wants it in NF4.

    Raises:
        UsageError: it can't be loaded here, or not be trained; or NF4 is wanted of it.
    """
    values = _values(config)
    if values is None:
        return None
    kind = _kind(values)
    if nf4:
        raise UsageError(
            f"model.quantization: nf4, and {config.name_or_path} is quantised already ({kind}).",
            f"Set model.quantization=null. {_OR_OTHER}",
        )
    quantizer = _quantizer(values, kind, device)
    bits = _bits(values)
    undoes = _undoes(quantizer)
    # With 8 bits bitsandbytes rounds the activations, too, by what else is in the row: an answer would
    # depend on its neighbours. On a CPU it packs the weights in a way of its own when they are used.
    kept = device.type == "cuda" and bits == 4  # noqa: PLR2004 - bits
    if _can_dequantize(quantizer.quantization_config) or (undoes and not kept):
        return Quantized(kind, dequantized=True, mergeable=True)
    whole, packed = _adapted(config, quantizer, kind)
    linear_bytes = None
    if bits is not None:
        width = 2.0  # what is left out of the quantisation is in half precision, or counted too low
        linear_bytes = (packed * (bits / 8 + SCALE_BYTES) + (whole - packed) * width) / whole
    return Quantized(kind, dequantized=False, mergeable=undoes, linear_bytes=linear_bytes)


def loading(
    config: PreTrainedConfig, quantized: Quantized, device: torch.device, dtype: torch.dtype
) -> dict[str, object]:
    """What `from_pretrained` is given, so that a quantised base is loaded as it is used."""
    config = copy.deepcopy(config)
    values = dict(_values(config) or {})
    if quantized.dequantized:
        values["dequantize"] = True  # where that is known
    if "bnb_4bit_compute_dtype" in values:  # the one of the machine that it was quantised on
        values["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")
    _holder(config).quantization_config = values
    options: dict[str, object] = {"config": config}
    if "dequantize" not in values and device.type == "cpu":
        options["device_map"] = {"": "cpu"}  # left out, some would go to the GPU by themselves
    return options


def settle(model: PreTrainedModel, quantized: Quantized, dtype: torch.dtype) -> None:
    """Let a quantised base that was just loaded be as it is used: in one dtype, and plain if dequantised.

    transformers leaves what is not quantised in the dtype of the file, and would quantise what it
    dequantised again when the model is saved, without saying so in the configuration.

    Raises:
        RagtuneError: it was not dequantised.
    """
    if quantized.dequantized and getattr(model, "hf_quantizer", None) is not None:
        model.dequantize(dtype=dtype)
    single = stays_float32(model)
    for name, parameter in model.named_parameters():
        number = parameter.is_floating_point() and parameter.dtype.itemsize > 1
        if quantized.dequantized and not number:
            raise RagtuneError(
                f"{name} of the base is still {parameter.dtype} after it was to be dequantised.",
                _OTHER,
            )
        kept = parameter.dtype == torch.float32 and single(name)
        if number and type(parameter) is torch.nn.Parameter and not kept:
            parameter.data = parameter.data.to(dtype)
    if quantized.dequantized:
        used = {tuple(c.target_patterns) for c in model._weight_conversions or ()}  # noqa: SLF001 - no public way
        model._weight_conversions = [  # noqa: SLF001 - the same
            c for c in get_model_conversion_mapping(model) if tuple(c.target_patterns) in used
        ]


def require_mergeable(quantized: Quantized | None) -> None:
    """Require that an adapter can be merged into a base.

    Raises:
        UsageError: it is quantised in a way that can't be undone.
    """
    if quantized and not quantized.mergeable:
        raise UsageError(
            f"The base is quantised ({quantized.kind}), and transformers can't undo that: nothing is merged "
            "into quantised weights.",
            "Set publish.format=adapter: the adapter is published alone.",
        )


def without_quantization(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the same model, not quantised: what merging writes."""
    if _values(config) is None:
        return config
    config = copy.deepcopy(config)
    del _holder(config).quantization_config
    return config


def quantization_values(config: PreTrainedConfig) -> dict[str, Any]:
    """What a configuration says of its quantisation; nothing if it says none."""
    return _values(config) or {}


def _holder(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration that says how a model is quantised: the whole one, or that of its text part."""
    whole = getattr(config, "quantization_config", None) is not None
    return config if whole else config.get_text_config(decoder=True)


def _values(config: PreTrainedConfig) -> dict[str, Any] | None:
    values = getattr(_holder(config), "quantization_config", None)
    if values is None or isinstance(values, dict):
        return values
    if not hasattr(values, "to_dict"):
        raise UsageError(
            f"model.id: config.json: quantization_config is {values!r}.", "It must be a mapping."
        )
    return dict(values.to_dict())


def _kind(values: dict[str, Any]) -> str:
    bits = _bits(values)
    name = str(values.get("quant_method") or ("bitsandbytes" if bits else "of no known kind"))
    return f"{name} with {bits} bits" if bits else name


def _bits(values: dict[str, Any]) -> int | None:
    """Bits of a weight, where a configuration says so in one of the usual ways."""
    for name, loaded in (("load_in_4bit", 4), ("load_in_8bit", 8)):
        if values.get(name):
            return loaded
    # Names of the kinds; of one with another name the plan says that it is a bound.
    bits = values.get("bits", values.get("w_bit"))
    return bits if isinstance(bits, int) else None


def _quantizer(values: dict[str, Any], kind: str, device: torch.device) -> HfQuantizer:
    """A quantizer of transformers for a base; it says that it can work here, and train.

    Raises:
        UsageError: it can't.
    """
    with quiet():
        known = AutoHfQuantizer.supports_quant_method({"quant_method": "", **values})
    if not known:
        # transformers would skip it, and take the packed weights for weights.
        raise UsageError(
            f"model.id: the base is quantised ({kind}), which transformers does not know.",
            _OTHER,
        )
    place: dict[str, Any] | None = {"": device.index or 0 if device.type == "cuda" else "cpu"}
    try:
        with quiet():
            asked = AutoQuantizationConfig.from_dict(copy.deepcopy(values))
            plain = _can_dequantize(asked)
            if plain:
                asked.dequantize, place = True, None
            quantizer = AutoHfQuantizer.from_config(asked, pre_quantized=True)
            quantizer.validate_environment(device_map=place, weights_only=True)
            trains = plain or quantizer.is_trainable
    # ImportError: a package; the others: the machine, or what config.json says, in transformers' words.
    except (ImportError, *FOREIGN) as error:
        raise UsageError(
            f"model.id: the base is quantised ({kind}), and transformers can't load it here: "
            f"{known_only(first_line(error)).rstrip('.')}.",
            _needed(error),
        ) from error
    if not trains:
        raise UsageError(
            f"model.id: the base is quantised ({kind}), and transformers does not train that.",
            _OTHER,
        )
    return quantizer


def _needed(error: Exception) -> str:
    """What to do for a quantizer that refuses: what it wants to be installed, and what is not there."""
    if isinstance(error, ImportError):
        missing = (error.name or "").partition(".")[0]  # of a module that was imported
        if how := install_in(str(error)) or install(missing):
            return f"Run: {how}. {_OR_OTHER}"
        if error.name or "pip install" in str(error):
            return f"What it needs is not known to ragtune: its own pages say how it is installed. {_OR_OTHER}"
    here = "" if torch.cuda.is_available() else "There is no NVIDIA GPU here. "
    return f"{here}{_OTHER}"


def _can_dequantize(asked: object) -> bool:
    """Whether a quantisation's configuration can ask for it to be undone while the model is loaded."""
    # Tested by `settle` on every weight.
    return isinstance(getattr(asked, "dequantize", None), bool)


def _undoes(quantizer: HfQuantizer) -> bool:
    """Whether a quantizer implements `dequantize` of a loaded model."""
    return type(quantizer)._dequantize is not HfQuantizer._dequantize  # noqa: SLF001 - no public way


def _adapted(config: PreTrainedConfig, quantizer: HfQuantizer, kind: str) -> tuple[int, int]:
    """Weights of the linear layers, and of those that are quantised; PEFT adapts one to show that it can.

    Raises:
        UsageError: it can't.
    """
    model = skeleton(without_quantization(config))
    head = model.get_output_embeddings()
    plain = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    sizes = {name: module.weight.numel() for name, module in plain.items()}
    with quiet(), torch.device("meta"):
        quantizer.preprocess_model(model=model, device_map=None, dtype=torch.bfloat16)
    now = dict(model.named_modules())
    packed = [name for name, module in plain.items() if now[name] is not module]
    if packed:
        try:
            with quiet():
                get_peft_model(model, LoraConfig(r=1, target_modules=[packed[0]]))
        except ValueError as error:
            raise UsageError(
                f"model.id: the base is quantised ({kind}), and PEFT can't adapt its layers: "
                f"{first_line(error)}",
                _OTHER,
            ) from error
    return sum(sizes.values()), sum(sizes[name] for name in packed)
