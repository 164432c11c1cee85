"""Time `ragtune prepare` on data of the size that the notebook has, in its own process.

The notebook's training file has 22,335 records of 100 passages, 607 MB gzip. A file like it is made
of one with fewer passages: the records come again under other ids until there are enough, and each
is filled up to 100 with passages of other records, cut to 400 characters as the real ones are. The
tokenizer (Llama's kind of BPE, with as many entries as Swallow's) is trained on the same text; the
model has random weights, `prepare` reads only its configuration.

python bench/prepare.py --train jaquad_rag.train.jsonl.gz --eval jaquad_rag.dev.jsonl.gz \
    --out bench/results/prepare-cpu.json
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from machine import processor

RECORDS = {"train": 22_335, "eval": 1_000}
PASSAGES = 100
CHARACTERS = 400
"""The longest passage of the real data; cut from those that are added."""
VOCABULARY = 43_176
LIBRARIES = ("ragtune", "transformers", "tokenizers", "torch")


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def build(folder: Path, train: Path, evaluation: Path) -> None:
    """Write train.jsonl.gz, half.jsonl.gz, eval.jsonl.gz and the model's folder."""
    records = read(train)
    build_model(folder / "model", records)
    write(folder / "eval.jsonl.gz", filled(read(evaluation), RECORDS["eval"]))
    write(folder / "train.jsonl.gz", filled(records, RECORDS["train"]))
    write(folder / "half.jsonl.gz", filled(records, RECORDS["train"] // 2))


def write(path: Path, lines: Iterator[str]) -> None:
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=6) as file:
        file.writelines(lines)


def filled(records: list[dict[str, Any]], count: int) -> Iterator[str]:
    """`count` lines of 100 passages each; the first ones are the record's own."""
    every = {p["passage_id"]: p for r in records for p in r["passages"]}
    texts = {i: p["text"][:CHARACTERS] for i, p in every.items()}
    cut = {i: json.dumps(p | {"text": texts[i]}, ensure_ascii=False) for i, p in every.items()}
    ids = list(every)
    draw = random.Random(0)
    for number in range(count):
        record = records[number % len(records)]
        own = record["passages"]
        more = draw.sample(ids, PASSAGES - len(own))
        shown = [p["text"] for p in own] + [texts[i] for i in more]
        positive = [i for i, t in enumerate(shown) if any(a in t for a in record["answers"])]
        rest = {
            "positive_passage_indices": positive,
            "negative_passage_indices": [i for i in range(PASSAGES) if i not in set(positive)],
        }
        head = {k: v for k, v in record.items() if k not in {"passages", *rest}}
        head["qid"] = f"{record['qid']}.{number // len(records)}"
        passages = [json.dumps(p, ensure_ascii=False) for p in own] + [cut[i] for i in more]
        yield (
            json.dumps(head, ensure_ascii=False)[:-1]
            + f', "passages": [{", ".join(passages)}], '
            + json.dumps(rest)[1:]
            + "\n"
        )


def build_model(folder: Path, records: list[dict[str, Any]]) -> None:
    """A Llama with hardly any weights, and a tokenizer that works as Llama 2's does."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))],
        limit_alphabet=5000,
        max_token_length=16,
    )
    # Learnt on short pieces, used on whole texts: Llama's tokenizer splits nothing beforehand.
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁|\p{P}|[^▁\p{P}]{1,12}"), "isolated")
    texts = {p["text"] for r in records for p in r["passages"]}
    inner.train_from_iterator(sorted(texts), trainer)
    content = json.loads(inner.to_str()) | {"pre_tokenizer": None}
    # Bytes are entries like others in Llama's; as special tokens no text could be written with them.
    content["added_tokens"] = [
        t for t in content["added_tokens"] if not t["content"].startswith("<0x")
    ]
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def recipe(folder: Path, train: str) -> dict[str, Any]:
    return {
        "format": 1,
        "name": "prepare",
        "seed": 42,
        "model": {"id": str(folder / "model"), "quantization": None},
        "data": {
            "train": str(folder / train),
            "eval": str(folder / "eval.jsonl.gz"),
            "max_passages": 3,
        },
        "prompt": {"preset": "aio", "chat_template": "aio"},
        "lora": {"rank": 128, "alpha": 128, "dropout": 0.05},
        "train": {
            "steps": 100,
            "batch_size": 16,
            "learning_rate": 1.0e-4,
            "optimizer": "adamw",
        },
        "evaluate": {"max_new_tokens": 32},
    }


def measure(folder: Path, train: str, run: Path) -> dict[str, Any]:
    """Run `ragtune prepare`; seconds, peak memory and what it selected."""
    path = folder / f"{train}.yaml"
    path.write_text(yaml.safe_dump(recipe(folder, train)), "utf-8")
    command = [sys.executable, "-m", "ragtune", "prepare", str(path), "--run-dir", str(run)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start = time.monotonic()
    process = subprocess.Popen(command, env=environment)  # noqa: S603 - our own command
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    if status:
        raise SystemExit(f"prepare failed: {status}")
    report = json.loads((run / "data" / "report.json").read_text("utf-8"))
    return {
        "records": report["train"]["read"],
        "selected": report["train"]["selected"],
        "prompt_tokens": report["train"]["prompt_tokens"]["total"],
        "passages": PASSAGES,
        "gzip_mb": round((folder / train).stat().st_size / 1e6, 1),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_mib": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="a .jsonl.gz of records")
    parser.add_argument("--eval", type=Path, required=True, help="the same, to evaluate on")
    parser.add_argument("--work", type=Path, help="keep what is built here, and use it again")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        if not (folder / "half.jsonl.gz").exists():
            folder.mkdir(parents=True, exist_ok=True)
            # Elsewhere: a child's peak memory is at least its parent's when it was started.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                pool.submit(build, folder, options.train, options.eval).result()
        result = {
            "format": 1,
            "command": f"python bench/prepare.py --train {options.train.name} "
            f"--eval {options.eval.name} --out {options.out}",
            "device": f"{processor()}, {os.cpu_count()} cores",
            "versions": {"python": platform.python_version()} | {n: version(n) for n in LIBRARIES},
            "load_average_before": round(os.getloadavg()[0], 2),
        }
        for name in ("half", "train"):
            run = Path(temporary) / f"run-{name}"
            result[{"train": "full"}.get(name, name)] = measure(folder, f"{name}.jsonl.gz", run)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
