"""Options of the training, each of which does what it says."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ragtune.base.errors import UsageError
from ragtune.base.files import read_json
from ragtune.data.select import reordered
from ragtune.model.fast.lora import fuse
from ragtune.model.lora import attach, load_adapter
from ragtune.model.merge import merge
from ragtune.model.wrapping import ADAPTER, adapters
from ragtune.recipe.load import load_recipe
from ragtune.recipe.lora import Lora
from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of
from ragtune.stages.road import make, working
from ragtune.training import trainer as trainer_module
from ragtune.training.average import Average
from ragtune.training.flat import split_rates
from ragtune.training.rows import rows_of
from tests.conftest import tiny_model
from tests.training.test_train import log, losses, same, train, weights


def drawn_b(tuned: Any) -> Any:
    """An adapter that does something."""
    torch.manual_seed(3)
    for layer in adapters(tuned).values():
        nn.init.normal_(layer.lora_B[ADAPTER].weight, std=0.1)
    return tuned.eval()


def test_rank_stabilised_is_the_root_of_the_rank() -> None:
    plain, stable = (
        attach(tiny_model("llama"), Lora(rank=16, alpha=8, rslora=on), 1) for on in (False, True)
    )
    assert {layer.scaling[ADAPTER] for layer in adapters(plain).values()} == {8 / 16}
    assert {layer.scaling[ADAPTER] for layer in adapters(stable).values()} == {8 / 4}


@pytest.mark.parametrize("lora", [Lora(rank=4, rslora=True), Lora(rank=4, dora=True)])
def test_computed_here_as_by_peft(lora: Lora) -> None:
    """Rank-stabilised adapters are fused; DoRA's are left to PEFT."""
    tuned = drawn_b(attach(tiny_model("llama"), lora, 1))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = tuned(input_ids=ids).logits
        assert bool(fuse(tuned)) is not lora.dora
        torch.testing.assert_close(tuned(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["lora.rslora=true", "lora.dora=true", "lora.init=pissa"])
def test_merged_it_gives_what_it_gave_apart(
    tiny_recipe: dict[str, Any], tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = train(tiny_recipe, tmp_path / "run", change, "train.steps=12")
    assert losses(one)[-1] < 0.8 * losses(one)[0]
    config = read_json(one.folder.adapter / "adapter_config.json")
    assert config["use_rslora"] is ("rslora" in change)
    assert config["use_dora"] is ("dora" in change)
    assert config["r"] == (8 if "pissa" in change else 4)
    assert config["init_lora_weights"] is True  # so that nobody changes the base for it
    by_peft = "The adapters are computed by PEFT" in capsys.readouterr().out
    assert by_peft is ("dora" in change)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        apart = load_adapter(one.base(), one.folder.adapter).eval()
        expected = apart(input_ids=ids).logits
        (tmp_path / "merged").mkdir()
        merge(one.source, one.folder.adapter, one.encoder, tmp_path / "merged")
        whole = type(apart.get_base_model()).from_pretrained(tmp_path / "merged").float().eval()
        found = whole(input_ids=ids).logits
    # Rounded to bfloat16 once.
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_lora_plus_gives_b_a_rate_of_its_own() -> None:
    tuned = attach(tiny_model("llama"), Lora(rank=4), 1)
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=0.01)
    split_rates(optimizer, tuned, 16)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(0.16 if ".lora_B." in name else 0.01)


def test_lora_plus_trains_on_after_a_break_bit_for_bit(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (
        "train.lora_plus=4", "train.average_last=0.6", "train.reorder_passages=true", "lora.init=pissa",
    )  # fmt: skip
    whole = train(tiny_recipe, tmp_path / "whole", *changes)
    plain = train(tiny_recipe, tmp_path / "plain", *changes[1:])
    assert not same(weights(whole), weights(plain))
    assert [e["learning_rate"] for e in log(whole)] == [e["learning_rate"] for e in log(plain)]
    original = trainer_module.PackedTrainer.compute_loss

    def broken(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        if self.state.global_step == 7:
            raise OSError("broken")
        return original(self, model, inputs, *rest, **named)

    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", broken)
    with pytest.raises(OSError, match="broken"):
        train(tiny_recipe, tmp_path / "broken", *changes)
    monkeypatch.undo()
    one = train(tiny_recipe, tmp_path / "broken", *changes)
    assert same(weights(one), weights(whole))


def test_the_average_is_the_mean_after_each_of_the_last_steps(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    steps = ("train.steps=6", "train.save_every=1", "train.keep_checkpoints=9")
    one = train(tiny_recipe, tmp_path / "mean", *steps, "train.average_last=0.5")
    last = train(tiny_recipe, tmp_path / "last", *steps)
    assert losses(one) == losses(last)  # averaging doesn't touch what is trained
    folder = checkpoints_of(one.folder, one.recipe)
    every = [
        load_file(folder / f"checkpoint-{step}" / "adapter_model.safetensors") for step in (4, 5)
    ]
    every.append(weights(last))
    for name, found in weights(one).items():
        expected = torch.stack([each[name] for each in every]).mean(0)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_of_few_steps_one_is_averaged() -> None:
    model = nn.Linear(2, 2)
    average = Average.of(model, 0.1, 3)
    assert average is not None
    assert average.first == 2
    assert Average.of(model, 0.0, 3) is None


def test_passages_are_shown_in_another_order_in_each_epoch(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    one = train(
        tiny_recipe,
        tmp_path / "run",
        "train.reorder_passages=true",
        "train.steps=2",
        "train.batch_size=48",
    )
    prompts: dict[str, set[tuple[int, ...]]] = {}
    for step in one.steps:
        for sample in step:
            prompts.setdefault(sample.qid, set()).add(tuple(sample.prompt_ids))
    assert len(prompts) == 24
    orders = [len(found) for found in prompts.values()]
    assert set(orders) == {1, 2}  # of two passages; four epochs
    assert sum(orders) > 36
    again = train(
        tiny_recipe,
        tmp_path / "again",
        "train.reorder_passages=true",
        "train.steps=2",
        "train.batch_size=48",
    )
    assert losses(again) == losses(one)
    # In every epoch each example once, and the evaluation as it was retrieved.
    assert [s.qid for s in one.steps[0]].count("q0") == 2
    plain = train(tiny_recipe, tmp_path / "plain", "train.steps=2", "train.batch_size=48")
    assert plain.prompt_lengths == one.prompt_lengths


def test_each_epoch_shows_other_negatives_on_any_number_of_ranks(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    path = Path(tiny_recipe["data"]["train"])
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in rows:
        row["passages"] += [{"title": "", "text": f"Spare {i}."} for i in range(6)]
        row["negative_passage_indices"] = [*range(1, 9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    changes = ("data.redraw_negatives=8", "train.steps=2", "train.batch_size=48")
    one = train(tiny_recipe, tmp_path / "run", *changes)
    prompts: dict[str, set[str]] = {}
    for step in one.steps:
        for sample in step:
            text = one.encoder.tokenizer.decode(sample.prompt_ids)
            number = sample.qid.removeprefix("q")
            assert f"House {number} is " in text  # the positive stays
            prompts.setdefault(sample.qid, set()).add(text)
    shown = [text for found in prompts.values() for text in found]
    assert sum("Spare" in text for text in shown) > len(shown) / 3
    assert sum(map(len, prompts.values())) > 48  # of four epochs
    again = Context(tiny_recipe, list(changes), tmp_path / "again")
    with working(again):
        make(again, "data")
    assert again.steps == one.steps
    # A rank takes its share of these very samples.
    dealt = [s for rank in (0, 1) for row in rows_of(one.steps, 4, rank, 2) for s in row]
    assert sorted(s.qid for s in dealt) == sorted(s.qid for step in one.steps for s in step)
    plain = train(tiny_recipe, tmp_path / "plain", *changes[1:])
    assert plain.prompt_lengths == one.prompt_lengths


def test_reordered_passages_keep_what_is_said_of_them(record: dict[str, Any]) -> None:
    from ragtune.data.example import parse_example

    example = parse_example(record, "here")
    positive = {example.passages[i].text for i in example.positive_passage_indices}
    seen = set()
    for lot in map(str, range(20)):
        other = reordered(example, lot)
        assert sorted(p.text for p in other.passages) == sorted(p.text for p in example.passages)
        assert {other.passages[i].text for i in other.positive_passage_indices} == positive
        seen.add(other.passages)
    assert len(seen) > 10
    assert reordered(example, "0") == reordered(example, "0")


def test_an_order_that_would_cut_the_answer_away_is_not_taken(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    """Where only one passage fits, a reordered prompt would show the wrong one."""
    path = Path(tiny_recipe["data"]["train"])
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    draw = random.Random(1)
    for row in rows:
        row["passages"][1]["text"] = " ".join(draw.choice("ab") for _ in range(200))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    one = train(
        tiny_recipe, tmp_path / "run", "train.reorder_passages=true", "train.steps=2", "train.batch_size=48",
        "prompt.max_tokens=260", "prompt.citations=true",
    )  # fmt: skip
    decode = one.encoder.tokenizer.decode
    for step in one.steps:
        for sample in step:
            number = sample.qid.removeprefix("q")
            assert f"House {number} is " in decode(sample.prompt_ids)
            assert "[1]" in decode(sample.completion_ids)  # the one that is shown is cited


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("train.lora_plus=4", "train.optimizer=adamw_8bit"), "lora_plus needs optimizer: adamw"),
        (("train.lora_plus=4", "tuning=full"), "has no B matrices"),
        (("lora.dora=true", "lora.experts=true"), "PEFT has none for lora.experts"),
        (("lora.dora=true", "train.products=fp8"), "reads the weights' own numbers"),
        (("train.average_last=0.5", "train.keep=best", "train.eval_every=2"), "give one"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tiny_recipe: dict[str, Any], changes: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        load_recipe(tiny_recipe, list(changes))
