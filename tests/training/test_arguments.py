"""train.arguments: each of Trainer's is ragtune's own, or refused with a reason, or takes effect."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import TrainingArguments
from transformers.integrations import integration_utils

import ragtune
from ragtune.base.errors import UsageError
from ragtune.model.fast.dropout import Masks, places
from ragtune.model.hardware import Hardware
from ragtune.model.plan import Plan
from ragtune.recipe.keys import all_keys
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.recipe.starter import STARTER
from ragtune.stages.context import Context
from ragtune.stages.road import make, working
from ragtune.training import arguments
from ragtune.training.arguments import require_arguments, training_arguments
from ragtune.training.noise import Noise
from ragtune.training.trackers import keeping_logs

VERSION = f"transformers {transformers.__version__}"


def refused(*changes: str, **given: Any) -> str:
    recipe = load_recipe({**STARTER, "train": {"steps": 9, "arguments": given}}, list(changes))
    with pytest.raises(UsageError) as error:
        require_arguments(recipe)
    return error.value.message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"adam_bta2": 0.9}, f"{VERSION} has no training argument 'adam_bta2'. Did you mean adam_beta2?"),
        ({"learning_rate": 1}, "learning_rate is set by ragtune: use train.learning_rate."),
        ({"gradient_accumulation_steps": 1}, "use train.batch_size (and train.samples_per_row)."),
        ({"output_dir": "x"}, "output_dir is set by ragtune: use --run-dir."),
        ({"push_to_hub": True}, "push_to_hub is set by ragtune: use publish.repo."),
        ({"resume_from_checkpoint": "x"}, "the same command again"),
        ({"deepspeed": {}}, "deepspeed can't be passed on: training is one process."),
        ({"fsdp_config": {}}, "fsdp_config can't be passed on: training is one process."),
        ({"hub_strategy": "end"}, "hub_strategy can't be passed on: it would upload"),
        ({"save_only_model": True}, "a stopped training must go on"),
        ({"dataloader_num_workers": 2}, "dataloader_num_workers can't be passed on: ragtune packs"),
        ({"adam_beta2": "0.9"}, f"adam_beta2 = '0.9': it should be a valid number ({VERSION})."),
        ({"adam_beta2": True}, "adam_beta2 = True: it should be a valid number"),
        ({"torch_empty_cache_steps": 1.5}, "it should be a valid integer"),
        ({"eval_on_start": 1}, "it should be a valid boolean"),
        ({"lr_scheduler_kwargs": [1]}, "it should be a valid dictionary or a valid string"),
        ({"adam_beta2": 5}, "Invalid beta parameter at index 1: 5"),
        ({"lr_scheduler_kwargs": {"cycles": 3}}, "unexpected keyword argument 'cycles'."),
        ({"lr_scheduler_kwargs": {"num_cycles": "x"}}, "could not convert string to float: 'x'"),
        ({"lr_scheduler_kwargs": {"num_cycles": 1e308}}, "math domain error"),
        ({"lr_scheduler_kwargs": "a.json"}, "must be a mapping"),
        ({"adam_epsilon": 0}, "adam_epsilon = 0 must be more than 0"),
        ({"eval_delay": -1}, "eval_delay"),
        ({"label_smoothing_factor": 1}, "label_smoothing_factor = 1 must be 0 or more, and less than 1."),
        ({"neftune_noise_alpha": -1}, "neftune_noise_alpha = -1 must be from 0 to 1,000."),
        ({"include_num_input_tokens_seen": "some"}, "include_num_input_tokens_seen = 'some' must be one of"),
        ({"project": "x"}, "project needs trackio in train.report_to"),
        ({"torch_empty_cache_steps": 0}, "torch_empty_cache_steps = 0 must be 1 or more."),
        ({"eval_delay": 3}, "eval_delay needs train.eval_every"),
    ],
)  # fmt: skip
def test_what_is_refused(given: dict[str, Any], said: str) -> None:
    message = refused(**given)
    assert message.startswith("train.arguments: ")
    assert said in message


def test_everything_that_is_wrong_is_named_at_once() -> None:
    lines = refused(bf16=True, adam_beta1="x", nothing=1).splitlines()
    assert [line.split()[1] for line in lines] == ["bf16", "adam_beta1", "transformers"]
    scheduler = refused("train.scheduler=constant", lr_scheduler_kwargs={"num_cycles": 1})
    assert scheduler.endswith("lr_scheduler_kwargs has no effect with train.scheduler: constant.")


def test_a_token_is_refused_before_anything_else() -> None:
    with pytest.raises(
        UsageError, match=r"train\.arguments\.hub_token holds by its name, a secret"
    ):
        load_recipe(STARTER, ["train.arguments.hub_token=x"])


TAKEN = {
    "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6, "lr_scheduler_kwargs": {"num_cycles": 1},
    "label_smoothing_factor": 0.1, "neftune_noise_alpha": 5.0, "eval_delay": 1, "eval_on_start": True,
    "torch_empty_cache_steps": 3, "include_num_input_tokens_seen": "all", "full_determinism": True,
    "tf32": False, "project": "mine",
}  # fmt: skip
"""Those that are passed on, each with a value that isn't the default."""


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(TrainingArguments) if f.init])
def test_each_argument_is_ragtune_s_or_refused_or_passed_on(name: str, tmp_path: Path) -> None:
    if name == "hub_token":
        return  # refused in every recipe
    if name not in TAKEN:
        assert re.search(rf"{name} (is set by ragtune|can't be passed on)", refused(**{name: 1}))
        return
    changes = ["train.eval_every=2"]
    recipe = load_recipe(
        {**STARTER, "train": {"steps": 9, "arguments": {name: TAKEN[name]}}}, changes
    )
    if name == "project":
        recipe.train.report_to = ["trackio"]
    require_arguments(recipe)
    recipe.train.report_to = []
    built = training_arguments_of(recipe, tmp_path)
    assert getattr(built, name) == TAKEN[name]


def training_arguments_of(recipe: Recipe, folder: Path) -> TrainingArguments:
    plan = Plan("cpu", "float32", None, 1, False, "adamw", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ragtune.training.arguments.require_arguments", lambda _: None)
        hardware = Hardware(torch.device("cpu"), torch.float32, "", "")
        return training_arguments(recipe, plan, hardware, 9, folder)


def test_what_is_named_exists() -> None:
    """In the installed version, or in another one."""
    known = [field.name for field in dataclasses.fields(TrainingArguments)]
    gone = {"group_by_length", "warmup_ratio", "fp16"}
    names = {name for names in arguments._REFUSED for name in names.split()}
    assert {n for n in names if not fnmatch.filter(known, n)} <= gone
    keys = [v for v in arguments._OURS.values() if "." in v and " " not in v]
    assert set(keys) <= set(all_keys())


def test_trackers_and_arguments_are_looked_at_before_data(
    tmp_path: Path, tiny_recipe: dict[str, Any]
) -> None:
    tiny_recipe["data"]["train"] = "nowhere.jsonl"
    for changes, said in (
        (("report_to", ["nobody"]), "no tracker nobody"),
        (("arguments", {"x": 1}), "training argument 'x'"),
    ):
        recipe = {**tiny_recipe, "train": {**tiny_recipe["train"], changes[0]: changes[1]}}
        with pytest.raises(UsageError, match=said):
            ragtune.train(recipe, run_dir=tmp_path / "run")


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> tuple[dict[str, Any], Path]:
    from tests.conftest import tiny_recipe

    folder = tmp_path_factory.mktemp("arguments")
    recipe = tiny_recipe.__wrapped__(folder, tiny_folder)  # type: ignore[attr-defined]
    recipe["train"] |= {"steps": 3, "eval_every": 2, "save_every": 9}
    ragtune.prepare(recipe, run_dir=folder / "run")
    return recipe, folder


def log_of(prepared: tuple[dict[str, Any], Path], **given: Any) -> list[dict[str, Any]]:
    recipe, folder = prepared
    run = folder / ("-".join(given) or "plain")
    if not run.exists():
        shutil.copytree(folder / "run", run)
    context = Context({**recipe, "train": {**recipe["train"], "arguments": given}}, (), run)
    with working(context):
        make(context, "adapter")
    lines = (run / "adapter" / "train_log.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def losses(log: list[dict[str, Any]]) -> list[float]:
    return [row["loss"] for row in log if "loss" in row]


@pytest.mark.parametrize(
    ("name", "value", "first_differs"),
    [
        ("adam_beta1", 0.1, False),
        ("adam_beta2", 0.5, False),
        ("adam_epsilon", 0.5, False),
        ("label_smoothing_factor", 0.3, True),
        ("neftune_noise_alpha", 500.0, True),
    ],
)
def test_it_changes_the_training(
    prepared: tuple[dict[str, Any], Path], name: str, value: float, first_differs: bool
) -> None:
    plain, other = log_of(prepared), log_of(prepared, **{name: value})
    assert (losses(plain)[0] != losses(other)[0]) == first_differs
    assert [r["eval_loss"] for r in plain if "eval_loss" in r] != [
        r["eval_loss"] for r in other if "eval_loss" in r
    ]


def test_schedule_evaluation_and_memory(
    prepared: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = log_of(prepared)
    emptied: list[int] = []
    monkeypatch.setattr("transformers.trainer.clear_device_cache", lambda: emptied.append(1))
    other = log_of(
        prepared, lr_scheduler_kwargs={"num_cycles": 2.0}, eval_delay=3, eval_on_start=True,
        torch_empty_cache_steps=1, include_num_input_tokens_seen="all",
    )  # fmt: skip
    rates = [[row["learning_rate"] for row in log if "loss" in row] for log in (plain, other)]
    assert rates[0] != rates[1]
    looked = [[row["step"] for row in log if "eval_loss" in row] for log in (plain, other)]
    assert looked == [[2, 3], [0, 3]]
    assert emptied


def test_noise_is_that_of_a_sample_alone() -> None:
    """However samples are packed: within alpha / sqrt(T·D), and nothing without training."""
    torch.manual_seed(0)
    embed = torch.nn.Embedding(10, 64)
    masks = Masks(7)
    noise = Noise(5.0, masks)
    ids = torch.randint(10, (1, 150))
    model = SimpleNamespace(get_input_embeddings=lambda: embed)
    with noise.on(model):  # type: ignore[arg-type]
        noise.borders = torch.tensor([0, 50, 150])
        masks.read(0, places([50, 100], [0, 1]))
        drawn = embed(ids) - embed.weight[ids]
        packed = drawn.abs().amax(-1)[0]
        noise.borders = None
        masks.read(0, places([50], [0]))
        assert torch.equal(embed(ids[:, :50]) - embed.weight[ids[:, :50]], drawn[:, :50])
        embed.eval()
        assert torch.equal(embed(ids), embed.weight[ids])
    embed.train()
    assert torch.equal(embed(ids), embed.weight[ids])
    for found, tokens in ((packed[:50].max(), 50), (packed[50:].max(), 100)):
        within = 5 / (tokens * 64) ** 0.5
        assert 0.9 * within < float(found.detach()) <= within * 1.001


def test_what_trackers_write_stays(tmp_path: Path) -> None:
    work, logs = tmp_path / "work", tmp_path / "logs"
    (work / "checkpoint-2").mkdir(parents=True)
    board, named = (object.__new__(integration_utils.TensorBoardCallback) for _ in range(2))
    board.logging_dir, named.logging_dir = None, "where the user wants it"
    trainer: Any = SimpleNamespace(
        callback_handler=SimpleNamespace(callbacks=[board, named]),
        args=SimpleNamespace(output_dir=str(work)),
    )
    with keeping_logs(trainer, logs):
        assert not logs.exists()  # without trackers it is not made
        (work / "emissions.csv").write_text("0.1", "utf-8")
    assert board.logging_dir == str(logs)
    assert named.logging_dir == "where the user wants it"
    assert (logs / "emissions.csv").read_text("utf-8") == "0.1"
    assert [p.name for p in work.iterdir()] == ["checkpoint-2"]
