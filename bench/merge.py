"""How long merging an adapter into a 7B model takes on a processor, and how much memory.

    python bench/merge.py --folder FOLDER --out bench/results/NAME.json [--layers 32] [--rank 128]

A model of Llama 2 7B's shape and an adapter on all of its linear layers are made in FOLDER, with random weights
in bfloat16; they take 15 GB, and what is merged 14 GB more. Merging runs in a process of its own: its seconds
up to the last byte on the disk, those of the processor, and the peak of its memory, in which the pages of
the files that it reads count (Linux). `copy` is what copying the model's files takes: the disk's own floor.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from build_model import SHAPE
from machine import made_with
from ragtune.base.files import write_json
from ragtune.data.encode import Encoder
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.model.load import load_tokenizer
from ragtune.model.merge import merge
from ragtune.model.source import ModelSource
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RECIPE = {
    "name": "merge",
    "data": {"train": "none.jsonl", "eval": "none.jsonl"},
    "prompt": {"preset": "english", "chat_template": "plain"},
    "train": {"steps": 1, "batch_size": 1, "learning_rate": 1e-4},
}


def build(folder: Path, layers: int, rank: int) -> None:
    """The model in model/, two layers a file, and adapter/."""
    config = LlamaConfig(**{**SHAPE, "num_hidden_layers": layers}, dtype="bfloat16")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    block = torch.randn(1 << 27, generator=torch.Generator().manual_seed(0))

    def drawn(shape: tuple[int, ...], scale: float, dtype: torch.dtype) -> torch.Tensor:
        count = torch.Size(shape).numel()
        parts = [block] * (count // len(block)) + [block[: count % len(block)]]
        return (torch.cat(parts) * scale).to(dtype).reshape(shape)

    base, adapter = folder / "model", folder / "adapter"
    for made in (base, adapter):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
    files: dict[str, list[str]] = {}
    for name in model.state_dict():
        number = int(name.split(".")[2]) // 2 if ".layers." in name else layers // 2
        files.setdefault(f"model-{number:05}.safetensors", []).append(name)
    for file, names in files.items():
        tensors = {n: drawn(model.state_dict()[n].shape, 0.02, torch.bfloat16) for n in names}
        save_file(tensors, base / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: f for f, names in files.items() for n in names}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(base)
    vocabulary = {chr(33 + i): i for i in range(90)} | {"</s>": 90, "[UNK]": 91}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="</s>",  # noqa: S106 - no password
        unk_token="[UNK]",  # noqa: S106 - the same
    ).save_pretrained(base)
    weights = {}
    for name, module in model.named_modules():
        if name.endswith(LAYERS):
            for part, shape in (
                ("A", (rank, module.in_features)),
                ("B", (module.out_features, rank)),
            ):
                weights[f"base_model.model.{name}.lora_{part}.weight"] = drawn(
                    shape, 0.01, torch.float32
                )
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LAYERS), task_type="CAUSAL_LM")
    lora.save_pretrained(adapter)


def merge_in(folder: Path) -> None:
    source = ModelSource(str(folder / "model"), None)
    recipe: Recipe = load_recipe({**RECIPE, "model": {"id": source.path}})
    encoder = Encoder(prepare_tokenizer(load_tokenizer(source), recipe), recipe, 4096)
    merge(source, folder / "adapter", encoder, folder / "merged")


def copy(folder: Path) -> None:
    shutil.copytree(folder / "model", folder / "merged", dirs_exist_ok=True)


def measured(folder: Path, what: str) -> dict[str, float]:
    """In a process of its own; what it writes is removed again."""
    shutil.rmtree(folder / "merged", ignore_errors=True)
    (folder / "merged").mkdir()
    os.sync()
    command = [sys.executable, __file__, "--folder", str(folder), "--only", what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own command
    shutil.rmtree(folder / "merged")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak() -> int:
    """KiB of this process's memory at most; `ru_maxrss` counts what the one that started it had."""
    status = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def act(folder: Path, what: str) -> None:
    """Do it, and print what it took: imports are over by now, and what is written is on the disk."""
    start = time.monotonic()
    ACTS[what](folder)
    os.sync()
    seconds, used = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "seconds": round(seconds, 1),
        "cpu": round(used.ru_utime + used.ru_stime, 1),
        "peak_gib": round(peak() / 2**20, 2),
    }
    print(json.dumps(found))


ACTS: dict[str, Callable[[Path], None]] = {"copy": copy, "merge": merge_in}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"])
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--only", choices=list(ACTS))
    options = parser.parse_args()
    if options.only:
        act(options.folder, options.only)
        return
    build(options.folder, options.layers, options.rank)
    size = sum(file.stat().st_size for file in (options.folder / "model").iterdir())
    result = {
        **made_with(),
        "gib": round(size / 2**30, 2),
        "copy": measured(options.folder, "copy"),
        "merge": measured(options.folder, "merge"),
    }
    if options.out:
        write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
