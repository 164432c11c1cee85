"""What a rank that follows makes of an order; that it does what rank 0 does: tests/distributed."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.distributed.world import World
from ragtune.model import headers, targets
from ragtune.model.hardware import plain
from ragtune.model.plan import Plan
from ragtune.model.source import ModelSource
from ragtune.recipe.schema import Recipe
from ragtune.stages import answer
from ragtune.stages import context as stages_context
from ragtune.stages.context import Context
from ragtune.stages.follow import _Following
from ragtune.stages.road import make, working


@pytest.fixture
def order(tiny_recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return {
        "recipe": Recipe.model_validate(tiny_recipe).model_dump(mode="json"),
        "folder": str(tmp_path),
        "set": "eval",
        "plan": Plan("cpu", "float32", None, 2, False, "adamw", 4, ranks=2).to_dict(),
        "day": "2020-02-03",
        "commit": "0" * 40,
        "weights": "f00",
    }


@pytest.fixture
def following() -> _Following:
    return _Following(None)  # type: ignore[arg-type] - it is told nothing here


def test_it_takes_what_may_differ_on_its_machine_from_rank_0(
    following: _Following, order: dict[str, Any], tmp_path: Path
) -> None:
    context = following._context_of(order)
    assert context.day == date(2020, 2, 3)
    assert context.source.revision == "0" * 40
    assert context.weights == "f00"
    assert context.plan.samples_per_row == 2
    assert context.folder.evaluation == tmp_path / "eval" / "eval"


def test_it_keeps_what_it_has_until_something_else_is_asked(
    following: _Following, order: dict[str, Any]
) -> None:
    context = following._context_of(order)
    assert following._context_of({**order, "do": "answer"}) is context
    assert following._context_of({**order, "set": "other"}) is not context


def test_a_base_that_was_loaded_beside_rank_0s_is_compared_when_rank_0_has_its_own(
    following: _Following, order: dict[str, Any]
) -> None:
    context = following._context_of({**order, "weights": ""})
    context.weights = "f00"  # as loading leaves it
    assert following._context_of({**order, "weights": ""}).weights == "f00"
    assert following._context_of({**order, "weights": "f00"}) is context
    with pytest.raises(RagtuneError, match=r"The weights of .* are not those that rank 0 has\."):
        following._context_of({**order, "weights": "f01"})


def test_it_computes_in_the_dtype_that_rank_0_chose_for_all(
    following: _Following, order: dict[str, Any]
) -> None:
    order["plan"]["dtype"] = "float16"
    context = following._context_of(order)
    context.following = World.__new__(World)
    assert context.hardware.dtype == torch.float16
    assert context.hardware_for(plain(context.recipe)).dtype == torch.float16  # a merged model


def test_a_run_directory_that_is_not_shared_is_named(
    following: _Following, order: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=r"There is no /not/here on this machine\."):
        following._context_of({**order, "folder": "/not/here"})


def test_the_merged_model_is_loaded_once_for_all_that_is_asked_of_it(
    following: _Following, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[object] = []
    asked: list[object] = []

    def load(_: Context) -> object:
        loaded.append(object())
        return loaded[-1]

    monkeypatch.setattr(answer, "merged_model", load)
    monkeypatch.setattr(answer, "follow", lambda *given: asked.append(given[-1]))
    for model in ("merged", "merged", "after", "merged"):
        following.do({**order, "do": "answer", "model": model})
    first, second = loaded
    assert asked == [first, first, None, second]
    following.do({**order, "do": "answer", "model": "merged", "set": "other"})
    assert len(loaded) == 3  # it may be another run's


def test_what_loading_and_training_take_is_read_while_rank_0_does_other_things(
    following: _Following,
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, Any]] = []
    first = Context(tiny_recipe, [], tmp_path / "run")
    with working(first):
        here = {"size": 2, "world": None, "gpus": list, "ready": True, "tell": told.append}
        first.ranks = SimpleNamespace(**here)  # type: ignore[assignment]
        make(first, "data")
        following.do(told[-1])
        context = following.context
        assert context is not None
        assert "encoder" in vars(context)
        monkeypatch.setattr(targets, "_find", lambda *_: pytest.fail("it was found before"))
        monkeypatch.setattr(headers, "_compared", lambda *_: pytest.fail("they were compared"))
        make(first, "questions")
        following.do(told[-1])
        assert "steps" not in vars(context)  # they could be those of an earlier run
        plan = first.plan
        following.do(told[-1])
        assert {"steps", "selected"} <= vars(context).keys()
        assert context.steps == first.steps
        context.steps = []  # as if the data were others by now
        first.forget_data()
        assert first.plan == plan
        following.do(told[-1])
        assert context.steps == first.steps
        assert [(one["do"], one["data"], one["plan"]) for one in told] == [
            ("prepare", data, None) for data in (False, False, True, True)
        ]
        first.tell_ranks("train")
        assert following._context_of(told[-1]) is context
        assert context.plan == plan


def test_where_nothing_is_left_to_be_trained_the_samples_are_not_read_for_it(
    following: _Following, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    """An evaluation on other ranks than the training, or of other questions, has a plan of its own."""
    told: list[dict[str, Any]] = []
    first = Context(tiny_recipe, [], tmp_path / "run")
    with working(first):
        make(first, "questions")
        first.folder.adapter.mkdir()
        here = {"size": 2, "world": None, "gpus": list, "ready": True, "tell": told.append}
        first.ranks = SimpleNamespace(**here)  # type: ignore[assignment]
        assert first.plan
    (order,) = told
    following.do(order)
    assert following.context is not None
    assert "encoder" in vars(following.context)
    assert not {"steps", "training_examples", "selected"} & vars(following.context).keys()


def test_what_is_not_there_yet_is_no_matter_before_it_is_asked_for(
    following: _Following, order: dict[str, Any], tmp_path: Path
) -> None:
    early = {**order, "do": "prepare", "plan": None, "data": True}
    following.do({**early, "folder": str(tmp_path / "later")})
    assert following.context is None
    following.do(early)  # nor has the folder any data
    assert following.context is not None
    assert "steps" not in vars(following.context)


def test_nothing_is_prepared_where_somebody_would_be_waited_for(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Context(tiny_recipe, [], tmp_path / "run")
    tell = pytest.fail
    first.ranks = SimpleNamespace(size=2, ready=False, tell=tell)  # type: ignore[assignment]
    first.let_ranks_prepare(data=True)
    first.ranks = SimpleNamespace(size=2, ready=True, tell=tell)  # type: ignore[assignment]
    monkeypatch.setattr(stages_context, "to_download", lambda _: (tmp_path, None))
    first.let_ranks_prepare(data=True)


def test_what_is_prepared_is_of_the_commit_that_the_hub_has_by_now(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not of that which the cache has: how early the others are ready must not decide it."""
    first, told, commits = Context(tiny_recipe, [], tmp_path / "run"), [], ["0" * 40]
    here = {"size": 2, "world": None, "ready": True, "tell": told.append}
    first.ranks = SimpleNamespace(**here)  # type: ignore[assignment]
    original = stages_context.load_config

    def asks_the_hub(source: ModelSource) -> Any:
        commits.append("1" * 40)
        return original(source)

    monkeypatch.setattr(stages_context, "load_config", asks_the_hub)
    monkeypatch.setattr(stages_context, "commit_of", lambda _: commits[-1])
    first.let_ranks_prepare(data=False)
    assert [one["commit"] for one in told] == ["1" * 40]
