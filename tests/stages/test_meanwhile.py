"""Questions that are asked while an adapter is trained (train.eval_answers)."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ragtune
from ragtune.answering import ragged
from ragtune.answering.prediction import read_partial, read_predictions
from ragtune.base import stopping
from ragtune.base.errors import UsageError
from ragtune.base.files import read_json
from ragtune.stages import live
from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of
from tests.training.test_train import log, summary, train

LOOKS = ("train.eval_every=4", "train.learning_rate=0.02", "evaluate.batch_size=4")


def kept(one: Context, step: int) -> list[Any]:
    """The answers of a step."""
    (file,) = checkpoints_of(one.folder, one.recipe).glob(f"answers-*/{step}.jsonl")
    return list(read_partial(file))


def looks(one: Context) -> dict[int, float]:
    return {row["step"]: row["eval_exact_match"] for row in log(one) if "eval_exact_match" in row}


@pytest.fixture(autouse=True)
def _a_page_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST", 0.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are asked."""
    original, sizes = ragged.Ragged.answer, []

    def counting(self: Any, prompts: Any) -> Any:
        sizes.append(len(prompts))
        return original(self, prompts)

    monkeypatch.setattr(ragged.Ragged, "answer", counting)
    return sizes


def test_the_adapter_is_the_same_with_answers_and_without(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    """Bit for bit, with dropout, noise on the embeddings and recomputed activations."""
    drawn = ("train.recompute=true", "train.arguments.neftune_noise_alpha=5", "lora.dropout=0.2")
    answering, plain = (
        train(tiny_recipe, tmp_path / name, *LOOKS, "train.eval_every=2", *drawn, *more)
        for name, more in (("answering", ["train.eval_answers=6"]), ("plain", []))
    )
    first, second = (
        (one.folder.adapter / "adapter_model.safetensors").read_bytes()
        for one in (answering, plain)
    )
    assert first == second
    shared = ("step", "loss", "grad_norm", "eval_loss")
    assert [[row.get(key) for key in shared] for row in log(answering)] == [
        [row.get(key) for key in shared] for row in log(plain)
    ]
    assert list(looks(answering)) == [2, 4, 6, 8]
    assert not looks(plain)
    for row in (row for row in log(answering) if "eval_exact_match" in row):
        low, value, high = (row[f"eval_exact_match{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1
        assert row["eval_questions"] == 6
    took = summary(answering)["train"]
    assert 0 < took["asking_seconds"] < took["seconds"]
    assert summary(plain)["train"]["asking_seconds"] == 0


def test_the_last_look_is_the_evaluation_after_tuning(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same answers, and the same figures; what they will take is said by what those before took."""
    more = ("train.steps=12", "train.eval_every=12", "lora.rank=16", "train.eval_answers=99")
    ragtune.run(tiny_recipe, *LOOKS, *more, run_dir=tmp_path / "run")
    said = "train.eval_every=12: 10 questions are asked, once: about "
    assert said in " ".join(capsys.readouterr().out.split())
    one = Context(str(tmp_path / "run"))
    place = one.folder.answers("after")
    assert sorted(kept(one, 12), key=lambda p: p.qid) == sorted(
        read_predictions(place / "predictions.jsonl"), key=lambda p: p.qid
    )
    (row,) = (row for row in log(one) if "eval_exact_match" in row)
    found = {end: row[f"eval_exact_match{end}"] for end in ("", "_low", "_high")}
    figures = read_json(place / "metrics.json")
    figure = figures["intervals"]["squad_em"]
    assert found == {"": figure["value"], "_low": figure["low"], "_high": figure["high"]}
    assert row["eval_questions"] == figures["n"] == 10
    page = one.folder.report.read_text("utf-8")
    assert "of 10 questions, the same at each look, with 95 % intervals" in page
    assert "Of it, answering" in page
    assert "As of" not in page


def test_a_stop_while_questions_are_asked_loses_nothing(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    asked: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = (*LOOKS, "train.eval_answers=6", "train.save_every=99")
    counting = ragged.Ragged.answer

    def stopping_it(self: Any, prompts: Any) -> Any:
        stopping._state.asked = signal.SIGTERM
        return counting(self, prompts)

    monkeypatch.setattr(ragged.Ragged, "answer", stopping_it)
    with pytest.raises(stopping.Stopped):
        train(tiny_recipe, tmp_path / "run", *settings)
    assert stopping.last_words()[2] == (
        "Training stopped after step 4 of 8: its checkpoint is kept."
    )
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "step 4 of 8.</b> Stopped: the same command goes on." in page
    assert 'http-equiv="refresh"' not in page
    stopping.uninstall()
    monkeypatch.setattr(ragged.Ragged, "answer", counting)
    one = train(tiny_recipe, tmp_path / "run", *settings)
    assert asked == [4, 2, 4, 2]  # of step 4 the second batch came after the break
    assert list(looks(one)) == [4, 8]
    assert len(kept(one, 4)) == 6
    assert [row["step"] for row in log(one) if "eval_loss" in row] == [4, 8]


def test_what_was_asked_before_a_crash_is_not_asked_again(
    tiny_recipe: dict[str, Any], tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragtune.training.watch import Watch

    settings = (*LOOKS, "train.eval_answers=4", "train.save_every=3")
    original = Watch.on_step_end

    def crash(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 5:
            raise ArithmeticError("the power went off")
        original(self, args, state, control, **more)

    monkeypatch.setattr(Watch, "on_step_end", crash)
    with pytest.raises(ArithmeticError):
        train(tiny_recipe, tmp_path / "run", *settings)
    monkeypatch.setattr(Watch, "on_step_end", original)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "step 4 of 8.</b> Failed: ArithmeticError: the power went off" in page
    one = train(tiny_recipe, tmp_path / "run", *settings)
    assert asked == [4, 4]  # steps 4 and 8; the training went on from step 3
    assert list(looks(one)) == [4, 8]


def out_of_memory(above: int) -> Callable[..., Any]:
    original = ragged.Ragged.answer

    def answer(self: Any, prompts: Any) -> Any:
        if len(prompts) > above:
            raise torch.OutOfMemoryError("no")
        return original(self, prompts)

    return answer


@pytest.mark.parametrize("above", [1, 0])
def test_out_of_memory_does_not_end_the_training(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    above: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ragged.Ragged, "answer", out_of_memory(above))
    contains = "evaluate.metric=contains"  # which has a name of its own in the log
    one = train(tiny_recipe, tmp_path / "run", *LOOKS, "train.eval_answers=4", contains)
    assert len([row for row in log(one) if "loss" in row]) == 8
    out = capsys.readouterr().out
    assert "Out of memory: 2 questions at a time." in out
    answered = [row["step"] for row in log(one) if "eval_contains" in row]
    if above:
        assert answered == [4, 8]
    else:
        assert not answered
        gone = "Step 4: beside the training there is too little memory to answer a question."
        assert out.count(gone) == 1
        assert "Step 8: beside" not in out


def test_the_recipe_says_what_it_needs(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"eval_answers needs eval_every, the steps between two"):
        train(tiny_recipe, tmp_path / "run", "train.eval_answers=4")


@pytest.mark.parametrize(
    ("settings", "level", "said"),
    [
        (["eval_every=4", "eval_answers=6"], "ok", "6 questions at each of 2 looks: about 13 %"),
        (
            ["eval_every=4", "eval_answers=6", "evaluate.orders=2"],
            "ok",
            "at each of 2 looks: about 26 %",
        ),
        (
            ["eval_every=1", "eval_answers=99", "batch_size=1"],
            "warning",
            "computes about 3.4 times",
        ),
        (["eval_every=9", "eval_answers=6"], "warning", "no question is asked: the 8 steps end"),
    ],
)
def test_check_says_what_answers_cost(
    tiny_recipe: dict[str, Any], tmp_path: Path, settings: list[str], level: str, said: str
) -> None:
    changes = [one if "." in one else f"train.{one}" for one in settings]
    page = ragtune.check(tiny_recipe, *changes, run_dir=tmp_path / "run")
    (one,) = (one for one in page if one["name"] == "eval_answers")
    assert (one["level"], said in one["message"]) == (level, True), one
    assert bool(one["advice"]) == (level == "warning")
