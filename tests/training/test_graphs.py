from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ragtune.base.stopping import Stopped
from ragtune.model.fast import lora
from ragtune.stages.context import Context
from ragtune.training import graphs as module
from ragtune.training.graphs import Graphs
from tests.training.test_train import log, losses, summary, train

STEPS = "train.steps=24"
UNLIKE = (STEPS, "train.samples_per_row=2")
"""Rows of more than one size."""
TOGETHER = (
    *UNLIKE, "train.learning_rate=0.002", "train.max_grad_norm=0.1", "train.average_last=0.3",
    "train.eval_every=6", "train.eval_answers=5", "train.arguments.label_smoothing_factor=0.1",
    "train.arguments.neftune_noise_alpha=5",
)  # fmt: skip
LORA = ("train.lora_plus=4",)
FULL = ("tuning=full",)


class Fake:
    """What runs its work again, and puts the result where the first one stands."""

    def __init__(self, work: Callable[[], Tensor]) -> None:
        self.work = work
        self.result = work().clone()
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        self.result.copy_(self.work())


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    """Graphs as on a GPU on which they are worth it; gives those that are captured."""
    made: list[Fake] = []

    def capture(work: Callable[[], Tensor], *_: object) -> tuple[Fake, Tensor]:
        made.append(Fake(work))
        return made[-1], made[-1].result

    for name, value in (
        ("_has_graphs", lambda _: True), ("_wait", lambda _: None), ("_has_room", lambda _: True),
        ("capture", capture), ("_FASTER", 1e9), ("_CAUGHT_UP", 1.0),
        ("_behind_a_pause", lambda _, seconds, row: (row(), 0.0)),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    return made


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Graphs, whether they are worth it or not; gives a 1 for every replay."""
    for name, value in (("_FASTER", 1e9), ("_BUSY", 1e9), ("_CAUGHT_UP", 1.0)):
        monkeypatch.setattr(module, name, value)
    replays: list[int] = []
    original = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda self: (replays.append(1), original(self))[1]
    )
    return replays


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """No graphs from here on."""
    monkeypatch.setattr(module, "_has_graphs", lambda _: False)


def looks(one: Context) -> list[dict[str, float]]:
    """What was found on the evaluation set: its loss, and how answers were."""
    return [entry for entry in log(one) if "eval_loss" in entry or "eval_questions" in entry]


def weights(one: Context) -> dict[str, Tensor]:
    (file,) = one.folder.adapter.glob("*model.safetensors")
    return load_file(file)


def same(one: Any, other: Any, *, loss: float, weight: float) -> None:
    assert losses(one) == pytest.approx(losses(other), rel=loss)
    for name, expected in weights(other).items():
        torch.testing.assert_close(weights(one)[name], expected, atol=weight, rtol=0)


@pytest.mark.parametrize("per_row", [4, 2])
def test_a_training_with_graphs_is_that_without(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], per_row: int,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With what is drawn in every step anew: dropout, and noise on the embeddings."""
    options = STEPS, f"train.samples_per_row={per_row}", "train.arguments.neftune_noise_alpha=5"
    one = train(tiny_recipe, tmp_path / "graphs", *options)
    assert sum(fake.replays for fake in fakes) >= 17
    plan = summary(one)["plan"]
    assert plan["graphs"].startswith("rows as CUDA graphs, of ")
    assert plan["changes"] == []
    out = " ".join(capsys.readouterr().out.split())
    assert f"From step {7 if per_row == 4 else 4} on rows as CUDA graphs, of " in out
    without(monkeypatch)
    other = train(tiny_recipe, tmp_path / "plain", *options)
    assert summary(other)["plan"]["graphs"] == ""
    same(one, other, loss=1e-5, weight=1e-5)


def test_the_optimizer_over_one_tensor_takes_the_gradients_of_graphs(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragtune.training import trainer

    def flat(self: Any, _: Any = None) -> Any:
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = trainer.flat_optimizer(learning, lambda t: torch.optim.AdamW(t, lr=0.01))
        return self.optimizer

    monkeypatch.setattr("ragtune.training.flat._LEAST", 16)
    monkeypatch.setattr(trainer.PackedTrainer, "create_optimizer", flat)
    one = train(tiny_recipe, tmp_path / "graphs", STEPS)
    assert fakes
    without(monkeypatch)
    same(one, train(tiny_recipe, tmp_path / "plain", STEPS), loss=1e-5, weight=1e-5)


def test_a_training_goes_on_with_graphs(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny_recipe, tmp_path / "whole", STEPS)
    interrupted(tiny_recipe, tmp_path, monkeypatch)
    count = len(fakes)
    one = train(tiny_recipe, tmp_path / "run", STEPS)
    assert len(fakes) > count
    same(one, whole, loss=1e-5, weight=1e-5)


def interrupted(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int = 10
) -> None:
    """A training in tmp_path / run that was stopped behind a step."""
    from ragtune.training import trainer

    at_step = property(lambda self: self.state.global_step == step)
    monkeypatch.setattr(trainer.PackedTrainer, "stops", at_step)
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "run", STEPS)
    monkeypatch.setattr(trainer.PackedTrainer, "stops", property(lambda _: False))


def test_a_training_that_goes_on_without_graphs_does_not_say_that_it_has_them(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tiny_recipe, tmp_path, monkeypatch)
    assert Context(tiny_recipe, [STEPS], tmp_path / "run").plan.graphs
    without(monkeypatch)
    assert summary(train(tiny_recipe, tmp_path / "run", STEPS))["plan"]["graphs"] == ""


def test_a_later_size_that_is_refused_ends_the_graphs(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    original = module._same
    monkeypatch.setattr(module, "_same", lambda *given: len(fakes) == 1 and original(*given))
    one = train(tiny_recipe, tmp_path / "graphs", *UNLIKE)
    assert len(fakes) == 2
    assert "on rows as CUDA graphs, of " in " ".join(capsys.readouterr().out.split())
    assert summary(one)["plan"]["graphs"] == ""
    without(monkeypatch)
    same(one, train(tiny_recipe, tmp_path / "plain", *UNLIKE), loss=1e-5, weight=1e-5)


@pytest.mark.parametrize(
    "more", [LORA, (*LORA, "train.recompute=true"), FULL], ids=["lora", "recomputed", "full"]
)
def test_what_else_a_training_does_is_with_graphs_what_it_is_without(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
) -> None:  # fmt: skip
    one = train(tiny_recipe, tmp_path / "graphs", *TOGETHER, *more)
    assert sum(fake.replays for fake in fakes) >= 17
    assert summary(one)["plan"]["graphs"]
    without(monkeypatch)
    other = train(tiny_recipe, tmp_path / "plain", *TOGETHER, *more)
    assert [look["eval_questions"] for look in looks(one)] == [5, 5, 5, 5]
    for found, expected in zip(looks(one), looks(other), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    same(one, other, loss=1e-5, weight=1e-5)


@pytest.mark.parametrize(
    ("free", "total", "share", "fits"),
    [(12, 100, 1.0, True), (11, 100, 1.0, False), (40, 40, 0.4, True), (40, 40, 0.39, False)],
)
def test_there_is_room_for_graphs_where_a_rows_memory_fits_twice_more(
    free: int, total: int, share: float, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10 that the allocator keeps 6 are of rows that are gone; a process may have a share of the GPU."""
    kept = [10]
    for name, value in (
        ("memory_reserved", lambda _: kept[0]),
        ("memory_allocated", lambda _: 4),
        ("empty_cache", lambda: kept.__setitem__(0, 4)),
        ("mem_get_info", lambda _: (free, total)),
        ("get_per_process_memory_fraction", lambda _: share),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    assert module._has_room(torch.device("cuda")) == fits
    assert kept == [4]


def test_memory_that_runs_out_ends_the_graphs(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Fake.replay
    dropped: list[bool] = []

    def failing(self: Fake) -> None:
        original(self)
        if self.replays == 4 and not dropped:
            dropped.append(True)
            raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(Fake, "replay", failing)
    one = train(tiny_recipe, tmp_path / "graphs", STEPS, "train.samples_per_row=4")
    plan = summary(one)["plan"]
    (change,) = plan["changes"]
    assert plan["graphs"] == ""
    assert change.endswith("out of memory, 2 samples a row")
    assert dropped
    without(monkeypatch)
    same(one, train(tiny_recipe, tmp_path / "plain", STEPS), loss=1e-4, weight=1e-4)


@pytest.mark.parametrize("why", ["capture", "memory", "loss", "gradient", "slow", "room"])
def test_graphs_that_can_not_be_are_not_and_that_is_said(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], why: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    expected = {
        "capture": "operation not permitted when stream is capturing",
        "memory": "there is too little memory for them",
        "loss": "a captured row gives another loss or gradient",
        "gradient": "a captured row gives another loss or gradient",
        "slow": "they save too little: ",
        "room": "there is too little memory for their activations",
    }[why]
    original = Fake.replay

    def failing(*_: object) -> None:
        if why == "memory":
            raise torch.OutOfMemoryError("no")
        try:
            raise RuntimeError(expected)
        finally:
            raise RuntimeError("the end of the capture fails, too")

    def wrong(self: Fake) -> None:
        original(self)
        if why == "loss":
            self.result += 1
        else:
            self.work()

    if why in ("capture", "memory"):
        monkeypatch.setattr(module, "capture", failing)
    elif why in ("loss", "gradient"):
        monkeypatch.setattr(Fake, "replay", wrong)
    elif why == "slow":
        monkeypatch.setattr(module, "_FASTER", 0)
    else:
        monkeypatch.setattr(module, "_has_room", lambda _: False)
    one = train(tiny_recipe, tmp_path / "graphs", STEPS)
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("Rows run without CUDA graphs: ") == 1
    assert f"Rows run without CUDA graphs: {expected}" in out
    assert summary(one)["plan"]["graphs"] == ""
    without(monkeypatch)
    same(one, train(tiny_recipe, tmp_path / "plain", STEPS), loss=1e-5, weight=1e-5)


def test_a_capture_that_is_cut_off_leaves_nothing_of_its_pass(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two layers that share an input the second one's output waits, in the graphs' memory."""
    original, groups, left = lora.Group.call, set[lora.Group](), list[tuple[int, int]]()

    def failing(work: Callable[[], Tensor], *_: object) -> None:
        def call(self: lora.Group, index: int, x: Tensor) -> Tensor:
            if index == 1:
                groups.add(self)
                raise RuntimeError("operation not permitted when stream is capturing")
            return original(self, index, x)

        with monkeypatch.context() as patch:
            patch.setattr(lora.Group, "call", call)
            work()

    def look() -> None:
        left.append((len(groups), sum(len(group.waiting) for group in groups)))

    monkeypatch.setattr(module, "capture", failing)
    monkeypatch.setattr(module, "free_gpu", look)
    train(tiny_recipe, tmp_path / "run", STEPS)
    assert left == [(1, 0)]
    assert not fakes


def test_a_row_that_overflows_is_not_compared(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in float16, where the scaler of the loss then skips the step."""
    original = Graphs._eager
    rows: list[int] = []

    def overflowing(self: Graphs, row: Any, run: Any) -> Any:
        loss = original(self, row, run)
        rows.append(row["row"])
        if len(rows) == 5:
            assert not fakes
            self.parameters[0].grad[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(Graphs, "_eager", overflowing)
    monkeypatch.setattr("ragtune.training.watch.Watch._require_finite", lambda *_: None)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_, **__: None)
    one = train(tiny_recipe, tmp_path / "run", STEPS)
    assert len(fakes) >= 1
    assert summary(one)["plan"]["graphs"]


def test_a_gpu_that_is_busy_is_left_alone(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything captured where few rows are to come."""
    train(tiny_recipe, tmp_path / "short", "train.steps=4")
    monkeypatch.setattr(module, "_CAUGHT_UP", -1.0)
    train(tiny_recipe, tmp_path / "busy", STEPS)
    assert not fakes


@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_gpu_that_is_busy_as_long_as_python_is_left_alone(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It is seen with a row that Python begins to tell it in a pause; nothing is captured to find that out."""
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=count(0.0, 0.1).__next__))
    monkeypatch.setattr(Graphs, "_replayed", lambda *_: 0.0)
    paused = lambda _, seconds, row: (row(), share * seconds)  # noqa: E731
    monkeypatch.setattr(module, "_behind_a_pause", paused)
    train(tiny_recipe, tmp_path / "run", STEPS)
    assert bool(fakes) == (share < 0.9)


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "busy"])
def test_whether_a_gpu_waits_for_python_is_seen_by_a_brief_row_that_leaves_nothing(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], waits: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A full queue keeps Python at a long row until the GPU is through: both are at the end together."""
    original, now = Graphs._eager, [0.0]
    rows: list[int] = []

    def slow(self: Graphs, row: Any, run: Any) -> Any:
        torch.rand(1)  # a model that draws, of itself
        loss = original(self, row, run)
        tokens = row["input_ids"].shape[1]
        rows.append(tokens)
        now[0] += 0.3 if waits or tokens > 18 else 0.01
        return loss

    monkeypatch.setattr(module, "_CAUGHT_UP", 0.25)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(Graphs, "_eager", slow)
    short = "train.steps=14", "train.arguments.neftune_noise_alpha=5"
    one = train(tiny_recipe, tmp_path / "graphs", *short)
    assert bool(fakes) == waits
    assert [n for n, tokens in enumerate(rows) if tokens <= 18] == [6, 7]
    assert bool(summary(one)["plan"]["graphs"]) == waits
    monkeypatch.setattr(Graphs, "_eager", original)
    without(monkeypatch)
    other = train(tiny_recipe, tmp_path / "plain", *short)
    same(one, other, loss=1e-5, weight=1e-5)


def test_a_brief_row_that_has_no_room_is_no_row_that_has_none(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs a second set of gradients, which may not fit beside the training's own."""

    def failing(*_: object) -> float:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(Graphs, "_brief", failing)
    one = train(tiny_recipe, tmp_path / "graphs", "train.steps=14")
    assert not fakes
    assert summary(one)["plan"]["changes"] == []
    without(monkeypatch)
    same(one, train(tiny_recipe, tmp_path / "plain", "train.steps=14"), loss=1e-5, weight=1e-5)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ragtune.training.packing.probe_texts", "it is a test"),
        ("torch.are_deterministic_algorithms_enabled", True),
    ],
    ids=["unpacked", "full_determinism"],
)
def test_rows_that_are_not_packed_or_are_to_repeat_have_no_graphs(
    tiny_recipe: dict[str, Any], tmp_path: Path, fakes: list[Fake], name: str, found: str | bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(name, lambda *_, **__: found)
    train(tiny_recipe, tmp_path / "run", STEPS)
    assert not fakes


@pytest.mark.gpu
@pytest.mark.parametrize("per_row", [4, 2])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_captured_rows_train_as_those_that_are_told(
    tiny_recipe: dict[str, Any], tmp_path: Path, real: list[int], per_row: int, dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    options = (
        STEPS, f"train.samples_per_row={per_row}", f"model.dtype={dtype}", "train.learning_rate=0.001",
        "train.arguments.neftune_noise_alpha=5",
    )  # fmt: skip
    one = train(tiny_recipe, tmp_path / "graphs", *options)
    assert len(real) >= 20 * 4 / per_row - 8
    without(monkeypatch)
    other = train(tiny_recipe, tmp_path / "plain", *options)
    same(one, other, loss=0.01, weight=0.004)


@pytest.mark.gpu
@pytest.mark.parametrize("more", [LORA, FULL], ids=["lora", "full"])
def test_what_else_a_training_does_is_with_captured_rows_what_it_is_without(
    tiny_recipe: dict[str, Any], tmp_path: Path, real: list[int], monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
) -> None:  # fmt: skip
    """But for recomputed activations, which ask the host for the generator's state."""
    options = (*TOGETHER, *more, "model.dtype=bfloat16", "train.learning_rate=0.001")
    one = train(tiny_recipe, tmp_path / "graphs", *options)
    assert len(real) >= 20
    without(monkeypatch)
    other = train(tiny_recipe, tmp_path / "plain", *options)
    losses_seen = [look["eval_loss"] for look in looks(one)]
    assert losses_seen == pytest.approx([look["eval_loss"] for look in looks(other)], rel=0.01)
    same(one, other, loss=0.01, weight=0.004)


@pytest.mark.gpu
def test_a_captured_training_goes_on(
    tiny_recipe: dict[str, Any], tmp_path: Path, real: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_recipe["model"]["dtype"] = "bfloat16"
    tiny_recipe["train"]["learning_rate"] = 0.001
    whole = train(tiny_recipe, tmp_path / "whole", STEPS)
    interrupted(tiny_recipe, tmp_path, monkeypatch)
    count = len(real)
    one = train(tiny_recipe, tmp_path / "run", STEPS)
    assert len(real) - count > 5
    same(one, whole, loss=0.01, weight=0.004)


@pytest.mark.gpu
@pytest.mark.usefixtures("real")
def test_memory_that_runs_out_beside_captured_rows(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs' memory is given back before the smaller rows run."""
    held: list[int] = []
    original = Graphs._replay
    dropped = Graphs.drop

    def failing(self: Graphs, *rest: Any) -> Any:
        held.append(torch.cuda.memory_reserved())
        if len(held) == 5:
            raise torch.OutOfMemoryError("no")
        return original(self, *rest)

    monkeypatch.setattr(Graphs, "_replay", failing)
    monkeypatch.setattr(
        Graphs, "drop", lambda self: (held.append(-len(self.captured)), dropped(self))[1]
    )
    tiny_recipe["model"]["dtype"] = "bfloat16"
    tiny_recipe["train"]["learning_rate"] = 0.001
    one = train(tiny_recipe, tmp_path / "graphs", STEPS, "train.samples_per_row=4")
    assert summary(one)["plan"]["changes"][0].endswith("out of memory, 2 samples a row")
    assert held[-1] < 0
    without(monkeypatch)
    same(one, train(tiny_recipe, tmp_path / "plain", STEPS), loss=0.01, weight=0.004)


@pytest.mark.gpu
def test_a_model_that_asks_the_host_runs_as_it_is(
    tiny_recipe: dict[str, Any], tmp_path: Path, real: list[int],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from ragtune.training import trainer

    original = trainer.PackedTrainer.compute_loss

    def asking(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        loss = original(self, model, inputs, *rest, **named)
        return loss * 1.0 if float(loss.detach()) > -1 else loss

    monkeypatch.setattr(trainer.PackedTrainer, "compute_loss", asking)
    tiny_recipe["model"]["dtype"] = "bfloat16"
    one = train(tiny_recipe, tmp_path / "run", STEPS)
    assert not real
    assert len(losses(one)) == 24
    assert "Rows run without CUDA graphs: " in " ".join(capsys.readouterr().out.split())
