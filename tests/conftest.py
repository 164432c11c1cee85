"""Tiny real models and tokenizers, made on the spot."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.ready import Ready

# How long an example takes is no matter of right or wrong: the machine may be busy.
# The same cases each time: what fails is of the change that is tested. `make fuzz` draws others.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, max_examples=500)
settings.load_profile("tests")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell begins what is in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models gain nothing by a second thread, and lose much when the cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Where they are installed (`make evaluators`). DeepEval reports when Python ends, so no single test can set it.
os.environ["RAGAS_DO_NOT_TRACK"] = "true"
os.environ["DEEPEVAL_TELEMETRY_OPT_OUT"] = "1"
# huggingface_hub reads these when it is imported: no token of the developer's is seen.
os.environ.pop("HF_TOKEN", None)
os.environ["HF_TOKEN_PATH"] = str(Path(__file__).parent / "no-token")

FIXTURES = Path(__file__).parent / "fixtures"

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


LONG = (
    "test_soak.py",
    "test_kill.py",
    "test_bench.py",
    "test_docs.py",
    "test_fuzz.py",
    "test_stopping.py",
    "test_build.py",
    "test_worker.py",
)
"""Files that take minutes: begun first, so that no core waits for one of them at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA here"))
    for marker in ("families", "heavy"):
        if marker not in config.option.markexpr:
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=f"takes minutes: make {marker}"))


@pytest.fixture(autouse=True)
def _own_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    """Nothing of a test is left in the user's cache."""
    if "slow" not in request.keywords:  # the real models' conversion is worth keeping
        monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _float32_by_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dtype that is measured is the same on every machine."""
    from ragtune.model import cpu_dtype

    monkeypatch.setattr(cpu_dtype, "measure", lambda _: cpu_dtype.Speeds(100, 100))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of a model's file that is to blame is found, however busy the machine is."""
    monkeypatch.setattr("ragtune.model.configuration._PATIENCE", 60.0)
    monkeypatch.setattr("ragtune.model.headers._QUICK", 60.0)


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> None:
    """What is imported by now is frozen: a run collects garbage ten times, and would look through all of it."""
    gc.freeze()


@pytest.fixture(scope="session")
def ready() -> Iterator[Ready]:
    """Starts `ragtune` in processes, without waiting for imports."""
    ready = Ready()
    yield ready
    ready.close()


@pytest.fixture(scope="session")
def record() -> dict[str, Any]:
    """A genuine record of llm-book/aio-retriever (CC BY-SA, see fixtures/README.md)."""
    value: dict[str, Any] = json.loads((FIXTURES / "aio_retriever.record.json").read_text("utf-8"))
    return value


def build_tokenizer(
    *, specials: dict[str, str], template: str | None = None, bos: bool = False
) -> Any:
    """A byte-level BPE tokenizer, trained on a few sentences in two languages."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    words = [
        "the capital of France is Paris",
        "富士山は日本の山である",
        "question answer text " * 3,
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=sorted(set(specials.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    inner.train_from_iterator(words * 5, trainer)
    if bos:
        token = specials["bos_token"]
        inner.post_processor = processors.TemplateProcessing(
            single=f"{token} $A", special_tokens=[(token, inner.token_to_id(token))]
        )
    known = {"bos_token", "eos_token", "pad_token", "unk_token"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        additional_special_tokens=sorted(v for k, v in specials.items() if k not in known),
        **{k: v for k, v in specials.items() if k in known},
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def chatml_tokenizer() -> Any:
    return build_tokenizer(
        specials={"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "start": "<|im_start|>"},
        template=CHATML,
    )


@pytest.fixture(autouse=True)
def _the_same_template(request: pytest.FixtureRequest) -> Iterator[None]:
    """A recipe's template, which a test put into the tokenizer of all tests, is none of the next one's."""
    used = "chatml_tokenizer" in request.fixturenames
    tokenizer = request.getfixturevalue("chatml_tokenizer") if used else None
    yield
    if tokenizer:
        tokenizer.chat_template = CHATML


SHAPE = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def tiny_model(family: str, **changes: Any) -> Any:
    """A model of a family's architecture with random weights, in float32."""
    import torch
    import transformers as hf

    configs = {
        "llama": (hf.LlamaConfig, {}),
        "mistral": (hf.MistralConfig, {}),
        "qwen2": (hf.Qwen2Config, {}),
        "qwen3": (hf.Qwen3Config, {"head_dim": 8}),
        "gemma3": (hf.Gemma3TextConfig, {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8,
                                         "layer_types": ["sliding_attention", "full_attention"]}),
        "gemma2": (hf.Gemma2Config, {"head_dim": 8, "attn_logit_softcapping": 50.0, "query_pre_attn_scalar": 8}),
        "gpt_oss": (hf.GptOssConfig, {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}),
        "afmoe": (hf.AfmoeConfig, {"head_dim": 8, "num_dense_layers": 1, "num_experts": 4, "moe_intermediate_size": 32,
                                   "num_experts_per_tok": 2, "sliding_window": 8,
                                   "layer_types": ["sliding_attention", "full_attention"]}),
        "lfm2": (hf.Lfm2Config, {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    }  # fmt: skip
    make, own = configs[family]
    torch.manual_seed(0)
    config = make(
        **{**SHAPE, **own, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **changes}
    )
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation=changes.get("attn"))
    return model.float().eval()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, chatml_tokenizer: Any) -> Path:
    """A saved tiny Llama with its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    # Wide weights: with narrow ones the frozen output layer could hardly say anything.
    model = tiny_model("llama", eos_token_id=chatml_tokenizer.eos_token_id, initializer_range=0.2)
    model.save_pretrained(folder)
    chatml_tokenizer.save_pretrained(folder)
    return folder


def make_records(count: int, prefix: str = "q") -> list[dict[str, Any]]:
    """Questions whose answer stands in the first of three passages."""
    colours = ["red", "green", "blue", "white", "black"]
    return [
        {
            "qid": f"{prefix}{i}",
            "question": f"What colour is house {i}?",
            "answers": [colours[i % 5]],
            "passages": [
                {"passage_id": 3 * i + k, "title": f"House {i}", "text": text}
                for k, text in enumerate(
                    (
                        f"House {i} is {colours[i % 5]}.",
                        "A street has houses.",
                        "Trees stand there.",
                    )
                )
            ],
            "positive_passage_indices": [0],
            "negative_passage_indices": [1, 2],
        }
        for i in range(count)
    ]


def write_records(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return path


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_folder: Path) -> dict[str, Any]:
    """A whole recipe that runs in seconds."""
    return {
        "name": "tiny",
        "seed": 7,
        "model": {"id": str(tiny_folder), "dtype": "float32"},
        "data": {
            "train": str(write_records(tmp_path / "train.jsonl", make_records(24))),
            "eval": str(write_records(tmp_path / "eval.jsonl", make_records(10, "e"))),
            "max_passages": 2,
        },
        "prompt": {"preset": "english"},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "train": {
            "steps": 8,
            "batch_size": 4,
            "learning_rate": 0.01,
            "log_every": 2,
            "save_every": 2,
        },
        "evaluate": {"max_new_tokens": 6, "metric": "squad_em"},
    }
