"""Loading tokenizers and models, with the dtype that the hardware is good at."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ragtune.base.errors import UsageError
from ragtune.base.network import hub_is_offline
from ragtune.base.stopping import stop_if_asked
from ragtune.data.encode import Encoder
from ragtune.model.quantized import loading, see_quantized, settle
from ragtune.model.source import ModelSource
from ragtune.model.unloadable import explained
from ragtune.model.weights import loads_without_hub, see_cached
from ragtune.recipe.schema import Recipe

# Long and short rows leave fewer gaps in memory that grows in place.
if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    # In a notebook CUDA may have started, and with it the variable been read.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.memory._set_allocator_settings(  # type: ignore[no-untyped-call]  # noqa: SLF001
            "expandable_segments:True"
        )

AMPERE = (8, 0)
"""The first compute capability with bfloat16 arithmetic in hardware."""


@dataclass(frozen=True)
class Hardware:
    """The device of a run and the dtype of the weights, with the reason for it."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    name: str

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def choose_hardware(recipe: Recipe) -> Hardware:
    """The device and dtype for a recipe.

    `torch.cuda.is_bf16_supported()` is true on a T4, by emulation, so the compute capability decides.

    Raises:
        UsageError: NF4 or an 8-bit optimizer is asked for where it can't work.
    """
    cuda = torch.cuda.is_available()
    if recipe.model.quantization == "nf4":
        _need_bitsandbytes(cuda, "model.quantization: nf4", "model.quantization=null")
    if recipe.train.optimizer != "adamw":
        _need_bitsandbytes(
            cuda, f"train.optimizer: {recipe.train.optimizer}", "train.optimizer=adamw"
        )
    if cuda:
        device = torch.device("cuda", torch.cuda.current_device())
        name = torch.cuda.get_device_name(device)
        capability = torch.cuda.get_device_capability(device)
        dtype = torch.bfloat16 if capability >= AMPERE else torch.float16
        reason = f"compute capability {capability[0]}.{capability[1]}" + (
            "" if capability >= AMPERE else ", which has no bfloat16 arithmetic"
        )
    elif torch.backends.mps.is_available():
        device, name = torch.device("mps"), "Apple GPU"
        dtype, reason = torch.float32, "the safe choice on an Apple GPU"
    else:
        device, name = torch.device("cpu"), f"CPU, {torch.get_num_threads()} threads"
        dtype, reason = torch.float32, "no GPU: exact and repeatable on any CPU"
    if recipe.model.dtype != "auto":
        dtype, reason = getattr(torch, recipe.model.dtype), "the recipe asks for it"
    return Hardware(device, dtype, reason, name)


def plain(recipe: Recipe) -> Recipe:
    """The recipe without what needs bitsandbytes: for a merged model, which is not quantised."""
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"quantization": None}),
            "train": recipe.train.model_copy(update={"optimizer": "adamw"}),
        }
    )


def _need_bitsandbytes(cuda: bool, what: str, instead: str) -> None:
    if not cuda:
        raise UsageError(f"{what} needs an NVIDIA GPU, and there is none here.", f"Set {instead}.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            f"{what} needs bitsandbytes.", f"Run: pip install bitsandbytes. Or set {instead}."
        )


_FEW_CORES = 4
"""So many are busy with reading and encoding already: a tokenizer's own threads would only disturb them."""
_NOISY = ("accelerate", "peft", "huggingface_hub", "liger_kernel")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' own bars, warnings and hints off the screen; ours say what matters."""
    if (os.cpu_count() or 1) <= _FEW_CORES:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as hf_logging

    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    others = {n: logging.getLogger(n).level for n in _NOISY}
    for name in others:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
        for name, level in others.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _loading(what: str, source: ModelSource) -> Iterator[None]:
    try:
        with quiet():
            yield
    except Exception as error:
        stop_if_asked()  # Ctrl-C in the middle of an import looks like one that fails
        known = explained(error, what, source)
        if known is None:
            raise
        raise known from error


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer of a model, with a pad token.

    Raises:
        UsageError: there is none.
    """
    from transformers import AutoTokenizer

    with _loading("tokenizer", source):
        tokenizer = _pretrained(AutoTokenizer, source)
    if tokenizer.pad_token_id is None:
        # Padding is masked everywhere, so any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _pretrained(kind: Any, source: ModelSource, **options: Any) -> Any:
    """What `from_pretrained` makes of a model."""
    # Left out, trust_remote_code would be asked on the screen.
    options |= {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    try:
        return kind.from_pretrained(source.path, **options)
    except OSError:
        # A Hub that refuses, as it does with a token that has expired, is asked for files that a model
        # need not have, too; with no network transformers takes the cache by itself.
        if hub_is_offline() or not loads_without_hub(source):
            raise
        with contextlib.suppress(OSError):
            return kind.from_pretrained(source.path, **options | {"local_files_only": True})
        raise


def load_config(source: ModelSource) -> Any:
    """The model's configuration.

    Raises:
        UsageError: there is none, or something is beside it that must not be loaded.
    """
    from transformers import AutoConfig

    with _loading("configuration", source):
        config = _pretrained(AutoConfig, source)
        see_cached(source)  # now the commit is known, and nothing has been done yet
        return config


def context_length(config: Any) -> int:
    """The longest sequence that a model was made for, in tokens."""
    # The families' names for it. Nothing tests it: `check` says the number, and a wrong one only cuts or
    # allows longer prompts.
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 1 << 20


def has_liger(config: Any) -> bool:
    """Whether Liger's norm, rotary embedding and gated activation are there for a model's family."""
    if importlib.util.find_spec("liger_kernel") is None:
        return False
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    # Liger's own table. Tested on the model: the probes before answers compare what its kernels compute in
    # packed rows and from the cache.
    return config.model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


def _fuse_kernels(model: Any) -> None:
    """Let Liger's kernels do what they can for a model's family; the losses are our own."""
    from transformers.integrations.liger import apply_liger_kernel

    family = sys.modules[type(model).__module__]
    before = dict(vars(family))
    losses = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    from ragtune.model.experts import mixtures
    from ragtune.model.skeleton import language_model

    # Liger's experts tune their kernels for minutes when they are first used (on an H100).
    dense = not mixtures(language_model(model)[1], "")
    kernels = {"rope": True, "rms_norm": True, "swiglu": dense, "geglu": dense}
    try:
        apply_liger_kernel(model, kernels | losses)
    except NotImplementedError:  # of some families Liger knows no rotary embedding
        apply_liger_kernel(model, kernels | losses | {"rope": False})
    # Liger also changes the family's module, for every later model of the process; and its kernels
    # don't run on a CPU.
    for name, changed in list(vars(family).items()):
        original = before.get(name)
        if isinstance(original, type):
            setattr(family, name, original)
        elif original is not changed and callable(original):
            kernel = _rotary(changed) if name == "apply_rotary_pos_emb" else changed
            setattr(family, name, _on_cuda(kernel, original))


def _on_cuda(kernel: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def choose(first: Any, *rest: Any, **named: Any) -> Any:
        return (kernel if first.is_cuda else plain)(first, *rest, **named)

    return choose


def _rotary(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Liger's rotary embedding for queries and keys [samples, heads, positions, size].

    It takes the stride of the positions for that of a row, also where there is one position and the
    stride may be anything: after Gemma 3's norm every sample but the first was read from the wrong
    place.
    """

    def apply(query: Any, key: Any, *rest: Any, **named: Any) -> Any:
        if query.shape[2] == 1:
            query, key = (
                x.reshape(x.shape[0], 1, x.shape[1], x.shape[3]).transpose(1, 2)
                for x in (query, key)
            )
        return kernel(query, key, *rest, **named)

    return apply


def _round_to_nf4(model: Any) -> None:
    """Replace the linear layers' weights with what NF4 makes of them, in their own dtype.

    They are then those with which a quantised model computes, to the bit, without being dequantised
    at every use. Which layers these are is transformers' choice, as when it quantises itself.
    """
    # tests/model/test_fused.py (GPU) compares it with the quantised model.
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = HfQuantizer.get_modules_to_not_convert(
        model,
        None,
        model._keep_in_fp32_modules,  # noqa: SLF001 - what transformers' own quantizers ask
    )
    for name, module in model.named_modules():
        turned = isinstance(module, Conv1D)  # its weight stands the other way round
        if (turned or type(module) is torch.nn.Linear) and should_convert_module(name, kept):
            weight = module.weight.data
            packed, state = quantize_4bit(
                (weight.T if turned else weight).contiguous(), quant_type="nf4"
            )
            rounded = dequantize_4bit(packed, state)
            module.weight.data = rounded.T.contiguous() if turned else rounded


def load_model(
    source: ModelSource, hardware: Hardware, *, nf4: bool, dequantized: bool = False
) -> Any:
    """A causal language model on its device, in eval mode, frozen.

    Args:
        source: where its files are.
        hardware: the device and dtype.
        nf4: whether the linear layers' weights are quantised.
        dequantized: keep what NF4 makes of them in `hardware.dtype`: four times the memory, faster.

    Raises:
        UsageError: it is not found or no causal language model in safetensors, or has an adapter; it is
            quantised in a way that can't be trained here.
        RagtuneError: too little memory.
    """
    from transformers import BitsAndBytesConfig

    from ragtune.model.skeleton import auto_class

    options: dict[str, Any] = {}
    if nf4 and not dequantized:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=hardware.dtype
        )
    if hardware.device.type == "cuda":
        options["device_map"] = {"": hardware.device.index or 0}
    config = load_config(source)
    kind = auto_class(config)
    quantized = see_quantized(config, hardware.device, nf4=nf4)
    if quantized:
        options |= loading(config, quantized, hardware.device, hardware.dtype)
    with _loading("model", source):
        source, asked = see_cached(source)
        if not asked:
            # transformers would look for an adapter once more, and the network may be back by then.
            options |= {"local_files_only": True, "adapter_kwargs": {"local_files_only": True}}
        model = _pretrained(kind, source, dtype=hardware.dtype, use_safetensors=True, **options)
        if hardware.device.type != "cuda":
            if "device_map" not in options:
                model.to(hardware.device)
        elif has_liger(model.config):
            _fuse_kernels(model)
        if quantized:
            settle(model, quantized, hardware.dtype)
        if nf4 and dequantized:
            _round_to_nf4(model)
    model.requires_grad_(requires_grad=False)
    return model.eval()


def stop_generation_at(model: Any, encoder: Encoder) -> None:
    """Let a model's generation settings end at the trained stop token as well as at its own."""
    own = model.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    ends = sorted({encoder.stop_id, *own})
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.generation_config.pad_token_id = encoder.tokenizer.pad_token_id
