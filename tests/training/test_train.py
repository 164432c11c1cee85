from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_json, write_json
from ragtune.model.fast.probe import probe
from ragtune.model.lora import attach
from ragtune.model.wrapping import trainable_parameters
from ragtune.recipe.lora import Lora
from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of
from ragtune.stages.road import make, working
from ragtune.store.seal import seal
from ragtune.training import trainer as trainer_module
from ragtune.training.watch import OVERFLOWS, Watch
from tests.conftest import tiny_model


def train(recipe: dict[str, Any], folder: Path, *overrides: str) -> Context:
    one = Context(recipe, list(overrides), folder)
    with working(one):
        make(one, "adapter")
    return one


def summary(one: Context) -> dict[str, Any]:
    found: dict[str, Any] = read_json(one.folder.summary)
    return found


def log(one: Context) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (one.folder.adapter / "train_log.jsonl").read_text("utf-8").splitlines()
    ]


def losses(one: Context) -> list[float]:
    return [e["loss"] for e in log(one) if "loss" in e]


def weights(one: Context) -> dict[str, torch.Tensor]:
    return load_file(one.folder.adapter / "adapter_model.safetensors")


def test_swallow_7b_with_the_notebooks_adapter_has_its_number_of_parameters() -> None:
    import transformers as hf

    config = hf.LlamaConfig(
        vocab_size=43176, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=32,
    )  # fmt: skip
    with torch.device("meta"):
        model = attach(hf.LlamaForCausalLM(config), Lora(), seed=1)
    assert trainable_parameters(model) == 319_815_680


def test_a_wrong_target_module_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="has no linear layer qkv") as caught:
        attach(tiny_model("llama"), Lora(target_modules=["qkv"]), seed=1)
    assert "down_proj, gate_proj, k_proj" in caught.value.advice


def test_training_learns_and_says_what_it_took(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = train(
        tiny_recipe, tmp_path / "run", "train.steps=20", "train.learning_rate=0.02", "lora.rank=16"
    )
    found = losses(one)
    assert len(found) == 20
    assert sum(found[-5:]) < 0.7 * sum(found[:5])
    result = summary(one)["train"]
    assert result["steps"] == 20
    assert result["samples"] == 80
    assert result["tokens_a_second"] > 0
    out = capsys.readouterr().out
    assert "\n    20  " in out
    assert f"{result['tokens']:,} tokens" in out


def test_packed_rows_train_as_single_samples(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    """With all that is drawn: dropout, and noise on the embeddings."""
    noise = "train.arguments.neftune_noise_alpha=5"
    single, *packed = (
        train(tiny_recipe, tmp_path / str(n), noise, f"train.samples_per_row={n}")
        for n in (1, 2, 3, 4)
    )
    for one in packed:
        assert losses(one) == pytest.approx(losses(single), rel=1e-5)
        for name, expected in weights(single).items():
            torch.testing.assert_close(weights(one)[name], expected, atol=1e-5, rtol=0)


def test_recomputing_activations_changes_nothing(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    kept = train(tiny_recipe, tmp_path / "kept", "train.recompute=false")
    recomputed = train(tiny_recipe, tmp_path / "recomputed", "train.recompute=true")
    assert losses(recomputed) == losses(kept)


@pytest.mark.parametrize("family", ["gemma2", "lfm2"])
def test_a_family_that_can_not_be_packed_trains_one_sample_a_row(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    chatml_tokenizer: Any,
    family: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_model(family, eos_token_id=chatml_tokenizer.eos_token_id).save_pretrained(
        tmp_path / "model"
    )
    chatml_tokenizer.save_pretrained(tmp_path / "model")
    tiny_recipe["model"]["id"] = str(tmp_path / "model")
    tiny_recipe["lora"]["target_modules"] = ["all-linear"]
    one = train(tiny_recipe, tmp_path / "run", "train.steps=2")
    plan = summary(one)["plan"]
    assert not plan["packed"]
    assert "One sample a row" in capsys.readouterr().out
    assert len(losses(one)) == 2


def test_dropout_in_the_attention_is_seen_before_training(
    tiny_recipe: dict[str, Any], tmp_path: Path, chatml_tokenizer: Any
) -> None:
    """In eval mode, in which packing is tried, a model asks for none."""
    model = tiny_model("llama", eos_token_id=chatml_tokenizer.eos_token_id, attention_dropout=0.1)
    assert probe(model) is None
    assert "attention dropout" in (probe(model, training=True) or "")
    model.save_pretrained(tmp_path / "model")
    chatml_tokenizer.save_pretrained(tmp_path / "model")
    tiny_recipe["model"]["id"] = str(tmp_path / "model")
    one = train(tiny_recipe, tmp_path / "run", "train.steps=2")
    assert "attention dropout" in summary(one)["plan"]["packed_reason"]
    assert len(losses(one)) == 2


# So high a rate that the loss soon rises again.
RISING = (
    "seed=8",
    "lora.rank=4",
    "train.steps=10",
    "train.eval_every=2",
    "train.learning_rate=0.6",
    "train.scheduler=constant",
    "train.samples_per_row=2",
)


def best_step(one: Context) -> int:
    watched = {e["step"]: e["eval_loss"] for e in log(one) if "eval_loss" in e}
    assert list(watched) == [2, 4, 6, 8, 10]
    return min(watched, key=lambda s: watched[s])


def checkpoint_weights(one: Context, step: int) -> dict[str, torch.Tensor]:
    return load_file(
        checkpoints_of(one.folder, one.recipe) / f"checkpoint-{step}" / "adapter_model.safetensors"
    )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[k], v) for k, v in other.items())


def test_evaluation_loss_is_watched_and_the_best_is_kept(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_module.PackedTrainer
    log, evaluate = trainer.log, trainer.evaluate

    # Which step would be the best by itself depends on a machine's rounding.
    def best_at_four(self: Any, found: dict[str, float]) -> dict[str, float]:
        loss = {"eval_loss": abs(self.state.global_step - 4) + 1.0}
        return found | (loss if "eval_loss" in found else {})

    def log_it(self: Any, logs: dict[str, float], *rest: Any) -> None:
        log(self, best_at_four(self, logs), *rest)

    def evaluate_it(self: Any, **options: Any) -> dict[str, float]:
        return best_at_four(self, evaluate(self, **options))

    monkeypatch.setattr(trainer, "log", log_it)
    monkeypatch.setattr(trainer, "evaluate", evaluate_it)
    last = train(tiny_recipe, tmp_path / "last", *RISING)
    best = train(tiny_recipe, tmp_path / "best", *RISING, "train.keep=best")
    assert best_step(best) == 4
    assert same(weights(best), checkpoint_weights(best, 4))
    assert same(weights(last), checkpoint_weights(best, 10))


def test_the_best_is_found_in_a_run_that_was_moved(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    best = train(tiny_recipe, tmp_path / "best", *RISING, "train.keep=best")
    expected = weights(best)
    shutil.rmtree(best.folder.adapter)
    (tmp_path / "best").rename(tmp_path / "moved")
    assert same(
        weights(train(tiny_recipe, tmp_path / "moved", *RISING, "train.keep=best")), expected
    )


def test_questions_that_are_not_selected_are_in_no_evaluation_loss(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    path = Path(tiny_recipe["data"]["eval"])
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows[0] |= {
        "answers": [],
        "positive_passage_indices": [],
        "negative_passage_indices": [0, 1, 2],
    }
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    one = train(tiny_recipe, tmp_path / "run", "evaluate.questions=all", "train.eval_every=4")
    assert [e["step"] for e in log(one) if "eval_loss" in e] == [4, 8]


def test_the_evaluation_loss_is_the_mean_over_trained_tokens(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    found = [
        [
            e["eval_loss"]
            for e in log(
                train(
                    tiny_recipe,
                    tmp_path / str(n),
                    "train.eval_every=4",
                    f"train.samples_per_row={n}",
                    "lora.dropout=0",
                )
            )
            if "eval_loss" in e
        ]
        for n in (1, 4)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_step_and_questions(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trainer_module.PackedTrainer.compute_loss
    rows: list[Any] = []

    def poisoned(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        loss = original(self, model, inputs, *rest, **named)
        rows.append(int(inputs["row"]))
        if len(rows) == 4:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", poisoned)
    # Which row's gradient it is can't be told, so the whole step is named.
    with pytest.raises(
        RagtuneError, match=r"stopped at step 2: the gradient is not finite.*q\d+"
    ) as caught:
        train(tiny_recipe, tmp_path / "run", "train.samples_per_row=2")
    assert len(caught.value.message.split("Questions")[1].split(",")) == 4
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_run_that_goes_on_elsewhere_says_so(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = train(tiny_recipe, tmp_path / "run", "train.steps=2", "train.save_every=1")
    shutil.rmtree(one.folder.adapter)
    kept = read_json(one.folder.plan)
    kept["plan"] |= {"device": "NVIDIA A100", "dtype": "bfloat16"}
    write_json(one.folder.plan, kept)
    again = train(tiny_recipe, tmp_path / "run", "train.steps=2", "train.save_every=1")
    assert "begun on NVIDIA A100 as bfloat16" in capsys.readouterr().out
    assert summary(again)["plan"]["changes"]


@pytest.mark.parametrize(
    "options",
    [("train.arguments.neftune_noise_alpha=5",), ("model.dtype=bfloat16", "lora.dropout=0")],
    ids=["drawn", "bfloat16"],
)
def test_a_break_changes_nothing_bit_for_bit(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:  # fmt: skip
    """With dropout and noise on the embeddings; and in bfloat16, with what prompts begin with once a row."""
    original = trainer_module.PackedTrainer.compute_loss

    def broken(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        if self.state.global_step == 5:
            raise OSError("broken")
        return original(self, model, inputs, *rest, **named)

    whole = train(tiny_recipe, tmp_path / "whole", *options)
    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", broken)
    with pytest.raises(OSError, match="broken"):
        train(tiny_recipe, tmp_path / "broken", *options)
    monkeypatch.undo()
    one = train(tiny_recipe, tmp_path / "broken", *options)
    assert summary(one)["plan"]["shared_prefix"] == ("lora.dropout=0" in options)
    for name, expected in weights(whole).items():
        assert torch.equal(weights(one)[name], expected), name


def test_tied_embeddings_get_no_adapter() -> None:
    model = tiny_model("llama", tie_word_embeddings=True)
    with pytest.raises(UsageError, match="weights of lm_head are shared"):
        attach(model, Lora(target_modules=["q_proj", "lm_head"]), seed=1)


def test_chunked_attention_is_not_packed() -> None:
    model = tiny_model("llama")
    model.config.attention_chunk_size = 64
    assert "chunks" in (probe(model) or "")


def test_float16_may_overflow_but_not_for_ever() -> None:
    class Args:
        fp16 = True

    class State:
        global_step = 3
        log_history: tuple[Any, ...] = ()

    watch = Watch(
        SimpleNamespace(late=SimpleNamespace(rows=[]), rows=[], world=None),
        lambda _: None,
        lambda *_: None,
    )
    for _ in range(OVERFLOWS):
        watch.on_log(Args, State, None, {"loss": 1.0, "grad_norm": float("inf")})
    with pytest.raises(RagtuneError, match="the gradient is not finite"):
        watch.on_log(Args, State, None, {"loss": 1.0, "grad_norm": float("inf")})


def test_no_token_is_written_into_a_checkpoint(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary0123456789")
    one = train(tiny_recipe, tmp_path / "run", "train.steps=2", "train.save_every=1")
    files = [p for p in one.folder.path.rglob("*") if p.is_file()]
    assert any(p.name == "training_args.bin" for p in files)
    assert not [p for p in files if b"hf_canary" in p.read_bytes()]


@pytest.mark.gpu
def test_nf4_with_the_notebooks_optimizer(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    one = train(
        tiny_recipe,
        tmp_path / "run",
        "model.dtype=auto",
        "model.quantization=nf4",
        "train.optimizer=paged_adamw_8bit",
        "train.steps=20",
        "train.learning_rate=0.1",
    )
    found = losses(one)
    assert sum(found[-5:]) < 0.98 * sum(found[:5])


class _Code:
    """What a pickle would call when it is read."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("was-run"),))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_that_holds_code_is_refused_and_says_which_folder(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    one = train(tiny_recipe, tmp_path / "run", "train.steps=4")
    checkpoint = checkpoints_of(one.folder, one.recipe) / "checkpoint-2"
    shutil.rmtree(tmp_path / "run" / "adapter")
    with (checkpoint / name).open("wb") as file:
        pickle.dump(_Code(), file)
    seal(checkpoint)
    with pytest.raises(RagtuneError, match=r"checkpoint-2 was refused: .* holds code") as caught:
        train(tiny_recipe, tmp_path / "run", "train.steps=4")
    assert caught.value.advice.startswith(f"Delete {checkpoint} and run the same command again")
    assert "weights_only" not in str(caught.value)
    assert not Path("was-run").exists()
    shutil.rmtree(checkpoint)
    train(tiny_recipe, tmp_path / "run", "train.steps=4")
