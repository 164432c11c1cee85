"""A base whose weights are spread over two ranks: losses, adapter and answers are those of one."""

from __future__ import annotations

import contextlib
import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.distributed.sharded import Passes, difference, layers_of, shared_between
from ragtune.model.hardware import Hardware
from ragtune.model.nf4 import linear_layers, round_to_nf4
from ragtune.model.skeleton import parameters_of
from ragtune.model.spread import NF4, spread
from tests.conftest import tiny_model
from tests.distributed.runs import require_equal, require_same_answers
from tests.ready import Ready


@pytest.fixture
def recipe(tiny_recipe: dict[str, Any]) -> dict[str, Any]:
    tiny_recipe["lora"]["dropout"] = 0.0
    tiny_recipe["train"] |= {"steps": 4, "eval_every": 2, "eval_answers": 3}
    return tiny_recipe


Fault = tuple[Any, ...]


def run(
    ready: Ready,
    recipe: dict[str, Any],
    folder: Path,
    *,
    rank0: Fault = ("spread_base",),
    rank1: Fault = (),
    command: str = "run",
    code: int = 0,
) -> str:
    """Run a recipe in a folder; returns what was said."""
    folder.mkdir()
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    faults = {0: rank0, 1: rank1}
    done = ready.run([command, str(path), "--run-dir", str(folder / "run")], faults=faults)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_run_is_that_of_one(ready: Ready, recipe: dict[str, Any], tmp_path: Path) -> None:
    """Also where memory runs out in the middle of a pass on one rank, which the other makes whole."""
    one, two = tmp_path / "one" / "run", recipe | {"devices": 2}
    run(ready, recipe, tmp_path / "one")
    for name, fault in {"none": (), "forward": ("memory_for_answers_and_in_layer", 2)}.items():
        said = run(ready, two, tmp_path / name, rank1=fault)
        assert said.count("the step begins again") == (name != "none")
        assert said.count("spread over 2 ranks") == 2  # the base, and the merged model
        require_equal(tmp_path / name / "run", one)
        require_same_answers(tmp_path / name / "run", one)
    fault = ("memory_in_layer", 2, "backward")
    said = run(ready, two, tmp_path / "backward", rank1=fault, command="train")
    assert "the step begins again" in said
    require_equal(tmp_path / "backward" / "run", one)


def test_memory_may_run_out_with_an_older_torch(
    ready: Ready, recipe: dict[str, Any], tmp_path: Path
) -> None:
    run(ready, recipe, tmp_path / "one", command="train")
    for passes in ("forward", "backward"):
        faults = ("older_torch", "spread_base"), ("older_torch", "memory_in_layer", 2, passes)
        two, folder = recipe | {"devices": 2}, tmp_path / passes
        said = run(ready, two, folder, rank0=faults[0], rank1=faults[1], command="train")
        assert "the step begins again" in said
        require_equal(folder / "run", tmp_path / "one" / "run")


def test_ranks_with_weights_of_their_own_take_turns(
    ready: Ready, recipe: dict[str, Any], tmp_path: Path
) -> None:
    """So that a machine's memory has to hold them once."""
    run(ready, recipe, tmp_path / "one", command="train")
    notes = tmp_path / "notes"
    faults = ("sharing_out", str(notes), True), ("sharing_out", str(notes))
    two = recipe | {"devices": 2}
    run(ready, two, tmp_path / "two", rank0=faults[0], rank1=faults[1], command="train")
    assert notes.read_text("utf-8").split() == ["begins", "ends", "begins", "ends"]
    require_equal(tmp_path / "two" / "run", tmp_path / "one" / "run")


@pytest.fixture
def group() -> Iterator[None]:
    """torch's group, of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_torch_whose_passes_cannot_be_forgotten_is_too_old(
    group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(FSDPModule, "reset_iter_state", raising=False)
    monkeypatch.delattr(FSDPModule, "_get_fsdp_state")
    with pytest.raises(UsageError, match=r"is too old .*_get_fsdp_state"):
        Passes(torch.device("cpu"), contextlib.nullcontext)


@pytest.mark.parametrize(
    ("noise", "wrong", "found"),
    [
        (0.0, 0.0, ""), (1e-4, 0.0, ""),
        (0.0, 1e-4, "the output of a layer is another one, by 0.0% of its norm"),
        (1e-4, 0.5, "the output of a layer is another one, by 50.0% of its norm"),
    ],
)  # fmt: skip
def test_what_does_not_repeat_itself_may_differ_by_rounding(
    group: None, noise: float, wrong: float, found: str
) -> None:
    """bitsandbytes' products of few tokens on a GPU add in no order."""
    made: list[nn.Module] = []

    class Noisy(nn.Linear):
        off = 0.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (1 + self.off + noise * torch.rand(()).item())

    def make() -> nn.Module:
        torch.manual_seed(0)
        made.append(Noisy(4, 4))
        torch.manual_seed(len(made))
        made[-1].off = wrong if len(made) > 4 else 0.0
        return nn.Sequential(made[-1])

    assert difference(make, torch.ones(3, 4)) == found


def spread_alone(nf4: NF4, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny model, spread over this process."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    hardware = Hardware(torch.device("cpu"), torch.float32, "", "CPU")
    world: Any = SimpleNamespace(rank=0, size=1, leads=True, together=contextlib.nullcontext)
    world.any = lambda *flags: flags
    for name in ("join", "agree", "require_same", "share", "gather"):
        setattr(world, name, lambda *_: None)
    return spread(lambda: tiny_model("llama"), hardware, world, nf4=nf4)


def test_parameters_in_nf4_are_counted_one_by_one(
    group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = spread_alone("packed", monkeypatch)
    assert found.model.layers[0].mlp.up_proj.weight.is_floating_point()
    assert parameters_of(found) == parameters_of(tiny_model("llama"))


def test_weights_that_were_packed_are_gone_before_the_next_layer_comes(
    group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a GPU would have all of them, in their own dtype."""
    plain: list[weakref.ref[nn.Linear]] = []
    there: list[int] = []
    own = Passes.spread

    def chosen(model: PreTrainedModel) -> list[nn.Linear]:
        found = linear_layers(model)
        plain.extend(map(weakref.ref, found))
        return found

    def counted(passes: Passes, part: nn.Module, **options: bool) -> None:
        there.append(sum(one() is not None for one in plain))
        own(passes, part, **options)

    monkeypatch.setattr("ragtune.model.spread.linear_layers", chosen)
    monkeypatch.setattr(Passes, "spread", counted)
    found = spread_alone("packed", monkeypatch)
    layers = len(found.model.layers)
    each = len(plain) // layers
    assert there == [each * (layers - n) for n in range(1, layers + 1)] + [0]


def test_a_layer_in_nf4_is_rounded_where_it_is_computed(
    group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the memory of the machine, where each rank would have the whole model."""
    found, expected = spread_alone("rounded", monkeypatch), tiny_model("llama")
    plain = {name: weight.clone() for name, weight in expected.named_parameters()}
    round_to_nf4(linear_layers(expected))
    for name, weight in expected.named_parameters():
        assert torch.equal(found.get_parameter(name).full_tensor(), weight)
        assert torch.equal(plain[name], weight) == (not name.endswith("_proj.weight"))


def test_a_model_that_is_asked_through_generate(
    ready: Ready, recipe: dict[str, Any], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(recipe["model"]["id"], model)
    settings = model / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"no_repeat_ngram_size": 3}))
    recipe["model"]["id"] = str(model)
    recipe["train"] |= {"steps": 2, "eval_answers": None, "recompute": True}
    run(ready, recipe, tmp_path / "one")
    said = run(ready, recipe | {"devices": 2}, tmp_path / "two")
    assert "Answers through transformers' generate" in said
    one, several = tmp_path / "one" / "run", tmp_path / "two" / "run"
    require_equal(several, one)
    require_same_answers(several, one)


def test_weights_in_nf4_are_spread_where_a_layer_computes_the_same(
    ready: Ready, recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe["model"]["quantization"] = "nf4"
    run(ready, recipe, tmp_path / "one", rank0=("spread_nf4",))
    two = recipe | {"devices": 2}
    run(ready, two, tmp_path / "two", rank0=("spread_nf4",), rank1=("nf4_on_cpu",))
    one, several = tmp_path / "one" / "run", tmp_path / "two" / "run"
    require_equal(several, one)
    require_same_answers(several, one)


def test_bytes_in_nf4_are_gathered_as_they_are(
    ready: Ready, recipe: dict[str, Any], tmp_path: Path
) -> None:
    """Some of them are a NaN as numbers of 16 bits, which come out as another NaN of a GPU's copy."""
    recipe["model"] |= {"quantization": "nf4", "dtype": "bfloat16"}
    recipe["train"] |= {"steps": 1, "eval_every": None, "eval_answers": None}
    faults = ("spread_nf4",), ("nf4_on_cpu",)
    two = recipe | {"devices": 2}
    said = run(ready, two, tmp_path / "two", rank0=faults[0], rank1=faults[1], command="train")
    assert "spread over 2 ranks" in said


def test_weights_in_nf4_are_not_spread_where_a_layer_computes_otherwise(
    ready: Ready, recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe["model"]["quantization"] = "nf4"
    two = recipe | {"devices": 2}
    wrong = ("spread_nf4", True)
    said = run(ready, two, tmp_path / "two", rank0=wrong, rank1=("nf4_on_cpu",), code=2)
    assert "can't be spread over several: its weights are in NF4, and bitsandbytes" in said
    assert "the output of a layer is another one" in said


def test_a_rank_that_is_killed_while_all_answer_ends_all(
    ready: Ready, recipe: dict[str, Any], tmp_path: Path
) -> None:
    """Nobody waits for ever for the weights of one that is gone."""
    two = recipe | {"devices": 2}
    said = run(ready, two, tmp_path / "two", rank1=("killed_in_answer",), code=1)
    assert "Lost rank 1" in said
    assert "the same command goes on" in said


def test_layers_stand_in_the_outermost_lists() -> None:
    def layer() -> nn.Module:
        return nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])})

    model = nn.ModuleDict(
        {"embed": nn.Embedding(3, 2), "layers": nn.ModuleList([layer(), layer()])}
    )
    layers = layers_of(model)
    assert layers == [*model["layers"]]  # type: ignore[misc]
    assert not shared_between(layers)
    layers[1]["experts"][0].weight = layers[0]["experts"][0].weight  # type: ignore[index]
    assert shared_between(layers)
    assert not layers_of(model["embed"])
