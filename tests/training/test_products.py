"""A whole run with train.products: fp8, on a CPU, whose torch multiplies as a GPU's does."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ragtune
from ragtune.answering.local import Local
from ragtune.answering.prediction import Prediction
from ragtune.asking.opening import open_source
from ragtune.base.errors import UsageError
from ragtune.base.files import read_json
from ragtune.model import hardware
from ragtune.model import plan as planning
from ragtune.model.fast.eight import EightBit
from ragtune.model.hardware import Hardware, choose_hardware, plain
from ragtune.model.plan import Plan
from ragtune.model.quantized import Quantized
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.stages import context as resources
from ragtune.stages import holds
from ragtune.stages import train as stage
from ragtune.stages.context import Context
from ragtune.stages.order import ROAD, checkpoints_of, reads_of
from ragtune.stages.road import make, working
from ragtune.stages.weights import load_weights
from ragtune.store.proof import read_proof
from ragtune.training.train import train

FP8 = "train.products=fp8"


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_require_fp8", lambda *_: None)


def refuse(*_: Any) -> None:
    raise UsageError("not here")


def layers(model: torch.nn.Module) -> int:
    return sum(isinstance(module, EightBit) for module in model.modules())


@pytest.mark.usefixtures("allowed")
def test_a_whole_run(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    ragtune.run(tiny_recipe, FP8, "train.steps=4", run_dir=folder)
    out = capsys.readouterr().out
    assert "Products of 14 of 14 linear layers are in 8 bits." in out
    assert "packed rows give the logits" in read_json(folder / "run.json")["plan"]["packed_reason"]
    assert read_json(folder / "run.json")["plan"]["products"] == "fp8"
    merged = load_file(folder / "merged" / "model.safetensors")
    assert {value.dtype for value in merged.values()} == {torch.bfloat16}
    assert all(
        "lora_" in name for name in load_file(folder / "adapter" / "adapter_model.safetensors")
    )
    again = "its weights are loaded again"
    assert (out.count(again), out.index("steps of 4 samples") < out.index(again)) == (1, True)
    context = Context(folder)
    assert layers(context.base()) == 0
    assert context.base() is context.base()
    seconds = context.loading_seconds
    assert layers(context.base(training=True)) == 14  # of the same weights
    assert context.loading_seconds > seconds
    assert layers(context.tuned()) == 0
    answers = folder / "eval" / "eval" / "after"
    found = (answers / "predictions.jsonl").read_bytes()
    shutil.rmtree(answers)
    capsys.readouterr()
    ragtune.evaluate(folder)  # by a base that never multiplied in 8 bits
    assert (answers / "predictions.jsonl").read_bytes() == found
    assert again not in capsys.readouterr().out

    for changes, count in ([], 0), (["evaluate.products=fp8"], 14):
        reader = open_source(folder, changes)
        reader.load()
        assert reader._model is not None
        assert layers(reader._model) == count


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("training", [None, "fp8"])
def test_answers_by_it(
    training: str | None,
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Which products a training has is not what answers have, and the other way round."""
    tiny_recipe["evaluate"]["products"], tiny_recipe["train"]["products"] = "fp8", training
    asked: list[int] = []
    answer = Local.answer

    def counted(engine: Local, *given: Any) -> list[Prediction]:
        asked.append(layers(engine.model))
        return answer(engine, *given)

    trained: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Local, "answer", counted)
        patch.setattr(
            stage, "train", lambda base, job: (trained.append(layers(base)), train(base, job))[1]
        )
        ragtune.run(
            tiny_recipe, "train.steps=2", "publish.format=adapter", run_dir=tmp_path / "run"
        )
    assert asked == [14, 14]
    assert trained == [14 if training else 0]
    out = capsys.readouterr().out
    assert out.count("Loading ") == (1 if training else 3)
    assert "kept dequantised" not in out  # nothing was quantised
    own = "The training has products in the model's dtype: its weights are loaded again."
    assert out.count(own) == (0 if training else 1)
    assert "Answers have" not in out


@pytest.mark.usefixtures("allowed")
def test_answers_in_8_bits_are_of_weights_that_are_not_packed(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the plan keeps NF4 packed: one that a training fell back to, or that ranks only ask by."""
    found: list[bool] = []

    def load(*given: Any, **how: Any) -> Any:
        found.append(how["dequantized"])
        return load_weights(*given, **how)

    monkeypatch.setattr(resources, "load_weights", load)
    context = Context(tiny_recipe, ["evaluate.products=fp8"], tmp_path / "run")
    with working(context):
        make(context, "questions")
        assert not context.plan.dequantized
        assert layers(context.base()) == 14
        assert layers(context.base(training=True)) == 0
    assert found == [True, False]
    trained = Context(tiny_recipe, [FP8], tmp_path / "trained")
    with working(trained):
        make(trained, "questions")
        assert layers(trained.base(training=True)) == 14
    assert found == [True, False, False]  # a training takes packed weights as they are


def test_what_was_trained_in_8_bits_answers_where_none_could_be(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    def run() -> Context:
        return Context(tiny_recipe, [FP8, "train.steps=1"], tmp_path / "run")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "_require_fp8", lambda *_: None)
        with working(one := run()):
            make(one, "adapter")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "_require_fp8", refuse)
        with working(one := run()):
            make(one, "after")
        shutil.rmtree(one.folder.adapter)
        with pytest.raises(UsageError, match="not here"):
            assert run().hardware


def test_only_answers_need_what_answers_in_8_bits_need(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that has no such products trains, and merges what was answered elsewhere."""
    folder = tmp_path / "run"
    monkeypatch.setattr(hardware, "_require_fp8", refuse)
    ragtune.train(tiny_recipe, "evaluate.products=fp8", "train.steps=1", run_dir=folder)
    for base in (False, True):
        with pytest.raises(UsageError, match="not here"):
            ragtune.evaluate(folder, base=base)
    found = {one["name"]: one["message"] for one in ragtune.check(folder) if one["level"] == "fail"}
    assert found == {"hardware": "not here"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "_require_fp8", lambda *_: None)
        ragtune.evaluate(folder)
    assert ragtune.merge(folder)
    other = tmp_path / "other"  # a whole run answers: it is refused before anything is made
    with pytest.raises(UsageError, match="not here"):
        ragtune.run(tiny_recipe, "evaluate.products=fp8", run_dir=other)
    assert not other.exists()


@pytest.mark.usefixtures("allowed")
def test_answers_of_before_there_was_the_key_are_as_was_trained(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with working(one := Context(tiny_recipe, [FP8, "evaluate.products=fp8"], folder)):
        make(one, "before")

    def older(place: Path) -> Any:
        proof = read_proof(place)
        assert proof is not None
        then = {k: v for k, v in proof.recipe.items() if k != "evaluate.products"}
        if proof.stage == "before":
            then["train.products"] = "fp8"
        return proof.model_copy(update={"recipe": then})

    monkeypatch.setattr(holds, "read_proof", older)
    words = "evaluate.products: 'fp8' there, None now: no longer valid: before\n"
    with pytest.raises(UsageError, match=words):
        holds.require_unchanged(Context(tiny_recipe, [FP8], folder), making=False)
    as_then = Context(tiny_recipe, [FP8, "evaluate.products=fp8"], folder)
    holds.require_unchanged(as_then, making=False)


@pytest.mark.usefixtures("allowed")
def test_a_break_changes_nothing(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for stopped in (False, True):
        folder = tmp_path / str(stopped)
        one = Context(tiny_recipe, [FP8, "train.steps=4"], folder)
        with working(one):
            make(one, "adapter")
            checkpoint = checkpoints_of(one.folder, one.recipe) / "checkpoint-2"
            saved = load_file(checkpoint / "adapter_model.safetensors")
            assert all("lora_" in name for name in saved)
            assert not list(checkpoint.glob("model*"))
            if stopped:
                _forget(one)
        if stopped:
            again = Context(tiny_recipe, [FP8, "train.steps=4"], folder)
            with working(again):
                make(again, "adapter")
        found.append(load_file(folder / "adapter" / "adapter_model.safetensors"))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def _forget(one: Context) -> None:
    """As if the training had been cut off after step 2."""
    checkpoints = checkpoints_of(one.folder, one.recipe)
    shutil.rmtree(one.folder.adapter)
    for folder in checkpoints.glob("checkpoint-*"):
        if folder.name != "checkpoint-2":
            shutil.rmtree(folder)


def test_what_reads_it(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    folder = Context(recipe, run_dir=tmp_path / "run").folder
    read = {one.name for one in ROAD if "train.products" in reads_of(folder, one, recipe)}
    asked_before = {"before", "controls before", "general before"}
    by_the_adapter = {"general after"}
    others = {"data", "questions"} | asked_before | by_the_adapter
    assert read == {one.name for one in ROAD} - others
    read = {one.name for one in ROAD if "evaluate.products" in reads_of(folder, one, recipe)}
    assert asked_before | {"after", "merged answers"} <= read
    assert "adapter" not in read


def with_fp8(**model: str) -> Recipe:
    values: dict[str, Any] = {
        "name": "x", "model": {"id": "x", **model}, "data": {"train": "x", "eval": "x"},
        "prompt": {"preset": "english"}, "train": {"steps": 1, "products": "fp8"},
    }  # fmt: skip
    return load_recipe(values)


def card(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        hardware, "gpu_of", lambda one: hardware.Gpu(f"card {one}", capabilities[one], 80 << 30)
    )


def test_no_card() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match="needs an NVIDIA GPU, and there is none") as caught:
        choose_hardware(with_fp8())
    assert "train.products=null" in caught.value.advice
    assert choose_hardware(plain(with_fp8())).device.type != "cuda"


def test_every_card_must_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, (8, 9), (9, 0), (8, 6))
    assert choose_hardware(with_fp8(), [0, 1]).dtype == torch.bfloat16
    with pytest.raises(UsageError, match=r"compute capability 8\.9, and card 2 has 8\.6"):
        choose_hardware(with_fp8(), [0, 2])


def test_it_goes_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, (9, 0))
    assert isinstance(choose_hardware(with_fp8()), Hardware)
    with pytest.raises(
        UsageError, match=r"goes with bfloat16, and model\.dtype is float32"
    ) as caught:
        choose_hardware(with_fp8(dtype="float32"))
    assert "model.dtype=auto" in caught.value.advice


def test_the_plan_keeps_it() -> None:
    plan = Plan(
        "a GPU",
        "bfloat16",
        None,
        8,
        recompute=False,
        optimizer="adamw",
        evaluation_batch=1,
        products="fp8",
    )
    assert Plan.from_dict(plan.to_dict()) == plan
    older = {k: v for k, v in plan.to_dict().items() if k != "products"}
    assert Plan.from_dict(older) == dataclasses.replace(plan, products=None)


def test_a_base_that_stays_quantised_is_refused() -> None:
    base = Quantized("gptq with 4 bits", dequantized=False, mergeable=False)
    planning._require_plain_products(load_recipe(with_fp8(), ["train.products=null"]), base)
    with pytest.raises(UsageError, match=r"gptq with 4 bits\) and trained as it is") as caught:
        planning._require_plain_products(with_fp8(), base)
    assert "train.products=null" in caught.value.advice
