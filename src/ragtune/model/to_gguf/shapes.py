"""Which models llama.cpp computes as transformers does, and what a GGUF file must say of their shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ragtune.base.errors import UsageError
from ragtune.base.text import named

OTHERWISE = (
    "Set publish.format=merged, and convert what is in merged/ with llama.cpp's own converter, if that "
    "knows it."
)
"""What to do with a model that isn't written here."""
_FULL = "full_attention"
_SLIDING = "sliding_attention"
_ROPE = {"rope_theta", "rope_type", "type"}
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
_YARN = _ROPE | {"factor", "original_max_position_embeddings"}

Value = int | float | bool | str | list[bool]


@dataclass(frozen=True)
class Shape:
    """A family as llama.cpp has it."""

    arch: str
    """llama.cpp's name of it."""
    activation: str = "silu"
    interleaved: bool = False
    """Whether a head's two halves are interleaved for rotation: rows of q and k change places."""
    norm_plus_one: bool = False
    """Whether norms multiply by one more than what transformers keeps."""
    window_every: int = 0
    """Every so manieth layer looks at all positions, the others through the sliding window; 0: all do."""
    layers_27b: int = 0
    """Of that many layers llama.cpp takes hidden size / heads for the width by which attention is scaled."""


SHAPES: Mapping[str, Shape] = {
    "llama": Shape("llama", interleaved=True),
    "mistral": Shape("llama", interleaved=True),
    "qwen2": Shape("qwen2"),
    "qwen3": Shape("qwen3"),
    "gemma2": Shape("gemma2", "gelu_pytorch_tanh", norm_plus_one=True, window_every=2, layers_27b=46),
    "gemma3_text": Shape("gemma3", "gelu_pytorch_tanh", norm_plus_one=True, window_every=6, layers_27b=62),
}  # fmt: skip
"""By transformers' model_type; of a model with vision by that of its language model."""


def shape_of(config: PreTrainedConfig) -> Shape:
    """The shape of a model's language model.

    Raises:
        UsageError: llama.cpp, or what is written here, doesn't compute this model as transformers does.
    """
    text = config.get_text_config()
    shape = SHAPES.get(text.model_type)
    if shape is None:
        raise _refused(
            f"models of the type {text.model_type} are not written here (only {named(sorted(SHAPES))} are)"
        )
    problem = next((words for look in _LOOKS if (words := look(text, shape))), None)
    if problem:
        raise _refused(problem)
    return shape


def _refused(problem: str) -> UsageError:
    return UsageError(f"publish.format=gguf: {problem}.", OTHERWISE)


# What would be computed otherwise; in words, or None.


def _activation(text: PreTrainedConfig, shape: Shape) -> str | None:
    found = getattr(text, "hidden_activation", None) or text.hidden_act
    if found != shape.activation:
        return f"llama.cpp's {shape.arch} has the activation {shape.activation}, and this model {found}"
    return None


def _windows(text: PreTrainedConfig, shape: Shape) -> str | None:
    layers = getattr(text, "layer_types", None) or []
    if not shape.window_every:
        mixed = len(set(layers)) > 1
        return "only some of its layers have a sliding window" if mixed else None
    wanted = [_full(i, shape.window_every) for i in range(text.num_hidden_layers)]
    if [kind == _FULL for kind in layers] != wanted:
        return f"llama.cpp expects every {shape.window_every}. layer without a sliding window, and no other"
    return None


def _full(layer: int, every: int) -> bool:
    return (layer + 1) % every == 0


def _scale(text: PreTrainedConfig, shape: Shape) -> str | None:
    if not shape.layers_27b:
        return None
    large = text.num_hidden_layers == shape.layers_27b
    width = text.hidden_size / text.num_attention_heads if large else head_width(text)
    if text.query_pre_attn_scalar != width:
        return (
            f"llama.cpp scales attention by a width of {width:g}, and this model by "
            f"{text.query_pre_attn_scalar:g} (query_pre_attn_scalar)"
        )
    return None


def _rotation(text: PreTrainedConfig, shape: Shape) -> str | None:
    """Of positions: a scaling that llama.cpp lacks, or has with other numbers."""
    every = text.rope_parameters
    if _FULL in every:  # Gemma 3: one of each kind of layer
        if every[_SLIDING].get("rope_type", "default") != "default":
            return "its sliding windows scale positions"
        every = every[_FULL]
    kind = every.get("rope_type", "default")
    if kind not in ("default", "linear", "yarn", "llama3") or (
        kind == "llama3" and shape.arch != "llama"
    ):
        return f"llama.cpp's {shape.arch} doesn't scale positions by {kind}"
    if every.get("partial_rotary_factor", 1) != 1:
        return "only a part of each head is rotated"
    more = {k for k, v in every.items() if v is not None} - _YARN
    if kind == "yarn" and more:
        return f"it sets {named(sorted(more))} of yarn, which llama.cpp computes itself"
    return None


def _rest(text: PreTrainedConfig, shape: Shape) -> str | None:
    if getattr(text, "use_bidirectional_attention", None):
        return "its attention looks ahead"
    if shape.norm_plus_one and not text.tie_word_embeddings:
        return "its output layer is not its embedding, as llama.cpp's Gemma has it"
    caps = [getattr(text, name, None) for name in _CAPS]
    if shape.arch == "gemma2" and not all(caps):
        return "llama.cpp's gemma2 caps logits, and this model doesn't"
    if shape.arch == "gemma3" and any(caps):
        return "llama.cpp's gemma3 caps no logits"
    if getattr(text, "mlp_bias", False):
        return "its feed-forward layers have biases"
    return None


_LOOKS: tuple[Callable[[PreTrainedConfig, Shape], str | None], ...] = (
    _activation,
    _windows,
    _scale,
    _rotation,
    _rest,
)


# What the file says.


def head_width(text: PreTrainedConfig) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def context_of(config: PreTrainedConfig) -> int:
    """The longest text that llama.cpp reads as transformers does, in tokens.

    Where every layer has a sliding window, that is the window: llama.cpp looks at all positions there.
    """
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    if SHAPES[text.model_type].window_every or not window or _SLIDING not in _layers(text):
        return int(text.max_position_embeddings)
    return int(min(window, text.max_position_embeddings))


def _layers(text: PreTrainedConfig) -> list[str]:
    """The kind of each layer; Mistral says nothing, and means its window for all."""
    return getattr(text, "layer_types", None) or [_SLIDING]


def settings(config: PreTrainedConfig, shape: Shape) -> dict[str, Value]:
    """What a GGUF file says of a model: by the names of the writer's methods, without `add_`."""
    text = config.get_text_config()
    found: dict[str, Value] = {
        "vocab_size": text.vocab_size,
        "context_length": context_of(config),
        "embedding_length": text.hidden_size,
        "block_count": text.num_hidden_layers,
        "feed_forward_length": text.intermediate_size,
        "head_count": text.num_attention_heads,
        "head_count_kv": text.num_key_value_heads,
        "key_length": head_width(text),
        "value_length": head_width(text),
        "rope_dimension_count": head_width(text),
        "layer_norm_rms_eps": text.rms_norm_eps,
    }
    if shape.window_every:
        found["sliding_window"] = text.sliding_window
        every = range(text.num_hidden_layers)
        found["sliding_window_pattern"] = [not _full(i, shape.window_every) for i in every]
    if shape.arch == "gemma2":
        found |= {name: float(getattr(text, name)) for name in _CAPS}
    return found | _positions(text)


def _positions(text: PreTrainedConfig) -> dict[str, Value]:
    parameters = text.rope_parameters
    found: dict[str, Value] = {}
    if _FULL in parameters:
        found["rope_freq_base_swa"] = float(parameters[_SLIDING]["rope_theta"])
        parameters = parameters[_FULL]
    found["rope_freq_base"] = float(parameters["rope_theta"])
    kind = parameters.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        found["rope_scaling_type"] = kind
        found["rope_scaling_factor"] = float(parameters["factor"])
    if kind == "yarn":
        before = parameters.get("original_max_position_embeddings") or text.max_position_embeddings
        found["rope_scaling_orig_ctx_len"] = int(before)
    return found


def rotation_factors(config: PreTrainedConfig) -> torch.Tensor | None:
    """By what llama.cpp divides each frequency of Llama 3's scaled positions; None for other models."""
    text = config.get_text_config()
    if text.rope_parameters.get("rope_type") != "llama3":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](text, torch.device("cpu"))
    width = head_width(text)
    exponents = torch.arange(0, width, 2).float() / width
    factors: torch.Tensor = text.rope_parameters["rope_theta"] ** -exponents / scaled
    return factors
