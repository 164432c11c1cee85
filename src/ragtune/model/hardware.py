"""The device of a run, the dtype that it is good at, and what a stage takes of a GPU's memory."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from transformers import PreTrainedModel

from ragtune.base.commands import install
from ragtune.base.disk import cache_dir
from ragtune.base.errors import UsageError
from ragtune.base.text import one_or_many
from ragtune.recipe.schema import Recipe

# Long and short rows leave fewer gaps in memory that grows in place.
if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    # In a notebook CUDA may have started, and with it the variable been read.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.memory._set_allocator_settings(  # type: ignore[no-untyped-call]  # noqa: SLF001 - no public way
            "expandable_segments:True"
        )

AMPERE = (8, 0)
"""The first compute capability with bfloat16 arithmetic in hardware."""
ADA = (8, 9)
"""The first one with products of 8-bit floats."""


@dataclass(frozen=True)
class Gpu:
    """What counts of a GPU where several share the work."""

    name: str
    capability: tuple[int, int]
    memory: int
    """bytes"""


def gpu_of(number: int) -> Gpu:
    """A GPU of this machine, which isn't touched."""
    found = torch.cuda.get_device_properties(number)
    return Gpu(found.name, (found.major, found.minor), found.total_memory)


@dataclass(frozen=True)
class Hardware:
    """The device of a run and the dtype of the weights, with the reason for it."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    name: str
    gpus: tuple[Gpu, ...] = ()
    """All that share the work, of every machine: the smallest one's memory is planned for."""

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def choose_hardware(
    recipe: Recipe, numbers: Sequence[int] = (), gpus: Sequence[Gpu] = ()
) -> Hardware:
    """The device for a recipe, and the dtype: of several GPUs that which all of them are good at.

    `torch.cuda.is_bf16_supported()` is true on a T4, by emulation, so the compute capability decides.

    Args:
        recipe: the dtype, if it sets one.
        numbers: GPUs of this machine that share the work; the first one is this process's, or the current one.
        gpus: all that share it, if some are of other machines.

    Raises:
        UsageError: NF4, an 8-bit optimizer or 8-bit products are asked for where they can't work.
    """
    if recipe.model.quantization == "nf4":
        _require_bitsandbytes("model.quantization: nf4", "model.quantization=null")
    if recipe.train.optimizer != "adamw":
        _require_bitsandbytes(f"train.optimizer: {recipe.train.optimizer}", "train.optimizer=adamw")
    dtype = torch.float32
    if torch.cuda.is_available():
        device = torch.device("cuda", numbers[0] if numbers else torch.cuda.current_device())
        gpus = gpus or [gpu_of(number) for number in numbers or [device.index]]
        name = " and ".join(dict.fromkeys(gpu.name for gpu in gpus))
        oldest = min(gpus, key=lambda gpu: gpu.capability)
        reason = "compute capability {}.{}".format(*oldest.capability)
        if any(gpu.capability != oldest.capability for gpu in gpus):
            reason += f", the lowest, of {oldest.name}"
        dtype = torch.bfloat16
        if oldest.capability < AMPERE:
            dtype, reason = torch.float16, f"{reason}, which has no bfloat16 arithmetic"
    elif torch.backends.mps.is_available():
        device, name, reason = torch.device("mps"), "Apple GPU", "the safe choice on an Apple GPU"
    else:
        device, name = torch.device("cpu"), f"CPU, {one_or_many(torch.get_num_threads(), 'thread')}"
        reason = "no GPU: exact and repeatable on any CPU"
    if recipe.model.dtype != "auto":
        dtype, reason = getattr(torch, recipe.model.dtype), "the recipe asks for it"
    if recipe.in_8_bits:
        _require_fp8(recipe.in_8_bits, dtype, gpus)
    return Hardware(device, dtype, reason, name, tuple(gpus))


def _require_bitsandbytes(what: str, instead: str) -> None:
    if not torch.cuda.is_available():
        raise UsageError(f"{what} needs an NVIDIA GPU, and there is none here.", f"Set {instead}.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            f"{what} needs bitsandbytes.", f"Run: {install('bitsandbytes')}. Or set {instead}."
        )


def answering_alone(recipe: Recipe) -> Recipe:
    """The recipe without what only training needs of a machine."""
    train = recipe.train.model_copy(update={"optimizer": "adamw", "products": None})
    return recipe.model_copy(update={"train": train})


def training_alone(recipe: Recipe) -> Recipe:
    """The recipe without what only answering needs of a machine."""
    evaluate = recipe.evaluate.model_copy(update={"products": None})
    return recipe.model_copy(update={"evaluate": evaluate})


def _require_fp8(key: str, dtype: torch.dtype, gpus: Sequence[Gpu]) -> None:
    what, instead = f"{key}: fp8", f"Set {key}=null."
    if not gpus:
        raise UsageError(f"{what} needs an NVIDIA GPU, and there is none here.", instead)
    for gpu in gpus:
        if gpu.capability < ADA:
            raise UsageError(
                "{} needs compute capability {}.{}, and {} has {}.{}.".format(
                    what, *ADA, gpu.name, *gpu.capability
                ),
                instead,
            )
    if dtype != torch.bfloat16:
        name = str(dtype).removeprefix("torch.")
        raise UsageError(
            f"{what} goes with bfloat16, and model.dtype is {name}.",
            f"Set model.dtype=auto. Or s{instead[1:]}",
        )


def plain(recipe: Recipe) -> Recipe:
    """The recipe without what needs bitsandbytes, or 8 bits: for a merged model, which is not quantised."""
    model = recipe.model.model_copy(update={"quantization": None})
    return answering_alone(training_alone(recipe)).model_copy(update={"model": model})


@cache
def has_triton() -> bool:
    """Whether kernels written in Triton can be compiled; it comes with torch's CUDA builds."""
    return importlib.util.find_spec("triton") is not None


def keep_kernels() -> None:
    """Let the kernels that Triton compiles for a GPU lie in ragtune's cache, where the next run finds them.

    Triton would leave them in the user's home, which a container loses.
    """
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_dir().absolute() / "kernels" / "triton"))


def free_gpu() -> None:
    """Give back what is no longer used: a trainer is a cycle, and a graph's memory a pool of its own."""
    gc.collect()
    if _in_use():
        torch.cuda.empty_cache()


def reset_gpu_peak() -> None:
    """Count the peak from here on."""
    if _in_use():
        torch.cuda.reset_peak_memory_stats()


def gpu_peak() -> int | None:
    """The most bytes that were allocated at a time, or None without a GPU in use."""
    return torch.cuda.max_memory_allocated() if _in_use() else None


def gpu_memory(device: torch.device) -> int:
    """Bytes that this process may have of a GPU, what torch has taken already included."""
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    return int(min(free + torch.cuda.memory_reserved(device), allowed))


def _in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def autocast(model: PreTrainedModel) -> torch.autocast:
    """Adapters are float32: on a GPU their products run in the base's dtype, as in training."""
    kind = model.get_input_embeddings().weight.device.type
    half = model.dtype in (torch.bfloat16, torch.float16) and kind == "cuda"
    # A captured graph may not keep casts in a cache that is gone when it is replayed.
    return torch.autocast(kind, model.dtype if half else None, enabled=half, cache_enabled=False)
