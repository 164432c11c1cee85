"""`publish.format: gguf`: the files, their answers against the adapter's, and what is said without llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.data.example import parse_example
from ragtune.stages import gguf
from ragtune.stages import run as running
from ragtune.stages.check import gguf as checking
from tests.conftest import make_records, write_records
from tests.model.to_gguf.vocabularies import encoder_of

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


def test_from_the_recipe_to_the_answers(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    tiny_recipe["train"]["steps"] = 2
    asked = [r | {"question": f"Tell me now: {r['question']}"} for r in make_records(10, "e")]
    tiny_recipe["data"]["eval"] = str(write_records(tmp_path / "longer.jsonl", asked))
    ragtune.run(tiny_recipe, run_dir=run)
    assert not (run / "gguf").exists()
    with monkeypatch.context() as patched:  # without llama.cpp they are written all the same
        patched.setattr(gguf, "installed", lambda: False)
        patched.setattr(running, "installed", lambda: False)
        ragtune.merge(run, "publish.format=gguf")
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "The GGUF files were not tried: xllamacpp is not installed. Run: pip install xllamacpp"
        in said
    )
    assert "The GGUF file was not asked the questions: xllamacpp is not installed." in said
    written = {path.name for path in (run / "gguf").iterdir()}
    assert written == {"model-bf16.gguf", "model-q8_0.gguf", "Modelfile", "stage.json"}
    # It has room for what is asked, which is longer than what was trained.
    longest = [
        json.loads((run / place / "stage.json").read_text("utf-8"))["facts"]["prompts"]["longest"]
        for place in ("data", "eval/longer/questions")
    ]
    assert longest[0] < longest[1]
    said = (run / "gguf/Modelfile").read_text("utf-8")
    assert f"# The longest prompt is that of eval/longer, {longest[1]} tokens; an answer" in said
    ragtune.merge(run, "publish.format=gguf")
    said = " ".join(capsys.readouterr().out.split())
    assert "of 10 answers otherwise than the run itself; squad_em" in said
    ragtune.merge(run, "publish.format=gguf")  # nothing is left to do, and it says where it lies
    said = capsys.readouterr().out.replace("\n", "")
    assert f"The merged model: {run / 'merged'}" in said
    assert f"For Ollama: ollama create NAME -f {run / 'gguf/Modelfile'}" in said
    found = json.loads((run / "run.json").read_text("utf-8"))["gguf"]
    assert (found["asked"], found["n"]) == (10, 10)
    for figure in found["difference"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    ragtune.report(run)
    assert "The GGUF file" in (run / "report.html").read_text("utf-8")


def test_a_model_that_is_not_written_is_refused_by_the_check(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_recipe["publish"] = {"format": "gguf"}
    monkeypatch.setattr(checking, "installed", lambda: False)
    found = {
        f["name"]: f
        for f in ragtune.check(tiny_recipe, run_dir=tmp_path / "run")
        if f["level"] != "ok"
    }
    assert found["gguf"]["message"].startswith("what is written won't be asked the questions")
    config = Path(tiny_recipe["model"]["id"]) / "config.json"
    other = tmp_path / "other"
    other.mkdir()
    for path in config.parent.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    values = json.loads(config.read_text("utf-8")) | {"hidden_act": "gelu"}
    (other / "config.json").write_text(json.dumps(values), "utf-8")
    tiny_recipe["model"]["id"] = str(other)
    with pytest.raises(
        UsageError, match=r"publish\.format=gguf: llama\.cpp's llama has the activation silu"
    ) as raised:
        ragtune.run(tiny_recipe, run_dir=tmp_path / "run")
    assert "Set publish.format=merged" in raised.value.advice


class Odd:
    """llama.cpp that cuts every text otherwise, and knows no chat template."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def ids(self, text: str) -> list[int]:
        return [len(text)]

    def ask(self, path: str, question: object) -> dict[str, Any]:
        raise RagtuneError("llama.cpp refuses a question to x: no such filter")


def test_a_single_prompt_that_llama_cpp_cuts_alike(
    chatml_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = lambda _, text: chatml_tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    monkeypatch.setattr(gguf, "Llama", type("Same", (Odd,), {"ids": ids}))
    examples = [parse_example(record, "here") for record in make_records(1)]
    context: Any = SimpleNamespace(encoder=encoder_of(chatml_tokenizer), training_examples=examples)
    assert gguf._tried(context, tmp_path)["unlike"] == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "llama.cpp cuts 1 prompt of the training data into the very same tokens." in said


def test_what_llama_cpp_does_otherwise_is_said(
    chatml_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gguf, "Llama", Odd)
    examples = [parse_example(record, "here") for record in make_records(3)]
    context: Any = SimpleNamespace(encoder=encoder_of(chatml_tokenizer), training_examples=examples)
    found = gguf._tried(context, tmp_path)
    assert (found["prompts"], found["unlike"]) == (3, 3)
    said = " ".join(capsys.readouterr().out.split())
    assert "llama.cpp cuts 3 of 3 prompts into other tokens than the model was trained with" in said
    assert (
        "llama.cpp can't render the chat template (llama.cpp refuses a question to x: no such filter)"
        in said
    )
