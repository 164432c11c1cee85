"""Make the model of the side-by-side benchmark: Swallow-7b's shape with random weights.

    python bench/build_model.py --data FOLDER --out FOLDER [--device cuda] [--tiny]

FOLDER of --data holds jaquad_rag.train.jsonl.gz. The weights are drawn by a seed (normal, standard
deviation 0.02), in bfloat16, on the device; they take 13.5 GB. The tokenizer is a BPE of 43,176
entries, as large as Swallow's, trained on the data's own text; the prompts of three passages then
have about 720 tokens, as they have with Swallow's. `min_new_tokens` lets every answer have the
same length. `--tiny` makes the same in small and float32, for tests.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import time
from collections import Counter
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


def write_shard(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A safetensors file. save_file holds the interpreter's lock; plain writes run side by side."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    kinds, start = {torch.bfloat16: "BF16", torch.float32: "F32"}, 0
    for name, tensor in tensors.items():
        end = start + tensor.nbytes
        header[name] = {
            "dtype": kinds[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(memoryview(tensor.view(torch.uint8).numpy()))


def write_weights(config: Any, folder: Path, dtype: torch.dtype, device: str) -> None:
    """Draw the weights shard by shard on the device, and write the shards side by side."""
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in LlamaForCausalLM(config).state_dict().items()}
    shards: dict[int, list[str]] = {}
    for name in shapes:
        layer = int(name.split(".")[2]) if name.startswith("model.layers.") else -1
        shards.setdefault(layer // LAYERS_PER_SHARD, []).append(name)
    order = [shards[key] for key in sorted(shards)]
    files = [f"model-{i:05}-of-{len(order):05}.safetensors" for i in range(1, len(order) + 1)]

    def draw(index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator(device).manual_seed(SEED + index)
        made = {}
        for name in order[index]:
            weight = torch.empty(shapes[name], dtype=dtype, device=device)
            if name.endswith("norm.weight"):
                weight.fill_(1)
            else:
                weight.normal_(0, config.initializer_range, generator=generator)
            made[name] = weight.cpu()
        return made

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(write_shard, folder / f, draw(i)) for i, f in enumerate(files)]
        for job in jobs:
            job.result()
    size = sum(shape.numel() for shape in shapes.values()) * dtype.itemsize
    index = {
        "metadata": {"total_size": size},
        "weight_map": {n: f for f, names in zip(files, order, strict=True) for n in names},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), "utf-8")


def build(data: Path, out: Path, *, tiny: bool, device: str) -> dict[str, Any]:
    """Write the model folder; returns what build.json says of it."""
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    shape = TINY if tiny else SHAPE
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
    write_weights(config, out, dtype, device)
    made = {
        "format": 1,
        "shape": shape,
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
    options = parser.parse_args()
    made = build(options.data, options.out, tiny=options.tiny, device=options.device)
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
