"""Putting an adapter on a model, saving it, and loading it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ragtune.errors import RagtuneError, UsageError, is_out_of_memory
from ragtune.model.load import quiet
from ragtune.recipe import Lora


def attach(model: Any, lora: Lora, seed: int) -> Any:
    """Wrap a model with a fresh LoRA adapter, drawn by the seed; only the adapter is trained.

    Adapters are float32 whatever the base is, so that small updates are not rounded away.

    Raises:
        UsageError: no layer of the model has one of the named ends.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    check_targets(model, lora)
    all_linear = lora.target_modules == ["all-linear"]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        task_type=TaskType.CAUSAL_LM,
        target_modules="all-linear" if all_linear else lora.target_modules,
    )
    torch.manual_seed(seed)
    with quiet():
        return get_peft_model(model, config)


def check_targets(model: Any, lora: Lora) -> None:
    """See that a model (one without weights will do) has the layers that are to get an adapter.

    Raises:
        UsageError: no layer has one of the named ends, or its weights are shared.
    """
    targets = lora.target_modules
    if targets == ["all-linear"]:
        return
    ends = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [t for t in targets if t.rpartition(".")[2] not in ends]
    if missing:
        raise UsageError(
            f"lora.target_modules: {type(model).__name__} has no {', '.join(missing)}.",
            f"Its linear layers are {', '.join(linear_names(model))}; or use [all-linear].",
        )
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    if model.config.get_text_config().tie_word_embeddings:
        tied = {n.rpartition(".")[2] for n, m in model.named_modules() if m in embeddings}
        if tied & {t.rpartition(".")[2] for t in targets}:
            raise UsageError(
                f"lora.target_modules: {', '.join(sorted(tied))} share their weights in "
                f"{type(model).__name__}, and an adapter on one of them can't be merged.",
                "Leave them out of lora.target_modules.",
            )


def linear_names(model: Any) -> list[str]:
    """The ends of the names of a model's linear layers, without the output layer."""
    head = model.get_output_embeddings()
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if module is not head and type(module).__name__.startswith(("Linear", "Conv1D"))
    }
    return sorted(names)


def trainable_parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def save_adapter(model: Any, folder: Path, base: str | None) -> None:
    """Write adapter_model.safetensors and adapter_config.json, the same bytes for the same weights.

    Args:
        model: the PEFT model.
        folder: exists.
        base: the base model's Hub id, or None: a path of this machine is not written.
    """
    with quiet():
        model.save_pretrained(folder, safe_serialization=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # PEFT writes a set in the order of its hashes, which differs from process to process.
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    config["base_model_name_or_path"] = base
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's stub; ragtune writes its own card


def load_adapter(model: Any, folder: Path) -> Any:
    """Wrap a base model with a saved adapter.

    Raises:
        RagtuneError: the adapter is damaged or belongs to another model.
    """
    from peft import PeftModel

    if not (
        folder / "adapter_model.safetensors"
    ).is_file():  # PEFT would read a pickle in its place
        raise RagtuneError(
            f"{folder} holds no adapter_model.safetensors.",
            "Delete the folder and run the same command again. An adapter_model.bin is a pickle, which "
            "could run any code when it is read: ragtune never does.",
        )
    try:
        with quiet():
            return PeftModel.from_pretrained(model, str(folder))
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RagtuneError(
            f"The adapter in {folder} is damaged: {str(error).splitlines()[0]}",
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
