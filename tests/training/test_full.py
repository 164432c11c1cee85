"""`tuning: full`: all weights are trained, and everything behind the training takes the model as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ragtune
from ragtune.asking.opening import open_source
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_json
from ragtune.model.full import in_float32
from ragtune.model.hardware import Hardware
from ragtune.model.plan import describe, estimate_of, make_plan
from ragtune.model.skeleton import skeleton
from ragtune.recipe.load import load_recipe
from ragtune.stages.order import checkpoints_of
from ragtune.stages.road import make, working
from ragtune.store.seal import MANIFEST, seal
from ragtune.training import trainer as trainer_module
from tests.conftest import tiny_model
from tests.training.test_train import losses, summary, train

FULL = ("tuning=full", "train.learning_rate=0.01")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_all_weights_learn_more_than_an_adapters(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = train(tiny_recipe, tmp_path / "run", *FULL, "train.steps=20")
    found = losses(one)
    assert sum(found[-5:]) < 0.6 * sum(found[:5])
    tuned, base = weights(one.folder.adapter), weights(Path(tiny_recipe["model"]["id"]))
    assert tuned.keys() == base.keys()
    assert {name for name, w in tuned.items() if torch.equal(w, base[name])} == set()
    count = sum(w.numel() for w in base.values())
    assert summary(one)["train"]["trainable_parameters"] == count
    assert f"{count:,} trainable parameters (full tuning, in float32)" in capsys.readouterr().out
    assert not (one.folder.adapter / "adapter_config.json").exists()


def test_packed_rows_train_as_single_samples(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    single, packed = (
        train(tiny_recipe, tmp_path / str(n), *FULL, f"train.samples_per_row={n}") for n in (1, 4)
    )
    assert losses(packed) == pytest.approx(losses(single), rel=1e-5)
    for name, expected in weights(single.folder.adapter).items():
        torch.testing.assert_close(
            weights(packed.folder.adapter)[name], expected, atol=1e-5, rtol=0
        )


def test_a_break_changes_nothing_bit_for_bit(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer_module.PackedTrainer.compute_loss

    def broken(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        if self.state.global_step == 5:
            raise OSError("broken")
        return original(self, model, inputs, *rest, **named)

    whole = train(tiny_recipe, tmp_path / "whole", *FULL)
    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", broken)
    with pytest.raises(OSError, match="broken"):
        train(tiny_recipe, tmp_path / "broken", *FULL)
    monkeypatch.undo()
    one = train(tiny_recipe, tmp_path / "broken", *FULL)
    assert losses(one) == losses(whole)
    for name, expected in weights(whole.folder.adapter).items():
        assert torch.equal(weights(one.folder.adapter)[name], expected), name
    for file in ("model.safetensors", "config.json"):
        assert (one.folder.adapter / file).read_bytes() == (
            whole.folder.adapter / file
        ).read_bytes()


def test_a_checkpoint_without_a_weight_is_not_gone_on_from(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    one = train(tiny_recipe, tmp_path / "run", *FULL, "train.steps=4")
    newest = checkpoints_of(one.folder, one.recipe) / "checkpoint-2"
    shutil.rmtree(one.folder.adapter)
    kept = weights(newest)
    kept.pop("model.norm.weight")
    save_file(kept, newest / "model.safetensors", {"format": "pt"})
    (newest / MANIFEST).unlink()
    seal(newest)
    with pytest.raises((UsageError, RagtuneError), match=r"model\.norm\.weight"):
        train(tiny_recipe, tmp_path / "run", *FULL, "train.steps=4")


def test_the_whole_road_goes_through_one_folder(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before is the base, after the tuned model, in memory and loaded again; merged is it in bfloat16."""
    run = tmp_path / "run"
    changes = (*FULL, "train.steps=20", "train.save_every=10", "model.dtype=bfloat16")
    compared = ragtune.run(tiny_recipe, *changes, run_dir=run)
    assert compared is not None
    assert compared["after"]["squad_em"] > compared["before"]["squad_em"]
    merge = read_json(run / "run.json")["merge"]
    assert (merge["asked"], merge["changed"]) == (10, 0)  # rounded once, before both
    after = (run / "eval/eval/after/predictions.jsonl").read_text("utf-8")
    shutil.rmtree(run / "eval/eval/after")
    shutil.rmtree(run / "eval/eval/merged")
    ragtune.evaluate(run)
    assert (run / "eval/eval/after/predictions.jsonl").read_text("utf-8") == after
    step = ragtune.evaluate(run, checkpoint=10)
    assert step["n"] == 10
    ragtune.controls(run)
    tuned, merged = weights(run / "adapter"), weights(run / "merged")
    assert all(w.dtype == torch.float32 for w in tuned.values())
    for name, w in merged.items():
        assert torch.equal(w, tuned[name].to(torch.bfloat16)), name
    reader = open_source(run, ())
    example = reader.context.asked[0]
    found, _ = reader.answer([example], "tuned")
    assert found[0].prediction in after
    with pytest.raises(UsageError, match="can't be asked: what was trained is in its weights"):
        reader.require("base")
    assert ragtune.push(run, "publish.repo=me/model", dry_run=True) == "me/model"
    said = capsys.readouterr().out.partition("Would push")[2]
    assert "model.safetensors" in said
    assert "  - lora" not in said


def test_check_says_what_is_trained_and_what_is_not_used(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    found = ragtune.check(tiny_recipe, *FULL, run_dir=tmp_path / "run")
    words = " ".join(one["message"] for one in found)
    assert "parameters are trained, in float32" in words
    assert "doesn't use the lora section" in words
    assert "weights gets a gradient" in words
    assert [one for one in found if one["level"] == "fail"] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.quantization=nf4", "trains the weights that model.quantization: nf4 packs"),
        ("publish.format=adapter", "makes no adapter: set publish.format to merged or gguf"),
    ],
)
def test_what_needs_an_adapter_is_refused(
    tiny_recipe: dict[str, Any], change: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        load_recipe(tiny_recipe, ["tuning=full", change])
    assert ": : " not in caught.value.message


def test_another_tuning_is_another_training(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    train(tiny_recipe, tmp_path / "run", "train.steps=2")
    with pytest.raises(UsageError, match="tuning: 'lora' there, 'full' now: no longer valid: adap"):
        train(tiny_recipe, tmp_path / "run", "train.steps=2", "tuning=full")


def test_what_learns_is_float32_for_as_long_as_it_does() -> None:
    model = tiny_model("llama")
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    rotary = model.model.rotary_emb.inv_freq.clone()
    model.requires_grad_(requires_grad=True)
    model.model.embed_tokens.weight.requires_grad_(requires_grad=False)
    with in_float32(model):
        kinds = {name: p.dtype for name, p in model.named_parameters()}
        assert kinds.pop("model.embed_tokens.weight") == torch.bfloat16
        assert set(kinds.values()) == {torch.float32}
        assert torch.equal(model.model.rotary_emb.inv_freq, rotary)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.parameters())


def test_the_step_is_asked_between_steps_as_afterwards(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    one = train(
        tiny_recipe, tmp_path / "run", *FULL, "train.eval_every=4", "train.eval_answers=10",
        "train.keep=best",
    )  # fmt: skip
    with working(one):
        make(one, "after")
    assert one.folder.answers("after").is_dir()


def test_the_plan_counts_every_weight_with_gradient_and_moments(
    tiny_recipe: dict[str, Any],
) -> None:
    import transformers as hf

    config = hf.LlamaConfig(
        vocab_size=32_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=12,
        num_attention_heads=16, num_key_value_heads=4,
    )  # fmt: skip
    recipe = load_recipe(tiny_recipe, ["tuning=full", "model.dtype=bfloat16"])
    gpu = Hardware(torch.device("cpu"), torch.bfloat16, "a test", "a GPU")
    every = sum(p.numel() for p in skeleton(config).parameters())
    estimate = estimate_of(recipe, gpu, config)
    assert estimate.adapter == estimate.gradients == 4 * every
    assert estimate.moments == 8 * every
    assert estimate.weights == 2 * every  # for the products
    steps, prompts = [[(300, 5)] * 4], [300]
    plan = make_plan(recipe, gpu, config, steps, prompts, memory=16 << 30, ranks=2)
    assert plan.full
    assert not plan.spread
    words = " ".join(describe(plan, 4))
    assert f"weights in bfloat16, for the products, {2 * every / 2**30:.1f}" in words
    assert f"weights in float32 {4 * every / 2**30:.1f}" in words
    with pytest.raises(UsageError, match="needs about") as caught:
        make_plan(recipe, gpu, config, steps, prompts, memory=2 << 30)
    assert "tuning=lora" in caught.value.advice
    assert "nf4" not in caught.value.advice
