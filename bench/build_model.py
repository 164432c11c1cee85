"""Make the model of the side-by-side benchmark: Swallow-7b's shape with random weights.

    python bench/build_model.py --data FOLDER --out FOLDER [--device cuda] [--large 80] [--tiny]

FOLDER of --data holds jaquad_rag.train.jsonl.gz. The weights are drawn by a seed (normal, standard
deviation 0.02), in bfloat16, on the device; they take 13.5 GB. The tokenizer is a BPE of 43,176
entries, as large as Swallow's, trained on the data's own text; the prompts of three passages then
have about 720 tokens, as they have with Swallow's. `min_new_tokens` lets every answer have the
same length. `--large 80` makes Llama 3 70B's shape with that vocabulary, 138 GB. `--tiny` makes
the same in small and float32, for tests.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.data.prompt import CHAT_TEMPLATES
from ragtune.data.read import read_examples
from ragtune.data.select import rejection
from ragtune.recipe.load import load_recipe

TRAIN_FILE = "jaquad_rag.train.jsonl.gz"
PASSAGES = 3
ANSWER_TOKENS, TINY_ANSWER_TOKENS = 32, 4
SEED = 0
SHAPE = {
    "vocab_size": 43_176,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "initializer_range": 0.02,
}
LARGE = {
    **SHAPE,
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
TINY = {
    "vocab_size": 2_000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,  # wide: with narrow ones the loss would hardly move
}
SPECIALS = ["<unk>", "<s>", "</s>", "<pad>"]
UNK, BOS, EOS, PAD = range(4)
BYTES = [f"<0x{i:02X}>" for i in range(256)]
# Where BPE may not merge over: kanji with the kana behind it is a piece, every other sign its own.
# Chosen, like TEXT_CHARACTERS, so that the prompts come to about 720 tokens.
PIECES = (
    r"[一-鿿々]+[ぁ-ゖ]*|[ぁ-ゖー]+|[ァ-ヺー]+|[A-Za-z▁]+|[0-9]+|[^ぁ-ゖァ-ヺー一-鿿々A-Za-z0-9▁]"
)
TEXT_CHARACTERS = 1_000_000
LAYERS_PER_SHARD = 2
THREADS = 16


def texts_of(examples: list[Example]) -> list[str]:
    """Every passage once, the questions and the answers, in an order drawn by the seed."""
    texts = {p.text: None for e in examples for p in e.passages}
    texts |= {text: None for e in examples for text in (e.question, *e.answers)}
    found = list(texts)
    random.Random(SEED).shuffle(found)
    return found


def train_tokenizer(texts: list[str], size: int) -> Any:
    """A BPE with bytes for what it does not know, as Llama's is."""
    chosen, room = [], TEXT_CHARACTERS
    for text in texts:
        chosen.append(text)
        room -= len(text)
        if room <= 0:
            break
    inner = Tokenizer(models.BPE(unk_token=SPECIALS[UNK], byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    learned = size - len(BYTES)
    # The signs are chosen here: BpeTrainer's own choice among equally frequent ones is not fixed.
    signs = Counter(sign for text in chosen for sign in text.replace(" ", "▁"))
    alphabet = sorted(signs, key=lambda sign: (-signs[sign], sign))[: learned // 2]
    trainer = trainers.BpeTrainer(
        vocab_size=learned,
        special_tokens=SPECIALS,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    inner.train_from_iterator(chosen, trainer)
    # The bytes are no special tokens, so they are put in behind those by hand.
    written = json.loads(inner.to_str())
    vocabulary = written["model"]["vocab"]
    named = [t for t, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    named[len(SPECIALS) : len(SPECIALS)] = BYTES
    written["model"]["vocab"] = {token: i for i, token in enumerate(named)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(written)),
        unk_token=SPECIALS[UNK],
        bos_token=SPECIALS[BOS],
        eos_token=SPECIALS[EOS],
        pad_token=SPECIALS[PAD],
        chat_template=CHAT_TEMPLATES["aio"],
        model_max_length=SHAPE["max_position_embeddings"],
    )


def mean_tokens(tokenizer: Any, examples: list[Example], count: int = 500) -> float:
    """The mean length of training samples with the preset aio and three passages."""
    recipe = load_recipe(
        {
            "name": "build",
            "model": {"id": "here"},
            "data": {"train": "here", "eval": "here", "max_passages": PASSAGES},
            "prompt": {"preset": "aio"},
            "train": {"steps": 1},
        }
    )
    encoder = Encoder(tokenizer, recipe, SHAPE["max_position_embeddings"])
    kept = [e for e in examples if rejection(e, PASSAGES) is None]
    drawn = random.Random(SEED).sample(kept, min(count, len(kept)))
    lengths = [len(s) for s in map(encoder.sample, drawn) if s is not None]
    return sum(lengths) / len(lengths)


def write_shard(path: Path, shapes: dict[str, torch.Size], draw: Draw, seed: int) -> None:
    """A safetensors file, drawn and written a weight at a time through the same memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + shape.numel() * draw.dtype.itemsize
        header[name] = {
            "dtype": {torch.bfloat16: "BF16", torch.float32: "F32"}[draw.dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for weight in draw.weights(shapes, seed):
            # save_file would hold the interpreter's lock; plain writes run side by side.
            file.write(memoryview(weight.view(torch.uint8).numpy()))


class Draw:
    """Draws weights on a device, in threads, each with a piece of this machine's memory that it uses again."""

    def __init__(self, deviation: float, dtype: torch.dtype, device: str) -> None:
        self.deviation, self.dtype = deviation, dtype
        several = device == "cuda"
        count = torch.cuda.device_count() if several else 1
        self.devices = [f"cuda:{i}" for i in range(count)] if several else [device]
        self.local = threading.local()

    def weights(self, shapes: dict[str, torch.Size], seed: int) -> Iterator[torch.Tensor]:
        """The weights of a shard, flat; each is there until the next one is asked for."""
        device = self.devices[seed % len(self.devices)]
        generator = torch.Generator(device).manual_seed(seed)
        for name, shape in shapes.items():
            weight = torch.empty(shape, dtype=self.dtype, device=device)
            if name.endswith("norm.weight"):
                weight.fill_(1)
            else:
                weight.normal_(0, self.deviation, generator=generator)
            yield self.memory(weight.numel()).copy_(weight.flatten())

    def memory(self, count: int) -> torch.Tensor:
        found: torch.Tensor | None = getattr(self.local, "memory", None)
        if found is None or len(found) < count:
            pinned = self.devices[0].startswith("cuda")
            found = self.local.memory = torch.empty(count, dtype=self.dtype, pin_memory=pinned)
        return found[:count]


def write_weights(config: Any, folder: Path, dtype: torch.dtype, device: str) -> int:
    """Draw and write shards side by side, on all GPUs if the device is `cuda`; returns the parameters."""
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in LlamaForCausalLM(config).state_dict().items()}
    shards: dict[int, dict[str, torch.Size]] = {}
    for name, shape in shapes.items():
        layer = int(name.split(".")[2]) if name.startswith("model.layers.") else -1
        shards.setdefault(layer // LAYERS_PER_SHARD, {})[name] = shape
    order = [shards[key] for key in sorted(shards)]
    files = [f"model-{i:05}-of-{len(order):05}.safetensors" for i in range(1, len(order) + 1)]
    draw = Draw(config.initializer_range, dtype, device)
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [
            pool.submit(write_shard, folder / file, names, draw, SEED + i)
            for i, (file, names) in enumerate(zip(files, order, strict=True))
        ]
        for job in jobs:
            job.result()
    count = sum(shape.numel() for shape in shapes.values())
    index = {
        "metadata": {"total_size": count * dtype.itemsize},
        "weight_map": {n: f for f, names in zip(files, order, strict=True) for n in names},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), "utf-8")
    return count


def build(
    data: Path, out: Path, *, tiny: bool, device: str, large: int | None = None
) -> dict[str, Any]:
    """Write the model folder, with Llama 3 70B's shape if `large` layers are wanted; returns what build.json
    says of it."""
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    shape = TINY if tiny else LARGE if large else SHAPE
    shape = {**shape, "num_hidden_layers": large or shape["num_hidden_layers"]}
    examples = list(read_examples(str(data / TRAIN_FILE), "train"))
    tokenizer = train_tokenizer(texts_of(examples), int(shape["vocab_size"]))
    tokenizer.save_pretrained(out)
    tokens = mean_tokens(tokenizer, examples)
    tokenizer_seconds = time.monotonic() - start
    dtype = torch.float32 if tiny else torch.bfloat16
    config = LlamaConfig(
        **shape, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, dtype=dtype,
        tie_word_embeddings=False, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(out)
    GenerationConfig(
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        min_new_tokens=TINY_ANSWER_TOKENS if tiny else ANSWER_TOKENS,
    ).save_pretrained(out)
    parameters = write_weights(config, out, dtype, device)
    made = {
        "format": 1,
        "shape": shape,
        "parameters": parameters,
        "entries": len(tokenizer),
        "tokens_per_sample": round(tokens, 1),
        "seconds": {
            "tokenizer": round(tokenizer_seconds, 1),
            "all": round(time.monotonic() - start, 1),
        },
    }
    (out / "build.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--large", type=int, metavar="LAYERS", help="Llama 3 70B's shape; it has 80"
    )
    options = parser.parse_args()
    made = build(
        options.data, options.out, tiny=options.tiny, device=options.device, large=options.large
    )
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
