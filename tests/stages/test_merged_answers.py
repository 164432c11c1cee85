"""How many questions the merged model is asked, and that what is asked is what lies on the disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

import ragtune
from ragtune.answering import local
from ragtune.answering.prediction import read_predictions
from ragtune.recipe.load import load_recipe
from ragtune.stages import answer
from ragtune.stages import merge as stage
from ragtune.store.proof import NAME, close, read_proof
from tests.conftest import make_records, write_records

QUESTIONS, FIRST = 60, 32
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Path, Any]:
    """A run that was merged, and what asking again has found."""
    folder = tmp_path_factory.mktemp("merged")
    recipe = {
        "name": "tiny",
        "seed": 7,
        "model": {"id": str(tiny_folder), "dtype": "float32"},
        "data": {
            "train": str(write_records(folder / "train.jsonl", make_records(60))),
            "eval": str(write_records(folder / "eval.jsonl", make_records(QUESTIONS, "e"))),
            "max_passages": 1,
        },
        "prompt": {"preset": "english"},
        "lora": {"rank": 8, "alpha": 16, "dropout": 0.0},
        "train": {"steps": 40, "batch_size": 8, "learning_rate": 0.01},
        "evaluate": {"max_new_tokens": 6, "metric": "squad_em"},
    }
    ragtune.evaluate(recipe, run_dir=folder / "run")
    return folder / "run", ragtune.merge(recipe, run_dir=folder / "run")


def qids(run: Path) -> list[str]:
    answers = run / "eval" / "eval" / "merged" / "predictions.jsonl"
    return [one.qid for one in read_predictions(answers)]


def damaged(run: Path, copy: Path, harm: Callable[[Weights, Weights], None]) -> Path:
    """A copy of the run with another merged model, made by who doesn't know it better."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "eval" / "eval" / "merged")
    place = copy / "merged"
    weights = load_file(place / "model.safetensors")
    recipe = json.loads((run / "run.json").read_text("utf-8"))["recipe"]
    base = load_file(Path(recipe["model"]["id"]) / "model.safetensors")
    harm(weights, base)
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    proof = read_proof(place)
    assert proof is not None
    (place / NAME).unlink()
    place.rename(copy / "made")
    close(copy / "made", proof, place)
    return copy


def test_some_are_asked_where_nothing_changed(merged: tuple[Path, Any]) -> None:
    run, found = merged
    assert (found["asked"], found["of"]) == (FIRST, QUESTIONS)
    assert found["changed"] <= 1
    assert found["at_most"] <= 7
    asked = qids(run)
    assert len(set(asked)) == FIRST
    assert asked == sorted(asked, key=lambda qid: int(qid.removeprefix("e")))
    assert json.loads((run / "run.json").read_text("utf-8"))["merge"] == found


def test_what_was_tried_before_tuning_is_not_tried_again(
    merged: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []
    monkeypatch.setattr(local, "unfit", lambda *args, **how: tried.append(args))
    copy = damaged(merged[0], tmp_path / "run", lambda weights, base: None)
    shutil.rmtree(copy / "eval/eval/after")
    ragtune.evaluate(copy)
    ragtune.merge(copy)
    assert not tried
    said = json.loads((copy / "run.json").read_text("utf-8"))["asked"]
    # Which that model alone has shown.
    assert said.pop("before")["reason"].startswith("packed prompts")
    again = {"how": "packed", "reason": "as before tuning"}
    assert said == {"after": again, "merge": again}


def test_it_is_tried_again_where_answers_may_come_out_otherwise(
    merged: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []
    monkeypatch.setattr(local, "unfit", lambda *args, **how: tried.append(args))
    copy = damaged(merged[0], tmp_path / "run", lambda weights, base: None)
    on = answer.answered_on
    for name, changed in (
        ("versions", lambda: {"torch": "0"}),
        ("answered_on", lambda context: on(context) | {"dtype": "bfloat16"}),
    ):
        tried.clear()
        with monkeypatch.context() as patch:
            patch.setattr(answer, name, changed)
            shutil.rmtree(copy / "eval/eval/after")
            ragtune.evaluate(copy)
        assert len(tried) == 1
    tried.clear()
    monkeypatch.setattr(stage, "_computes_alike", lambda _: False)
    ragtune.merge(copy)
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        ([], True),
        (["train.optimizer=adamw_8bit"], True),
        (["model.quantization=nf4"], False),
        (["train.products=fp8"], True),
        (["evaluate.products=fp8"], False),
        (["comes quantised"], False),
    ],
)
def test_a_merged_model_is_not_what_few_bits_were(
    tiny_recipe: dict[str, Any], changes: list[str], alike: bool
) -> None:
    config = LlamaConfig()
    if changes == ["comes quantised"]:
        config.quantization_config, changes = {"quant_method": "gptq", "bits": 4}, []
    context = SimpleNamespace(recipe=load_recipe(tiny_recipe, changes), config=config)
    assert stage._computes_alike(context) is alike  # type: ignore[arg-type]


def scaled(weights: Weights, base: Weights) -> None:
    for name in weights:
        if "proj" in name:
            weights[name] += 3 * (weights[name].float() - base[name]).to(torch.bfloat16)


def one_matrix(weights: Weights, base: Weights) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name].flip(0).contiguous()


def without_embeddings(weights: Weights, base: Weights) -> None:
    weights["model.embed_tokens.weight"].uniform_(-0.2, 0.2, generator=torch.manual_seed(0))


def without_adapter(weights: Weights, base: Weights) -> None:
    weights.update({name: tensor.to(weights[name].dtype) for name, tensor in base.items()})


@pytest.mark.parametrize("harm", [scaled, one_matrix, without_embeddings, without_adapter])
def test_a_damaged_merge_is_asked_everything_and_is_another_model(
    merged: tuple[Path, Any], tmp_path: Path, harm: Callable[[Weights, Weights], None]
) -> None:
    """So it is the file that is asked, and not what merging had in memory."""
    run, before = merged
    copy = damaged(run, tmp_path / "run", harm)
    found = ragtune.merge(copy)
    assert found is not None
    assert (found["asked"], found["of"], found["at_most"]) == (
        QUESTIONS, QUESTIONS, found["changed"],
    )  # fmt: skip
    assert found["changed"] > before["at_most"]
    assert qids(copy) == [f"e{i}" for i in range(QUESTIONS)]


def test_a_break_between_some_and_all_asks_none_twice(
    merged: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = damaged(merged[0], tmp_path / "run", without_embeddings)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "settled", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ragtune.merge(copy)
    (kept,) = (copy / "work").glob("merged-answers-*/answers.jsonl")
    assert len(kept.read_text("utf-8").splitlines()) == FIRST
    found = ragtune.merge(copy)
    whole = damaged(merged[0], tmp_path / "whole", without_embeddings)
    assert found == ragtune.merge(whole)
