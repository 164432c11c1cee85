"""Putting an adapter on a model, saving it, and loading it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.lora import model as lora_model
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from ragtune.base.errors import RagtuneError, is_out_of_memory
from ragtune.base.sparing import spared
from ragtune.base.text import first_line, named
from ragtune.model import pissa
from ragtune.model.quiet import quiet
from ragtune.model.targets import find_targets, packed_weight
from ragtune.model.tensor_file import save_tensors, saving_by
from ragtune.model.wrapping import ADAPTER, adapters, is_matrix, wrap
from ragtune.recipe.lora import Lora


def attach(model: PreTrainedModel, lora: Lora, seed: int, without: Sequence[str] = ()) -> PeftModel:
    """Wrap a model with a fresh LoRA adapter, drawn by the seed; only the adapter is trained.

    Adapters are float32 whatever the base is, so that small updates are not rounded away.

    Args:
        model: is wrapped in place.
        lora: which layers, rank, scale and dropout.
        seed: of the adapter's weights.
        without: whole names of layers and weights that get none.

    Raises:
        UsageError: as `find_targets` and `pissa.begin` do; or a weight that PEFT must reach is packed.
    """
    targets = find_targets(model.config, lora)
    layers, by_weight, experts = (
        [name for name in names if name not in without]
        for names in (targets.layers, targets.by_weight, targets.experts)
    )
    packed = [n for n in by_weight if not model.get_parameter(f"{n}.weight").is_floating_point()]
    if packed:
        raise packed_weight(packed[0], "in few bits")
    torch.manual_seed(seed)
    # With DoRA, and for weights that it reaches by their names, PEFT computes with what it draws.
    own = not (lora.dora or by_weight or experts or model.get_input_embeddings().weight.is_meta)
    tuned = wrap(model, lora, layers, by_weight, experts, weightless=own)
    if own:
        draw(adapters(tuned).values(), seed)
    if lora.dropout and (by_weight or experts):
        for layer in adapters(tuned).values():
            if is_matrix(layer):
                layer.lora_dropout[ADAPTER] = torch.nn.Dropout(lora.dropout)
    if lora.init == "pissa":
        pissa.begin(tuned)
    return tuned


def draw(layers: Iterable[LoraLayer], seed: int) -> None:
    """Give LoRA layers without weights those to begin with, as PEFT does: A like a linear layer's, B zeros.

    PEFT draws three times as many numbers, on one core, and rounds them to the base's dtype and back: ten
    seconds for a 7B model. Here each layer draws by a seed of its own, on all cores at a time; on the
    processor, so that all ranks have the same, whatever their GPUs are.
    """

    def one(layer: LoraLayer, number: int) -> None:
        base = layer.get_base_layer()
        # Of a base in few bits the weight may be called `qweight` or `codes`, and be a buffer.
        device = next(chain(base.parameters(), base.buffers())).device
        down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
        generator = torch.Generator().manual_seed((seed << 20) + number)
        bound = down.in_features**-0.5  # He et al. 2015 with a = √5, as nn.Linear has it
        drawn = torch.empty(down.weight.shape).uniform_(-bound, bound, generator=generator)
        down.weight = nn.Parameter(drawn.to(device))
        up.weight = nn.Parameter(torch.zeros(up.weight.shape, device=device))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(one, layers, count()))


def save_adapter(model: PeftModel, folder: Path, base: str | None) -> None:
    """Write adapter_model.safetensors and adapter_config.json, the same bytes for the same weights.

    Args:
        model: the PEFT model.
        folder: exists.
        base: the base model's Hub id, or None: a path of this machine is not written.
    """
    with quiet(), saving_by(save_tensors):
        model.save_pretrained(folder, safe_serialization=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # PEFT writes a set in the order of its hashes, which differs from process to process.
    for key in ("target_modules", "target_parameters"):
        if isinstance(config.get(key), list):
            config[key].sort()
    config["base_model_name_or_path"] = base
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on every system
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's stub; ragtune writes its own card


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Wrap a base model with a saved adapter; one without weights gets an adapter without weights.

    Raises:
        RagtuneError: the adapter is damaged or belongs to another model.
    """
    # PEFT would read a pickle in its place.
    if not (folder / "adapter_model.safetensors").is_file():
        raise RagtuneError(
            f"{folder} holds no adapter_model.safetensors.",
            "Delete the folder and run the same command again. An adapter_model.bin is a pickle, which "
            "could run any code when it is read: ragtune never does.",
        )
    try:
        with quiet(), spared(lora_model):
            weightless = model.get_input_embeddings().weight.is_meta
            tuned = PeftModel.from_pretrained(model, str(folder), low_cpu_mem_usage=weightless)
        _require_same(tuned, folder)
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RagtuneError(
            f"The adapter in {folder} is damaged: {first_line(error)}",
            "Delete the folder and run the same command again: training goes on from its last checkpoint.",
        ) from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        # What torch says of tensors that a module has no place for: a line of its own, then each.
        raise RagtuneError(
            f"The adapter in {folder} does not fit the model: {str(error).splitlines()[-1].strip()}",
            "It was trained on another model: set model.id to that one; or delete the folder and run the "
            "same command again.",
        ) from error
    return tuned


def _require_same(tuned: PeftModel, folder: Path) -> None:
    """Require that an adapter was loaded from its file to the last tensor: what PEFT does not find it draws.

    Raises:
        RagtuneError: a tensor is missing, or one has no place.
    """
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        there = set(file.keys())
    wanted = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    if there == wanted:
        return
    lacking, beyond = sorted(wanted - there), sorted(there - wanted)
    problem = (
        f"lacks {named(lacking)}"
        if lacking
        else f"has {named(beyond)}, which the model has no place for"
    )
    raise RagtuneError(
        f"The adapter in {folder} {problem}.",
        "It is damaged, or was trained on another model: set model.id to that one; or delete the folder and "
        "run the same command again.",
    )


def refresh(model: PeftModel, folder: Path) -> None:
    """Put an adapter's weights from its folder in the place of those that a model has.

    Raises:
        RagtuneError: a tensor is missing, or one has no place.
    """
    _require_same(model, folder)
    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
