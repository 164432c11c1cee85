"""Which processes share a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ragtune.base.errors import UsageError
from ragtune.base.stopping import stop_if_asked
from ragtune.distributed.followers import Followers
from ragtune.distributed.place import Place
from ragtune.distributed.pulse import LostError, lost
from ragtune.model.hardware import Gpu
from ragtune.recipe.schema import Recipe
from ragtune.stages import ranks
from ragtune.stages.ranks import Ranks, devices_of


def recipe_for(tiny_recipe: dict[str, Any], devices: object) -> Recipe:
    return Recipe.model_validate(tiny_recipe | {"devices": devices})


@pytest.mark.parametrize(
    ("there", "devices", "expected"),
    [
        (0, "all", [0]),
        (0, 3, [0, 1, 2]),
        (1, "all", [0]),
        (4, "all", [0, 1, 2, 3]),
        (4, 2, [0, 1]),
        (4, [3, 1], [3, 1]),
    ],
)
def test_devices_are_numbered(
    tiny_recipe: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    there: int,
    devices: object,
    expected: list[int],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert devices_of(recipe_for(tiny_recipe, devices)) == expected


@pytest.mark.parametrize("devices", [3, [0, 2]])
def test_a_device_that_is_not_there_is_refused(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, devices: object
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="and this machine has 2 GPUs"):
        devices_of(recipe_for(tiny_recipe, devices))


@pytest.mark.parametrize(("optimizer", "told"), [("adamw", []), ("paged_adamw_8bit", ["ahead"])])
def test_ranks_are_told_to_import_ahead_what_takes_long(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, optimizer: str, told: list[str]
) -> None:
    begun: list[Followers] = []

    @contextmanager
    def launched(followers: Followers) -> Iterator[None]:
        begun.append(followers)
        yield

    monkeypatch.setattr(ranks, "launched", launched)
    tiny_recipe["train"]["optimizer"] = optimizer
    with Ranks(recipe_for(tiny_recipe, 2)) as one:
        one.start()
    (followers,) = begun
    assert followers.devices == [0, 1]
    assert followers.command == ["ragtune.stages.begin", *told]


def test_one_that_is_gone_is_heeded_until_the_others_have_work(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From then on what was made is written before this process ends."""
    pulse = SimpleNamespace(lost=None)
    world = SimpleNamespace(pulse=pulse, meet=lambda *_: [], agree=lambda _: None)
    monkeypatch.setattr(ranks, "launched", lambda _: nullcontext(world))
    with Ranks(recipe_for(tiny_recipe, 2)) as two:
        two.start()
        stop_if_asked()
        two.tell({"do": "prepare"})
        pulse.lost = lost("rank 1", "it was killed by SIGKILL")
        with pytest.raises(LostError, match="Lost rank 1: it was killed by SIGKILL"):
            stop_if_asked()
        two.tell({"do": "load"})
        stop_if_asked()
        two.tell({"do": "prepare"})
        stop_if_asked()
    with Ranks(recipe_for(tiny_recipe, 2)) as others:
        others.start()
        with pytest.raises(LostError):
            stop_if_asked()
    stop_if_asked()


def test_a_script_of_python_under_a_launcher_does_nothing_on_other_ranks(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "take_place", lambda: Place(1, 2, 1, "node0", 29500))
    with pytest.raises(UsageError, match="This process is rank 1 of a launcher"):
        Ranks(recipe_for(tiny_recipe, "all"))


def test_a_launcher_chooses_the_number_and_not_the_recipe(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "take_place", lambda: Place(0, 4, 0, "node0", 29500))
    assert Ranks(recipe_for(tiny_recipe, 2)).size == 4


def test_the_gpus_of_a_launcher_are_those_of_all_machines(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [
        {"name": "H100", "capability": [9, 0], "memory": 80 << 30},
        {"name": "T4", "capability": [7, 5], "memory": 15 << 30},
    ]
    met = SimpleNamespace(meet=lambda *_: [{"kind": "GPU", "sums": "", "gpu": c} for c in cards])
    monkeypatch.setattr(ranks, "take_place", lambda: Place(0, 2, 0, "node0", 29500))
    monkeypatch.setattr(ranks, "_launched_world", lambda _: met)
    with Ranks(recipe_for(tiny_recipe, "all")) as several:
        assert several.gpus() == [
            Gpu("H100", (9, 0), 80 << 30),
            Gpu("T4", (7, 5), 15 << 30),
        ]


def test_what_a_rank_computes_on_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for threads, words in (1, "1 thread, "), (8, "8 threads, "):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        assert ranks.own_device()["sums"].startswith(words)


@pytest.mark.parametrize(
    ("devices", "told", "expected"),
    [(2, None, 4), (3, None, 2), (16, None, 1), (1, None, 8), (2, "8", 8)],
)
def test_ranks_on_a_cpu_share_its_cores(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
    devices: int, told: str | None, expected: int,
) -> None:  # fmt: skip
    """Unless somebody says how many threads each is to have."""
    threads = [8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    with Ranks(recipe_for(tiny_recipe, devices)):
        assert threads[-1] == expected
    assert threads[-1] == 8
